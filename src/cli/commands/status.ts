import { z } from "zod";
import { type CopyLag, readCopyLag } from "../../shared/jobs/copy_queries.ts";
import { readStanding, type Standing } from "../../shared/identity/identity_queries.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import type { Outcome } from "../output.ts";
import { amount, duration } from "../progress.ts";
import { storePair } from "../open_store.ts";
import { readStream } from "../stream_facts.ts";
import { recoveryPointOf, type StatusFacts, verdictOf } from "../verdict.ts";

/**
 * The document: `{verdict, reasons, lastBackupAt, recoveryPointSeconds, alerts, stream, identity, secondStore}`, `stream` being
 * `{chain, lagSeconds, restartLsn, confirmedLsn, retainedBytes, limitBytes, uncovered}` or null, `identity` a `Standing`, `secondStore`
 * `{store, firstStore, objects, bytes, oldestAt, lagSeconds, caughtUpAt}`, what it lacks, or null. Exit 3 for critical.
 */
export async function run(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:status");
  try {
    const facts = { ...await readFacts(session), stores: storePair(context.settings) };
    const identity = await readStanding(session);
    const { verdict, reasons } = verdictOf(facts);
    const bad = verdict === "critical" || (verdict === "warning" && context.settings.has("strict"));
    const { lastBackupAt, lastBackupAgeSeconds, alerts } = facts;
    const secondStore = await readCopyLag(session);
    const recoveryPointSeconds = recoveryPointOf(facts);
    const age = lastBackupAgeSeconds === null
      ? "none"
      : `${lastBackupAt} (${duration(lastBackupAgeSeconds * 1000)} ago)`;
    const point = recoveryPointSeconds === null ? "none" : `${duration(recoveryPointSeconds * 1000)} ago`;
    return {
      exit: bad ? 3 : 0,
      document: {
        verdict,
        reasons,
        lastBackupAt,
        recoveryPointSeconds,
        alerts,
        stream: streamDocument(facts),
        identity,
        secondStore,
      },
      lines: [
        verdict,
        `newest backup: ${age}`,
        `recovery point: ${point}`,
        identityLine(identity),
        ...lagLines(secondStore),
        ...reasons,
      ],
    };
  } finally {
    await session.close();
  }
}

/** Who this database is, and where it writes. */
export function identityLine({ standing, project, runsIn, database, prefix, adopting }: Standing): string {
  const who = [`database ${database}`, ...(project === null ? [] : [`project ${project}`])].join(" of ");
  const where = prefix === "" ? "writes to its store's top" : `writes to ${prefix}/ in its store`;
  const what = standing === "original" ? "" : runsIn === null ? ", a copy" : `, a copy that runs in ${runsIn}`;
  return `identity: ${who}${what}; ${where}${adopting ? ", and takes the original's place with the next backup" : ""}`;
}

function streamDocument({ stream }: StatusFacts) {
  if (stream === null) return null;
  const { chain, lagSeconds, restartLsn, confirmedLsn, retainedBytes, limitBytes, uncovered } = stream;
  return { chain, lagSeconds, restartLsn, confirmedLsn, retainedBytes, limitBytes, uncovered: uncovered.length };
}

function lagLines(lag: CopyLag | null): string[] {
  if (lag === null) return [];
  const { store, objects, bytes, lagSeconds } = lag;
  if (lagSeconds === null) return [`second store: ${store} lacks nothing that is known`];
  const behind = `${amount(objects, "objects")} (${amount(bytes, "bytes")})`;
  return [`second store: ${store} lacks ${behind}, the oldest since ${duration(lagSeconds * 1000)}`];
}

const alertsFormat = z.array(z.object({
  kind: z.string(),
  subject: z.string(),
  severity: z.enum(["warning", "critical"]),
  message: z.string(),
  openedAt: z.string(),
}));

async function readFacts(session: Connection): Promise<Omit<StatusFacts, "stores">> {
  const [row] = await session.query(
    `select
       to_char(newest.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as last_backup_at,
       floor(extract(epoch from backup.clock_now() - newest.at))::bigint as age,
       (select min(extract(epoch from due.at - backup.last_due(s.cron, due.at - interval '1 second')))::bigint
        from backup.schedules as s,
          lateral (select backup.last_due(s.cron, backup.clock_now()) as at) as due
        where s.enabled and s.kind = 'full') as every,
       coalesce((
         select jsonb_agg(jsonb_build_object(
           'kind', a.kind, 'subject', a.subject, 'severity', a.severity, 'message', a.message,
           'openedAt', to_char(a.opened_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
         ) order by a.severity, a.opened_at desc)
         from backup.alerts as a where a.status <> 'resolved'
       ), '[]')::text as alerts
     from (
       select max(consistent_at) as at from backup.runs where kind = 'full' and status = 'succeeded'
     ) as newest`,
  );
  const number = (text: string | null | undefined) => text === null || text === undefined ? null : Number(text);
  return {
    lastBackupAt: row?.["last_backup_at"] ?? null,
    lastBackupAgeSeconds: number(row?.["age"]),
    expectedEverySeconds: number(row?.["every"]),
    alerts: alertsFormat.parse(JSON.parse(row?.["alerts"] ?? "[]")),
    ...await readStream(session),
  };
}
