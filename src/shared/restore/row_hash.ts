/** What a table holds, as three numbers that do not depend on the order of its rows. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { quoteIdent, quoteQualified } from "../schema/quote.ts";

export interface RowHash {
  readonly rows: string;
  /** Sum of the rows' 64-bit hashes; exact, so that equal rows do not cancel each other. */
  readonly sum: string;
  /** Exclusive or of the same hashes. */
  readonly xor: string;
}

/**
 * Hashes the text of every row (`hashtextextended`, the same in every version since 11). Text tells -0 from 0, NaN from
 * null and keeps every digit under the settings of `applySettings`, which the session must have.
 * `columns` may hold generated ones; the order counts.
 */
export async function hashRows(
  connection: Connection,
  table: {
    readonly schema: string;
    readonly name: string;
    readonly columns: readonly string[];
    /** Condition on the rows that count; null: all. */
    readonly rowFilter: string | null;
  },
): Promise<RowHash> {
  const row = `row(${table.columns.map((column) => `t.${quoteIdent(column)}`).join(", ")})::text`;
  const [found] = await connection.query(
    `select pg_catalog.count(*)::text as rows,
            coalesce(pg_catalog.sum(h::numeric), 0)::text as sum,
            coalesce(pg_catalog.bit_xor(h), 0)::text as xor
       from (select pg_catalog.hashtextextended(${row} collate "C", 0) as h
               from only ${quoteQualified(table.schema, table.name)} t${
      table.rowFilter === null ? "" : ` where ${table.rowFilter}`
    }) rows`,
  );
  const { rows, sum, xor } = found ?? {};
  if (typeof rows !== "string" || typeof sum !== "string" || typeof xor !== "string") {
    throw new HoldfastError("internal", "the server gave no row hash");
  }
  return { rows, sum, xor };
}
