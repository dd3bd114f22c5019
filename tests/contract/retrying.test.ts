import { describe, expect, it } from "vitest";
import { type ErrorCode, errorTable } from "../../src/shared/errors.ts";
import type { Log } from "../../src/shared/log.ts";
import { silentLog } from "../../src/shared/log.ts";
import { retrying } from "../../src/shared/store/retrying.ts";
import { faulty } from "../support/faulty_store.ts";
import { clockAt, failureOf, seeded } from "../unit/format_fixture.ts";
import { createMemoryStore } from "./memory_store.ts";
import { describeStore } from "./store.ts";

const bytes = new TextEncoder().encode("bytes");

describeStore("any store with patience", () =>
  Promise.resolve({
    store: retrying(createMemoryStore(), { clock: clockAt("2026-11-21T18:45:00Z"), random: seeded(1) }),
    nowhere: null,
    stranger: null,
    secrets: [],
    createIsAtomic: true,
    listed: 50,
    close: () => Promise.resolve(),
  }));

function setUp(...faults: Parameters<typeof faulty>[1]) {
  const clock = clockAt("2026-11-21T18:45:00Z");
  const waits: number[] = [];
  const watched = { ...clock, sleep: (ms: number) => (waits.push(ms), clock.sleep(ms)) };
  const inner = createMemoryStore();
  const shaky = faulty(inner, faults);
  const store = (bounds = {}, log: Log = silentLog) =>
    retrying(shaky, { clock: watched, random: seeded(3), log }, bounds);
  return { clock, waits, inner, shaky, store };
}

describe("patience", () => {
  it("tries again exactly what may heal, by the table of errors", async () => {
    for (const code of Object.keys(errorTable) as ErrorCode[]) {
      const { shaky, store, inner } = setUp({ call: "read", kind: code });
      await inner.create("a", bytes);
      const read = store().read("a");
      if (errorTable[code].retry === "backoff") expect(await read).toEqual(bytes);
      else expect((await failureOf(read)).code).toBe(code);
      shaky.assertAllFired();
    }
  });

  it("waits longer each time, at random up to a bound, and ends with the last error", async () => {
    const { waits, store, shaky } = setUp({ call: "read", kind: "store_unreachable", times: Infinity });
    const bounds = { maxTries: 9, firstWaitMs: 100, longestWaitMs: 1000, deadlineMs: 60_000 };
    expect((await failureOf(store(bounds).read("a"))).code).toBe("store_unreachable");
    expect(shaky.fired).toEqual([9]);
    expect(waits).toHaveLength(8);
    const most = [100, 200, 400, 800, 1000, 1000, 1000, 1000];
    waits.forEach((wait, index) => expect(wait).toBeLessThan(most[index] ?? 0));
    expect(new Set(waits).size).toBeGreaterThan(4);
  });

  it("ends at its deadline although tries are left", async () => {
    const { waits, store, shaky } = setUp({ call: "size", kind: "store_unreachable", times: Infinity });
    await failureOf(store({ maxTries: 1000, firstWaitMs: 500, deadlineMs: 3000 }).size("a"));
    expect(waits.reduce((sum, wait) => sum + wait, 0)).toBeLessThanOrEqual(3000);
    expect(shaky.fired[0]).toBeGreaterThan(2);
    expect(shaky.fired[0]).toBeLessThan(50);
  });

  it("knows its own object after a put whose answer was lost, and another's too", async () => {
    const own = setUp({ call: "create", kind: "lost_answer" });
    expect(await own.store().create("a", bytes)).toBe("created");
    own.shaky.assertAllFired();
    const other = setUp({ call: "create", kind: "store_unreachable" });
    await other.inner.create("a", new TextEncoder().encode("other"));
    expect(await other.store().create("a", bytes)).toBe("existed");
    other.shaky.assertAllFired();
  });

  it("does not read when a first try says existed", async () => {
    const { store, inner, shaky } = setUp({ call: "read", kind: "internal" });
    await inner.create("a", bytes);
    expect(await store().create("a", bytes)).toBe("existed");
    expect(shaky.fired).toEqual([0]);
  });

  it("gives each name once when a listing breaks off, and fails when it keeps breaking", async () => {
    const { store, inner, shaky } = setUp({ call: "list", kind: "lost_answer", times: 2 });
    for (let index = 0; index < 9; index++) await inner.create(`l/${index}`, bytes);
    const names: string[] = [];
    for await (const { name } of store().list("l/")) names.push(name);
    expect(names.sort()).toEqual(Array.from({ length: 9 }, (_, index) => `l/${index}`));
    expect(shaky.fired).toEqual([2]);
    const broken = setUp({ call: "list", kind: "lost_answer", times: Infinity });
    const all = async () => {
      for await (const _ of broken.store().list("")) { /* only its end counts */ }
    };
    expect((await failureOf(all())).code).toBe("store_unreachable");
  });

  it("says in the log what it tried again, and why", async () => {
    const { store, shaky } = setUp({ call: "remove", kind: "store_unreachable" });
    const lines: unknown[] = [];
    await store({}, { ...silentLog, warn: (event, fields) => lines.push({ event, ...fields }) }).remove(["a"]);
    expect(lines).toEqual([
      expect.objectContaining({ event: "store.retry", call: "remove", tries: 1, code: "store_unreachable" }),
    ]);
    shaky.assertAllFired();
  });
});
