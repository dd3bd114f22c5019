import { describe, expect, it } from "vitest";
import { linkedAtOnce } from "../../src/shared/export/export_link.ts";

const files = (...parts: number[]) =>
  parts.map((n, at) => ({ number: at + 1, parts: Array.from({ length: n }, () => 0) }));
const numbers = (found: readonly { readonly number: number }[]) => found.map(({ number }) => number);

describe("links of files", () => {
  it("are as many as have so many parts together, and one at least", () => {
    expect(numbers(linkedAtOnce(files(1, 1, 1), 5))).toEqual([1, 2, 3]);
    expect(numbers(linkedAtOnce(files(2, 2, 2), 5))).toEqual([1, 2]);
    expect(numbers(linkedAtOnce(files(9, 1), 5))).toEqual([1]);
    expect(numbers(linkedAtOnce(files(0, 0, 0), 2)), "missing ones have no part").toEqual([1, 2]);
    expect(linkedAtOnce([], 5)).toEqual([]);
  });

  it("come all of them, once each, where one asks for those behind again and again", () => {
    const all = files(...Array.from({ length: 200 }, (_, at) => (at * 7) % 5));
    const seen: number[] = [];
    for (let after = 0; after < all.length;) {
      const taken = linkedAtOnce(all.filter(({ number }) => number > after), 11);
      seen.push(...numbers(taken));
      after = taken.at(-1)?.number ?? all.length;
    }
    expect(seen).toEqual(numbers(all));
  });
});
