/** What people have to know about a user's rows, in sentences. Pure. */
import { nameOf } from "../past/fold_partitions.ts";
import type { UserFacts } from "./laid.ts";

/** `taken`: those that are others' as well are among them. */
export function userWarnings(
  { shared, notFollowed, suspects, unmatched, leftOut, stay, untold }: UserFacts,
  taken: boolean,
): string[] {
  const rowsText = (rows: number) => rows === 1 ? "1 row" : `${rows} rows`;
  return [
    ...shared.map(({ table, rows }) =>
      `${rowsText(rows)} of ${table} are other users' as well; ${
        taken ? "they are among the rows" : "they stay out (--shared takes them)"
      }`
    ),
    ...suspects.map(({ table, column }) =>
      `${nameOf(table)}.${column} looks like a user's id and is no key; backup.map.json can say so`
    ),
    ...unmatched,
    ...leftOut.map(({ table, reason }) => `rows of ${table} stay out: ${reason}`),
    ...stay.map(({ table, rows }) =>
      `${rowsText(rows)} of ${table} are the user's now and were not theirs alone then; replace leaves them as they are`
    ),
    ...untold.map(({ table, rows }) =>
      `${
        rowsText(rows)
      } of ${table} are the user's now; without a primary key none is known to be new, and replace leaves them as they are`
    ),
    ...notFollowed.map(({ from, columns, to, reason }) =>
      `${nameOf(from)} (${columns.join(", ")}) is not followed to ${nameOf(to)}: ${reason}`
    ),
  ];
}
