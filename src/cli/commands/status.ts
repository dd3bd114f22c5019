import type { Standing } from "../../shared/identity/identity_queries.ts";
import type { CopyLag } from "../../shared/jobs/copy_queries.ts";
import { type StatusDocument, statusDocument } from "../../shared/monitor/status.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { storePair } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { amount, duration } from "../progress.ts";

/** The document is a `StatusDocument`. Exit 3 for critical, with --strict for warning too. */
export async function run(context: Context): Promise<Outcome> {
  const session = await installedSession(context, "holdfast:status");
  try {
    const status = await statusDocument(session, storePair(context.settings));
    const { verdict } = status;
    const isBad = verdict === "critical" || (verdict === "warning" && context.settings.has("strict"));
    return { exit: isBad ? 3 : 0, document: status, lines: shown(status, context.clock.now()) };
  } finally {
    await session.close();
  }
}

function shown(status: StatusDocument, now: Date): string[] {
  const { line, lastBackupAt, recoveryPointSeconds, identity, secondStore, reasons } = status;
  const since = (moment: string) => duration(now.getTime() - Date.parse(moment));
  return [
    line,
    `newest backup: ${lastBackupAt === null ? "none" : `${lastBackupAt} (${since(lastBackupAt)} ago)`}`,
    ...lastRunLines(status),
    `recovery point: ${recoveryPointSeconds === null ? "none" : `${duration(recoveryPointSeconds * 1000)} ago`}`,
    identityLine(identity),
    ...slotLines(status),
    ...status.stores.map(storeLine),
    ...lagLines(secondStore),
    ...(status.watchdogAt === null ? [] : [`watchdog: ${since(status.watchdogAt)} ago`]),
    // The first of them is in the first line.
    ...reasons,
  ];
}

/** The last full run, where it is not the newest backup. */
function lastRunLines({ lastRun }: StatusDocument): string[] {
  if (lastRun === null || lastRun.status === "succeeded") return [];
  const why = lastRun.error === null ? "" : ` (${lastRun.error})`;
  return [`last run: ${lastRun.status}${why} at ${lastRun.finishedAt ?? ""}`];
}

/** What the slot holds back, and whose transaction holds it where the drain has taken the most of it. */
function slotLines({ stream }: StatusDocument): string[] {
  if (stream === null || stream.retainedBytes === null) return [];
  const { retainedBytes, undrainedBytes, limitBytes, holder } = stream;
  const undrained = undrainedBytes === null ? "" : `, ${amount(undrainedBytes, "bytes")} of it not drained yet`;
  const held = holder === null || retainedBytes < limitBytes / 10 ? "" : `; ${holderWords(holder)}`;
  return [`slot: holds back ${amount(retainedBytes, "bytes")} of ${amount(limitBytes, "bytes")}${undrained}${held}`];
}

function holderWords({ pid, prepared, database, application, seconds }: HolderOf<StatusDocument>): string {
  const who = pid === null ? `the prepared transaction ${prepared ?? ""}` : `process ${pid}`;
  const what = application === null || application === "" ? "" : ` (${application})`;
  return `the oldest transaction is of ${who}${what} in ${database ?? "?"}, since ${duration(seconds * 1000)}`;
}

type HolderOf<T extends { readonly stream: { readonly holder: unknown } | null }> = NonNullable<
  NonNullable<T["stream"]>["holder"]
>;

function storeLine({ place, bytes, objects, quotaBytes }: StatusDocument["stores"][number]): string {
  const quota = quotaBytes === null
    ? "its quota is not set"
    : `${Math.round((100 * bytes) / quotaBytes)} % of ${amount(quotaBytes, "bytes")}`;
  return `${place} store: ${amount(bytes, "bytes")} in ${amount(objects, "objects")}, ${quota}`;
}

/** Who this database is, and where it writes. */
export function identityLine({ standing, project, runsIn, database, prefix, adopting }: Standing): string {
  const who = [`database ${database}`, ...(project === null ? [] : [`project ${project}`])].join(" of ");
  const where = prefix === "" ? "writes to its store's top" : `writes to ${prefix}/ in its store`;
  const what = standing === "original" ? "" : runsIn === null ? ", a copy" : `, a copy that runs in ${runsIn}`;
  return `identity: ${who}${what}; ${where}${adopting ? ", and takes the original's place with the next backup" : ""}`;
}

function lagLines(lag: CopyLag | null): string[] {
  if (lag === null) return [];
  const { store, objects, bytes, lagSeconds } = lag;
  if (lagSeconds === null) return [`second store: ${store} lacks nothing that is known`];
  const behind = `${amount(objects, "objects")} (${amount(bytes, "bytes")})`;
  return [`second store: ${store} lacks ${behind}, the oldest since ${duration(lagSeconds * 1000)}`];
}
