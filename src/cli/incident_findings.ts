/** What an incident is about, put together from the stores and, where it can be reached, the database: assessment, points, offers. */
import { momentOf } from "../shared/changes/decode/moment.ts";
import { parsePoint } from "../shared/changes/plan/point.ts";
import { ChangeHistory } from "../shared/changes/segments/timeline.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { quarantineOf } from "../shared/format/manifest.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { assess, type Assessment } from "../shared/incidents/assess.ts";
import { compareCounts, type ComparedTable, fillOrder } from "../shared/incidents/live_counts.ts";
import { type Offer, offersOf, type RecoveryPoints, type StoredFulls } from "../shared/incidents/offers.ts";
import type { Suspect } from "../shared/incidents/suspects.ts";
import { readRecoveryTimes } from "../shared/jobs/incident_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import { listBackups, type OpenedBackup, type ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { DirectDrain } from "./drain_direct.ts";
import { keyRing, sourceDatabase } from "./open.ts";
import { openPlace, openStore, secondPlace, storePlace } from "./open_store.ts";
import { zoneMinutes } from "./zone.ts";

export interface Findings extends Assessment {
  /** Tables that are gone or much smaller than in `backup`. */
  readonly counts: readonly ComparedTable[];
  readonly points: RecoveryPoints;
  readonly offers: readonly Offer[];
}

/** How far back changes are looked at where nobody says since when. */
const usualHours = 24;
/** For another drainer to come to its end: it is at work for seconds, unless a large transaction is under way. */
const busyForMs = 30_000;
const busyMs = 500;

/**
 * `session` null: the database cannot be reached, and the stores have to do. What could not be looked at is said in `notDone`.
 * Errors: `usage` for --since and --before-xid; `cancelled`.
 */
export async function find(context: Context, session: Connection | null): Promise<Findings> {
  const since = sinceOf(context);
  const chosen = chosenXid(context);
  const notDone: string[] = [];
  const tried = async <T>(what: string, work: () => Promise<T>): Promise<T | null> => {
    try {
      return await work();
    } catch (error) {
      context.signal.throwIfAborted();
      const { code, message } = asHoldfastError(error);
      notDone.push(`${what}: ${code}: ${message}`);
      return null;
    }
  };
  if (session === null) {
    notDone.push("the database was not asked: live rows, the newest changes and measured times are not known");
  } else await tried("the newest changes are not stored yet", () => drainNow(context, session));
  const history = await tried("backups and changes were not read", () => readHistory(context));
  const read = history === null ? null : await tried("changes were not read", async () =>
    await assess(
      {
        store: await openStore(context),
        compressor: await loadZstd(),
        signal: context.signal,
        onSegment: (done, total) =>
          context.progress.update({ label: "reading the change stream", done, total, unit: "objects" }),
      },
      history,
      since,
    ));
  const times = session === null
    ? []
    : await tried("measured times were not read", () => readRecoveryTimes(session)) ?? [];
  const backup = history?.backups.find(({ manifest }) => manifest.id === read?.backup?.id) ?? null;
  const compared = session === null || backup === null
    ? null
    : await tried("live rows were not counted", () => countsOf(context, backup));
  const suspects = chosen === null ? read?.suspects ?? [] : suspectsOfXid(read?.suspects ?? [], chosen);
  const points = await pointsOf(context, history, tried);
  const order = session === null
    ? null
    : await tried("keys between tables were not read", () => fillOrder(session, tablesOf(suspects)));
  context.progress.clear();
  const offers = offersOf({ suspects, points, times, order, totalRows: backup?.manifest.totals.rows ?? null });
  return {
    ...(read ?? { since, read: [], tables: [], suspects: [], transactions: 0, backup: null }),
    notDone: [...notDone, ...read?.notDone ?? [], ...compared?.notDone ?? []],
    counts: compared?.tables ?? [],
    points,
    offers,
  };
}

/** --since, or a day ago. Errors: `usage`. */
function sinceOf({ settings, clock }: Context): string {
  const asked = settings.get("since");
  if (asked === undefined) {
    return new Date(clock.now().getTime() - usualHours * 3_600_000).toISOString().replace(/Z$/, "000Z");
  }
  const point = parsePoint(asked, zoneMinutes);
  if (point.by !== "time") throw new HoldfastError("usage", "--since is a moment such as 2024-01-09T12:00:00Z");
  return momentOf(point.at) ?? "";
}

