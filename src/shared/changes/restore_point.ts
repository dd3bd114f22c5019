/** A database as it was at a moment: the newest full before it, then the stream up to it. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { openSession } from "../backup/session.ts";
import { restoreBackup, type RestoreDeps, type RestoreOptions, type RestoreResult } from "../restore/run.ts";
import { isReplaying, releaseRestoreLock, replayTable, takeRestoreLock } from "../restore/state.ts";
import { stateSchema } from "../restore/target.ts";
import { quoteLiteral, quoteQualified } from "../schema/quote.ts";
import type { OpenedBackup } from "../verify/find_backup.ts";
import { type ListedSegment, readChain } from "./chain_reader.ts";
import { momentOf } from "./moment.ts";
import { formatLsn, parseLsn } from "./lsn.ts";
import { describePoint } from "./point.ts";
import { type Point, positionStatement, replay, type Replayed } from "./replay.ts";
import { type Survey, survey } from "./survey.ts";
import { ChangeHistory, describeWindows } from "./timeline.ts";
import { type SnapshotView, snapshotView } from "./visibility.ts";

export interface PointChoices {
  /** Tables that are not in the result; `schema.name`, quoted where needed. */
  readonly withoutTables?: readonly string[];
  /** Tables that stay as the full backup has them. */
  readonly atFull?: readonly string[];
}

/** What a restore to a moment would do, read from the store alone. */
export interface PointPlan {
  readonly point: Point;
  /** As people read it. */
  readonly label: string;
  readonly full: OpenedBackup;
  readonly segments: readonly ListedSegment[];
  readonly survey: Survey;
  readonly choices: Required<PointChoices>;
}

/**
 * Chooses the full and reads every segment up to the point, so that whatever is in the way is known before anything is done.
 * Errors: `point_uncovered` with what can be restored, `chain_broken`, `ddl_not_replayable`, `tables_uncovered`,
 * `object_missing`, `object_damaged`, those of keys and store.
 */
export async function planPoint(deps: RestoreDeps, point: Point, choices: PointChoices = {}): Promise<PointPlan> {
  const history = await ChangeHistory.read(deps);
  const label = describePoint(point, momentOf, formatLsn);
  const now = deps.clock.now().getTime();
  if (point.by === "time" && point.at > BigInt(now) * 1000n) throw uncovered(history, `${label} is in the future`);
  const full = chooseFull(history, point);
  if (full === null) throw uncovered(history, `${label} is before the first full backup`);
  const chain = full.manifest.chain ?? null;
  const known = chain === null ? undefined : history.chains.get(chain);
  if (known === undefined || known.last === null) {
    throw uncovered(history, `no change after the full backup of ${full.manifest.consistentAt} is stored`);
  }
  const snapshot = snapshotView(full.manifest.snapshot.text);
  const reader = { store: deps.store, compressor: deps.compressor, epochOf: full.epochOf };
  if (point.by === "end" && known.beyond !== null) {
    throw new HoldfastError(
      "chain_broken",
      `segment ${known.beyond.name} cannot be reached: the one before it is missing`,
    );
  }
  const segments = segmentsAfter(known.segments, full);
  const [first] = segments;
  if (first === undefined || first.startLsn > parseLsn(full.manifest.snapshot.walInsertLsn)) {
    throw new HoldfastError(
      "chain_broken",
      `the segments between backup ${full.manifest.id} and ${first?.name ?? "the chain's end"} are missing`,
    );
  }
  const seen = await survey(readChain(reader, segments), point, snapshot, full.manifest.consistentAt);
  if (!seen.passedPoint && !covers(seen, known.last.endLsn, point)) {
    throw uncovered(history, `${label} is behind what is stored of its chain`);
  }
  const made = { withoutTables: choices.withoutTables ?? [], atFull: choices.atFull ?? [] };
  checkObstacles(seen, made);
  return { point, label, full, segments, survey: seen, choices: made };
}

