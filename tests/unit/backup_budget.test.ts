import { describe, expect, it } from "vitest";
import { budgetOf, functionBudget, prices } from "../../src/shared/backup/budget.ts";
import { clockAt } from "./format_fixture.ts";

const mib = 1024 * 1024;

describe("a leg's budget", () => {
  const clock = () => clockAt("2026-11-21T00:00:00Z");

  it("is spent by text, by narrow rows, by calls, and counts what the isolate has used before", () => {
    const limits = { cpuMs: 100, wallMs: 1_000, usedCpuMs: 0 };
    const by = (spend: (budget: ReturnType<typeof budgetOf>) => void, used = 0) => {
      const budget = budgetOf({ ...limits, usedCpuMs: used }, clock());
      spend(budget);
      return budget.spent();
    };
    expect(by(() => {})).toBe(false);
    expect(by((budget) => budget.spendText(0, 101 / prices.msPerMiB * mib))).toBe(true);
    expect(by((budget) => budget.spendText(100_000 / prices.usPerRow, 0))).toBe(true);
    expect(by((budget) => budget.spendCalls(101 / prices.msPerCall))).toBe(true);
    expect(by((budget) => budget.spendText(0, 50 / prices.msPerMiB * mib))).toBe(false);
    expect(by((budget) => budget.spendText(0, 50 / prices.msPerMiB * mib), 60)).toBe(true);
  });

  it("is spent when its wall time is over", async () => {
    const still = clock();
    const budget = budgetOf({ cpuMs: 100, wallMs: 1_000, usedCpuMs: 0 }, still);
    await still.sleep(999);
    expect(budget.spent()).toBe(false);
    await still.sleep(1);
    expect(budget.spent()).toBe(true);
  });

  it("of a function leaves room for at least two chunks", () => {
    const budget = budgetOf(functionBudget, clock());
    budget.spendText(100_000, 8 * mib);
    expect(budget.spent()).toBe(false);
  });
});
