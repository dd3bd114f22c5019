import { setImmediate } from "node:timers";
import { describe, expect, it } from "vitest";
import { type Piece, severalAtOnce } from "../../src/shared/replicate/several.ts";

interface Work extends Piece {
  readonly id: number;
}

/** Pieces that end when they are told to, and what was under way at each begin. */
function bench(pieces: readonly (Partial<Piece> & { readonly id: number })[], bounds = { most: 3, mostBytes: 10 }) {
  const ends = new Map<number, (outcome: boolean | Error) => void>();
  const begun: number[] = [];
  const beside: number[] = [];
  const whole = pieces.map((piece): Work => ({ bytes: 1, alone: false, ...piece }));
  const done = severalAtOnce(whole, bounds, async ({ id }) => {
    begun.push(id);
    beside.push(ends.size);
    const outcome = await new Promise<boolean | Error>((resolve) => ends.set(id, resolve));
    if (outcome instanceof Error) throw outcome;
    return outcome;
  });
  done.catch(() => {});
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  return {
    done,
    begun,
    beside,
    async end(id: number, outcome: boolean | Error = true) {
      await settle();
      ends.get(id)?.(outcome);
      ends.delete(id);
      await settle();
    },
    settle,
  };
}

const ids = (...all: number[]) => all.map((id) => ({ id }));

describe("several pieces of work at once", () => {
  it("are begun in their order, never more than the bound, the next as soon as one ends", async () => {
    const { begun, end, done, beside, settle } = bench(ids(1, 2, 3, 4, 5));
    await settle();
    expect(begun).toEqual([1, 2, 3]);
    await end(2);
    expect(begun).toEqual([1, 2, 3, 4]);
    for (const id of [1, 3, 4, 5]) await end(id);
    expect(await done).toBe(true);
    expect(Math.max(...beside)).toBeLessThan(3);
  });

  it("are never more bytes than the bound, but for a large one alone", async () => {
    const pieces = [{ id: 1, bytes: 6 }, { id: 2, bytes: 5 }, { id: 3, bytes: 50 }, { id: 4, bytes: 1 }];
    const { begun, end, done, settle } = bench(pieces);
    await settle();
    expect(begun).toEqual([1]);
    await end(1);
    expect(begun).toEqual([1, 2]);
    await end(2);
    expect(begun).toEqual([1, 2, 3]);
    await end(3);
    expect(begun).toEqual([1, 2, 3, 4]);
    await end(4);
    expect(await done).toBe(true);
  });

  it("wait for one that has to be alone, and it for them", async () => {
    const { begun, end, done, settle } = bench([{ id: 1 }, { id: 2, alone: true }, { id: 3 }]);
    await settle();
    expect(begun).toEqual([1]);
    await end(1);
    expect(begun).toEqual([1, 2]);
    await end(2);
    expect(begun).toEqual([1, 2, 3]);
    await end(3);
    expect(await done).toBe(true);
  });

  it("end where one says so: nothing more is begun, and what is under way is waited for", async () => {
    const { begun, end, done } = bench(ids(1, 2, 3, 4, 5));
    await end(1, false);
    let isDone = false;
    void done.then(() => isDone = true);
    await end(2);
    expect([begun, isDone]).toEqual([[1, 2, 3], false]);
    await end(3);
    expect(await done).toBe(false);
    expect(begun).toEqual([1, 2, 3]);
  });

  it("fail with the first error, once nothing is under way any more", async () => {
    const { begun, end, done } = bench(ids(1, 2, 3, 4));
    await end(2, new Error("first"));
    await end(3, new Error("second"));
    await end(1);
    await expect(done).rejects.toThrow("first");
    expect(begun).toEqual([1, 2, 3]);
  });
});
