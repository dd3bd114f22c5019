import { unchanged, type Value } from "../decode/messages.ts";

/** `row` with its `unchanged` values taken from `source`, at these places or (null) at all. */
export function fillUnchanged(
  row: readonly Value[],
  source: readonly Value[],
  at: readonly number[] | null,
): readonly Value[] {
  if (!row.includes(unchanged)) return row;
  return row.map((value, index) => {
    if (value !== unchanged || (at !== null && !at.includes(index))) return value;
    return source[index] ?? null;
  });
}

/** One text for a list of values, different for different lists. */
export function rowText(values: readonly (string | null)[]): string {
  let text = "";
  for (const value of values) text += value === null ? "-" : `${value.length}:${value}`;
  return text;
}
