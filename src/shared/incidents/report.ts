/** The post-recovery report of an incident: from what is on record of its time to a page in Markdown. Pure. */
import { z } from "zod";

const moment = z.string();
const seconds = z.number().nullable();

const foundTable = z.object({
  table: z.string(),
  inserted: z.number(),
  updated: z.number(),
  deleted: z.number(),
  truncated: z.number(),
});

/** What `incident open` wrote down; of another version, what is still known of it. */
const assessment = z.object({
  since: moment,
  read: z.array(z.object({ from: moment, to: moment })).default([]),
  tables: z.array(foundTable).default([]),
  suspects: z.array(z.object({
    xid: z.string(),
    lsn: z.string(),
    committedAt: moment,
    before: moment,
    why: z.string(),
    rows: seconds,
  })).default([]),
  notDone: z.array(z.string()).default([]),
}).nullable().catch(null);

const restored = z.object({
  schema: z.string(),
  name: z.string(),
  inserted: z.number().default(0),
  updated: z.number().default(0),
  deleted: z.number().default(0),
});

/** As backup.incident_facts() makes it. */
export const incidentFacts = z.object({
  incident: z.object({
    id: z.int(),
    status: z.enum(["open", "closed"]),
    reason: z.string(),
    opened_at: moment,
    opened_by: z.string(),
    stopped_at: moment.nullable(),
    stopped: z.record(z.string(), z.unknown()).nullable(),
    assessed_at: moment.nullable(),
    assessment,
    offered_at: moment.nullable(),
    closed_at: moment.nullable(),
    closed_by: z.string().nullable(),
    summary: z.string().nullable(),
  }),
  until: moment,
  contact: z.string(),
  maintenanceOn: z.boolean(),
  events: z.array(z.object({ at: moment, kind: z.string(), actor: z.string(), message: z.string() })),
  restores: z.array(z.object({
    id: z.string(),
    scope: z.string(),
    mode: z.string(),
    status: z.string(),
    by: z.string(),
    target: z.string(),
    startedAt: moment,
    finishedAt: moment.nullable(),
    pointAt: moment.nullable(),
    measuredSeconds: seconds,
    objectiveSeconds: seconds,
    withinObjective: z.boolean().nullable(),
    rows: z.number(),
    tables: z.array(restored),
    error: z.string().nullable(),
  })),
  drills: z.array(z.object({ drill: z.string(), startedAt: moment, ok: z.boolean().nullable(), rtoSeconds: seconds })),
  alerts: z.array(z.object({
    kind: z.string(),
    subject: z.string(),
    severity: z.string(),
    status: z.string(),
    message: z.string(),
    openedAt: moment,
    resolvedAt: moment.nullable(),
  })),
  announcements: z.array(z.object({ message: z.string(), startsAt: moment, endedAt: moment.nullable() })),
  log: z.array(z.object({ at: moment, kind: z.string(), action: z.string(), result: z.string() })),
  acts: z.array(z.object({ at: moment, actor: z.string(), action: z.string(), subject: z.string() })),
  actsLeftOut: z.number(),
  objectives: z.array(z.object({ kind: z.string(), scope: z.string(), seconds: z.number() })).nullable(),
  followUps: z.array(z.string()),
});

export type IncidentFacts = z.infer<typeof incidentFacts>;

export interface IncidentReport {
  readonly id: number;
  readonly status: "open" | "closed";
  readonly reason: string;
  readonly summary: string | null;
  readonly contact: string;
  readonly openedAt: string;
  readonly closedAt: string | null;
  /** From the opening to the end, or until now. */
  readonly lastedSeconds: number;
  /** From the opening to the end of the last restore in place that went well; null: there was none. */
  readonly recoveredAfterSeconds: number | null;
  /** How far back the newest whole state lies that was put into place: what was written in between is lost. Null: nothing was. */
  readonly lostSeconds: number | null;
  /** Rows that the likeliest transactions took or changed, as far as they are known; null: nothing was found. */
  readonly rowsTaken: number | null;
  readonly rowsBack: { readonly inserted: number; readonly updated: number; readonly deleted: number };
  readonly restores: readonly (IncidentFacts["restores"][number] & { readonly objective: string })[];
  /** Everything in the order of time. */
  readonly timeline: readonly { readonly at: string; readonly who: string; readonly what: string }[];
  readonly suspects: readonly { readonly xid: string; readonly committedAt: string; readonly why: string }[];
  readonly notDone: readonly string[];
  readonly followUps: readonly string[];
}

