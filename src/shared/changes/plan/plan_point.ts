/** Which full backup and which segments give a database as it was at a moment, from the store alone. */
import { HoldfastError } from "../../errors.ts";
import { quarantineOf } from "../../format/manifest.ts";
import type { RestoreDeps } from "../../restore/run.ts";
import { quoteQualified } from "../../schema/quote.ts";
import { backupById, type OpenedBackup } from "../../verify/find_backup.ts";
import { type ListedSegment, marginSegments, readChain, type SegmentReadDeps } from "../segments/chain_reader.ts";
import { sinceFull } from "../segments/coverage.ts";
import { type OpenedSegment, openSegment, type SegmentHeader } from "../segments/segment.ts";
import { momentOf } from "../decode/moment.ts";
import { formatLsn, parseLsn } from "../decode/lsn.ts";
import { meantTables } from "./named_tables.ts";
import { describePoint } from "./point.ts";
import type { TableChoices } from "./project_changes.ts";
import type { Point } from "../replay/replay.ts";
import { type Survey, survey } from "./survey.ts";
import { readTableName } from "./table_name.ts";
import { ChangeHistory, describeWindows, type TimelineGap } from "../segments/timeline.ts";
import { snapshotView } from "../segments/visibility.ts";

export interface PointChoices {
  /**
   * Tables that are not in the result; `schema.name`, quoted where needed: as they are called at the point, or were since
   * the full backup.
   */
  readonly withoutTables?: readonly string[];
  /** Tables that stay as the full backup has them. */
  readonly atFull?: readonly string[];
  /** Ids, shortened or not, of quarantined full backups that may be used: whether somebody accepted one the store cannot know. */
  readonly accepted?: readonly string[];
  /** Which database's backups, as an error names them; absent: the store holds those of one only. */
  readonly source?: string;
  /** Id of the one full backup to start from; absent: the newest that will do. */
  readonly full?: string;
  /** Tables of which a change may be missing stay as the full backup has them, instead of being in the way. */
  readonly uncoveredAtFull?: boolean;
}

/** What a restore to a moment would do, read from the store alone. */
export interface PointPlan {
  readonly point: Point;
  /** As people read it. */
  readonly label: string;
  readonly full: OpenedBackup;
  readonly segments: readonly ListedSegment[];
  readonly survey: Survey;
  /** By their names at the point. */
  readonly choices: TableChoices;
}

/**
 * Chooses the full and reads every segment up to the point, so that whatever is in the way is known before anything is done.
 * Errors: `point_uncovered` with what can be restored, `backup_quarantined` where only a full in quarantine covers the
 * point, `chain_broken`, `ddl_not_replayable`, `tables_uncovered`, `usage` for a table that is not named as `schema.name` or
 * that is both left out and taken as of the full, `backup_not_found` and `backup_ambiguous` for an accepted one and for the source,
 * `object_missing`, `object_damaged`, those of keys and store.
 */
export async function planPoint(deps: RestoreDeps, point: Point, choices: PointChoices = {}): Promise<PointPlan> {
  const made = {
    withoutTables: (choices.withoutTables ?? []).map(asTable),
    atFull: (choices.atFull ?? []).map(asTable),
    uncoveredAtFull: choices.uncoveredAtFull ?? false,
  };
  const history = (await ChangeHistory.read(deps)).of(choices.source ?? null);
  const manifests = history.backups.map(({ manifest }) => manifest);
  const accepted = new Set((choices.accepted ?? []).map((id) => backupById(manifests, id).id));
  const { full: wanted } = choices;
  const backups = wanted === undefined
    ? history.backups
    : history.backups.filter(({ manifest }) => manifest.id === wanted);
  const newest = chooseFull(backups, history, point);
  const usable = backups.filter(({ manifest }) => quarantineOf(manifest) === null || accepted.has(manifest.id));
  const full = chooseFull(usable, history, point);
  try {
    if (full === null) throw uncovered(history, `${labelOf(point)} is before the first full backup`, point);
    // All there is lies on the newest chain.
    if (point.by === "end" && newest?.manifest.chain !== full.manifest.chain) {
      throw uncovered(history, `the chain of full backup ${full.manifest.id} is not the newest`, point);
    }
    return await planFrom(deps, history, full, point, made);
  } catch (error) {
    if (newest === null || newest === full || !isUncovered(error)) throw error;
    const covers = await planFrom(deps, history, newest, point, made).then(() => true, (other) => !isUncovered(other));
    throw covers ? quarantined(newest, point, error) : error;
  }
}

function labelOf(point: Point): string {
  return describePoint(point, momentOf, formatLsn);
}

/** In the form in which the change stream knows it. */
function asTable(text: string): string {
  const { schema, name } = readTableName(text);
  return quoteQualified(schema, name);
}