/** Errors: `usage`. */
function chosenXid({ settings }: Context): string | null {
  const xid = settings.get("before-xid");
  if (xid === undefined || /^\d{1,19}$/.test(xid)) return xid ?? null;
  throw new HoldfastError("usage", "--before-xid is the number of a transaction");
}

/** Errors: `usage` for one that is not among the suspects. */
function suspectsOfXid(suspects: readonly Suspect[], xid: string): readonly Suspect[] {
  const found = suspects.filter((one) => one.xid === xid);
  if (found.length > 0) return found;
  throw new HoldfastError("usage", `transaction ${xid} is not among those that were found`, {
    hint: "`incident show` lists them; --since looks further back.",
  });
}

function tablesOf(suspects: readonly Suspect[]): string[] {
  return [...new Set(suspects.flatMap(({ tables }) => tables.map(({ table }) => table)))];
}

/** What was done a moment ago is in the slot still. Where there is no stream, none is begun. */
async function drainNow(context: Context, session: Connection): Promise<void> {
  const [row] = await session.query("select exists (select from backup.chains where ended_at is null) as open");
  if (row?.["open"] !== "t") throw new HoldfastError("stream_unavailable", "there is no change stream");
  const drainer = await DirectDrain.open(context);
  const endsAt = context.clock.monotonicMs() + busyForMs;
  context.progress.update({ label: "storing the newest changes", done: 0, total: null, unit: "changes" });
  for (;;) {
    const { outcome } = await drainer.once({ idleSeconds: 0 });
    if (outcome === "caught_up") return;
    if (context.clock.monotonicMs() > endsAt) throw new HoldfastError("stream_busy", "another drainer is at work");
    if (outcome === "busy") await context.clock.sleep(busyMs, context.signal);
  }
}

async function readDeps(context: Context): Promise<ReadDeps> {
  return { store: await openStore(context), ring: await keyRing(context.settings), compressor: await loadZstd() };
}

async function readHistory(context: Context): Promise<ChangeHistory> {
  context.progress.update({ label: "opening manifests and chains", done: 0, total: null, unit: "objects" });
  return (await ChangeHistory.read(await readDeps(context))).of(context.settings.get("source") ?? null);
}

async function countsOf(context: Context, backup: OpenedBackup) {
  const session = await (await sourceDatabase({ settings: context.settings, note: () => {} })).connect(
    "holdfast:incident",
  );
  try {
    return await compareCounts(
      session,
      backup.manifest,
      context.clock,
      (done, total) => context.progress.update({ label: "counting live rows", done, total, unit: "steps" }),
    );
  } finally {
    await session.close();
  }
}

async function pointsOf(
  context: Context,
  history: ChangeHistory | null,
  tried: <T>(what: string, work: () => Promise<T>) => Promise<T | null>,
): Promise<RecoveryPoints> {
  const timeline = history === null
    ? null
    : await tried("spans of the change stream are not known", () => Promise.resolve().then(() => history.timeline()));
  return { windows: timeline?.windows ?? [], gaps: timeline?.gaps ?? [], stores: await storesOf(context, history) };
}

/** By name alone where nothing can be opened, so that a store whose key is not here is told as well. */
async function storesOf(context: Context, history: ChangeHistory | null): Promise<StoredFulls[]> {
  const { settings } = context;
  if (settings.get("store") === undefined) return [];
  const first = storePlace(settings);
  const second = settings.get("secondary");
  const places = [
    first,
    ...first.isSecond || second === undefined ? [] : [secondPlace(settings, second)],
  ];
  const known = new Map(history?.backups.map(({ manifest }) => [manifest.id, manifest]));
  return await Promise.all(places.map(async (at): Promise<StoredFulls> => {
    const place = at.isSecond ? "second" : "first";
    try {
      const store = await openPlace(context, at);
      const fulls = (await listBackups(store)).flatMap(({ id, tier, createdAt }) => {
        const manifest = known.get(id);
        if (manifest !== undefined && quarantineOf(manifest) !== null) return [];
        return [{ id, tier, consistentAt: manifest?.consistentAt ?? createdAt.toISOString() }];
      });
      return { store: store.label, place, fulls, failure: null };
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      return { store: at.address, place, fulls: [], failure: `${code}: ${message}` };
    }
  }));
}
