import { describe, expect, it } from "vitest";
import { readAhead } from "../../src/shared/store/read_ahead.ts";

const mib = 1024 * 1024;

/** A store that answers when it is told to, in any order. */
function slowStore(failing: ReadonlySet<string> = new Set()) {
  const answers = new Map<string, () => void>();
  let most = 0;
  return {
    answers,
    most: () => most,
    read: (name: string) => {
      const answer = new Promise<Uint8Array>((resolve, reject) => {
        answers.set(name, () => {
          answers.delete(name);
          if (failing.has(name)) reject(new Error(name));
          else resolve(new TextEncoder().encode(name));
        });
      });
      most = Math.max(most, answers.size);
      return answer;
    },
  };
}

const objects = (sizes: readonly number[]) => sizes.map((size, index) => ({ name: `o${index}`, size }));
const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

async function collect(store: ReturnType<typeof slowStore>, sizes: readonly number[]): Promise<string[]> {
  const found: string[] = [];
  const reading = (async () => {
    for await (const { object, bytes } of readAhead(store, objects(sizes))) {
      found.push(`${object.name}=${new TextDecoder().decode(bytes)}`);
    }
  })();
  let done = false;
  const ended = reading.finally(() => done = true);
  ended.catch(() => {});
  while (!done) {
    await turn();
    // The last one first: order must not hang on who answers first.
    [...store.answers.values()].at(-1)?.();
  }
  await ended;
  return found;
}

describe("reading ahead", () => {
  it("gives every object once, in order, whoever answers first", async () => {
    const store = slowStore();
    const sizes = Array.from({ length: 50 }, () => 1000);
    expect(await collect(store, sizes)).toEqual(sizes.map((_, index) => `o${index}=o${index}`));
    expect(store.most()).toBe(8);
  });

  it("holds no more than 16 MiB, but always one", async () => {
    const store = slowStore();
    await collect(store, [5 * mib, 5 * mib, 5 * mib, 5 * mib]);
    expect(store.most()).toBe(3);
    const large = slowStore();
    expect(await collect(large, [40 * mib, 1, 40 * mib])).toHaveLength(3);
    expect(large.most()).toBe(1);
  });

  it("goes on with as many once it has given some away", async () => {
    const store = slowStore();
    const reading = readAhead(store, objects([6, 6, 6, 10, 6].map((size) => size * mib)));
    const given = async (name: string) => {
      const next = reading.next();
      await turn();
      store.answers.get(name)?.();
      expect((await next).value?.object.name).toBe(name);
    };
    await given("o0");
    expect([...store.answers.keys()]).toEqual(["o1"]);
    await given("o1");
    expect([...store.answers.keys()]).toEqual(["o2"]);
    await given("o2");
    expect([...store.answers.keys()], "16 MiB fit, to the byte").toEqual(["o3"]);
    await given("o3");
    expect([...store.answers.keys()]).toEqual(["o4"]);
    await given("o4");
    expect(await reading.next()).toMatchObject({ done: true });
  });

  it("fails at the object that could not be read, after all before it", async () => {
    const found: string[] = [];
    const store = slowStore(new Set(["o2"]));
    const reading = (async () => {
      for await (const { object } of readAhead(store, objects([1, 1, 1, 1]))) found.push(object.name);
    })();
    const failed = expect(reading).rejects.toThrow("o2");
    for (let round = 0; round < 10; round++) {
      await turn();
      for (const answer of [...store.answers.values()]) answer();
    }
    await failed;
    expect(found).toEqual(["o0", "o1"]);
  });

  it("that is left early leaves no failure behind", async () => {
    const store = slowStore(new Set(["o1", "o2", "o3"]));
    const reading = readAhead(store, objects([1, 1, 1, 1]));
    const first = reading.next();
    await turn();
    store.answers.get("o0")?.();
    expect((await first).value?.object.name).toBe("o0");
    await reading.return(undefined);
    for (const answer of [...store.answers.values()]) answer();
    await turn();
  });
});
