import { afterEach, describe, expect, it, vi } from "vitest";

afterEach(() => {
  vi.unstubAllEnvs();
  vi.resetModules();
});

async function sampledWith(environment: Readonly<Record<string, string>>) {
  vi.resetModules();
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value);
  return (await import("../support/sampled.ts")).sampled;
}

const cases = Array.from({ length: 14 }, (_, at) => at);

describe("a sample of a matrix", () => {
  it("has so many cases, in their order and spread evenly, and over some runs all of them", async () => {
    const seen = new Set<number>();
    for (let seed = 0; seed < 40; seed++) {
      const sampled = await sampledWith({ HOLDFAST_TESTS: "", HOLDFAST_TESTS_SEED: String(seed) });
      const taken = sampled("m", cases, 5);
      expect(taken).toHaveLength(5);
      for (const [at, one] of taken.entries()) {
        if (at > 0) expect([2, 3, 4]).toContain(one - (taken[at - 1] ?? 0));
        seen.add(one);
      }
    }
    expect(seen.size).toBe(cases.length);
  });

  it("has one of each kind, however few are asked for, and over some runs all of them", async () => {
    const kindOf = (one: number) => [one < 10 ? "many" : `rare ${one}`, ...(one === 3 ? ["odd"] : [])];
    const seen = new Set<number>();
    for (let seed = 0; seed < 40; seed++) {
      const sampled = await sampledWith({ HOLDFAST_TESTS: "", HOLDFAST_TESTS_SEED: String(seed) });
      const taken = sampled("m", cases, 7, kindOf);
      expect(taken).toHaveLength(7);
      expect(taken).toEqual(expect.arrayContaining([3, 10, 11, 12, 13]));
      expect(sampled("m", cases, 1, kindOf).length).toBeLessThan(7);
      expect(new Set(sampled("m", cases, 1, kindOf).flatMap(kindOf)).size).toBe(6);
      for (const one of taken) seen.add(one);
    }
    expect(seen.size).toBe(cases.length);
  });

  it("is the same for the same seed, and another one for another matrix", async () => {
    const sampled = await sampledWith({ HOLDFAST_TESTS: "", HOLDFAST_TESTS_SEED: "7" });
    expect(sampled("m", cases, 5)).toEqual(sampled("m", cases, 5));
    const starts = new Set(["a", "b", "c", "d", "e", "f"].map((matrix) => sampled(matrix, cases, 5)[0]));
    expect(starts.size).toBeGreaterThan(1);
  });

  it("is all of it in the long run, and where there is no more than that", async () => {
    expect((await sampledWith({ HOLDFAST_TESTS: "long" }))("m", cases, 5)).toEqual(cases);
    expect((await sampledWith({ HOLDFAST_TESTS: "" }))("m", cases, 14)).toEqual(cases);
  });
});
