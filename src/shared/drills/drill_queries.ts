/** All calls of the SQL functions of drills. docs/architecture.md, "Drills". */
import { HoldfastError } from "../errors.ts";
import { call } from "../jobs/call.ts";
import type { RunOrigin, Task } from "../jobs/queries.ts";
import { numberOrNull, text } from "../jobs/run_row.ts";
import type { Connection, Row } from "../postgres/connection.ts";

export type Cadence = "weekly" | "monthly" | "quarterly" | "yearly";

/** A row of the calendar. Moments are ISO 8601, in UTC. */
export interface CalendarRow {
  readonly name: string;
  readonly title: string;
  readonly cadence: Cadence;
  readonly doneBy: "system" | "person";
  readonly runbook: string;
  readonly enabled: boolean;
  readonly lastDrill: string | null;
  readonly lastAt: string | null;
  readonly lastOk: boolean | null;
  readonly dueAt: string;
  readonly state: "off" | "done" | "due" | "overdue";
}

export interface DrillRow {
  readonly id: string;
  readonly drill: string;
  readonly title: string;
  readonly runbook: string;
  readonly run: string | null;
  readonly origin: string | null;
  readonly orderedBy: string;
  readonly startedAt: string;
  readonly finishedAt: string | null;
  readonly backup: string | null;
  readonly database: string | null;
  readonly ok: boolean | null;
  readonly rtoSeconds: number | null;
  readonly rpoSeconds: number | null;
  readonly recoveryObjective: number | null;
  readonly lossObjective: number | null;
  /** As `evidence.ts` wrote it; `{}` while it is under way. */
  readonly evidence: unknown;
}

const at = (column: string, name: string) =>
  `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as ${name}`;

/** By how soon each is due. */
export async function readCalendar(connection: Connection): Promise<CalendarRow[]> {
  const rows = await call(
    connection,
    `select c.name, c.title, c.cadence, c.done_by, c.runbook, c.enabled, c.last_drill, ${
      at("c.last_at", "last_at")
    }, c.last_ok,
            ${at("c.due_at", "due_at")},
            case when not c.enabled then 'off' when w.since > backup.clock_now() then 'done'
              when w.since + backup.drill_grace(c.cadence) > backup.clock_now() then 'due' else 'overdue' end as state
       from backup.drill_calendar as c cross join lateral backup.drill_waits_since(c, backup.clock_now()) as w (since)
      order by c.due_at, c.name`,
    [],
  );
  return rows.map((row) => ({
    name: text(row, "name"),
    title: text(row, "title"),
    cadence: text(row, "cadence") as Cadence,
    doneBy: text(row, "done_by") as CalendarRow["doneBy"],
    runbook: text(row, "runbook"),
    enabled: row["enabled"] === "t",
    lastDrill: row["last_drill"] ?? null,
    lastAt: row["last_at"] ?? null,
    lastOk: row["last_ok"] == null ? null : row["last_ok"] === "t",
    dueAt: text(row, "due_at"),
    state: text(row, "state") as CalendarRow["state"],
  }));
}

const drillColumns = `d.id, d.drill, c.title, c.runbook, d.run_id, r.origin, d.ordered_by, ${
  at("d.started_at", "started_at")
},
  ${
  at("d.finished_at", "finished_at")
}, d.backup_id, d.database_name, d.ok, d.rto_seconds, d.rpo_seconds, d.recovery_objective,
  d.loss_objective, d.evidence`;
const fromDrills =
  `from backup.drills as d join backup.drill_calendar as c on c.name = d.drill left join backup.runs as r on r.id = d.run_id`;

/** Newest first. */
export async function listDrills(connection: Connection, limit: number): Promise<DrillRow[]> {
  const rows = await call(
    connection,
    `select ${drillColumns} ${fromDrills} order by d.started_at desc, d.id limit $1::integer`,
    [String(limit)],
  );
  return rows.map(drillOf);
}

/** The one that a run carries. Errors: `run_not_found`. */
export async function readDrillOf(connection: Connection, run: string): Promise<DrillRow> {
  const [row] = await call(connection, `select ${drillColumns} ${fromDrills} where d.run_id = $1::uuid`, [run]);
  if (row === undefined) throw new HoldfastError("run_not_found", `run ${run} carries no drill`);
  return drillOf(row);
}

/** Errors: `not_found` for a name that the calendar does not have; `run_state` while another drill is under way. */
export async function requestDrill(
  connection: Connection,
  name: string,
  origin: RunOrigin,
): Promise<{ readonly run: string; readonly drill: string; readonly joined: boolean }> {
  const [row = {}] = await call(connection, "select run, drill, joined from backup.request_drill($1, $2)", [
    name,
    origin,
  ]);
  return { run: text(row, "run"), drill: text(row, "drill"), joined: row["joined"] === "t" };
}

