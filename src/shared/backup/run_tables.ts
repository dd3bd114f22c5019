import { HoldfastError } from "../errors.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { quoteIdent, quoteQualified } from "../schema/quote.ts";
import { conditionOf, type Range } from "./ranges.ts";
import type { LockedTable } from "./session.ts";

export interface ColumnFacts {
  readonly name: string;
  readonly type: string;
}

/** A table of the run, as every worker needs it. */
export interface RunTable extends LockedTable {
  readonly schema: string;
  readonly name: string;
  /** In the order of the fields of the text; generated columns are not among them. */
  readonly columns: readonly ColumnFacts[];
  readonly fingerprint: string;
  readonly dataOwner: string;
  readonly rowFilter: string | null;
  readonly statistics: { readonly deleted: number; readonly inserted: number };
  readonly countedRows: number | null;
}

/** Null values of `countedRows` mean: not counted yet. By oid. */
export async function readRunTables(connection: Connection, run: string): Promise<Map<string, RunTable>> {
  const rows = await connection.query(
    `select t.table_oid, t.schema_name, t.table_name, t.relfilenode, t.columns, t.fingerprint, t.data_owner, t.row_filter,
            t.statistics, t.counted_rows
       from backup.run_tables as t where t.run_id = $1::uuid order by t.table_oid`,
    [run],
  );
  return new Map(rows.map((row) => {
    const schema = text(row, "schema_name");
    const name = text(row, "table_name");
    const table: RunTable = {
      oid: text(row, "table_oid"),
      relfilenode: text(row, "relfilenode"),
      schema,
      name,
      sqlName: quoteQualified(schema, name),
      columns: JSON.parse(text(row, "columns")) as ColumnFacts[],
      fingerprint: text(row, "fingerprint"),
      dataOwner: text(row, "data_owner"),
      rowFilter: row["row_filter"] ?? null,
      statistics: JSON.parse(text(row, "statistics")) as RunTable["statistics"],
      countedRows: row["counted_rows"] === null ? null : Number(row["counted_rows"]),
    };
    return [table.oid, table];
  }));
}

export function tableOf(tables: ReadonlyMap<string, RunTable>, oid: string): RunTable {
  const table = tables.get(oid);
  if (table === undefined) throw new HoldfastError("internal", `table ${oid} is not part of this run`);
  return table;
}

/** `from only … where …` of a range of a table. */
export function sourceOf(table: RunTable, range: Range): string {
  const conditions = [table.rowFilter === null ? null : `(${table.rowFilter})`, conditionOf(range)]
    .filter((condition) => condition !== null);
  return `from only ${table.sqlName}${conditions.length === 0 ? "" : ` where ${conditions.join(" and ")}`}`;
}

export function copyStatement(table: RunTable, range: Range): string {
  const columns = table.columns.map((column) => quoteIdent(column.name)).join(", ");
  return `copy (select ${columns} ${sourceOf(table, range)}) to stdout`;
}
