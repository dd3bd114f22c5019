import { arrayText, quoteQualified } from "../schema/quote.ts";
import type { ApplyContext } from "./apply.ts";
import type { TableLoad } from "./load.ts";
import { checkSignal, restoreFailure } from "./sessions.ts";

/**
 * Gives back what chunks that failed have left in the tables that are loaded next. PostgreSQL keeps the pages of rows that
 * were rolled back until a vacuum: without one each call that ends at a full disk takes a chunk's room for nothing, and a
 * disk that grows by less never holds the backup. A table is read as a whole for it, so only those are where dead rows are
 * more than a tenth. By the server's statistics, which a crash empties: then autovacuum does it, later.
 * Errors: `target_full`, `cancelled`, those of the connection. A table of a role that we may not act as is passed over.
 */
export async function freeDeadRows(context: ApplyContext, loads: readonly TableLoad[]): Promise<void> {
  const { main } = context.sessions;
  const names = loads.map((load) => quoteQualified(load.schema, load.name));
  const rows = await main.query(
    `select schemaname, relname from pg_catalog.pg_stat_all_tables
      where relid = any (select pg_catalog.to_regclass(name) from pg_catalog.unnest($1::text[]) as name)
        and n_dead_tup * 10 > n_live_tup`,
    [arrayText(names)],
  );
  for (const row of rows) {
    checkSignal(context.signal);
    const name = quoteQualified(row["schemaname"] ?? "", row["relname"] ?? "");
    try {
      await main.execute(`vacuum ${name}`);
    } catch (error) {
      throw restoreFailure(error, `vacuum of ${name}`, context.signal);
    }
  }
}
