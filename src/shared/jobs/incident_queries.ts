/** Calls of the SQL functions of incidents and of the status page. */
import type { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { type PageContent, pageContent } from "../incidents/status_page.ts";
import type { RecoveryTime } from "../incidents/offers.ts";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { text } from "./run_row.ts";

/** Moments are ISO 8601, UTC. What is found of an incident is as it was written, by this version or another. */
export interface IncidentRow {
  readonly id: number;
  readonly status: "open" | "closed";
  readonly reason: string;
  readonly openedAt: string;
  readonly openedBy: string;
  readonly nextUpdateAt: string | null;
  readonly stoppedAt: string | null;
  readonly stopped: unknown;
  readonly assessedAt: string | null;
  readonly assessment: unknown;
  readonly offeredAt: string | null;
  readonly offers: unknown;
  readonly closedAt: string | null;
  readonly summary: string | null;
}

export interface IncidentEvent {
  readonly at: string;
  readonly kind: string;
  readonly actor: string;
  readonly message: string;
}

/** Errors: `payload_invalid`. `nextUpdateAt`: ISO 8601. */
export async function openIncident(
  connection: Connection,
  incident: { readonly reason: string; readonly message: string | null; readonly nextUpdateAt: string | null },
): Promise<{ readonly id: number; readonly joined: boolean }> {
  const [row = {}] = await call(
    connection,
    "select incident, joined from backup.open_incident($1, $2, $3::timestamptz)",
    [
      incident.reason,
      incident.message,
      incident.nextUpdateAt,
    ],
  );
  return { id: Number(text(row, "incident")), joined: row["joined"] === "t" };
}

/** Why nobody hears of an incident, in a sentence; null: somebody does. */
export async function whyUntold(connection: Connection): Promise<string | null> {
  const [row = {}] = await call(
    connection,
    `select backup.may_tell('incident_opened') as may,
            exists (select from backup.channels as c where c.gone_at is null and c.name <> 'heartbeat') as channels`,
    [],
  );
  if (row["may"] !== "t") return "nobody was told: this database is a copy, or may be one";
  return row["channels"] === "t" ? null : "nobody was told: no channel is set up";
}

/** Errors: `incident_not_found`, `incident_state`. */
export async function recordIncident(
  connection: Connection,
  id: number,
  step: "stopped" | "assessed" | "offered",
  findings: unknown,
  message: string,
): Promise<void> {
  await call(connection, "select backup.record_incident($1::bigint, $2, $3::jsonb, $4)", [
    String(id),
    step,
    JSON.stringify(findings),
    message,
  ]);
}

/** Errors: `payload_invalid`, `incident_not_found`. */
export async function noteIncident(connection: Connection, id: number, note: string): Promise<void> {
  await call(connection, "select backup.note_incident($1::bigint, $2)", [String(id), note]);
}

/** Public. Errors: `payload_invalid`, `incident_not_found`, `incident_state`. */
export async function tellIncident(
  connection: Connection,
  id: number,
  message: string,
  nextUpdateAt: string | null,
): Promise<void> {
  await call(connection, "select backup.tell_incident($1::bigint, $2, $3::timestamptz)", [
    String(id),
    message,
    nextUpdateAt,
  ]);
}

/** Whether maintenance mode is still on. Errors: as `tellIncident`. */
export async function closeIncident(
  connection: Connection,
  id: number,
  summary: string,
  message: string | null,
): Promise<boolean> {
  const [row = {}] = await call(connection, "select backup.close_incident($1::bigint, $2, $3) as closed", [
    String(id),
    summary,
    message,
  ]);
  return row["closed"] === "t";
}

const columns = ["opened_at", "next_update_at", "stopped_at", "assessed_at", "offered_at", "closed_at"]
  .map((name) => `backup.moment_text(i.${name}) as ${name}`).join(", ");

const incidentSql =
  `select i.id, i.status, i.reason, i.opened_by, i.stopped, i.assessment, i.offers, i.summary, ${columns}
  from backup.incidents as i`;

/** Newest first. */
export async function listIncidents(connection: Connection, limit: number): Promise<IncidentRow[]> {
  return (await call(connection, `${incidentSql} order by i.id desc limit $1::integer`, [String(limit)])).map(rowOf);
}

/** `id` null: the open one, else the newest. Errors: `incident_not_found`. */
export async function readIncident(connection: Connection, id: number | null): Promise<IncidentRow> {
  const [row] = await call(
    connection,
    `${incidentSql} where $1::bigint is null or i.id = $1::bigint order by i.status = 'open' desc, i.id desc limit 1`,
    [id === null ? null : String(id)],
  );
  if (row !== undefined) return rowOf(row);
  throw new HoldfastError("incident_not_found", id === null ? "there is no incident" : `there is no incident ${id}`);
}

export async function readTimeline(connection: Connection, id: number): Promise<IncidentEvent[]> {
  const rows = await call(
    connection,
    `select backup.moment_text(e.at) as at, e.kind, e.actor, e.message
       from backup.incident_events as e where e.incident_id = $1::bigint order by e.id`,
    [String(id)],
  );
  return rows.map((row) => ({
    at: text(row, "at"),
    kind: text(row, "kind"),
    actor: text(row, "actor"),
    message: text(row, "message"),
  }));
}

/** All that is on record of its time, as backup.incident_facts() puts it together. Errors: `incident_not_found`. */
export async function readFacts<S extends z.ZodType>(
  connection: Connection,
  id: number,
  shape: S,
): Promise<z.output<S>> {
  const [row = {}] = await call(connection, "select backup.incident_facts($1::bigint)::text as facts", [String(id)]);
  return shape.parse(JSON.parse(text(row, "facts")));
}

export async function readRecoveryTimes(connection: Connection): Promise<RecoveryTime[]> {
  const rows = await call(
    connection,
    "select scope, objective_seconds::text as objective, measured_seconds::text as measured from backup.recovery_times()",
    [],
  );
  return rows.map((row) => ({
    scope: text(row, "scope"),
    objectiveSeconds: Number(row["objective"]),
    measuredSeconds: row["measured"] == null ? null : Number(row["measured"]),
  }));
}

export async function readContact(connection: Connection): Promise<string> {
  const [row = {}] = await call(connection, "select backup.emergency_contact() as contact", []);
  return row["contact"] ?? "";
}

/** What the status page has to say. `isOriginal`: a copy of a project never speaks to its public. */
export async function readPage(
  connection: Connection,
): Promise<{ readonly content: PageContent; readonly hash: string; readonly isOriginal: boolean }> {
  const [row = {}] = await call(
    connection,
    "select p.content::text as content, pg_catalog.md5(p.content::text) as hash, backup.is_original() as original from (select backup.page_content() as content) as p",
    [],
  );
  const content = pageContent.parse(JSON.parse(text(row, "content")));
  return { content, hash: text(row, "hash"), isOriginal: row["original"] === "t" };
}

/** `place` null: none is set up. */
export async function recordPagePut(connection: Connection, place: string | null, hash: string): Promise<void> {
  await call(connection, "select backup.page_put($1, $2)", [place, hash]);
}

export async function recordPageFailed(connection: Connection, failure: string): Promise<void> {
  await call(connection, "select backup.page_failed($1)", [failure]);
}

function rowOf(row: Readonly<Record<string, string | null>>): IncidentRow {
  const json = (name: string): unknown => row[name] == null ? null : JSON.parse(row[name] ?? "null");
  return {
    id: Number(text(row, "id")),
    status: row["status"] === "open" ? "open" : "closed",
    reason: text(row, "reason"),
    openedAt: text(row, "opened_at"),
    openedBy: text(row, "opened_by"),
    nextUpdateAt: row["next_update_at"] ?? null,
    stoppedAt: row["stopped_at"] ?? null,
    stopped: json("stopped"),
    assessedAt: row["assessed_at"] ?? null,
    assessment: json("assessment"),
    offeredAt: row["offered_at"] ?? null,
    offers: json("offers"),
    closedAt: row["closed_at"] ?? null,
    summary: row["summary"] ?? null,
  };
}
