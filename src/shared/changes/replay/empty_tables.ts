/** TRUNCATE in a target: never of a table that the stream does not name. */
import type { Connection } from "../../postgres/connection.ts";
import { arrayText } from "../../schema/quote.ts";
import type { TargetTable } from "./apply_target.ts";

/**
 * Empties exactly these tables, in the caller's transaction; the stream names every table that a command emptied, those
 * that it reached by CASCADE as well. `mayTruncate`: they are all of them. Else, and where a table refers to one of them
 * that is not among them, rows are deleted: TRUNCATE would not do it, or take the others along.
 */
export async function emptyTables(
  connection: Connection,
  targets: readonly TargetTable[],
  { restartIdentity, mayTruncate }: { readonly restartIdentity: boolean; readonly mayTruncate: boolean },
): Promise<void> {
  if (mayTruncate && !await isReferredTo(connection, targets)) {
    // A partitioned one cannot be emptied without its partitions; all of them are named.
    const names = targets.map(({ sqlName, isPartitioned }) => isPartitioned ? sqlName : `only ${sqlName}`);
    const restart = restartIdentity ? " restart identity" : "";
    return await connection.execute(`truncate table ${names.join(", ")}${restart}`);
  }
  for (const { sqlName, isPartitioned } of targets) {
    if (!isPartitioned) await connection.execute(`delete from only ${sqlName}`);
  }
}

/** By tables that are not among them. */
async function isReferredTo(connection: Connection, targets: readonly TargetTable[]): Promise<boolean> {
  const [row] = await connection.query(
    `with emptied as (select pg_catalog.array_agg(n::pg_catalog.regclass::oid) as oids from pg_catalog.unnest($1::text[]) as n)
     select exists (
       select from pg_catalog.pg_constraint as k, emptied as e
        where k.contype = 'f' and k.confrelid = any (e.oids) and k.conrelid <> all (e.oids)
     ) as yes`,
    [arrayText(targets.map(({ sqlName }) => sqlName))],
  );
  return row?.["yes"] === "t";
}
