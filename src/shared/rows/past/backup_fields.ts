/** Fields of COPY text in another order. */
import { HoldfastError } from "../../errors.ts";

const newline = 0x0a;
const tab = 0x09;
/** Up to here a loop is faster than a call. */
const shortField = 64;

/**
 * The same rows with the fields at `order` (indexes into the `fields` of a row, in the order in which they are to stand).
 * The text itself where nothing moves. Errors: `object_damaged` for a row with another number of fields.
 */
export function orderCopyFields(text: Uint8Array, fields: number, order: readonly number[]): Uint8Array {
  if (order.length === fields && order.every((field, at) => field === at)) return text;
  const out = new Uint8Array(text.byteLength);
  const starts = new Uint32Array(fields + 1);
  let length = 0;
  for (let row = 0; row < text.byteLength;) {
    let field = 0;
    let at = row;
    starts[0] = at;
    for (; at < text.byteLength && text[at] !== newline; at++) if (text[at] === tab) starts[++field] = at + 1;
    if (at === text.byteLength) throw new HoldfastError("object_damaged", "the last row of a chunk is cut");
    const found = fields === 0 && at === row ? 0 : field + 1;
    if (found !== fields) {
      throw new HoldfastError("object_damaged", `a row of a chunk has ${found} fields, ${fields} were written`);
    }
    starts[fields] = at + 1;
    for (const [place, wanted] of order.entries()) {
      if (place > 0) out[length++] = tab;
      const start = starts[wanted] ?? at;
      const end = (starts[wanted + 1] ?? at + 1) - 1;
      if (end - start > shortField) {
        out.set(text.subarray(start, end), length);
        length += end - start;
      } else for (let from = start; from < end; from++) out[length++] = text[from] ?? 0;
    }
    out[length++] = newline;
    row = at + 1;
  }
  return out.subarray(0, length);
}
