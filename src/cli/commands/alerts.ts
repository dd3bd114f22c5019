import { HoldfastError } from "../../shared/errors.ts";
import { acknowledgeAlert, type AlertRow, listAlerts, readAlert, readTold } from "../../shared/jobs/alert_queries.ts";
import { emergencyContact } from "../../shared/jobs/setting_queries.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { deliverFromHere, testChannelsFromHere } from "../alert_channels.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { columns, type Outcome } from "../output.ts";

/**
 * The document of `list`: `[{id, kind, subject, severity, message, status, times, openedAt, …}]`; of `show`: one of them with
 * `told[{notice, event, at, deliveries[]}]` and `contact`; of `ack`: the alert; of `test`: `{ok, notice, channels[], unusable[]}`; of `deliver`:
 * `{ticked, channels[], delivered, failures[], heartbeat}`. Exit 1 where a channel did not take what was sent.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "list", word] = context.words;
  const session = await installedSession(context, "holdfast:alerts");
  try {
    switch (what) {
      case "list":
        return await list(context, session);
      case "show":
        return await show(session, idOf(what, word));
      case "ack":
        return await acknowledge(session, idOf(what, word));
      case "test":
        return await testChannelsFromHere(context, session, word ?? null);
      case "deliver":
        return await deliverFromHere(context, session);
      default:
        throw new HoldfastError("usage", "alerts takes `list`, `show <id>`, `ack <id>`, `test [channel]` or `deliver`");
    }
  } finally {
    await session.close();
  }
}

async function list({ settings }: Context, session: Connection): Promise<Outcome> {
  const alerts = await listAlerts(session, settings.has("all"), settings.integer("limit", 1, 100_000));
  const lines = alerts.map((
    one,
  ) => [String(one.id), one.status, one.severity, one.openedAt, one.kind, one.subject, one.message]);
  return { exit: 0, document: alerts, lines: lines.length === 0 ? ["There is no alert."] : columns(lines) };
}

async function show(session: Connection, id: number): Promise<Outcome> {
  const alert = await readAlert(session, id);
  if (alert === null) throw new HoldfastError("not_found", `there is no alert ${id}`);
  const told = await readTold(session, id);
  const contact = await emergencyContact(session);
  return {
    exit: 0,
    document: { ...alert, told, contact },
    lines: [
      ...alertLines(alert),
      ...told.flatMap(({ event, at, deliveries }) => [
        `told at ${at} (${event}):`,
        ...deliveries.map(({ channel, status, tries }) => {
          const failure = tries.at(-1)?.failure;
          return `  ${channel}: ${status}, ${tries.length} ${tries.length === 1 ? "try" : "tries"}${
            failure ? `; ${failure}` : ""
          }`;
        }),
      ]),
      ...(contact === "" ? [] : [`emergency contact: ${contact}`]),
      `what it means, and the way out: docs/alerts.md, ${alert.kind}`,
    ],
  };
}

function alertLines(alert: AlertRow): string[] {
  const { id, kind, subject, severity, message, status, times, openedAt, lastSeenAt } = alert;
  return [
    `alert ${id}: ${kind}, ${subject}`,
    `${severity}, ${status}, seen ${times} ${times === 1 ? "time" : "times"} from ${openedAt} to ${lastSeenAt}`,
    message,
    ...(alert.acknowledgedAt === null
      ? []
      : [`acknowledged at ${alert.acknowledgedAt} by ${alert.acknowledgedBy ?? ""}`]),
    ...(alert.resolvedAt === null ? [] : [`resolved at ${alert.resolvedAt}`]),
    ...(alert.toldAt === null ? ["nobody was told"] : []),
  ];
}

async function acknowledge(session: Connection, id: number): Promise<Outcome> {
  await acknowledgeAlert(session, id);
  const alert = await readAlert(session, id);
  return { exit: 0, document: alert, lines: [`Alert ${id} is acknowledged; it stays until its cause is gone.`] };
}

function idOf(what: string, word: string | undefined): number {
  if (word === undefined || !/^\d{1,15}$/.test(word)) {
    throw new HoldfastError("usage", `alerts ${what} takes the id of an alert`);
  }
  return Number(word);
}