/** The newest that is no later than the point. */
function chooseFull(history: ChangeHistory, point: Point): OpenedBackup | null {
  return history.backups.find(({ manifest }) => {
    switch (point.by) {
      case "time":
        return BigInt(new Date(manifest.consistentAt).getTime()) * 1000n + microsOf(manifest.consistentAt) <= point.at;
      case "lsn":
        return parseLsn(manifest.snapshot.walInsertLsn) <= point.lsn && history.chains.has(manifest.chain ?? "");
      case "before_xid":
        return snapshotView(manifest.snapshot.text).xmin <= point.xid &&
          !snapshotView(manifest.snapshot.text).sees(point.xid) && history.chains.has(manifest.chain ?? "");
      case "end":
        return history.chains.has(manifest.chain ?? "");
    }
  }) ?? null;
}

/** The digits behind the milliseconds. */
function microsOf(moment: string): bigint {
  return BigInt((/\.\d{3}(\d{1,3})/.exec(moment)?.[1] ?? "0").padEnd(3, "0"));
}

/**
 * From a little before the full's position on: a commit can be in the log and not yet seen by the snapshot. What the
 * snapshot saw is left out by its transaction ids, never by positions.
 */
function segmentsAfter(segments: readonly ListedSegment[], full: OpenedBackup): ListedSegment[] {
  const position = parseLsn(full.manifest.snapshot.walInsertLsn);
  const found = segments.findIndex((segment) => segment.endLsn > position);
  const margin = 3;
  let first = Math.max(0, (found < 0 ? segments.length : found) - margin);
  // A later part of a transaction cannot be read without the first.
  while ((segments[first]?.part ?? 0) > 0) first--;
  return segments.slice(first);
}

/** Without a commit behind the point, is it certain that there was none before it? */
function covers(seen: Survey, endLsn: string, point: Point): boolean {
  switch (point.by) {
    case "time":
      return seen.coveredUntil !== null &&
        BigInt(new Date(seen.coveredUntil).getTime()) * 1000n + microsOf(seen.coveredUntil) >= point.at;
    case "lsn":
      return parseLsn(endLsn) >= point.lsn;
    case "before_xid":
      return false;
    case "end":
      return true;
  }
}

function uncovered(history: ChangeHistory, why: string): HoldfastError {
  const timeline = history.timeline();
  const newest = timeline.fulls.at(-1);
  return new HoldfastError("point_uncovered", `${why}; covered: ${describeWindows(timeline)}`, {
    hint: `\`holdfast timeline\` shows all of it; the newest full backup is ${newest?.id} of ${newest?.consistentAt}.`,
  });
}

function checkObstacles(seen: Survey, choices: Required<PointChoices>): void {
  const [first] = seen.obstacles;
  if (first !== undefined) {
    const more = seen.obstacles.length > 1 ? ` (and ${seen.obstacles.length - 1} more)` : "";
    throw new HoldfastError(
      "ddl_not_replayable",
      `${first.what} at ${first.at} (${first.lsn}) cannot be replayed: ${first.why}${more}`,
    );
  }
  const chosen = new Set([...choices.withoutTables, ...choices.atFull]);
  const open = seen.uncovered.filter((table) => !chosen.has(quoteQualified(table.schema, table.name)));
  if (open.length === 0) return;
  const list = open.map((table) => `${quoteQualified(table.schema, table.name)} (${table.reason})`);
  throw new HoldfastError("tables_uncovered", `changes may be missing of ${list.join(", ")}`);
}

export interface PointResult extends Omit<RestoreResult, "updated" | "deleted" | "target"> {
  readonly updated: number;
  readonly deleted: number;
  readonly reachedLsn: string;
  readonly reachedAt: string;
  readonly transactions: number;
}

export interface PointOptions extends RestoreOptions {
  readonly onReplay?: (done: { readonly transactions: number; readonly of: number }) => void;
}

/**
 * Restores the plan's full and replays up to its point. Killed and called again with the same plan it goes on: the place
 * is in the target, in the transaction of what it marks.
 * Errors: those of `restoreBackup` and `replay`; `target_not_empty` where another replay was begun.
 */
