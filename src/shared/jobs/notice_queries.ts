/** All calls of the SQL functions of alerts, notices and channels. docs/architecture.md, "Alerts". */
import { z } from "zod";
import { type Notice, noticeFormat, type Sender, senderFormat } from "../alerts/notice.ts";
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import { text } from "./run_row.ts";

/** A notice that this worker has, for one channel. */
export interface Delivery {
  readonly id: string;
  readonly token: string;
  readonly notice: Notice;
}

export interface ToldChannel {
  readonly name: string;
  readonly target: string;
  readonly problem: string | null;
}

export async function readSender(connection: Connection): Promise<Sender> {
  const [row] = await call(connection, "select backup.sender()::text as sender", []);
  return senderFormat.parse(JSON.parse(text(row ?? {}, "sender")));
}

/** What is set up here; what this teller had before and does not name now is gone. */
export async function tellChannels(
  connection: Connection,
  teller: "function" | "cli",
  channels: readonly ToldChannel[],
): Promise<void> {
  await call(connection, "select backup.tell_channels($1, $2::jsonb)", [teller, JSON.stringify(channels)]);
}

/** Notices that were made of alerts. */
export async function tellAlerts(connection: Connection): Promise<number> {
  const [row] = await call(connection, "select backup.tell_alerts() as told", []);
  return Number(row?.["told"] ?? 0);
}

/** Null where nothing is due for the channel. */
export async function claimDelivery(
  connection: Connection,
  channel: string,
  worker: string,
  leaseSeconds: number,
): Promise<Delivery | null> {
  const [row] = await call(
    connection,
    "select delivery, token, notice::text as notice from backup.claim_delivery($1, $2, $3::integer)",
    [channel, worker, String(leaseSeconds)],
  );
  if (row === undefined) return null;
  return {
    id: text(row, "delivery"),
    token: text(row, "token"),
    notice: noticeFormat.parse(JSON.parse(text(row, "notice"))),
  };
}

/** `failure` null: the receiver took it. `withheld`: it was not tried, which says nothing of the channel. Errors: `lease_lost`. */
export async function recordDelivery(
  connection: Connection,
  { id, token }: Pick<Delivery, "id" | "token">,
  failure: string | null,
  withheld: boolean,
): Promise<void> {
  await call(connection, "select backup.record_delivery($1::bigint, $2::bigint, $3, $4::boolean)", [
    id,
    token,
    failure,
    String(withheld),
  ]);
}

/** True for whoever has to send the heartbeat that is due. */
export async function takeHeartbeat(connection: Connection): Promise<boolean> {
  const [row] = await call(connection, "select backup.take_heartbeat() as due", []);
  return row?.["due"] === "t";
}

export async function recordHeartbeat(connection: Connection, failure: string | null): Promise<void> {
  await call(connection, "select backup.record_heartbeat($1)", [failure]);
}

/** Why the outside watcher is not told that all is well; null: it is. */
export async function notWell(connection: Connection): Promise<string | null> {
  const [row] = await call(connection, "select backup.not_well() as why", []);
  return row?.["why"] ?? null;
}

/** The notice that goes to every channel, or to one. Errors: `not_found`, `run_state` in a copy. */
export async function testChannels(connection: Connection, channel: string | null): Promise<string> {
  const [row] = await call(connection, "select backup.test_channels($1) as notice", [channel]);
  return text(row ?? {}, "notice");
}

const outcomes = z.array(z.object({
  channel: z.string(),
  target: z.string(),
  status: z.enum(["open", "leased", "delivered", "failed"]),
  tries: z.int(),
  endedAt: z.string().nullable(),
  failure: z.string().nullable(),
}));
export type DeliveryOutcome = z.infer<typeof outcomes>[number];

/** How far each channel is with a notice. */
export async function readDeliveries(connection: Connection, notice: string): Promise<readonly DeliveryOutcome[]> {
  const [row] = await call(
    connection,
    `select coalesce(jsonb_agg(jsonb_build_object(
       'channel', d.channel, 'target', c.target, 'status', d.status, 'tries', d.tries, 'endedAt', d.ended_at, 'failure', d.failure
     ) order by d.channel), '[]')::text as deliveries
     from backup.deliveries as d join backup.channels as c on c.name = d.channel where d.notice_id = $1::bigint`,
    [notice],
  );
  return outcomes.parse(JSON.parse(text(row ?? {}, "deliveries")));
}
