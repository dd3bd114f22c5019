/** A table that was dropped, with its rows out of a side schema: all of it, or nothing. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import type { GoneTablePlan } from "../../restore/in_place/plan/plan_gone_table.ts";
import { applySettings } from "../../schema/apply_settings.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import type { SideTable } from "../beside/side_tables.ts";
import { refused } from "./put_back.ts";

/**
 * In one transaction: nobody sees the table before its rows, keys and policies are there. `rows`: as many as lie beside. Errors:
 * `rows_conflict` and `value_unfit` where a key or a check refuses rows, also of a table that points to it; `definitions_stuck` where the
 * server makes a definition no more; `counts_differ`, `lock_timeout`, those of the connection.
 */
export async function putGoneTable(
  connection: Connection,
  plan: GoneTablePlan,
  { past, sql }: Pick<SideTable, "past" | "sql">,
  { rows, lockMs }: { readonly rows: number; readonly lockMs: number },
): Promise<void> {
  const table = quoteQualified(past.schema, past.name);
  const columns = past.columns.map(({ name }) => quoteIdent(name)).join(", ");
  await connection.execute(applySettings.join(";\n"));
  await inTransaction(connection, async () => {
    await connection.execute(`set local lock_timeout = ${lockMs}`);
    for (const statement of plan.before) await connection.execute(statement);
    // A table without columns has rows all the same.
    await connection.execute(
      columns === ""
        ? `insert into ${table} select from ${sql}`
        : `insert into ${table} (${columns}) overriding system value select ${columns} from ${sql}`,
    );
    // While no policy of its own can hide one.
    const [row] = await connection.query(`select count(*)::text as rows from ${table}`);
    if (row?.["rows"] !== String(rows)) {
      throw new HoldfastError("counts_differ", `${table} took another number of rows than it was to`, {
        hint: "Nothing was changed.",
      });
    }
    for (const statement of plan.after) await connection.execute(statement);
  }).catch((error: unknown) => {
    throw unmade(error, table);
  });
}

/** Nothing was changed: said with what is in the way. */
function unmade(error: unknown, table: string): unknown {
  const state = sqlstateOf(error) ?? "";
  if (error instanceof HoldfastError && state.startsWith("42") && state !== "42501") {
    return new HoldfastError("definitions_stuck", `${table}: ${error.message}`, { cause: error });
  }
  return refused(error);
}
