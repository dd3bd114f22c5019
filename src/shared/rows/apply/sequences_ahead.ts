import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent } from "../../schema/quote.ts";
import { fitted, type Pair, type Part, sideKeyOfDelta, sideValue } from "./difference.ts";
import { raiseSequence } from "./raise_sequence.ts";

/** Of an expression that gives a sequence's value as it is: one that is put together of it and more says nothing of it. */
const isNextval = String.raw`^\(?nextval\('([^']|'')*'::regclass\)\)?(::[\w ]+)?$`;

/**
 * Moves the sequences of identity and serial columns past the values that came back, and those that a default draws from,
 * whoever owns them; never backwards, also while others draw from them. Columns of integers and numerics, and of domains over
 * those. Outside of the transaction by nature: what is ahead harms nobody. A partition's are those of the tables above it as
 * well; values that a sequence never gives do not move it. Returns the names of those that moved. Errors: those of the
 * connection.
 */
export async function moveSequencesAhead(connection: Connection, pair: Pair, part: Part): Promise<string[]> {
  const { fit, side, delta } = pair;
  const used = await connection.query(
    `with recursive base (attrelid, attnum, type) as (
       select a.attrelid, a.attnum, a.atttypid from pg_catalog.pg_attribute as a
        where a.attrelid = $1::oid or a.attrelid in (select relid from pg_catalog.pg_partition_ancestors($1::oid))
       union all
       select b.attrelid, b.attnum, t.typbasetype
         from base as b join pg_catalog.pg_type as t on t.oid = b.type and t.typtype = 'd'
     ), used (relid, attnum, sequence) as (
       select d.refobjid, d.refobjsubid, d.objid
         from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_class'::regclass and d.refclassid = 'pg_catalog.pg_class'::regclass
          and d.refobjid in (select b.attrelid from base as b) and d.deptype in ('a', 'i')
       union
       select f.adrelid, f.adnum, d.refobjid
         from pg_catalog.pg_attrdef as f
         join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_attrdef'::regclass and d.objid = f.oid
          and d.refclassid = 'pg_catalog.pg_class'::regclass
        where f.adrelid in (select b.attrelid from base as b) and pg_catalog.pg_get_expr(f.adbin, f.adrelid) ~ $2
     )
     select distinct a.attname as column, u.sequence::regclass::text as sequence, s.seqincrement > 0 as rising,
            s.seqmin, s.seqmax
       from base as b
       join used as u on u.relid = b.attrelid and u.attnum = b.attnum
       join pg_catalog.pg_sequence as s on s.seqrelid = u.sequence
       join pg_catalog.pg_attribute as a on a.attrelid = b.attrelid and a.attnum = b.attnum
      where b.type in (20, 21, 23, 1700) order by 2, 1`,
    [fit.live.oid, isNextval],
  );
  const moved: string[] = [];
  for (const row of used) {
    const [column, sequence, rising] = [row["column"] ?? "", row["sequence"] ?? "", row["rising"] === "t"];
    if (!fit.columns.some((one) => one.live === column)) continue;
    const own = `(${sideValue(pair, fitted(pair, column))})::numeric`;
    const value = `${rising ? "max" : "min"}(${own}) filter (where ${own} between ${row["seqmin"]} and ${
      row["seqmax"]
    } and ${own} % 1 = 0)`;
    const rows = fit.key === null
      ? `${side.sql} as s`
      : `${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(pair)} and d."action" <> 'delete' and ${part("d")}`;
    const [reached] = await connection.query(`select (${value})::bigint as value from ${rows}`);
    const to = reached?.["value"] ?? null;
    if (to !== null && await raiseSequence(connection, sequence, to)) moved.push(`${sequence} (${quoteIdent(column)})`);
  }
  return moved;
}
