/** A test runner, or a bundle, may hold two copies of one file beside one copy of a package. */
import { describe, expect, it, vi } from "vitest";

const text = new TextEncoder().encode("the same words, again and again; ".repeat(1_000));

async function freshCopy() {
  vi.resetModules();
  const { loadZstd } = await import("../../src/shared/format/zstd.ts");
  return await loadZstd();
}

describe("two copies of the compressor in one process", () => {
  it("read what the other wrote, whichever was used before the other was loaded", async () => {
    const first = await freshCopy();
    const packed = first.compress(text);
    expect(first.decompress(packed, text.byteLength)).toEqual(text);
    const second = await freshCopy();
    // The package's own start-up goes on after the promise it gave.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(second).not.toBe(first);
    for (const copy of [first, second]) {
      const again = copy.compress(text);
      for (const reader of [first, second]) expect(reader.decompress(again, text.byteLength)).toEqual(text);
    }
  });
});
