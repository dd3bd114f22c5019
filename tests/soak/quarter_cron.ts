/** Stands in for pg_cron: by the rows of cron.job, minute by minute, each written down as pg_cron does. */
import type pg from "pg";

export interface Job {
  readonly jobid: string;
  readonly jobname: string;
  readonly schedule: string;
  readonly command: string;
  readonly active: boolean;
}

const minuteMs = 60_000;

/** Jobs that come so often that a quarter leaves most of their minutes out. */
export const frequent = /^holdfast-(watchdog|changes|alerts|monitor|replicate)$/;

/** Jobs of which a minute may be left out; of any other none may. */
const spared = /^holdfast-(watchdog|changes|alerts|monitor|replicate|anchor|retention|drills)$/;

/** Is a five-field expression due in the minute of this moment (UTC)? Each field is tried by itself, the naive way. */
export function isDue(schedule: string, at: Date): boolean {
  const [minute = "", hour = "", day = "", month = "", weekday = ""] = schedule.trim().split(/\s+/);
  const days = [allows(day, at.getUTCDate(), 1), allows(weekday, at.getUTCDay(), 0)];
  const dayFits = day.startsWith("*") || weekday.startsWith("*") ? days.every(Boolean) : days.some(Boolean);
  return allows(minute, at.getUTCMinutes(), 0) && allows(hour, at.getUTCHours(), 0) &&
    allows(month, at.getUTCMonth() + 1, 1) && dayFits;
}

function allows(field: string, value: number, lowest: number): boolean {
  return field.split(",").some((part) => {
    const [span = "", step = "1"] = part.split("/");
    const [from = "", to = from] = span.split("-");
    const [first, last] = span === "*"
      ? [lowest, 59]
      : [Number(from), part.includes("/") && to === from ? 59 : Number(to)];
    return value >= first && value <= last && (value - first) % Number(step) === 0;
  });
}

const groups = ["first", "then", "last"] as const;

function groupOf(jobname: string): (typeof groups)[number] {
  if (/^holdfast-(changes|watchdog)$/.test(jobname)) return "first";
  return /^holdfast-(monitor|alerts)$/.test(jobname) ? "last" : "then";
}

export class Cron {
  /** Names of jobs that do not start: their worker cannot be forked, say. */
  readonly stuck = new Set<string>();
  readonly #admin: pg.Client;
  readonly #person: pg.Client;
  /** Behind the last minute that was worked off. */
  #next: number;

  /** `person`: the role that scheduled the jobs. */
  constructor(admin: pg.Client, person: pg.Client, from: Date) {
    this.#admin = admin;
    this.#person = person;
    this.#next = Math.floor(from.getTime() / minuteMs) * minuteMs;
  }

  async #jobs(): Promise<Job[]> {
    const { rows } = await this.#admin.query<Job>(
      `select jobid::text, jobname, schedule, command, active from cron.job
       where jobname like 'holdfast-%' order by jobname = 'holdfast-alerts', jobname`,
    );
    return rows.filter(({ jobname, active }) => active && !this.stuck.has(jobname));
  }

  /**
   * Starts the jobs that are due in the minute of `now`; `only` names those that are really started, the others of that minute, and all
   * of the minutes since the last call, are written down as if they had run and found nothing to do. Failures are written down too, as
   * pg_cron does. The drain and the watchdog come first, then what is due less often, then who looks at it and tells of it; `settle`
   * brings what each of the three brought about to its end.
   */
  async minute(now: Date, only: (jobname: string) => boolean, settle: () => Promise<unknown>): Promise<void> {
    const at = Math.floor(now.getTime() / minuteMs) * minuteMs;
    const jobs = await this.#jobs();
    await this.#assume(jobs, at);
    const due = jobs.filter(({ schedule }) => isDue(schedule, new Date(at)) && this.#next <= at);
    this.#next = at + minuteMs;
    const spared = due.filter(({ jobname }) => !only(jobname));
    if (spared.length > 0) await this.#note(spared.map(({ jobid }) => jobid), spared.map(() => new Date(at)));
    for (const group of groups) {
      const now = due.filter(({ jobname }) => only(jobname) && groupOf(jobname) === group);
      for (const job of now) await this.#run(job);
      if (now.length > 0) await settle();
    }
  }

  async #run({ jobid, command }: Job): Promise<void> {
    const { rows: [row] } = await this.#admin.query<{ runid: string }>(
      `insert into cron.job_run_details (jobid, runid, job_pid, database, username, command, status, start_time)
       values ($1, nextval('cron.runid_seq'), 0, 'postgres', 'postgres', $2, 'running', clock_timestamp()) returning runid::text`,
      [jobid, command],
    );
    let [status, message] = ["succeeded", "1 row"];
    try {
      await this.#person.query(command);
    } catch (error) {
      [status, message] = ["failed", `ERROR:  ${error instanceof Error ? error.message : String(error)}`];
    }
    await this.#admin.query(
      "update cron.job_run_details set status = $2, return_message = $3, end_time = clock_timestamp() where runid = $1",
      [row?.runid, status, message],
    );
  }

  /** The minutes in which nothing was really started. */
  async #assume(jobs: readonly Job[], until: number): Promise<void> {
    const [ids, moments]: [string[], Date[]] = [[], []];
    for (let at = this.#next; at < until; at += minuteMs) {
      for (const job of jobs) {
        if (!isDue(job.schedule, new Date(at))) continue;
        if (!spared.test(job.jobname)) throw new Error(`${job.jobname} was due at ${new Date(at).toISOString()}`);
        ids.push(job.jobid);
        moments.push(new Date(at));
      }
    }
    if (ids.length > 0) await this.#note(ids, moments);
  }

  async #note(jobs: readonly string[], moments: readonly Date[]): Promise<void> {
    await this.#admin.query(
      `insert into cron.job_run_details (jobid, runid, job_pid, database, username, command, status, return_message, start_time, end_time)
       select j.jobid, nextval('cron.runid_seq'), 0, 'postgres', 'postgres', j.command, 'succeeded', '1 row', m.at, m.at
       from unnest($1::bigint[], $2::timestamptz[]) as m (jobid, at) join cron.job as j on j.jobid = m.jobid
       order by m.at`,
      [jobs, moments],
    );
  }
}
