/** What every store must do (src/shared/store/store.ts). A store that passes can hold backups. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sameBytes } from "../../src/shared/crypto/digest.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Store, StoredObject } from "../../src/shared/store/store.ts";

export interface Subject {
  /** An empty store. */
  readonly store: Store;
  /** The same kind at a place that does not exist; null where there is no such thing. */
  readonly nowhere: Store | null;
  /** The same place by credentials that are wrong; null where there are none. */
  readonly stranger: Store | null;
  /** Words that must be in no label and no message. */
  readonly secrets: readonly string[];
  /** False where the server ignores conditions: of writers at the same moment several may be told `created`. */
  readonly createIsAtomic: boolean;
  /** More than one page of a listing where the store has pages; a few otherwise. */
  readonly listed: number;
  close(): Promise<void>;
}

const text = (words: string) => new TextEncoder().encode(words);

async function collect(listing: AsyncIterable<StoredObject>): Promise<StoredObject[]> {
  const all: StoredObject[] = [];
  for await (const object of listing) all.push(object);
  return all.sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function failure(act: () => Promise<unknown>): Promise<HoldfastError> {
  try {
    await act();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error("this should have failed");
}

/** Bytes without a pattern that compression or a text channel would keep by chance; the same for the same seed. */
export function noise(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed >>> 0 || 1;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    bytes[i] = state;
  }
  return bytes;
}

export function describeStore(title: string, open: () => Promise<Subject>): void {
  describe(title, () => {
    let subject: Subject;
    let store: Store;
    beforeAll(async () => {
      subject = await open();
      store = subject.store;
    }, 60_000);
    afterAll(async () => {
      await subject?.close();
    });

    it("gives back exactly what was created", async () => {
      const bytes = noise(100_003, 1);
      expect(await store.create("c/one", bytes)).toBe("created");
      expect(sameBytes(await store.read("c/one"), bytes)).toBe(true);
      expect(await store.size("c/one")).toBe(100_003);
    });

    it("keeps what is there when the same name is created again", async () => {
      await store.create("c/again", text("first"));
      expect(await store.create("c/again", text("second, longer"))).toBe("existed");
      expect(await store.read("c/again")).toEqual(text("first"));
    });

    it("lets one of twelve creators at once win, and keeps the winner's bytes", async () => {
      const bodies = Array.from({ length: 12 }, (_, index) => noise(5000 + index, index + 1));
      const outcomes = await Promise.all(bodies.map((bytes) => store.create("c/race", bytes)));
      const winners = bodies.filter((_, index) => outcomes[index] === "created");
      expect(winners.length).toBeGreaterThanOrEqual(1);
      if (subject.createIsAtomic) expect(winners.length).toBe(1);
      const stored = await store.read("c/race");
      expect(winners.some((bytes) => sameBytes(bytes, stored))).toBe(true);
    });

    it("holds an empty object", async () => {
      await store.create("c/empty", new Uint8Array(0));
      expect(await store.size("c/empty")).toBe(0);
      expect((await store.read("c/empty")).byteLength).toBe(0);
    });

    it("holds an object of 9 MiB", async () => {
      const bytes = noise(9 * 1024 * 1024, 7);
      await store.create("c/large", bytes);
      expect(sameBytes(await store.read("c/large"), bytes)).toBe(true);
    });

    it("gives each reader a buffer of its own", async () => {
      await store.create("c/own", text("mine"));
      (await store.read("c/own")).fill(0);
      expect(await store.read("c/own")).toEqual(text("mine"));
    });

    it("keeps the bytes of a create although the caller uses its buffer again", async () => {
      const buffer = text("kept");
      await store.create("c/reused", buffer);
      buffer.fill(0);
      expect(await store.read("c/reused")).toEqual(text("kept"));
    });

    it("takes a view into a larger buffer as that view only", async () => {
      const whole = noise(1000, 3);
      await store.create("c/view", whole.subarray(100, 200));
      expect(sameBytes(await store.read("c/view"), whole.slice(100, 200))).toBe(true);
    });

    it("says object_missing, and null for a size, where there is no object", async () => {
      expect((await failure(() => store.read("none/at/all"))).code).toBe("object_missing");
      expect(await store.size("none/at/all")).toBeNull();
    });

    it("replaces what is there, and creates what is not", async () => {
      await store.replace("v1/keys/k", text("old and long"));
      await store.replace("v1/keys/k", text("new"));
      expect(await store.read("v1/keys/k")).toEqual(text("new"));
      expect(await store.size("v1/keys/k")).toBe(3);
    });

    it("lists every name once with its size, over more than a page", async () => {
      const names = Array.from({ length: subject.listed }, (_, index) => `l/many/${String(index).padStart(5, "0")}`);
      for (let at = 0; at < names.length; at += 25) {
        await Promise.all(names.slice(at, at + 25).map((name) => store.create(name, text(name.slice(-3)))));
      }
      await store.create("l/other/a", text("ab"));
      await store.create("l/otherwise", text("a"));
      expect(await collect(store.list("l/many/"))).toEqual(names.map((name) => ({ name, size: 3 })));
      expect(await collect(store.list("l/oth"))).toEqual([{ name: "l/other/a", size: 2 }, {
        name: "l/otherwise",
        size: 1,
      }]);
      expect((await collect(store.list("l/"))).length).toBe(names.length + 2);
      expect((await collect(store.list(""))).length).toBeGreaterThanOrEqual(names.length + 2);
      expect(await collect(store.list("l/nothing/"))).toEqual([]);
      expect(await collect(store.list("l/many/00001x"))).toEqual([]);
    }, 120_000);

    it("removes many at once, and what is not there is no error", async () => {
      const names = (await collect(store.list("l/many/"))).map(({ name }) => name);
      expect(names.length).toBe(subject.listed);
      await store.remove([...names, "l/many/never", "nowhere/never"]);
      expect(await collect(store.list("l/many/"))).toEqual([]);
      expect(await collect(store.list("l/other"))).toHaveLength(2);
      await store.remove([]);
    }, 120_000);

    it("takes a name again after it was removed", async () => {
      await store.create("r/one", text("1"));
      await store.remove(["r/one"]);
      expect(await store.size("r/one")).toBeNull();
      expect(await store.create("r/one", text("2"))).toBe("created");
      expect(await store.read("r/one")).toEqual(text("2"));
    });

    it.each([
      "",
      "/",
      "/a",
      "a/",
      "a//b",
      ".",
      "..",
      "a/../b",
      "a/./b",
      "a b",
      "ä",
      "a%20b",
      "a#b",
      "a?b",
      "a~b",
      "~a",
      "a\\b",
      "a\nb",
      "a\0b",
      `a/${"b".repeat(899)}`,
    ])("refuses the name %j in every call", async (name) => {
      const calls = [
        () => store.create(name, text("x")),
        () => store.replace(name, text("x")),
        () => store.read(name),
        () => store.size(name),
        () => store.remove([name]),
      ];
      for (const call of calls) expect((await failure(call)).code).toBe("store_name_refused");
    });

    it.each(["../", "a/../", "/", "a//", "a b", "~"])("refuses to list by the prefix %j", async (prefix) => {
      expect((await failure(() => collect(store.list(prefix)))).code).toBe("store_name_refused");
    });

    it("takes a name of 200 letters in one part and of all signs that are allowed", async () => {
      for (const name of [`n/${"x".repeat(200)}`, "n/AZaz09._-", "n/.a", "n/-b", "n/a..b"]) {
        expect(await store.create(name, text(name))).toBe("created");
        expect(await store.read(name)).toEqual(text(name));
      }
      expect(await collect(store.list("n/"))).toHaveLength(5);
    });

    it("says store_missing in every call where the place does not exist", async () => {
      const { nowhere } = subject;
      if (nowhere === null) return;
      for (const call of everyCall(nowhere)) expect((await failure(call)).code).toBe("store_missing");
    });

    it("says store_denied in every call by wrong credentials, and nothing of the credentials", async () => {
      const { stranger } = subject;
      if (stranger === null) return;
      for (const call of everyCall(stranger)) {
        const error = await failure(call);
        expect(error.code).toBe("store_denied");
        for (const secret of subject.secrets) expect(error.message + error.hint + stranger.label).not.toContain(secret);
      }
    });

    it("has a label without credentials", () => {
      expect(store.label).not.toBe("");
      for (const secret of subject.secrets) expect(store.label).not.toContain(secret);
    });
  });
}

function everyCall(store: Store): (() => Promise<unknown>)[] {
  return [
    () => store.create("e/one", text("x")),
    () => store.replace("e/one", text("x")),
    () => store.read("e/one"),
    () => store.size("e/one"),
    () => collect(store.list("e/")),
    () => store.remove(["e/one"]),
  ];
}
