import { describe, expect, it } from "vitest";
import { printFailure, printOutcome } from "../../src/cli/output.ts";
import { amount, duration, Progress, progressText } from "../../src/cli/progress.ts";
import { errorTable, HoldfastError } from "../../src/shared/errors.ts";
import type { Clock } from "../../src/shared/clock.ts";

function printer() {
  const out = { stdout: "", stderr: "" };
  return {
    out,
    stdout: (text: string) => void (out.stdout += text),
    stderr: (text: string) => void (out.stderr += text),
  };
}

describe("output", () => {
  it("with --json is one document on stdout and nothing else", () => {
    const to = printer();
    expect(printOutcome({ exit: 3, document: { ok: false }, lines: ["for people"] }, true, to)).toBe(3);
    expect(JSON.parse(to.out.stdout)).toEqual({ ok: false });
    expect(to.out.stderr).toBe("");
  });

  it("of a failure is one line on stderr with code, message and hint", () => {
    const to = printer();
    expect(printFailure(new HoldfastError("key_wrong", "no key\nopens it", { hint: "Look." }), false, to)).toBe(1);
    expect(to.out).toEqual({ stdout: "", stderr: "key_wrong: no key opens it (Look.)\n" });
  });

  it("of a failure with --json is a document on stdout", () => {
    const to = printer();
    expect(printFailure(new HoldfastError("verification_failed", "bad"), true, to)).toBe(3);
    const { hint } = errorTable.verification_failed;
    expect(JSON.parse(to.out.stdout)).toEqual({ error: { code: "verification_failed", message: "bad", hint } });
  });

  it("gives a terminal no command, whatever a table is called", () => {
    const to = printer();
    const name = "\u001b]0;owned\u0007\u009b2Jtab\tx\rgone\u0000";
    printOutcome({ exit: 0, document: {}, lines: [name, "next"] }, false, to);
    expect(to.out.stdout).toBe("\ufffd]0;owned\ufffd\ufffd2Jtab\tx\ufffdgone\ufffd\nnext\n");
    printFailure(new HoldfastError("key_wrong", name, { hint: name }), false, to);
    expect(to.out.stderr.trimEnd()).not.toMatch(/(?![\n\t])\p{Cc}/u);
  });

  it("never shows what a foreign error said", () => {
    const to = printer();
    expect(printFailure(new TypeError("password=hunter2"), false, to)).toBe(1);
    expect(to.out.stderr).not.toContain("hunter2");
    expect(to.out.stderr).toMatch(/^internal: /);
  });
});

describe("progress", () => {
  function movable(): Clock & { ms: number } {
    return {
      ms: 0,
      now: () => new Date(0),
      monotonicMs() {
        return this.ms;
      },
      sleep: () => Promise.resolve(),
    };
  }
  function sink(isTerminal: boolean) {
    const written: string[] = [];
    return { written, isTerminal, columns: 80, write: (text: string) => void written.push(text) };
  }
  const state = (done: number) => ({ label: "reading", done, total: 100 * 1024 * 1024, unit: "bytes" as const });

  it("tells rate and time left", () => {
    expect(progressText(state(25 * 1024 * 1024), 5 * 1024 * 1024)).toBe(
      "reading  25 %  25.0 MiB of 100.0 MiB  5.0 MiB/s  15 s left",
    );
  });

  it("off a terminal is a plain line at most every five seconds, and one at the end", () => {
    const [clock, to] = [movable(), sink(false)];
    const progress = new Progress(to, clock);
    for (let second = 0; second <= 20; second++) {
      clock.ms = second * 1000;
      progress.update(state(second * 5 * 1024 * 1024));
    }
    expect(to.written.length).toBe(5);
    expect(to.written.every((line) => line.endsWith("\n") && !line.includes("\r"))).toBe(true);
    expect(to.written[1]).toContain("5.0 MiB/s  15 s left");
  });

  it("on a terminal redraws one line that fits, and takes it away", () => {
    const [clock, to] = [movable(), sink(true)];
    const progress = new Progress(to, clock);
    progress.update({ ...state(1), label: "a label that is longer than the terminal ".repeat(4) });
    progress.clear();
    expect(to.written[0]?.split("\x1b[K")[1]?.length).toBe(79);
    expect(to.written.at(-1)).toBe("\r\x1b[K");
  });

  it("names amounts and durations as people do", () => {
    expect([0, 1023, 1536, 5 * 1024 ** 3].map((bytes) => amount(bytes, "bytes"))).toEqual([
      "0 B",
      "1023 B",
      "1.5 KiB",
      "5.0 GiB",
    ]);
    expect(amount(1234567, "rows")).toBe("1,234,567 rows");
    expect([400, 59_400, 200_000, 7_500_000].map(duration)).toEqual(["0 s", "59 s", "3 min 20 s", "2 h 5 min"]);
  });
});
