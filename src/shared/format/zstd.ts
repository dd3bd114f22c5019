/** zstd level 1 by WebAssembly. One instance for the process; its memory grows to about 34 MiB at most and is reused. */
import { compress, decompress, init } from "@bokuweb/zstd-wasm";
import { HoldfastError } from "../errors.ts";
import type { Compressor } from "./compressor.ts";
import { maxFrameBytes, readFrames } from "./zstd_frame.ts";

/** 130 to 230 MB/s at a ratio near 2.9 on realistic rows, measured on 2 cores; higher levels cost more CPU than a leg has. */
const level = 1;

let ready: Promise<Compressor> | undefined;

/** The package is initialised once a process, not once a copy of this file: a second time it mixes two memories. */
const initialised = Symbol.for("holdfast.zstd");
const here = globalThis as { [initialised]?: Promise<void> };

/** Loads the module once; the package reads its own `.wasm` file from beside its code. */
export function loadZstd(): Promise<Compressor> {
  ready ??= (here[initialised] ??= init()).then(() => ({ compress: compressFrames, decompress: decompressFrames }));
  return ready;
}

function compressFrames(bytes: Uint8Array): Uint8Array {
  const frames: Uint8Array[] = [];
  let at = 0;
  do {
    const part = bytes.subarray(at, at + maxFrameBytes);
    const frame = compress(part, level);
    if (readFrames(frame)[0]?.contentBytes !== part.byteLength) {
      throw new HoldfastError("internal", "zstd gave a frame that does not hold what went in; is memory exhausted?");
    }
    frames.push(frame);
    at += part.byteLength;
  } while (at < bytes.byteLength);
  return joined(frames);
}

function decompressFrames(bytes: Uint8Array, maxBytes: number): Uint8Array {
  const frames = readFrames(bytes);
  const total = frames.reduce((sum, frame) => sum + frame.contentBytes, 0);
  if (total > maxBytes) {
    throw new HoldfastError("object_damaged", `the compressed data holds ${total} bytes, at most ${maxBytes} may come`);
  }
  return joined(frames.map((frame) => unpack(bytes.subarray(frame.start, frame.end), frame.contentBytes)));
}

function unpack(frame: Uint8Array, contentBytes: number): Uint8Array {
  let content: Uint8Array;
  try {
    content = decompress(frame);
  } catch (cause) {
    throw new HoldfastError("object_damaged", "the compressed data cannot be unpacked", { cause });
  }
  if (content.byteLength !== contentBytes) {
    throw new HoldfastError("object_damaged", "the compressed data unpacks to another size than it says");
  }
  return content;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const [only] = parts;
  if (only !== undefined && parts.length === 1) return only;
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
