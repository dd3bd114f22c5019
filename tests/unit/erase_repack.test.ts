/** A chunk without some of its rows, packed anew where they stood and nowhere else. */
import { describe, expect, it } from "vitest";
import { sameBytes } from "../../src/shared/crypto/digest.ts";
import { repack } from "../../src/shared/erase/rewrite/repack.ts";
import type { Kept } from "../../src/shared/erase/rewrite_text.ts";
import type { Compressor } from "../../src/shared/format/compressor.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { readFrames, writtenFrameBytes } from "../../src/shared/format/zstd_frame.ts";
import { pick, seeded } from "./format_fixture.ts";

const utf8 = (text: string) => new TextEncoder().encode(text);

/** Lines of different lengths, some of them as long as frames. */
function linesOf(seed: number, count: number, longest: number): string[] {
  const random = seeded(seed);
  return Array.from({ length: count }, (_, at) => `${at}\t${"walk by the river ".repeat(pick(random, longest))}\n`);
}

/** The new text as the rewriting has it: lines that go are null, those that change are others. */
function rewritten(lines: readonly string[], fate: (at: number) => string | null) {
  const kept: Kept[] = [];
  let [from, at, text] = [0, 0, ""];
  for (const [number, line] of lines.entries()) {
    const now = fate(number);
    if (now === line) {
      const last = kept.at(-1);
      if (last !== undefined && last.to === from) kept[kept.length - 1] = { ...last, to: from + line.length };
      else kept.push({ from, to: from + line.length, at });
    }
    text += now ?? "";
    at += (now ?? "").length;
    from += line.length;
  }
  return { kept, text: utf8(text) };
}

/** Counts what it is given. */
function counting(zstd: Compressor): Compressor & { bytes: number } {
  return {
    bytes: 0,
    compress(bytes) {
      this.bytes += bytes.byteLength;
      return zstd.compress(bytes);
    },
    decompress: (bytes, most) => zstd.decompress(bytes, most),
  };
}

describe("a chunk from which rows went", () => {
  it.each([1, 2, 3, 4, 5, 6])("unpacks to the rest of it, wherever the rows stood (seed %i)", async (seed) => {
    const zstd = await loadZstd();
    const random = seeded(seed * 7);
    const lines = linesOf(seed, 4_000, seed === 6 ? 4_000 : 160);
    const old = utf8(lines.join(""));
    const packed = zstd.compress(old);
    expect(readFrames(packed).length).toBeGreaterThan(3);
    const oneIn = [2, 50, 1_000, 3_999][seed % 4] ?? 2;
    const { kept, text } = rewritten(lines, (at) => {
      const drawn = pick(random, oneIn);
      if (drawn === 0 || (seed === 3 && at === 0)) return null;
      return drawn === 1 ? `${at}\tanother\n` : lines[at] ?? null;
    });
    const again = repack(zstd, { text: old, packed }, text, kept);
    expect(sameBytes(zstd.decompress(again, text.byteLength), text)).toBe(true);
    // Where what is said of the new text does not hold, it is packed anew.
    const wrong = kept.map((run) => ({ ...run, at: run.at + (run.at > 0 ? 1 : 0) }));
    const safe = repack(zstd, { text: old, packed }, text, wrong);
    expect(sameBytes(zstd.decompress(safe, text.byteLength), text)).toBe(true);
  });

  it("is packed anew only where they stood", async () => {
    const zstd = await loadZstd();
    const lines = linesOf(9, 40_000, 20);
    const old = utf8(lines.join(""));
    const packed = zstd.compress(old);
    const frames = readFrames(packed);
    expect(frames.length).toBeGreaterThan(6);
    const counted = counting(zstd);
    const { kept, text } = rewritten(lines, (at) => at === 20_000 || at === 39_999 ? null : lines[at] ?? null);
    const again = repack(counted, { text: old, packed }, text, kept);
    expect(sameBytes(zstd.decompress(again, text.byteLength), text)).toBe(true);
    expect(counted.bytes).toBeGreaterThan(0);
    expect(counted.bytes).toBeLessThanOrEqual(2 * writtenFrameBytes);
    const taken = frames.filter(({ start, end }) =>
      readFrames(again).some((one) => sameBytes(again.subarray(one.start, one.end), packed.subarray(start, end)))
    );
    expect(taken.length).toBe(frames.length - 2);
  });

  it("gains nothing where it was one frame, and loses nothing either", async () => {
    const zstd = await loadZstd();
    const lines = linesOf(10, 100, 20);
    const old = utf8(lines.join(""));
    const packed = zstd.compress(old);
    expect(readFrames(packed)).toHaveLength(1);
    const { kept, text } = rewritten(lines, (at) => at === 50 ? null : lines[at] ?? null);
    const again = repack(zstd, { text: old, packed }, text, kept);
    expect(sameBytes(zstd.decompress(again, text.byteLength), text)).toBe(true);
  });
});