export async function restorePoint(
  deps: RestoreDeps,
  plan: PointPlan,
  options: PointOptions = {},
): Promise<PointResult> {
  const startMs = deps.clock.monotonicMs();
  const { manifest } = plan.full;
  const begun = await replayOf(deps);
  if (begun !== null && (begun.backup !== manifest.id || begun.point !== plan.label)) {
    throw new HoldfastError("target_not_empty", `the target holds an unfinished restore to ${begun.point}`, {
      hint: "Go on with that moment, or restore into another database.",
    });
  }
  const restored = begun === null
    ? await restoreBackup(deps, manifest.id, { ...options, afterwards: beginReplay(manifest.id, plan.label) })
    : null;
  const replayed = await replayInto(deps, plan, options);
  const outcome = restored ?? nothingRestored(plan);
  return {
    ...outcome,
    inserted: outcome.inserted + replayed.inserted,
    updated: replayed.updated,
    deleted: replayed.deleted,
    warnings: [
      ...outcome.warnings,
      ...plan.choices.withoutTables.map((table) => `${table} was left out`),
      ...plan.choices.atFull.map((table) => `${table} is as of ${manifest.consistentAt}`),
    ],
    resumed: begun !== null || outcome.resumed,
    reachedLsn: replayed.reachedLsn ?? begun?.position ?? manifest.snapshot.walInsertLsn,
    reachedAt: replayed.reachedAt ?? begun?.reachedAt ?? manifest.consistentAt,
    transactions: replayed.transactions,
    durationMs: Math.round(deps.clock.monotonicMs() - startMs),
  };
}

function nothingRestored(plan: PointPlan): Omit<RestoreResult, "target"> {
  return {
    id: plan.full.manifest.id,
    ok: true,
    inserted: 0,
    updated: 0,
    deleted: 0,
    warnings: [],
    held: [],
    skipped: [],
    rolesCreated: [],
    ownersKept: [],
    settingsLost: [],
    filesNotRestored: 0,
    resumed: true,
    durationMs: 0,
  };
}

/** In the transaction that ends the restore of the full. */
function beginReplay(backup: string, point: string): string[] {
  return [
    `create table ${replayTable} (backup_id uuid not null, point text not null, position text, reached_at text)`,
    `insert into ${replayTable} (backup_id, point) values (${quoteLiteral(backup)}, ${quoteLiteral(point)})`,
  ];
}

interface BegunReplay {
  readonly backup: string;
  readonly point: string;
  readonly position: string | null;
  readonly reachedAt: string | null;
}

async function readReplay(connection: Connection): Promise<BegunReplay | null> {
  if (!(await isReplaying(connection))) return null;
  const [row] = await connection.query(`select backup_id, point, position, reached_at from ${replayTable}`);
  if (row === undefined) return null;
  return {
    backup: row["backup_id"] ?? "",
    point: row["point"] ?? "",
    position: row["position"] ?? null,
    reachedAt: row["reached_at"] ?? null,
  };
}

async function replayOf(deps: RestoreDeps): Promise<BegunReplay | null> {
  const connection = await deps.target.connect("holdfast:restore");
  try {
    return await readReplay(connection);
  } finally {
    await connection.close();
  }
}

async function replayInto(deps: RestoreDeps, plan: PointPlan, options: PointOptions): Promise<Replayed> {
  const snapshot: SnapshotView = snapshotView(plan.full.manifest.snapshot.text);
  const reader = { store: deps.store, compressor: deps.compressor, epochOf: plan.full.epochOf };
  const connection = await openSession(deps.target, "holdfast:replay");
  try {
    // Two replays of one target would both apply what comes after the same place: it is read under the lock.
    await takeRestoreLock(connection);
    const begun = await readReplay(connection);
    if (begun === null || begun.backup !== plan.full.manifest.id || begun.point !== plan.label) {
      throw new HoldfastError("run_state", "another call has gone on with this restore meanwhile");
    }
    const { position } = begun;
    await connection.execute("set session_replication_role = replica; set check_function_bodies = off");
    const left = new Set([...plan.choices.withoutTables, ...plan.choices.atFull]);
    const replayed = await replay(connection, readChain(reader, plan.segments), deps.log, {
      point: plan.point,
      snapshot,
      from: position === null ? null : parseLsn(position),
      leaveOut: left,
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      onGroup: ({ transactions }) => options.onReplay?.({ transactions, of: plan.survey.transactions }),
      markPosition: positionStatement(replayTable),
    });
    await finish(connection, plan);
    return replayed;
  } finally {
    await releaseRestoreLock(connection);
    await connection.close();
  }
}