export function reportOf(facts: IncidentFacts): IncidentReport {
  const { incident, restores } = facts;
  const done = restores.filter(({ status, mode }) => status === "succeeded" && mode !== "beside");
  const last = done.map(({ finishedAt }) => finishedAt ?? "").sort().at(-1);
  const whole = done.filter(({ scope }) => scope === "full" || scope === "point").at(-1);
  const suspects = incident.assessment?.suspects ?? [];
  const known = suspects.map(({ rows }) => rows).filter((rows) => rows !== null);
  const total = (what: "inserted" | "updated" | "deleted") =>
    done.reduce((sum, { tables }) => sum + tables.reduce((rows, table) => rows + table[what], 0), 0);
  return {
    id: incident.id,
    status: incident.status,
    reason: incident.reason,
    summary: incident.summary,
    contact: facts.contact,
    openedAt: incident.opened_at,
    closedAt: incident.closed_at,
    lastedSeconds: secondsBetween(incident.opened_at, facts.until),
    recoveredAfterSeconds: last === undefined ? null : secondsBetween(incident.opened_at, last),
    lostSeconds: whole?.pointAt == null
      ? null
      : secondsBetween(whole.pointAt, incident.stopped_at ?? incident.opened_at),
    rowsTaken: known.length === 0 ? null : known.reduce((sum, rows) => sum + rows, 0),
    rowsBack: { inserted: total("inserted"), updated: total("updated"), deleted: total("deleted") },
    restores: restores.map((restore) => ({ ...restore, objective: objectiveOf(restore) })),
    timeline: timelineOf(facts),
    suspects: suspects.map(({ xid, committedAt, why }) => ({ xid, committedAt, why })),
    notDone: incident.assessment?.notDone ?? [],
    followUps: facts.followUps,
  };
}

function objectiveOf(
  { measuredSeconds, objectiveSeconds, withinObjective }: IncidentFacts["restores"][number],
): string {
  if (measuredSeconds === null || objectiveSeconds === null) return "not measured";
  const verdict = withinObjective === false ? "missed" : "met";
  return `${spanOf(measuredSeconds)} of ${spanOf(objectiveSeconds)}: ${verdict}`;
}

function timelineOf(facts: IncidentFacts): { at: string; who: string; what: string }[] {
  const { events, restores, drills, alerts, announcements, log, acts, incident } = facts;
  // What is told once here need not be told by the audit as well.
  const told = /^restore\.(begun|finished|failed|cancelled)$|^maintenance\.announced$/;
  const found = [
    ...(incident.assessment?.suspects ?? []).map(({ committedAt, xid, why }) => ({
      at: committedAt,
      who: `transaction ${xid}`,
      what: why,
    })),
    ...events.map(({ at, kind, actor, message }) => ({ at, who: actor, what: `${kind}: ${message}` })),
    ...restores.flatMap(({ startedAt, finishedAt, scope, mode, status, by, target, error }) => [
      { at: startedAt, who: by, what: `restore of ${scope} (${mode}) into ${target} began` },
      ...finishedAt === null ? [] : [{
        at: finishedAt,
        who: by,
        what: `restore of ${scope}: ${status}${error === null ? "" : `: ${error}`}`,
      }],
    ]),
    ...drills.map(({ startedAt, drill, ok }) => ({
      at: startedAt,
      who: "drill",
      what: `${drill}: ${ok === null ? "under way" : ok ? "good" : "failed"}`,
    })),
    ...alerts.filter(({ openedAt }) => openedAt >= incident.opened_at).map(({ openedAt, kind, message }) => ({
      at: openedAt,
      who: "alert",
      what: `${kind}: ${message}`,
    })),
    ...announcements.filter(({ startsAt }) => startsAt >= incident.opened_at).flatMap((
      { startsAt, endedAt, message },
    ) => [
      { at: startsAt, who: "maintenance", what: `on: ${message}` },
      ...endedAt === null ? [] : [{ at: endedAt, who: "maintenance", what: "off" }],
    ]),
    ...log.filter(({ kind }) => kind !== "incident").map(({ at, kind, action, result }) => ({
      at,
      who: "log",
      what: `${kind}: ${action}: ${result}`,
    })),
    ...acts.filter(({ action }) => !told.test(action)).map(({ at, actor, action, subject }) => ({
      at,
      who: actor,
      what: `${action} ${subject}`,
    })),
  ];
  return found.sort((a, b) => a.at < b.at ? -1 : a.at > b.at ? 1 : 0);
}

