/** Search for the bytes of one value, so that rows without them are passed over without being split. */
import type { CompiledCondition } from "./row_filter_condition.ts";

export interface Needle {
  readonly bytes: Uint8Array;
  /** How far the end of the window moves on, by the byte at its end (Horspool's rule). */
  readonly shifts: Int32Array;
}

const newline = 0x0a;
const tab = 0x09;

/** Shorter ones are found so often, and move on so little, that splitting each row is as fast. */
const shortest = 6;

/**
 * What stands in every row that fits: the longest field of the one value that is looked for, with the tabs and the newline
 * behind it and before it that are certain. Null: there are several values, or only short ones. `count`: fields of a row.
 */
export function needleOf(conditions: readonly CompiledCondition[], count: number): Needle | null {
  const [condition] = conditions;
  const value = condition?.single;
  if (conditions.length !== 1 || condition === undefined || value === null || value === undefined) return null;
  let longest = 0;
  for (const [index, bytes] of value.entries()) if (bytes.length > (value[longest]?.length ?? 0)) longest = index;
  const field = condition.fields[longest] ?? 0;
  const text = value[longest] ?? new Uint8Array();
  if (text.length < shortest) return null;
  // The first row's first field has no newline before it: the needle begins with the value there.
  const before = field === 0 ? 0 : 1;
  const bytes = new Uint8Array(before + text.length + 1).fill(tab);
  bytes.set(text, before);
  if (field === count - 1) bytes[bytes.length - 1] = newline;
  const shifts = new Int32Array(256).fill(bytes.length);
  for (let at = 0; at < bytes.length - 1; at++) shifts[bytes[at] ?? 0] = bytes.length - 1 - at;
  return { bytes, shifts };
}

/** The first place from `from` on, or -1. */
export function findNeedle(text: Uint8Array, { bytes, shifts }: Needle, from: number): number {
  const last = bytes.length - 1;
  const end = bytes[last];
  for (let at = from + last; at < text.length;) {
    const byte = text[at] ?? 0;
    if (byte === end) {
      let back = 1;
      while (back <= last && text[at - back] === bytes[last - back]) back++;
      if (back > last) return at - last;
    }
    at += shifts[byte] ?? 1;
  }
  return -1;
}
