/** Compressed frames of a text from which rows went: those that held none of them are taken as they are. */
import { sameBytes } from "../../crypto/digest.ts";
import type { Compressor } from "../../format/compressor.ts";
import { readFrames } from "../../format/zstd_frame.ts";
import { joined } from "../../memory.ts";
import type { Kept } from "../rewrite_text.ts";

export interface Before {
  readonly text: Uint8Array;
  /** Its frames. */
  readonly packed: Uint8Array;
}

/**
 * Frames of `text`, made of those of the text before it, of which `kept` stands in the new one: a frame is taken over only where its
 * bytes are found there. Errors: `object_damaged` where `packed` is no frames.
 */
export function repack(
  compressor: Compressor,
  { text: old, packed }: Before,
  text: Uint8Array,
  kept: readonly Kept[],
): Uint8Array {
  const pieces: Uint8Array[] = [];
  let [start, done, next] = [0, 0, 0];
  for (const frame of readFrames(packed)) {
    const end = start + frame.contentBytes;
    while ((kept[next]?.to ?? Infinity) < end) next++;
    const around = kept[next];
    const at = around === undefined || around.from > start ? -1 : around.at + start - around.from;
    if (at >= done && end > start && sameBytes(old.subarray(start, end), text.subarray(at, at + frame.contentBytes))) {
      if (at > done) pieces.push(compressor.compress(text.subarray(done, at)));
      pieces.push(packed.subarray(frame.start, frame.end));
      done = at + frame.contentBytes;
    }
    start = end;
  }
  if (done < text.length) pieces.push(compressor.compress(text.subarray(done)));
  return joined(pieces);
}
