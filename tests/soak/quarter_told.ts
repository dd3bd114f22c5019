/** Alerts of a quarter: those of its faults, each once and over in time, and no other; and what people got of them. */
import type { Expected } from "./quarter_fault.ts";
import type { Day } from "./quarter_calendar.ts";
import type { Placed } from "./quarter_plan.ts";
import type { World } from "./quarter_world.ts";

export interface Alert {
  readonly id: string;
  readonly kind: string;
  readonly subject: string;
  readonly severity: string;
  readonly status: string;
  readonly message: string;
  readonly opened_at: Date;
  readonly resolved_at: Date | null;
}

const dayMs = 86_400_000;
const fits = ({ kind, subject }: Alert, expected: Expected) => kind === expected.kind && expected.subject.test(subject);

export function alertProblems(
  alerts: readonly Alert[],
  { first, days, placed }: { readonly first: Date; readonly days: readonly Day[]; readonly placed: readonly Placed[] },
): string[] {
  const left = new Set(alerts);
  const problems: string[] = [];
  const take = (what: string, expected: Expected, from: number, until: number) => {
    const found = [...left].filter((alert) =>
      fits(alert, expected) && alert.opened_at.getTime() >= from && alert.opened_at.getTime() < until
    );
    for (const alert of found) left.delete(alert);
    const over = found.every(({ resolved_at }) => resolved_at !== null && resolved_at.getTime() <= until);
    if (found.length !== 1 || !over) {
      problems.push(
        `${what}: one ${expected.kind} ${expected.subject.source}, over within its days, was due: ${
          found.map(words).join("; ") || "none"
        }`,
      );
    }
  };
  for (const { fault, day } of placed) {
    const from = first.getTime() + day * dayMs;
    for (const expected of fault.expects) take(fault.name, expected, from, from + fault.days * dayMs);
  }
  // What people do weeks late: told then, and done some hours later.
  const lastDay = first.getTime() + days.length * dayMs;
  for (const { byPerson, start } of days) {
    for (const { name, graceDays } of byPerson) {
      const from = start.getTime() + graceDays * dayMs;
      if (from + 2 * dayMs > lastDay) continue;
      take(`${name} by people`, { kind: "drill_overdue", subject: new RegExp(`^drill:${name}$`) }, from, from + dayMs);
    }
  }
  for (const alert of reviewed(left, alerts)) left.delete(alert);
  problems.push(...[...left].map((alert) => `nobody expects ${words(alert)}`));
  return problems;
}

/** On Mondays the week's logs are reviewed: an anomaly where something of the seven days before had gone wrong, and only there. */
function reviewed(left: ReadonlySet<Alert>, alerts: readonly Alert[]): Alert[] {
  return [...left].filter((alert) =>
    alert.kind === "anomaly" && alert.subject === "check:logs_reviewed" && alert.opened_at.getUTCDay() === 1 &&
    alerts.some((other) =>
      other.severity !== "information" && other !== alert && other.opened_at < alert.opened_at &&
      (other.resolved_at ?? alert.opened_at).getTime() > alert.opened_at.getTime() - 8 * dayMs
    )
  );
}

function words({ kind, subject, message, opened_at, resolved_at }: Alert): string {
  const until = resolved_at === null ? "still open" : `until ${resolved_at.toISOString()}`;
  return `${kind} ${subject} from ${opened_at.toISOString()}, ${until}: ${message.slice(0, 160)}`;
}

/**
 * Each alert is told once when it opens and once when it is over (at once, where it was over before it could be told), and each
 * message comes once by mail and once to the webhook. What was told is on record for 90 days.
 */
export async function noticeProblems(world: World, first: Date): Promise<string[]> {
  const told = await world.rows(
    `select a.kind, a.subject, a.opened_at, count(*) filter (where n.event in ('raised', 'passed')) as opened,
       count(*) filter (where n.event in ('resolved', 'passed')) as over, a.severity, a.settled_at is null as pending
     from backup.alerts as a left join backup.notices as n on n.alert_id = a.id
     where a.opened_at >= $1 group by a.id order by a.id`,
    [first],
  );
  const problems = told.filter(({ opened, over, severity, pending }) =>
    Number(opened) !== 1 || (pending !== true && severity !== "information" && Number(over) !== 1)
  ).map(({ kind, subject, opened, over }) =>
    `${String(kind)} ${String(subject)} was told ${String(opened)} times when it opened, ${
      String(over)
    } times when it was over`
  );
  const delivered = await world.rows(
    `select d.channel, count(*) as times, min(d.notice_id)::text as first from backup.deliveries as d
     where d.status = 'delivered' group by d.channel order by 1`,
  );
  const got = new Map([
    ["email", world.mail.mails.map(({ raw }) => /^message-id: *(\S+)/im.exec(raw)?.[1] ?? "")],
    ["webhook", world.webhooks()],
  ]);
  for (const [channel, keys] of got) {
    const recorded = delivered.find((row) => row["channel"] === channel);
    const times = Number(recorded?.["times"] ?? 0);
    if (new Set(keys).size !== keys.length) problems.push(`${channel} got a message twice`);
    const known = keys.filter((key) => noticeOf(key) >= Number(recorded?.["first"] ?? 0));
    if (known.length !== times || times === 0) {
      problems.push(`${channel} got ${known.length} messages, ${times} are on record`);
    }
  }
  const waiting = await world.rows("select from backup.deliveries where status not in ('delivered')");
  if (waiting.length > 0) problems.push(`${waiting.length} messages were not delivered`);
  return problems;
}

/** A message's key ends in the notice and the channel. */
function noticeOf(key: string): number {
  const found = /-(\d+)-(email|webhook)/.exec(key)?.[1];
  if (found === undefined) throw new Error(`${key} is no key of a message`);
  return Number(found);
}
