/** Values of rows that were there before their column: `default now()` was computed once, on the source. */
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import type { MissingValues } from "./definition_format.ts";

export interface AbsentColumns {
  readonly values: MissingValues;
  /** All columns of the target, by table and number: a name may be another column's by the end of the command. */
  readonly before: ReadonlySet<string>;
}

/** Asked before the command: which columns the target has. */
export async function absentColumns(connection: Connection, values: MissingValues): Promise<AbsentColumns> {
  const rows = values.length === 0 ? [] : await connection.query(
    `select ${place} as place from pg_catalog.pg_attribute as a
      where a.attrelid >= 16384 and a.attnum > 0 and not a.attisdropped`,
  );
  return { values, before: new Set(rows.map((row) => row["place"] ?? "")) };
}

/** Asked after it, in the same transaction: every row of these tables is older than a column that is new in it. */
export async function fillMissing(connection: Connection, { values, before }: AbsentColumns): Promise<void> {
  for (const { table, column, value } of values) {
    const [row] = await connection.query(
      `select ${place} as place, pg_catalog.array_to_string(a.attmissingval, '') as value,
              pg_catalog.format_type(a.atttypid, a.atttypmod) as type
         from pg_catalog.pg_attribute as a
        where a.attrelid = pg_catalog.to_regclass(${quoteLiteral(table)}) and a.attname = ${quoteLiteral(column)}
          and not a.attisdropped and a.attgenerated = ''`,
    );
    if (row === undefined || before.has(row["place"] ?? "") || row["value"] === value || value === null) continue;
    await connection.execute(
      `update only ${table} set ${quoteIdent(column)} = ${quoteLiteral(value)}::${row["type"]}`,
    );
  }
}

const place = "a.attrelid || '.' || a.attnum";
