/** Writes that were under way when the project was closed: they end by themselves, within the API's own time limit. */
import type { Clock } from "../clock.ts";
import type { Connection } from "../postgres/connection.ts";

const pauseMs = 100;

const openTransactions = `select count(*)::text as open from pg_catalog.pg_stat_activity as a
  where a.datname = pg_catalog.current_database() and a.xact_start < $1::timestamptz
    and a.usename in ('authenticator', 'supabase_auth_admin', 'supabase_storage_admin')`;

/** Waits for transactions of the API's logins that began before now. Returns how many were still open after `patienceMs`. */
export async function settle(session: Connection, clock: Clock, patienceMs: number): Promise<number> {
  const [row] = await session.query("select pg_catalog.clock_timestamp()::text as now");
  const deadline = clock.monotonicMs() + patienceMs;
  for (;;) {
    const [counted] = await session.query(openTransactions, [row?.["now"] ?? ""]);
    const open = Number(counted?.["open"] ?? "0");
    if (open === 0 || clock.monotonicMs() > deadline) return open;
    await clock.sleep(pauseMs);
  }
}
