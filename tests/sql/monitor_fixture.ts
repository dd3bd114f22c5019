/** A database in which everything is as it should be at a moment far from now, until its transaction is rolled back. */
import type pg from "pg";
import { fillVault, rolledBack, setClock } from "./cluster.ts";

/** Far from what this cluster does by itself. */
export const start = Date.parse("2031-05-01T12:00:00Z");
export const at = (minutes: number) => new Date(start + minutes * 60_000).toISOString();

/** A backup of this tier that shows a moment, and took so many seconds. */
export async function addBackup(
  postgres: pg.Client,
  minutes: number,
  facts: { readonly tier?: string; readonly seconds?: number; readonly rows?: number; readonly newBytes?: number } = {},
): Promise<string> {
  const { tier = "daily", seconds = 300, rows = 1_000, newBytes = 10_000_000 } = facts;
  const { rows: [row] } = await postgres.query<{ id: string }>(
    `insert into backup.runs (kind, tiers, status, origin, created_at, started_at, heartbeat_at, consistent_at, finished_at, attempt,
       manifest_name, manifest_hash, rows, raw_bytes, stored_bytes, new_stored_bytes, verified_at, complete_at)
     values ('full', array[$1], 'succeeded', 'schedule', $2::timestamptz, $2, $2, $2, $2::timestamptz + $3 * interval '1 second', 1,
       'm' || gen_random_uuid(), 'h', $4::bigint, $4::bigint * 100, $4::bigint * 10, $5, $2, $2) returning id`,
    [tier, at(minutes), seconds, rows, newBytes],
  );
  return row?.id ?? "";
}

/** A job of pg_cron that ended so many minutes from the start; numbered far from what pg_cron itself writes meanwhile. */
export async function addJobRun(
  postgres: pg.Client,
  schedule: string,
  minutes: number,
  status: "succeeded" | "failed",
  message = "1 row",
): Promise<void> {
  await postgres.query(
    `insert into cron.job_run_details (jobid, runid, command, username, status, return_message, start_time, end_time)
     select j.jobid, (select coalesce(max(d.runid), 900000) + 1 from cron.job_run_details as d where d.runid > 900000), j.command, j.username, $2, $3,
       $4::timestamptz, $4::timestamptz
     from cron.job as j where j.jobname = 'holdfast-' || $1`,
    [schedule, status, message, at(minutes)],
  );
}

/** `work` in a rolled-back transaction in which all is well at the start. */
export async function wellWorld<T>(postgres: pg.Client, work: () => Promise<T>): Promise<T> {
  return await rolledBack(postgres, async () => {
    // the cluster's own watchdog and monitor do nothing meanwhile, instead of waiting for what is locked here
    await postgres.query(
      `select pg_advisory_xact_lock(hashtextextended('holdfast:' || n, 0)) from unnest(array['tick', 'monitor']) as n`,
    );
    await fillVault(postgres);
    await setClock(postgres, at(0));
    await postgres.query(
      "update backup.alerts set status = 'resolved', resolved_at = opened_at where status <> 'resolved'",
    );
    await postgres.query("delete from backup.store_usage");
    await postgres.query("update backup.schedules set enabled_since = $1", [at(-10 * 1440)]);
    await postgres.query("update backup.pulse set ticked_at = $1", [at(-1)]);
    await postgres.query(
      "insert into backup.job_runs (schedule, started_at, succeeded_at) select name, $1, $1 from backup.schedules on conflict (schedule) do update set started_at = $1, succeeded_at = $1, failed_at = null",
      [at(-1)],
    );
    await addJobRun(postgres, "watchdog", -1, "succeeded");
    await addBackup(postgres, -60);
    return await work();
  });
}

/** A slot for the open chain, which holds back so many bytes of a limit of 1,000,000. */
export async function slotOf(postgres: pg.Client, chain: string, retainedBytes: number): Promise<void> {
  await postgres.query(
    `create or replace function backup.slot_state() returns table (
       chain_id text, slot_name name, present boolean, active boolean, wal_status text, restart_lsn pg_lsn,
       confirmed_flush_lsn pg_lsn, retained_bytes bigint, limit_bytes bigint, recorded_lsn pg_lsn
     ) language sql stable set search_path = ''
     as $$ select '${chain}', 'no_slot'::name, true, false, 'reserved', '0/100'::pg_lsn, pg_catalog.pg_current_wal_lsn(),
       ${retainedBytes}, 1000000, '0/100'::pg_lsn $$`,
  );
}

export async function look(postgres: pg.Client): Promise<{ verdict: string; line: string; reasons: string[] }> {
  const { rows: [row] } = await postgres.query<{ status: string }>("select backup.look()::text as status");
  return JSON.parse(row?.status ?? "{}");
}

export interface Told {
  readonly subject: string;
  readonly severity: string;
  readonly message: string;
  readonly status: string;
}

export async function alertsOf(postgres: pg.Client, kind: string): Promise<Told[]> {
  const { rows } = await postgres.query<Told>(
    "select subject, severity, message, status from backup.alerts where kind = $1 and opened_at >= $2 order by id",
    [kind, at(-1)],
  );
  return rows;
}
