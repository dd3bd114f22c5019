import { describe, expect, it } from "vitest";
import { type LaneLock, type LaneStep, runInLanes } from "../../src/shared/restore/lanes.ts";

function step(key: string, rest: Partial<LaneStep> = {}): LaneStep {
  return { key, after: [], locks: new Map(), weight: 0, ...rest };
}

function locks(entries: Record<string, LaneLock>): ReadonlyMap<string, LaneLock> {
  return new Map(Object.entries(entries));
}

/** Runs the steps with ends that the test decides, and keeps what ran beside what. */
async function trace(steps: readonly LaneStep[], lanes: number) {
  const order: string[] = [];
  const beside: string[] = [];
  const running = new Set<string>();
  await runInLanes(steps, lanes, async ({ key }) => {
    for (const other of running) beside.push([key, other].sort().join("+"));
    running.add(key);
    order.push(key);
    for (let turn = 0; turn < 5; turn++) await Promise.resolve();
    running.delete(key);
  });
  return { order, beside };
}

describe("steps in lanes", () => {
  it("runs every step once and never more at a time than there are lanes", async () => {
    const steps = Array.from({ length: 20 }, (_, index) => step(`s${index}`));
    const { order, beside } = await trace(steps, 3);
    expect([...order].sort()).toEqual(steps.map((one) => one.key).sort());
    expect(beside.length).toBeGreaterThan(0);
    let now = 0;
    let most = 0;
    await runInLanes(steps, 3, async () => {
      most = Math.max(most, ++now);
      await Promise.resolve();
      now--;
    });
    expect(most).toBe(3);
  });

  it("starts a step only after those it needs", async () => {
    const { order } = await trace(
      [step("b", { after: ["a"], weight: 9 }), step("a"), step("c", { after: ["b", "x"] })],
      4,
    );
    expect(order).toEqual(["a", "b", "c"]);
  });

  it("keeps exclusive locks apart and lets shared ones meet", async () => {
    const { beside } = await trace([
      step("index 1", { locks: locks({ t: "share" }) }),
      step("index 2", { locks: locks({ t: "share" }) }),
      step("key", { locks: locks({ t: "exclusive" }) }),
      step("other", { locks: locks({ u: "exclusive" }) }),
    ], 4);
    expect(beside).toContain("index 1+index 2");
    expect(beside).not.toContain("index 1+key");
    expect(beside).not.toContain("index 2+key");
    expect(beside.some((pair) => pair.includes("other"))).toBe(true);
  });

  it("runs a step without a lock list alone", async () => {
    const { beside, order } = await trace([step("alone", { locks: null }), step("a"), step("b"), step("c")], 4);
    expect(beside.filter((pair) => pair.includes("alone"))).toEqual([]);
    expect(order).toHaveLength(4);
  });

  it("starts the heaviest first", async () => {
    const { order } = await trace([step("light"), step("heavy", { weight: 5 }), step("middle", { weight: 2 })], 1);
    expect(order).toEqual(["heavy", "middle", "light"]);
  });

  it("starts nothing new after a failure, waits for what runs, then throws it", async () => {
    const ended: string[] = [];
    const run = runInLanes(
      [step("bad", { weight: 2 }), step("slow", { weight: 1 }), step("never")],
      2,
      async ({ key }) => {
        await Promise.resolve();
        if (key === "bad") throw new Error("bad failed");
        for (let turn = 0; turn < 10; turn++) await Promise.resolve();
        ended.push(key);
      },
    );
    await expect(run).rejects.toThrow("bad failed");
    expect(ended).toEqual(["slow"]);
  });

  it("says so when steps wait for each other", async () => {
    await expect(runInLanes([step("a", { after: ["b"] }), step("b", { after: ["a"] })], 2, () => Promise.resolve()))
      .rejects.toMatchObject({ code: "internal" });
  });
});