function isUncovered(error: unknown): boolean {
  return error instanceof HoldfastError && (error.code === "point_uncovered" || error.code === "chain_broken");
}

function quarantined({ manifest }: OpenedBackup, point: Point, cause: unknown): HoldfastError {
  return new HoldfastError(
    "backup_quarantined",
    `${labelOf(point)} is covered by full backup ${manifest.id} only, which was quarantined: ${quarantineOf(manifest)}`,
    { hint: `Look at it; --accepted ${manifest.id} takes it all the same.`, cause },
  );
}

async function planFrom(
  deps: RestoreDeps,
  history: ChangeHistory,
  full: OpenedBackup,
  point: Point,
  choices: MadeChoices,
): Promise<PointPlan> {
  const label = labelOf(point);
  const chain = full.manifest.chain ?? null;
  const known = chain === null ? undefined : history.chains.get(chain);
  if (known?.damage != null) throw known.damage;
  if (known === undefined || known.last === null) {
    throw uncovered(history, `no change after the full backup of ${full.manifest.consistentAt} is stored`, point);
  }
  const snapshot = snapshotView(full.manifest.snapshot.text);
  const reader = { store: deps.store, compressor: deps.compressor, epochOf: full.epochOf };
  if (point.by === "end" && known.beyond !== null) {
    throw new HoldfastError(
      "chain_broken",
      `segment ${known.beyond.name} cannot be reached: the one before it is missing`,
    );
  }
  let segments = segmentsAfter(known.segments, full);
  const [first] = segments;
  if (first === undefined || first.startLsn > parseLsn(full.manifest.snapshot.walInsertLsn)) {
    throw new HoldfastError(
      "chain_broken",
      `the segments between backup ${full.manifest.id} and ${first?.name ?? "the chain's end"} are missing`,
    );
  }
  const look = async () =>
    await survey(
      wholeMargin(
        readChain(reader, await withDefinitions(reader, known.segments, segments, full)),
        known.segments,
        full,
      ),
      point,
      snapshot,
      full.manifest,
    );
  let seen = await look();
  const isShort = () => seen.earliestLabels !== null && seen.earliestLabels < (segments[0]?.startLsn ?? 0n);
  if (isShort()) {
    segments = segmentsFrom(known.segments, seen.earliestLabels ?? 0n);
    seen = await look();
    if (isShort() && !seen.isFromChainStart) {
      throw new HoldfastError(
        "chain_broken",
        `the segments before ${
          segments[0]?.name ?? "the chain's end"
        } are missing: labels of enums may have been renamed ` +
          "there, while rows were written that were committed later",
      );
    }
  }
  if (!seen.passedPoint && !covers(seen, known.last.endLsn, point)) {
    // Asked last: the server's clock may be ahead of this one's.
    const isFuture = point.by === "time" && point.at > BigInt(deps.clock.now().getTime()) * 1000n;
    throw uncovered(history, `${label} is ${isFuture ? "in the future" : "behind what is stored of its chain"}`, point);
  }
  const chosen = chosenAtPoint(seen, choices);
  checkObstacles(seen, chosen);
  return { point, label, full, segments, survey: seen, choices: chosen };
}

interface MadeChoices extends TableChoices {
  readonly uncoveredAtFull: boolean;
}

function chosenAtPoint(seen: Survey, choices: MadeChoices): TableChoices {
  const withoutTables = meantTables(seen, choices.withoutTables).names;
  const open = choices.uncoveredAtFull ? seen.uncovered.map(({ schema, name }) => quoteQualified(schema, name)) : [];
  const atFull = [
    ...new Set([...meantTables(seen, choices.atFull).names, ...open.filter((one) => !withoutTables.includes(one))]),
  ];
  const both = withoutTables.find((table) => atFull.includes(table));
  if (both === undefined) return { withoutTables, atFull };
  throw new HoldfastError("usage", `${both} is to be left out, and to be as of the full backup`);
}

