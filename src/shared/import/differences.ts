/** What of a document is not there, is there as it is in it, and is there and differs. */
import { quoteIdent } from "../schema/quote.ts";
import type { Connection } from "../postgres/connection.ts";
import { compared, liveName, liveRelation, type Pair, sameKey, sideValue } from "../rows/apply/difference.ts";
import type { TablePlan } from "../rows/apply/plan_rows.ts";

export interface TableDifference {
  /** Quoted name of the live table. */
  readonly table: string;
  readonly missing: number;
  readonly same: number;
  readonly different: number;
  /** In how many rows that are there a column has another value. */
  readonly columns: readonly { readonly column: string; readonly rows: number }[];
}

/** `plans`: for `missing`, of the same pairs. Rows of tables without a key are there as they are, or not. */
export async function differencesOf(
  connection: Connection,
  pairs: readonly Pair[],
  plans: readonly TablePlan[],
): Promise<TableDifference[]> {
  const found: TableDifference[] = [];
  for (const pair of pairs) {
    const plan = plans.find(({ table }) => table === liveName(pair));
    const [missing, there] = [plan?.insert ?? 0, plan?.unchanged ?? 0];
    const columns = there === 0 || pair.fit.key === null ? [] : compared(pair);
    if (columns.length === 0) {
      found.push({ table: liveName(pair), missing, same: there, different: 0, columns: [] });
      continue;
    }
    const differs = columns.map((column) =>
      `pg_catalog.record_image_ne(row(l.${quoteIdent(column.live)}), row(${sideValue(pair, column)}))`
    );
    const [row] = await connection.query(
      `select count(*) filter (where ${differs.join(" or ")}) as n,
              ${differs.map((one, at) => `count(*) filter (where ${one}) as n${at}`).join(", ")}
         from ${pair.side.sql} as s join ${liveRelation(pair)} as l on ${sameKey(pair)}`,
    );
    const different = Number(row?.["n"]);
    found.push({
      table: liveName(pair),
      missing,
      same: there - different,
      different,
      columns: columns.map((column, at) => ({ column: column.live, rows: Number(row?.[`n${at}`]) }))
        .filter(({ rows }) => rows > 0),
    });
  }
  return found;
}
