import type pg from "pg";

/** The links of the chain from pg_cron to the run, each by its own id as PostgreSQL recorded it. */
export interface Trace {
  readonly cronJob: string;
  readonly cronRun: string;
  readonly cronStatus: string;
  readonly requestId: string;
  readonly answerStatus: string;
  readonly run: string;
}

/**
 * Sets the daily schedule to the coming minute (at least 2 s away) and lets pg_cron have it. Returns that minute.
 * pg_cron's finest portable tick is a minute.
 */
export async function scheduleNextMinute(client: pg.Client): Promise<Date> {
  const { rows } = await client.query<{ due: Date }>(
    `with due as (
       select date_trunc('minute', now() + interval '2 seconds') + interval '1 minute' as at
     ), changed as (
       update backup.schedules set cron = to_char((select at from due) at time zone 'UTC', 'FMMI FMHH24 * * *')
       where name = 'daily' returning 1
     )
     select at as due from due, changed`,
  );
  await client.query("select backup.apply_schedules()");
  const due = rows[0]?.due;
  if (due === undefined) throw new Error("there is no schedule named daily");
  return due;
}

/** The chain of the run that pg_cron started for `due`, as far as it has come. */
export async function traceOf(client: pg.Client, due: Date): Promise<Partial<Trace>> {
  const { rows } = await client.query<{
    job: string | null;
    cron_run: string | null;
    cron_status: string | null;
    request_id: string | null;
    answer: string | null;
    run: string | null;
  }>(
    `select j.jobname as job, d.runid::text as cron_run, d.status as cron_status,
       c.request_id::text, a.status_code::text as answer, r.id::text as run
     from cron.job as j
     left join lateral (
       select d.runid, d.status from cron.job_run_details as d
       where d.jobid = j.jobid and d.start_time >= $1 order by d.runid limit 1
     ) as d on true
     left join backup.run_requests as q on q.request_key = backup.schedule_key($1) and d.runid is not null
     left join backup.runs as r on r.id = q.run_id
     left join lateral (
       select c.request_id from backup.calls as c where c.run_id = r.id and c.request_id is not null order by c.made_at limit 1
     ) as c on true
     left join net._http_response as a on a.id = c.request_id
     where j.jobname = 'holdfast-daily'`,
    [due],
  );
  const row = rows[0];
  if (row === undefined) return {};
  const found: Record<keyof Trace, string | null> = {
    cronJob: row.job,
    cronRun: row.cron_run,
    cronStatus: row.cron_status,
    requestId: row.request_id,
    answerStatus: row.answer,
    run: row.run,
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== null));
}

export function isWhole(trace: Partial<Trace>): trace is Trace {
  return trace.cronRun !== undefined && trace.requestId !== undefined && trace.answerStatus !== undefined &&
    trace.run !== undefined && trace.cronStatus !== undefined && trace.cronJob !== undefined;
}