/** The newest of `backups` that is no later than the point. */
function chooseFull(backups: readonly OpenedBackup[], history: ChangeHistory, point: Point): OpenedBackup | null {
  return backups.find(({ manifest }) => {
    switch (point.by) {
      case "time":
        return BigInt(new Date(manifest.consistentAt).getTime()) * 1000n + microsOf(manifest.consistentAt) <= point.at;
      case "lsn":
        return parseLsn(manifest.snapshot.walInsertLsn) <= point.lsn && history.chains.has(manifest.chain ?? "");
      case "before_xid":
        return snapshotView(manifest.snapshot.text).xmin <= point.xid &&
          !snapshotView(manifest.snapshot.text).sees(point.xid) && history.chains.has(manifest.chain ?? "");
      // An older one with a chain that goes on would give an older state.
      case "end":
        return true;
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
  let first = Math.max(0, (found < 0 ? segments.length : found) - marginSegments);
  // A later part of a transaction cannot be read without the first.
  while ((segments[first]?.part ?? 0) > 0) first--;
  return segments.slice(first);
}

/**
 * Of a whole chain those that a restore to its end can ask for, from the full backup on. Few of them are opened: the rows of
 * a transaction that the full does not hold lie behind a segment that was taken before the first such transaction had an
 * id, so what renamed their labels is in one of these. A drain writes down its lease before it asks for the next id, which
 * is therefore beyond that of whoever had one by then. Errors: those of opening a segment.
 */
export async function segmentsForPoint(
  reader: SegmentReadDeps,
  all: readonly ListedSegment[],
  full: OpenedBackup,
): Promise<readonly ListedSegment[]> {
  const { xmin } = snapshotView(full.manifest.snapshot.text);
  return await reachingBack(
    reader,
    all,
    segmentsAfter(all, full),
    (header) => knowsDefinitions(header, full) && BigInt(header.nextXid) <= xmin,
  );
}

/** From the one with this position on, or the first that is there. */
function segmentsFrom(segments: readonly ListedSegment[], position: bigint): ListedSegment[] {
  let first = Math.max(0, segments.findIndex((segment) => segment.endLsn > position));
  while ((segments[first]?.part ?? 0) > 0) first--;
  return segments.slice(first);
}

/**
 * With more before them, where nobody logged definitions: what they were before the full is known by a segment that was taken
 * before it, and a drain that was behind took those of the margin later.
 */
async function withDefinitions(
  reader: SegmentReadDeps,
  all: readonly ListedSegment[],
  segments: readonly ListedSegment[],
  full: OpenedBackup,
): Promise<readonly ListedSegment[]> {
  return await reachingBack(reader, all, segments, (header) => knowsDefinitions(header, full));
}

function knowsDefinitions(header: SegmentHeader, { manifest }: OpenedBackup): boolean {
  return header.definitions?.logged !== false || sinceFull([header], manifest).since !== "";
}

/** `segments`, the last ones of `all`, with as many before them as it takes until the oldest `isEarly`, or is the first. */
async function reachingBack(
  reader: SegmentReadDeps,
  all: readonly ListedSegment[],
  segments: readonly ListedSegment[],
  isEarly: (oldest: SegmentHeader) => boolean,
): Promise<readonly ListedSegment[]> {
  for (let first = all.length - segments.length, step = 4;; first = Math.max(0, first - step), step *= 2) {
    while ((all[first]?.part ?? 0) > 0) first--;
    const wanted = all.slice(first);
    const [oldest] = wanted;
    if (oldest === undefined) return segments;
    const { header } = await openSegment(reader, oldest.name, await reader.store.read(oldest.name));
    if (isEarly(header) || first === 0) return wanted;
  }
}

/** Errors: `chain_broken` where the chain had segments of the margin that are not there. */
async function* wholeMargin(
  opened: AsyncIterable<OpenedSegment>,
  segments: readonly ListedSegment[],
  full: OpenedBackup,
): AsyncGenerator<OpenedSegment> {
  const position = parseLsn(full.manifest.snapshot.walInsertLsn);
  const before = segments.filter((segment) => segment.endLsn <= position).length;
  let isFirst = true;
  for await (const segment of opened) {
    if (isFirst && before < marginSegments && segment.header.previous !== null) {
      throw new HoldfastError(
        "chain_broken",
        `the segments before ${segment.name} are missing: a transaction that backup ${full.manifest.id} does not hold ` +
          "may be in them",
      );
    }
    isFirst = false;
    yield segment;
  }
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

function uncovered(history: ChangeHistory, why: string, point: Point): HoldfastError {
  const timeline = history.timeline();
  const asked = point.by === "time" ? momentOf(point.at) : null;
  const before = timeline.fulls.filter((full) => asked === null || full.consistentAt <= asked).at(-1);
  const nearest = before === undefined
    ? "there is no full backup before it"
    : `the newest full backup ${asked === null ? "" : "before it "}is ${before.id} of ${before.consistentAt}`;
  const gap = asked === null ? undefined : timeline.gaps.find(({ from, to }) => from < asked && asked < to);
  const within = gap === undefined ? "" : `, in the gap from ${gap.from} to ${gap.to}${reasonOf(gap)}`;
  return new HoldfastError("point_uncovered", `${why}${within}; covered: ${describeWindows(timeline)}`, {
    hint: `\`holdfast timeline\` shows all of it; ${nearest}.`,
  });
}

function reasonOf({ reason }: TimelineGap): string {
  return reason === undefined ? "" : ` (${reason})`;
}

function checkObstacles(seen: Survey, choices: TableChoices): void {
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
