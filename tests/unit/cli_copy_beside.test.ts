import { describe, expect, it } from "vitest";
import { copiesBeside } from "../../src/cli/copy_beside.ts";
import type { Context } from "../../src/cli/context.ts";
import type { CopiedAfter } from "../../src/cli/copy_to_second.ts";
import { Progress } from "../../src/cli/progress.ts";
import { Settings } from "../../src/cli/settings.ts";

const none: CopiedAfter = { copied: 0, bytes: 0, missing: 0, warnings: [] };
const failed: CopiedAfter = { ...none, missing: null, warnings: [{ code: "not_copied", message: "it is away" }] };

/** Copying that ends when it is told to, and a clock that is moved by hand. */
function bench(secondary: string | undefined = "file:///second") {
  let nowMs = 0;
  const begun: number[] = [];
  const notes: string[] = [];
  let end: (copied: CopiedAfter | null) => void = () => {};
  const stopping = new AbortController();
  const clock = { now: () => new Date(nowMs), monotonicMs: () => nowMs, sleep: () => Promise.resolve() };
  const context: Context = {
    settings: new Settings(new Map(), (name) => name === "BACKUP_SECONDARY" ? secondary : undefined),
    words: [],
    clock,
    random: (length) => new Uint8Array(length),
    log: { debug() {}, info() {}, warn() {}, error() {}, step() {} },
    logLevel: "error",
    progress: new Progress({ isTerminal: false, columns: 80, write: () => {} }, clock),
    columns: 80,
    signal: stopping.signal,
    note: (text) => void notes.push(text),
    ask: () => Promise.resolve(null),
    confirm: () => Promise.resolve(false),
  };
  const beside = copiesBeside(context, () => {
    begun.push(nowMs);
    return new Promise((resolve) => end = resolve);
  });
  return {
    begun,
    notes,
    stop: () => stopping.abort(),
    at: (seconds: number, isNew: boolean) => {
      nowMs = seconds * 1000;
      beside.tend(isNew);
    },
    end: async (copied: CopiedAfter | null) => {
      end(copied);
      await beside.settled();
    },
  };
}

describe("copies beside drains that go on", () => {
  it("begin at once, each minute while something is new, and every 15 minutes for what is missing", async () => {
    const { at, begun, end } = bench();
    at(0, false);
    await end(none);
    at(30, true);
    at(59, false);
    expect(begun).toEqual([0]);
    at(60, false);
    await end(none);
    for (const seconds of [130, 600, 959]) at(seconds, false);
    expect(begun).toEqual([0, 60_000]);
    at(960, false);
    expect(begun).toEqual([0, 60_000, 960_000]);
    await end(null);
  });

  it("are one at a time, and what came meanwhile is next", async () => {
    const { at, begun, end } = bench();
    at(0, true);
    at(90, true);
    expect(begun).toEqual([0]);
    await end(none);
    at(91, false);
    expect(begun).toEqual([0, 91_000]);
    await end(none);
  });

  it("tell once what fails, again once it is something else, and nothing while they are stopped", async () => {
    const { at, end, notes, stop } = bench();
    const other = { ...failed, warnings: [{ code: "not_copied", message: "it is full" }] };
    for (const [seconds, outcome] of [[0, failed], [60, failed], [120, other], [180, none], [240, failed]] as const) {
      at(seconds, true);
      await end(outcome);
    }
    expect(notes).toEqual(["it is away", "it is full", "it is away"].map((why) => `warning: not_copied: ${why}`));
    at(300, true);
    stop();
    await end(other);
    expect(notes).toHaveLength(3);
  });

  it("are none without a second store", () => {
    const { at, begun } = bench("");
    at(0, true);
    expect(begun).toEqual([]);
  });
});