/** Sequences at or ahead, views made anew, tables that were to be left out; then the state goes, in one transaction. */
async function finish(connection: Connection, plan: PointPlan): Promise<void> {
  await connection.execute("begin");
  try {
    for (const table of plan.choices.withoutTables) await connection.execute(`delete from only ${table}`);
    await setSequences(connection, plan);
    const views = await connection.query(
      `select c.oid::regclass::text as name from pg_catalog.pg_class as c
        where c.relkind = 'm' and c.relispopulated and c.oid >= 16384 order by c.oid`,
    );
    for (const view of views) await connection.execute(`refresh materialized view ${view["name"]}`);
    await connection.execute(`drop table ${replayTable}`);
    const [held] = await connection.query(`select exists (select from ${stateSchema}.held) as held`);
    if (held?.["held"] !== "t") await connection.execute(`drop schema ${stateSchema} cascade`);
    await connection.execute("set local synchronous_commit = on; commit");
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
}

async function setSequences(connection: Connection, plan: PointPlan): Promise<void> {
  for (const { schema, name, lastValue, isCalled } of plan.survey.sequences) {
    // One that the target does not have was made later, or dropped before; one that is ahead stays ahead.
    await connection.query(
      `select pg_catalog.setval(c.oid::regclass, $2::bigint, $3::boolean)
         from pg_catalog.pg_class as c join pg_catalog.pg_sequence as s on s.seqrelid = c.oid
        where c.oid = pg_catalog.to_regclass($1) and c.relkind = 'S'
          and case
            when c.relkind <> 'S' or $2::bigint not between s.seqmin and s.seqmax then false
            when pg_catalog.pg_sequence_last_value(c.oid) is null then true
            when s.seqincrement > 0 then pg_catalog.pg_sequence_last_value(c.oid) <= $2::bigint
            else pg_catalog.pg_sequence_last_value(c.oid) >= $2::bigint
          end`,
      [quoteQualified(schema, name), lastValue, String(isCalled)],
    );
  }
  await passRows(connection);
}

/**
 * A sequence of a column gives no value that a row of its table has: where it was restarted or dropped between the point
 * and the end of the point's segment, no segment says how far it had come.
 */
async function passRows(connection: Connection): Promise<void> {
  const owned = await connection.query(
    `select pg_catalog.format('%I.%I', sn.nspname, sc.relname) as sequence,
            pg_catalog.format('%I.%I', tn.nspname, tc.relname) as owner, pg_catalog.quote_ident(a.attname) as column,
            case when s.seqincrement > 0 then 'max' else 'min' end as furthest, s.seqmin as least, s.seqmax as greatest
       from pg_catalog.pg_sequence as s
       join pg_catalog.pg_class as sc on sc.oid = s.seqrelid
       join pg_catalog.pg_namespace as sn on sn.oid = sc.relnamespace
       join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = sc.oid
         and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
       join pg_catalog.pg_class as tc on tc.oid = d.refobjid and tc.relkind in ('r', 'p')
       join pg_catalog.pg_namespace as tn on tn.oid = tc.relnamespace
       join pg_catalog.pg_attribute as a on a.attrelid = tc.oid and a.attnum = d.refobjsubid
      where sc.oid >= 16384 and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)`,
  );
  for (const { sequence, owner, column, furthest, least, greatest } of owned) {
    const isBehind = furthest === "max" ? "<" : ">";
    await connection.execute(
      `select pg_catalog.setval(${quoteLiteral(sequence ?? "")}::pg_catalog.regclass, t.value)
         from (select pg_catalog.${furthest}(${column})::bigint as value from ${owner}) as t
        where t.value between ${least} and ${greatest}
          and coalesce(pg_catalog.pg_sequence_last_value(${quoteLiteral(sequence ?? "")}::pg_catalog.regclass)
            ${isBehind} t.value, true)`,
    );
  }
}
