/** A row change as pgoutput writes it, protocol version 1, values as text: the other way of pgoutput.ts. */
import type { RowChange, Value } from "./messages.ts";
import { unchanged } from "./messages.ts";

const letters = { insert: "I", update: "U", delete: "D" } as const;
const encoder = new TextEncoder();

/** Errors: none. */
export function encodeChange(change: RowChange): Uint8Array {
  const out: number[] = [];
  const pieces: Uint8Array[] = [];
  const flush = () => {
    pieces.push(Uint8Array.from(out));
    out.length = 0;
  };
  const int32 = (number: number) => out.push(number >>> 24, (number >>> 16) & 255, (number >>> 8) & 255, number & 255);
  const letter = (text: string) => out.push(text.charCodeAt(0));
  const row = (values: readonly Value[]) => {
    out.push(values.length >>> 8, values.length & 255);
    for (const value of values) {
      if (value === null) letter("n");
      else if (value === unchanged) letter("u");
      else {
        const bytes = encoder.encode(value);
        letter("t");
        int32(bytes.length);
        flush();
        pieces.push(bytes);
      }
    }
  };
  letter(letters[change.kind]);
  int32(change.relation);
  if (change.kind !== "insert" && change.old !== null) {
    letter(change.old.what === "key" ? "K" : "O");
    row(change.old.values);
  }
  if (change.kind !== "delete") {
    letter("N");
    row(change.row);
  }
  flush();
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
