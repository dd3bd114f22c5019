import { compress } from "@bokuweb/zstd-wasm";
import { describe, expect, it } from "vitest";
import { Buffer } from "node:buffer";
import { sameBytes } from "../../src/shared/crypto/digest.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { maxFrameBytes, readFrames, writtenFrameBytes } from "../../src/shared/format/zstd_frame.ts";
import { failureOf, pick, seeded } from "./format_fixture.ts";

const text = (words: string) => new TextEncoder().encode(words);
const rows = text("17\tcalm\tA walk by the river\n".repeat(200));

describe("zstd", () => {
  it.each([0, 1, 255, 256, 65_791, 65_792, 70_000, 300_000])("gives back %i bytes", async (length) => {
    const zstd = await loadZstd();
    const bytes = seeded(length + 1)(length);
    const packed = zstd.compress(bytes);
    expect(readFrames(packed).map(({ contentBytes }) => contentBytes)).toEqual([length]);
    expect(sameBytes(zstd.decompress(packed, length), bytes)).toBe(true);
  });

  it("cuts what is larger than a frame into frames, whose sum is the whole (F-11)", async () => {
    const zstd = await loadZstd();
    const bytes = new Uint8Array(writtenFrameBytes * 2 + 5).fill(65);
    const packed = zstd.compress(bytes);
    const lengths = readFrames(packed).map(({ contentBytes }) => contentBytes);
    expect(lengths).toEqual([writtenFrameBytes, writtenFrameBytes, 5]);
    expect(sameBytes(zstd.decompress(packed, bytes.byteLength), bytes)).toBe(true);
    expect((await failureOf(() => zstd.decompress(packed, bytes.byteLength - 1))).code).toBe("object_damaged");
  });

  it("cuts at the end of a line, where one ends in the second half of a frame", async () => {
    const zstd = await loadZstd();
    const bytes = new Uint8Array(writtenFrameBytes * 3).fill(65);
    // The last line that ends in the first frame; one that ends too early for the second.
    for (const at of [700_000, 800_000, 800_001 + 400_000]) bytes[at] = 10;
    const packed = zstd.compress(bytes);
    const lengths = readFrames(packed).map(({ contentBytes }) => contentBytes);
    expect(lengths.slice(0, 2)).toEqual([800_001, writtenFrameBytes]);
    expect(sameBytes(zstd.decompress(packed, bytes.byteLength), bytes)).toBe(true);
  });

  it("reads frames as large as the format allows, as they were written before", async () => {
    const zstd = await loadZstd();
    const bytes = new Uint8Array(maxFrameBytes).fill(65);
    const packed = compress(bytes, 1);
    expect(readFrames(packed)).toHaveLength(1);
    expect(sameBytes(zstd.decompress(packed, bytes.byteLength), bytes)).toBe(true);
  });

  it("hands out copies: what it gave before stays when it is used again", async () => {
    const zstd = await loadZstd();
    const first = zstd.compress(rows);
    const before = first.slice();
    zstd.compress(seeded(2)(100_000));
    expect(sameBytes(first, before)).toBe(true);
    const clear = zstd.decompress(first, rows.byteLength);
    zstd.decompress(zstd.compress(seeded(3)(100_000)), 100_000);
    expect(sameBytes(clear, rows)).toBe(true);
  });

  it("takes no memory for a bomb: 1 TiB that a header promises is refused unread (F-11)", async () => {
    const zstd = await loadZstd();
    const bomb = Buffer.from("28b52ffde0000000000001000000000000000000", "hex");
    bomb.writeBigUInt64LE(2n ** 40n, 5);
    expect((await failureOf(() => zstd.decompress(bomb, 2 ** 30))).code).toBe("object_damaged");
  });

  it("refuses a frame that states more than 16 MiB, and takes one that states just that (F-11)", async () => {
    const frame = (contentBytes: number) => {
      const bytes = Buffer.from("28b52ffda000000000010000", "hex");
      bytes.writeUInt32LE(contentBytes, 5);
      return bytes;
    };
    expect(readFrames(frame(maxFrameBytes))).toEqual([{ start: 0, end: 12, contentBytes: maxFrameBytes }]);
    expect((await failureOf(() => readFrames(frame(maxFrameBytes + 1)))).code).toBe("object_damaged");
  });

  it.each([
    ["an empty skippable frame", "502a4d1800000000"],
    ["a frame without its size", "28b52ffd0058010000"],
    ["a dictionary", "28b52ffd2101050100000"],
    ["a reserved block type", "28b52ffd2001070000aa"],
    ["half a header", "28b52ffd"],
    ["other bytes", "00112233445566"],
  ])("refuses %s", async (_, hex) => {
    expect((await failureOf(() => readFrames(Buffer.from(hex, "hex")))).code).toBe("object_damaged");
  });

  it("refuses rubbish after the end and a missing last byte", async () => {
    const zstd = await loadZstd();
    const packed = zstd.compress(rows);
    const longer = new Uint8Array(packed.byteLength + 1);
    longer.set(packed);
    for (const bytes of [longer, packed.subarray(0, -1)]) {
      expect((await failureOf(() => zstd.decompress(bytes, rows.byteLength))).code).toBe("object_damaged");
    }
  });

  it("fuzzed gives something within bounds or our own error, and works on afterwards", async () => {
    const zstd = await loadZstd();
    const random = seeded(99);
    const packed = zstd.compress(rows);
    for (let round = 0; round < 3000; round++) {
      const fuzzed = packed.slice(0, round % 3 === 0 ? pick(random, packed.byteLength) : undefined);
      for (let edits = 1 + pick(random, 3); edits > 0 && fuzzed.byteLength > 0; edits--) {
        fuzzed[pick(random, fuzzed.byteLength)] = pick(random, 256);
      }
      try {
        expect(zstd.decompress(fuzzed, rows.byteLength).byteLength).toBeLessThanOrEqual(rows.byteLength);
      } catch (error) {
        expect(error).toMatchObject({ name: "HoldfastError", code: "object_damaged" });
      }
    }
    expect(sameBytes(zstd.decompress(packed, rows.byteLength), rows)).toBe(true);
  });
});