/** Seconds from one moment to a later one; 0 where the later one is not. */
function secondsBetween(from: string, to: string): number {
  return Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1000));
}

/** `90` → `1 min 30 s`. */
export function spanOf(total: number): string {
  const whole = Math.round(total);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (hours > 0) return minutes > 0 ? `${hours} h ${minutes} min` : `${hours} h`;
  return minutes > 0 ? rest > 0 ? `${minutes} min ${rest} s` : `${minutes} min` : `${rest} s`;
}

export function reportPage(report: IncidentReport): string {
  const { rowsBack } = report;
  const none = (lines: readonly string[], otherwise: string) => lines.length > 0 ? lines : [otherwise];
  return [
    `# Incident ${report.id}: ${inline(report.reason)}`,
    "",
    `- State: ${report.status}`,
    `- Opened: ${report.openedAt}`,
    `- Closed: ${report.closedAt ?? "not yet"}`,
    `- Lasted: ${spanOf(report.lastedSeconds)}`,
    `- Recovered after: ${
      report.recoveredAfterSeconds === null ? "nothing was put back" : spanOf(report.recoveredAfterSeconds)
    }`,
    `- Lost for good, of whole states put back: ${
      report.lostSeconds === null ? "nothing" : spanOf(report.lostSeconds)
    }`,
    `- Rows taken or changed by the likeliest causes: ${report.rowsTaken ?? "not known"}`,
    `- Rows back: ${rowsBack.inserted} inserted, ${rowsBack.updated} put back, ${rowsBack.deleted} deleted`,
    `- Emergency contact: ${report.contact === "" ? "nobody is named" : inline(report.contact)}`,
    "",
    "## Summary",
    "",
    report.summary === null ? "Not closed yet." : inline(report.summary),
    "",
    "## What did it",
    "",
    ...none(
      report.suspects.map(({ xid, committedAt, why }) => `- transaction ${xid}, ${committedAt}: ${inline(why)}`),
      "Nothing was found in the change stream.",
    ),
    ...report.notDone.map((one) => `- not looked at: ${inline(one)}`),
    "",
    "## Restores against their objectives",
    "",
    ...(report.restores.length === 0 ? ["None."] : [
      "| began | what | into | state | time |",
      "| ----- | ---- | ---- | ----- | ---- |",
      ...report.restores.map(({ startedAt, scope, mode, target, status, objective }) =>
        `| ${[startedAt, `${scope}, ${mode}`, cell(target), status, objective].join(" | ")} |`
      ),
    ]),
    "",
    "## Timeline",
    "",
    "| when (UTC) | who | what |",
    "| ---------- | --- | ---- |",
    ...report.timeline.map(({ at, who, what }) => `| ${at} | ${cell(who)} | ${cell(what)} |`),
    "",
    "## Left to do",
    "",
    ...none(report.followUps.map((one) => `- ${inline(one)}`), "Nothing."),
  ].join("\n");
}

/** Text of people within a line of Markdown: nothing of it is markup. */
function inline(text: string): string {
  return text.replace(/\s*\n\s*/g, " ").replace(/[\\`*_[\]<>#]/g, "\\$&");
}

function cell(text: string): string {
  return inline(text).replaceAll("|", "\\|");
}
