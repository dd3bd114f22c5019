import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { type RunTable, sourceOf } from "./run_tables.ts";
import type { Range } from "./ranges.ts";
import type { TakeOver } from "./task_detail.ts";

/**
 * Does the range hold, in the session's snapshot, exactly the rows of the base's chunk?
 *
 * Every visible row whose inserting transaction is older than the xmin of the base's snapshot was visible in it: so when
 * all are, and there are as many as then, they are the same ones. Row versions do not change their place within one
 * file, so their text is the same in the same order. The plan has checked file, fingerprint and object.
 */
export async function isUnchanged(
  connection: Connection,
  table: RunTable,
  range: Range,
  base: TakeOver,
): Promise<boolean> {
  const [row] = await connection.query(
    `select count(*) as rows, min(pg_catalog.age(xmin)) as youngest, pg_catalog.age($1::xid) as base_age ${
      sourceOf(table, range)
    }`,
    [xidOf(base.xmin)],
  );
  if (row === undefined) throw new HoldfastError("internal", "a count gave no row");
  const youngest = row["youngest"];
  if (Number(row["rows"]) !== base.rows || youngest === null || youngest === undefined) return false;
  return Number(youngest) > Number(row["base_age"]);
}

/** The 32 bits that a row carries, of a 64-bit transaction id. */
function xidOf(wide: string): string {
  return String(BigInt(wide) & 0xffffffffn);
}
