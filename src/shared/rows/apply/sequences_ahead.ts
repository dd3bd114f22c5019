import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent } from "../../schema/quote.ts";
import { fitted, type Pair, type Part, sideKeyOfDelta, sideValue } from "./difference.ts";
import { raiseSequence } from "./raise_sequence.ts";

/**
 * Moves the sequences of identity and serial columns past the values that came back, never backwards, also while others draw
 * from them. Outside of the transaction by nature: what is ahead harms nobody. A partition's are those of the tables above it
 * as well; values that a sequence never gives do not move it. Returns the names of those that moved. Errors: those of the
 * connection.
 */
export async function moveSequencesAhead(connection: Connection, pair: Pair, part: Part): Promise<string[]> {
  const { fit, side, delta } = pair;
  const owned = await connection.query(
    `select a.attname as column, d.objid::regclass::text as sequence, s.seqincrement > 0 as rising, s.seqmin, s.seqmax
       from pg_catalog.pg_depend as d
       join pg_catalog.pg_sequence as s on s.seqrelid = d.objid
       join pg_catalog.pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
      where d.classid = 'pg_catalog.pg_class'::regclass and d.refclassid = 'pg_catalog.pg_class'::regclass
        and (d.refobjid = $1::oid or d.refobjid in (select relid from pg_catalog.pg_partition_ancestors($1::oid)))
        and d.deptype in ('a', 'i') and a.atttypid in (20, 21, 23)`,
    [fit.live.oid],
  );
  const moved: string[] = [];
  for (const row of owned) {
    const [column, sequence, rising] = [row["column"] ?? "", row["sequence"] ?? "", row["rising"] === "t"];
    if (!fit.columns.some((one) => one.live === column)) continue;
    const own = sideValue(pair, fitted(pair, column));
    const value = `${rising ? "max" : "min"}(${own}) filter (where ${own} between ${row["seqmin"]} and ${
      row["seqmax"]
    })`;
    const rows = fit.key === null
      ? `${side.sql} as s`
      : `${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(pair)} and d."action" <> 'delete' and ${part("d")}`;
    const [reached] = await connection.query(`select (${value})::bigint as value from ${rows}`);
    const to = reached?.["value"] ?? null;
    if (to !== null && await raiseSequence(connection, sequence, to)) moved.push(`${sequence} (${quoteIdent(column)})`);
  }
  return moved;
}
