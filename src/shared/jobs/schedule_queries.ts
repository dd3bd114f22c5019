/** All calls of the SQL functions of schedules. */
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { text } from "./run_row.ts";

export interface ScheduleRow {
  readonly name: string;
  readonly kind: string;
  readonly tier: string | null;
  /** Five fields, in UTC. */
  readonly cron: string;
  readonly enabled: boolean;
  /** When it is due next; null: it is off, or paused until behind that. ISO 8601, as all moments here. */
  readonly nextAt: string | null;
  readonly lastStartedAt: string | null;
  /** Why its job failed last, where nothing went well since. */
  readonly failure: string | null;
  readonly pausedUntil: string | null;
  readonly pauseReason: string | null;
}

/** `runsByItself` false: there is no pg_cron, and whoever wants a schedule kept has to run it. */
export interface Schedules {
  readonly runsByItself: boolean;
  readonly schedules: readonly ScheduleRow[];
}

export async function readSchedules(connection: Connection): Promise<Schedules> {
  const [cron] = await call(connection, "select pg_catalog.to_regclass('cron.job') is not null as there", []);
  const rows = await call(
    connection,
    `select s.name, s.kind, s.tier, s.cron, s.enabled,
       case when s.enabled then backup.moment_text(
         backup.next_due(s.cron, greatest(s.paused_until, backup.clock_now()))
       ) end as next_at,
       backup.moment_text(r.started_at) as started_at,
       case when r.failed_at > coalesce(r.succeeded_at, '-infinity') then r.failure end as failure,
       backup.moment_text(s.paused_until) as paused_until, s.pause_reason
     from backup.schedules as s left join backup.job_runs as r on r.schedule = s.name
     order by s.name`,
    [],
  );
  return {
    runsByItself: cron?.["there"] === "t",
    schedules: rows.map((row) => ({
      name: text(row, "name"),
      kind: text(row, "kind"),
      tier: row["tier"] ?? null,
      cron: text(row, "cron"),
      enabled: row["enabled"] === "t",
      nextAt: row["next_at"] ?? null,
      lastStartedAt: row["started_at"] ?? null,
      failure: row["failure"] ?? null,
      pausedUntil: row["paused_until"] ?? null,
      pauseReason: row["pause_reason"] ?? null,
    })),
  };
}

/** Errors: `not_found`, `cron_refused`. */
export async function setSchedule(connection: Connection, name: string, cron: string): Promise<void> {
  await call(connection, "select backup.set_schedule($1, $2)", [name, cron]);
}

/** `until`: ISO 8601. Errors: `not_found`, `pause_refused`. */
export async function pauseSchedule(connection: Connection, name: string, until: string, reason: string) {
  await call(connection, "select backup.pause_schedule($1, $2::timestamptz, $3)", [name, until, reason]);
}

/** The same, from the database's clock. */
export async function pauseScheduleFor(connection: Connection, name: string, seconds: number, reason: string) {
  await call(
    connection,
    "select backup.pause_schedule($1, backup.clock_now() + $2::integer * interval '1 second', $3)",
    [name, String(seconds), reason],
  );
}

/** False: it was not paused. Errors: `not_found`. */
export async function resumeSchedule(connection: Connection, name: string): Promise<boolean> {
  const [row] = await call(connection, "select backup.resume_schedule($1) as was", [name]);
  return row?.["was"] === "t";
}

/** What came of it, in words. Errors: `not_found`, those of what the schedule does. */
export async function runNow(connection: Connection, name: string): Promise<string> {
  const [row] = await call(connection, "select backup.run_now($1) as outcome", [name]);
  return text(row ?? {}, "outcome");
}