/** Seconds since the drill was ordered, by the clock of schema `backup`; null: that was set back meanwhile. */
export async function secondsSince(connection: Connection, drill: string): Promise<number | null> {
  const [row = {}] = await call(
    connection,
    "select round(extract(epoch from backup.clock_now() - d.started_at), 3) as seconds from backup.drills as d where d.id = $1::uuid",
    [drill],
  );
  const seconds = Number(text(row, "seconds"));
  return seconds < 0 ? null : seconds;
}

/** Tables that drills of this name took, with the moment of the last time. */
export async function earlierSubjects(connection: Connection, name: string): Promise<ReadonlyMap<string, string>> {
  const rows = await call(
    connection,
    `select d.subject, ${at("max(d.started_at)", "last")} from backup.drills as d
      where d.drill = $1 and d.subject is not null and d.finished_at is not null group by d.subject`,
    [name],
  );
  return new Map(rows.map((row) => [text(row, "subject"), text(row, "last")]));
}

/** Names of databases of drills that are under way. */
export async function activeDatabases(connection: Connection): Promise<ReadonlySet<string>> {
  const rows = await call(
    connection,
    "select d.database_name from backup.drills as d where d.finished_at is null and d.database_name is not null",
    [],
  );
  return new Set(rows.map((row) => text(row, "database_name")));
}

/** Databases of drills that have ended, not known to be dropped. */
export async function leftDatabases(
  connection: Connection,
): Promise<readonly { readonly drill: string; readonly database: string }[]> {
  const rows = await call(connection, "select drill, database_name from backup.left_drill_databases()", []);
  return rows.map((row) => ({ drill: text(row, "drill"), database: text(row, "database_name") }));
}

export async function databaseDropped(connection: Connection, drill: string): Promise<void> {
  await call(connection, "select backup.drill_database_dropped($1::uuid)", [drill]);
}

export interface DrillFacts {
  readonly backup?: string;
  /** The table of which rows are restored, `schema.name`. */
  readonly subject?: string;
  readonly database?: string;
  /** The database is gone. */
  readonly dropped?: boolean;
}

export interface DrillEnd {
  readonly ok: boolean;
  readonly rtoSeconds: number | null;
  readonly rpoSeconds: number | null;
  readonly evidence: unknown;
  /** What kept it from its end. */
  readonly error: { readonly code: string; readonly message: string; readonly hint: string } | null;
  /** For the maintenance log. */
  readonly notes: string;
}

/** The calls of one worker, each with its lease. Errors: `lease_lost`, also once somebody has cancelled the drill. */
export class DrillTask {
  readonly #connection: Connection;
  readonly #lease: readonly [string, string];
  /** Of the call before: who renews the lease beside the work waits for it, and the other way round. */
  #turn: Promise<unknown> = Promise.resolve();

  /** `connection`: used by nobody else. */
  constructor(connection: Connection, task: Pick<Task, "id" | "token">) {
    this.#connection = connection;
    this.#lease = [task.id, task.token];
  }

  /** Renews the lease, and keeps how far the work is. `detail` null: as it is. */
  async keep(detail: unknown, facts: DrillFacts = {}): Promise<void> {
    await this.#call(
      "select backup.drilling($1::bigint, $2::bigint, $3::jsonb, $4::jsonb)",
      detail === null ? null : JSON.stringify(detail),
      JSON.stringify(facts),
    );
  }

  /** This leg is over; the next one comes at once, or after so long. */
  async rest(waitSeconds: number): Promise<void> {
    await this.#call("select backup.rest_drill($1::bigint, $2::bigint, $3::interval)", `${waitSeconds} seconds`);
  }

  async end(result: DrillEnd): Promise<void> {
    await this.#call("select backup.end_drill($1::bigint, $2::bigint, $3::jsonb)", JSON.stringify(result));
  }

  async #call(sql: string, ...values: readonly (string | null)[]): Promise<void> {
    const turn = this.#turn.then(() => call(this.#connection, sql, [...this.#lease, ...values]));
    this.#turn = turn.catch(() => {});
    await turn;
  }
}

function drillOf(row: Row): DrillRow {
  return {
    id: text(row, "id"),
    drill: text(row, "drill"),
    title: text(row, "title"),
    runbook: text(row, "runbook"),
    run: row["run_id"] ?? null,
    origin: row["origin"] ?? null,
    orderedBy: text(row, "ordered_by"),
    startedAt: text(row, "started_at"),
    finishedAt: row["finished_at"] ?? null,
    backup: row["backup_id"] ?? null,
    database: row["database_name"] ?? null,
    ok: row["ok"] == null ? null : row["ok"] === "t",
    rtoSeconds: numberOrNull(row, "rto_seconds"),
    rpoSeconds: numberOrNull(row, "rpo_seconds"),
    recoveryObjective: numberOrNull(row, "recovery_objective"),
    lossObjective: numberOrNull(row, "loss_objective"),
    evidence: JSON.parse(text(row, "evidence")),
  };
}
