/** Alerts as people see them: listed, looked at, acknowledged. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { text } from "./run_row.ts";

const alertFormat = z.object({
  id: z.int(),
  kind: z.string(),
  subject: z.string(),
  severity: z.enum(["information", "warning", "critical"]),
  message: z.string(),
  status: z.enum(["open", "acknowledged", "resolved"]),
  times: z.int(),
  openedAt: z.string(),
  lastSeenAt: z.string(),
  /** When it was told last; null: it was not, for want of a channel or because the last message was fresh. */
  toldAt: z.string().nullable(),
  escalatedAt: z.string().nullable(),
  acknowledgedAt: z.string().nullable(),
  acknowledgedBy: z.string().nullable(),
  resolvedAt: z.string().nullable(),
});
export type AlertRow = z.infer<typeof alertFormat>;

const toldFormat = z.object({
  notice: z.int(),
  event: z.string(),
  at: z.string(),
  deliveries: z.array(z.object({
    channel: z.string(),
    status: z.string(),
    tries: z.array(z.object({
      begunAt: z.string(),
      endedAt: z.string().nullable(),
      outcome: z.string().nullable(),
      failure: z.string().nullable(),
    })),
  })),
});
/** A message about an alert, and every try to bring it to a channel. */
export type Told = z.infer<typeof toldFormat>;

const moment = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`;
const document = `jsonb_build_object(
  'id', a.id, 'kind', a.kind, 'subject', a.subject, 'severity', a.severity, 'message', a.message, 'status', a.status,
  'times', a.times, 'openedAt', ${moment("a.opened_at")}, 'lastSeenAt', ${moment("a.last_seen_at")},
  'toldAt', ${moment("a.told_at")}, 'escalatedAt', ${moment("a.escalated_at")},
  'acknowledgedAt', ${moment("a.acknowledged_at")}, 'acknowledgedBy', a.acknowledged_by,
  'resolvedAt', ${moment("a.resolved_at")}
)`;

/** The worst first, then the newest; `all`: those that are over too, newest first. */
export async function listAlerts(connection: Connection, all: boolean, limit: number): Promise<readonly AlertRow[]> {
  const rows = await call(
    connection,
    `select ${document}::text as alert from backup.alerts as a where $1::boolean or a.status <> 'resolved'
     order by case when $1::boolean then 0 else backup.severity_rank(a.severity) end desc, a.opened_at desc, a.id desc
     limit $2::integer`,
    [String(all), String(limit)],
  );
  return rows.map((row) => alertFormat.parse(JSON.parse(text(row, "alert"))));
}

/** Null where there is none of that id. */
export async function readAlert(connection: Connection, id: number): Promise<AlertRow | null> {
  const [row] = await call(
    connection,
    `select ${document}::text as alert from backup.alerts as a where a.id = $1::bigint`,
    [String(id)],
  );
  return row === undefined ? null : alertFormat.parse(JSON.parse(text(row, "alert")));
}

/** The messages about one alert, oldest first; what was told of many at once is not among them. */
export async function readTold(connection: Connection, id: number): Promise<readonly Told[]> {
  const rows = await call(
    connection,
    `select jsonb_build_object(
       'notice', n.id, 'event', n.event, 'at', ${moment("n.created_at")},
       'deliveries', coalesce((
         select jsonb_agg(jsonb_build_object(
           'channel', d.channel, 'status', d.status, 'tries', coalesce((
             select jsonb_agg(jsonb_build_object(
               'begunAt', ${moment("t.begun_at")}, 'endedAt', ${
      moment("t.ended_at")
    }, 'outcome', t.outcome, 'failure', t.failure
             ) order by t.try)
             from backup.delivery_attempts as t where t.delivery_id = d.id
           ), '[]')
         ) order by d.channel)
         from backup.deliveries as d where d.notice_id = n.id
       ), '[]')
     )::text as told
     from backup.notices as n where n.alert_id = $1::bigint order by n.id`,
    [String(id)],
  );
  return rows.map((row) => toldFormat.parse(JSON.parse(text(row, "told"))));
}

/** Errors: `not_found` where no open alert has the id. */
export async function acknowledgeAlert(connection: Connection, id: number): Promise<void> {
  await call(connection, "select backup.acknowledge_alert($1::bigint)", [String(id)]);
}
