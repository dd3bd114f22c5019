import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent, quoteLiteral, quoteQualified } from "../../schema/quote.ts";
import type { Pair } from "./difference.ts";
import type { SideTable } from "../beside/side_tables.ts";

/**
 * One INSERT a row, for the SQL editor: names qualified, every value as text in its column's type. `pair`: the table that
 * there is now; without it the one of then. At most `limit` rows. Errors: those of the connection.
 */
export async function insertTexts(
  connection: Connection,
  side: SideTable,
  pair: Pair | undefined,
  limit: number,
): Promise<string[]> {
  const columns = pair === undefined
    ? side.columns.map(({ name, type }) => ({ past: name, live: name, liveType: type }))
    : pair.fit.columns;
  const table = pair === undefined
    ? quoteQualified(side.past.schema, side.past.name)
    : quoteQualified(pair.fit.live.schema, pair.fit.live.name);
  const head = columns.length === 0
    ? `insert into ${table} default values;`
    : `insert into ${table} (${
      columns.map(({ live }) => quoteIdent(live)).join(", ")
    }) overriding system value values (`;
  const values = columns.map(({ past, liveType }) =>
    `pg_catalog.quote_nullable(s.${quoteIdent(past)}::text) || ${quoteLiteral(`::${liveType}`)}`
  );
  const text = columns.length === 0
    ? quoteLiteral(head)
    // No chain of operators: the server's stack does not take as many as a table may have columns.
    : `${quoteLiteral(head)} || pg_catalog.array_to_string(array[${values.join(", ")}], ', ') || ');'`;
  const rows = await connection.query(`select ${text} as text from ${side.sql} as s limit ${limit}`);
  return rows.map((row) => row["text"] ?? "");
}
