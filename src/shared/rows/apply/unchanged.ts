/** Whether tables and keys are still those that a plan was made for. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { type LiveTable, readLiveTables } from "../beside/live_tables.ts";
import { liveName, type Pair } from "./difference.ts";
import { type ForeignKey, readForeignKeys } from "./keys.ts";

/**
 * To be asked in the transaction, behind its locks: between a plan and that moment lie a person's answer and a safety backup.
 * Errors: `rows_conflict` for a table that was made anew, altered, or got another key or trigger.
 */
export async function requireUnchanged(
  connection: Connection,
  pairs: readonly Pair[],
  keys: readonly ForeignKey[],
): Promise<void> {
  const live = new Map(
    (await readLiveTables(connection, pairs.map(({ fit }) => fit.live))).map((one) => [one.oid, one]),
  );
  for (const pair of pairs) {
    const now = live.get(pair.fit.live.oid);
    if (now === undefined || textOf(now) !== textOf(pair.fit.live)) throw changed(`table ${liveName(pair)}`);
  }
  const now = await readForeignKeys(connection, pairs.map((pair) => pair.fit.live.oid));
  const before = new Set(keys.map((key) => JSON.stringify(key)));
  const other = now.find((key) => !before.has(JSON.stringify(key)));
  if (other !== undefined) throw changed(`foreign key ${other.name} of ${other.child}`);
}

function textOf({ bytes: _, ...definition }: LiveTable): string {
  return JSON.stringify(definition);
}

export function changed(what: string): HoldfastError {
  return new HoldfastError("rows_conflict", `${what} is not as it was when this was planned`, {
    hint: "What the last transaction would have done was not done: plan again.",
  });
}
