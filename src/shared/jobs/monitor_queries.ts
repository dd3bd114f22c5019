/** All calls of the SQL functions of the monitor. docs/monitoring.md. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { text } from "./run_row.ts";

/** What only the caller of the database can see, such as which stores are set where it runs. */
export interface Remark {
  readonly severity: "warning" | "critical";
  readonly message: string;
}

const moment = z.string().nullable();
const verdict = z.enum(["ok", "warning", "critical"]);

const streamFormat = z.object({
  chain: z.string(),
  hasFull: z.boolean(),
  lagSeconds: z.number().nullable(),
  stuckSeconds: z.number().nullable(),
  restartLsn: moment,
  confirmedLsn: moment,
  retainedBytes: z.number().nullable(),
  undrainedBytes: z.number().nullable(),
  limitBytes: z.number(),
  failure: z.string().nullable(),
  holder: z.object({
    pid: z.number().nullable(),
    database: z.string().nullable(),
    application: z.string().nullable(),
    prepared: z.string().nullable(),
    seconds: z.number(),
  }).nullable(),
});

const statusFormat = z.object({
  verdict,
  line: z.string(),
  reasons: z.array(z.string()),
  checkedAt: z.string(),
  lastBackupAt: moment,
  recoveryPointSeconds: z.number().nullable(),
  lastRun: z.object({
    id: z.string(),
    tiers: z.array(z.string()),
    status: z.string(),
    finishedAt: moment,
    seconds: z.number().nullable(),
    error: z.string().nullable(),
  }).nullable(),
  alerts: z.array(z.object({
    kind: z.string(),
    subject: z.string(),
    severity: z.enum(["warning", "critical"]),
    message: z.string(),
    openedAt: z.string(),
  })),
  stream: streamFormat.nullable(),
  stores: z.array(z.object({
    place: z.enum(["first", "second"]),
    bytes: z.number(),
    objects: z.number(),
    quotaBytes: z.number().nullable(),
    measuredAt: z.string(),
  })),
  durations: z.array(z.object({
    tier: z.string(),
    seconds: z.number(),
    compared: z.number(),
    medianSeconds: z.number().nullable(),
    limitSeconds: z.number().nullable(),
  })),
  retention: z.object({
    prunedAt: moment,
    followed: z.boolean(),
    waiting: z.number(),
    tiers: z.array(z.object({
      tier: z.string(),
      backups: z.number(),
      /** Null: nobody can say how many there should be. */
      expected: z.number().nullable(),
      missing: z.number(),
      overdue: z.number(),
    })),
  }),
  /** The one that is open. */
  incident: z.object({ id: z.number(), openedAt: z.string(), reason: z.string() }).nullable(),
  paused: z.array(z.object({ schedule: z.string(), until: z.string(), reason: z.string() })),
  watchdogAt: moment,
  monitorAt: moment,
});

/** What `backup.status()` says; the SQL function tells what each of it means. */
export type Status = z.infer<typeof statusFormat>;

/** Nothing is changed. Errors: `schema_missing`, those of the connection. */
export async function readStatus(connection: Connection, also: readonly Remark[]): Promise<Status> {
  const [row] = await call(connection, "select backup.status($1::jsonb) as status", [JSON.stringify(also)]);
  const parsed = statusFormat.safeParse(JSON.parse(text(row ?? {}, "status")));
  if (parsed.success) return parsed.data;
  throw new HoldfastError("internal", "backup.status() told something else than this version knows");
}

/** Conditions become alerts, alerts whose cause is gone end. Errors: as of `readStatus`. */
export async function look(connection: Connection, told: readonly Remark[]): Promise<void> {
  await call(connection, "select backup.look($1::jsonb)", [JSON.stringify(told)]);
}

/** In the text format of Prometheus, version 0.0.4. */
export async function readMetrics(connection: Connection): Promise<string> {
  const [row] = await call(connection, "select backup.metrics() as metrics", []);
  return text(row ?? {}, "metrics");
}

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const labelsFormat = z.record(z.string(), z.string());

export async function readSamples(connection: Connection): Promise<Sample[]> {
  const rows = await call(connection, "select s.name, s.labels, s.value from backup.metric_samples() as s", []);
  return rows.map((row) => ({
    name: text(row, "name"),
    labels: labelsFormat.parse(JSON.parse(text(row, "labels"))),
    value: Number(text(row, "value")),
  }));
}

/** The database's clock, in milliseconds since 1970. */
export async function readClock(connection: Connection): Promise<number> {
  const [row] = await call(connection, "select extract(epoch from backup.clock_now()) * 1000 as ms", []);
  return Number(text(row ?? {}, "ms"));
}

/** `whose`: `function`, or the store `first` or `second`. */
export async function tellClock(connection: Connection, whose: string, aheadMs: number): Promise<void> {
  await call(connection, "select backup.tell_fact($1, $2::jsonb)", [
    `clock:${whose}`,
    JSON.stringify({ aheadSeconds: Math.round(aheadMs / 100) / 10 }),
  ]);
}

/** Those whose alert `store_unreachable` is not resolved. */
export async function readTroubledStores(connection: Connection): Promise<string[]> {
  const sql = `select pg_catalog.substr(a.subject, 7) as place from backup.alerts as a
     where a.kind = 'store_unreachable' and a.status <> 'resolved'`;
  return (await call(connection, sql, [])).map((row) => text(row, "place"));
}

/** `failure`: code and message of what kept the store from what it was asked for; null: nothing did. `wrote`: it was written to. */
export async function tellStore(
  connection: Connection,
  place: "first" | "second",
  told: { readonly label: string; readonly failure: string | null; readonly wrote: boolean },
): Promise<void> {
  await call(connection, "select backup.tell_fact($1, $2::jsonb)", [
    `store:${place}`,
    JSON.stringify(told),
  ]);
}
