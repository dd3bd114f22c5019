/** zstd level 1 by WebAssembly. One instance for the process; its memory grows to about 34 MiB at most, for frames as large as the format allows, and is reused. */
import { compress, decompress, init } from "@bokuweb/zstd-wasm";
import { HoldfastError } from "../errors.ts";
import { joined, release } from "../memory.ts";
import type { Compressor } from "./compressor.ts";
import { type Frame, readFrames, writtenFrameBytes } from "./zstd_frame.ts";

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

/** Frames are cut at ends of lines, as rows have them: who takes rows out of a text packs the frames that held them anew, and no others. */
const newline = 0x0a;

function compressFrames(bytes: Uint8Array): Uint8Array {
  const frames: Uint8Array[] = [];
  let at = 0;
  do {
    const part = bytes.subarray(at, endOfFrame(bytes, at));
    const frame = compress(part, level);
    if (readFrames(frame)[0]?.contentBytes !== part.byteLength) {
      throw new HoldfastError("internal", "zstd gave a frame that does not hold what went in; is memory exhausted?");
    }
    frames.push(frame);
    at += part.byteLength;
  } while (at < bytes.byteLength);
  const [only] = frames;
  return only !== undefined && frames.length === 1 ? only : joined(frames);
}

function endOfFrame(bytes: Uint8Array, start: number): number {
  const end = start + writtenFrameBytes;
  if (end >= bytes.byteLength) return bytes.byteLength;
  const half = start + writtenFrameBytes / 2;
  const last = bytes.subarray(half, end).lastIndexOf(newline);
  return last < 0 ? end : half + last + 1;
}

function decompressFrames(bytes: Uint8Array, maxBytes: number): Uint8Array {
  const frames = readFrames(bytes);
  const total = frames.reduce((sum, frame) => sum + frame.contentBytes, 0);
  if (total > maxBytes) {
    throw new HoldfastError("object_damaged", `the compressed data holds ${total} bytes, at most ${maxBytes} may come`);
  }
  const contentOf = ({ start, end, contentBytes }: Frame) => unpack(bytes.subarray(start, end), contentBytes);
  const [only] = frames;
  if (only !== undefined && frames.length === 1) return contentOf(only);
  const whole = new Uint8Array(total);
  let at = 0;
  for (const frame of frames) {
    const content = contentOf(frame);
    whole.set(content, at);
    release(content);
    at += frame.contentBytes;
  }
  return whole;
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
