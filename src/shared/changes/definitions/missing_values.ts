/** Values of rows that were there before their column: `default now()` was computed once, on the source. */
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import type { MissingValues } from "./definition_format.ts";

/** Asked before the command: those of the columns that the target does not have. */
export async function absentColumns(connection: Connection, values: MissingValues): Promise<MissingValues> {
  const absent: MissingValues = [];
  for (const one of values) {
    const [row] = await connection.query(`select exists (select ${attribute(one)}) as is_there`);
    if (row?.["is_there"] !== "t") absent.push(one);
  }
  return absent;
}

/** Asked after it, in the same transaction: every row of these tables is older than the column. */
export async function fillMissing(connection: Connection, absent: MissingValues): Promise<void> {
  for (const one of absent) {
    const [row] = await connection.query(
      `select pg_catalog.array_to_string(a.attmissingval, '') as value, pg_catalog.format_type(a.atttypid, a.atttypmod) as type
         ${attribute(one)} and a.atthasmissing and a.attgenerated = ''`,
    );
    if (row === undefined || row["value"] === one.value || one.value === null) continue;
    await connection.execute(
      `update only ${one.table} set ${quoteIdent(one.column)} = ${quoteLiteral(one.value)}::${row["type"]}`,
    );
  }
}

function attribute({ table, column }: MissingValues[number]): string {
  return `from pg_catalog.pg_attribute as a
    where a.attrelid = pg_catalog.to_regclass(${quoteLiteral(table)}) and a.attname = ${quoteLiteral(column)}
      and not a.attisdropped`;
}
