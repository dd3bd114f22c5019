/**
 * Reads the outlines of zstd frames (RFC 8878, 3.1.1) without unpacking them, so that the size of the result is known
 * and bounded before any memory is taken for it.
 */
import { HoldfastError } from "../errors.ts";

/** Most plaintext in one frame that is read. Bounds the memory of both directions to about twice this, whatever the object's size. */
export const maxFrameBytes = 16 * 1024 * 1024;

/** Most plaintext in a frame that is written: memory for either direction, and what one row less has packed anew. */
export const writtenFrameBytes = 1024 * 1024;

/** RFC 8878 3.1.1.2.3: no block has more than 128 KiB, and a block costs 3 bytes of header. */
const maxBlockBytes = 128 * 1024;

export interface Frame {
  readonly start: number;
  readonly end: number;
  /** Bytes it unpacks to, as its header says. */
  readonly contentBytes: number;
}

/**
 * The frames of `bytes`, in order and without gap. `object_damaged` for anything else: skippable frames, dictionaries,
 * frames without a size or larger than `maxFrameBytes`, a cut end, rubbish after the end.
 */
export function readFrames(bytes: Uint8Array): Frame[] {
  const frames: Frame[] = [];
  for (let at = 0; at < bytes.byteLength;) {
    const frame = readFrame(bytes, at);
    frames.push(frame);
    at = frame.end;
  }
  return frames;
}

function readFrame(bytes: Uint8Array, start: number): Frame {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const need = (end: number) => {
    if (end > bytes.byteLength) throw damaged("ends within a frame");
  };
  need(start + 5);
  if (view.getUint32(start, true) !== 0xfd2fb528) throw damaged("has no zstd frame where one should start");
  const descriptor = view.getUint8(start + 4);
  const sizeFlag = descriptor >>> 6;
  const singleSegment = (descriptor & 0x20) !== 0;
  const checksum = (descriptor & 0x04) !== 0;
  if ((descriptor & 0x18) !== 0) throw damaged("uses reserved bits of a frame");
  if ((descriptor & 0x03) !== 0) throw damaged("needs a dictionary");
  if (sizeFlag === 0 && !singleSegment) throw damaged("has a frame that does not say its size");
  let at = start + 5 + (singleSegment ? 0 : 1);
  const sizeBytes = [1, 2, 4, 8][sizeFlag] ?? 1;
  need(at + sizeBytes);
  const contentBytes = readSize(view, at, sizeBytes);
  if (contentBytes > maxFrameBytes) throw damaged("has a frame larger than the format allows");
  at += sizeBytes;
  for (let last = false; !last;) {
    need(at + 3);
    const head = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    last = (head & 1) === 1;
    const kind = (head >>> 1) & 3;
    const size = head >>> 3;
    if (kind === 3 || size > maxBlockBytes) throw damaged("has a block that the format does not allow");
    at += 3 + (kind === 1 ? 1 : size);
  }
  at += checksum ? 4 : 0;
  need(at);
  return { start, end: at, contentBytes };
}

function readSize(view: DataView, at: number, sizeBytes: number): number {
  switch (sizeBytes) {
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at, true) + 256;
    case 4:
      return view.getUint32(at, true);
    default:
      return Number(view.getBigUint64(at, true));
  }
}

function damaged(why: string): HoldfastError {
  return new HoldfastError("object_damaged", `the compressed data ${why}`);
}
