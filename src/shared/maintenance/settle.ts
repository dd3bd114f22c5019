/** Writes that were under way when the project was closed: they end by themselves, within the API's own time limit. */
import type { Clock } from "../clock.ts";
import type { Connection } from "../postgres/connection.ts";

const pauseMs = 100;
/** One that is told to end is gone in milliseconds, unless it is far behind with undoing what it wrote. */
const endMs = 10_000;

/** Of the API's logins, begun before the moment. */
const openOnes = `from pg_catalog.pg_stat_activity as a
  where a.datname = pg_catalog.current_database() and a.xact_start < $1::timestamptz
    and a.usename in ('authenticator', 'supabase_auth_admin', 'supabase_storage_admin')`;

export interface Settled {
  /** Transactions that are open still. */
  readonly stillOpen: number;
  /** Transactions that were undone with their sessions. */
  readonly ended: number;
}

/**
 * Waits up to `patienceMs` for transactions of the API's logins that began before now. `ends`: the sessions of those that are
 * open then are ended. Errors: those of the session.
 */
export async function settle(session: Connection, clock: Clock, patienceMs: number, ends: boolean): Promise<Settled> {
  const [row] = await session.query("select pg_catalog.clock_timestamp()::text as now");
  const now = row?.["now"] ?? "";
  const open = await waitForEnd(session, clock, patienceMs, now);
  if (open === 0 || !ends) return { stillOpen: open, ended: 0 };
  const ended = await session.query(`select pg_catalog.pg_terminate_backend(a.pid) ${openOnes}`, [now])
    .catch(() => []); // one of them may not be ended by this role: it is counted as open
  return { stillOpen: await waitForEnd(session, clock, endMs, now), ended: ended.length };
}

async function waitForEnd(session: Connection, clock: Clock, patienceMs: number, before: string): Promise<number> {
  const deadline = clock.monotonicMs() + patienceMs;
  for (;;) {
    const [counted] = await session.query(`select count(*)::text as open ${openOnes}`, [before]);
    const open = Number(counted?.["open"] ?? "0");
    if (open === 0 || clock.monotonicMs() > deadline) return open;
    await clock.sleep(pauseMs);
  }
}
