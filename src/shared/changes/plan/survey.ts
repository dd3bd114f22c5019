/** Reads the segments that a replay would use, before anything is done to a target. */
import { quoteQualified, splitQualified, unquoteIdent } from "../../schema/quote.ts";
import { sinceFull, type UncoveredTable, uncoveredTables, unsettledTables } from "../segments/coverage.ts";
import { unloggedDefinitions } from "../segments/unlogged.ts";
import { type DdlRow, DdlTransaction, isTableFromQuery, readDdlRow } from "../definitions/ddl_replay.ts";
import { momentOf } from "../decode/moment.ts";
import { formatLsn } from "../decode/lsn.ts";
import type { Relation } from "../decode/messages.ts";
import { decodeMessage, messageKind, relationOf } from "../decode/pgoutput.ts";
import type { Manifest } from "../../format/manifest.ts";
import type { Point } from "../replay/replay.ts";
import { type SeenDefinitions, type SeenTable, SeenTables } from "./seen_tables.ts";
import { type OpenedSegment, readRecords, type SegmentHeader } from "../segments/segment.ts";
import { ddlLog } from "../segments/streamed.ts";
import { type SnapshotView, widenXid } from "../segments/visibility.ts";

/** DDL that no replay can do, with its place. */
export interface Obstacle {
  readonly what: string;
  readonly lsn: string;
  readonly at: string;
  readonly why: string;
}

export interface Survey {
  /** Transactions that the full does not hold, up to the point. */
  readonly transactions: number;
  readonly changes: number;
  /** Commands that change definitions. */
  readonly ddl: number;
  /** Of the last of these transactions. */
  readonly reachedLsn: string | null;
  readonly reachedAt: string | null;
  readonly passedPoint: boolean;
  /** When the last segment was taken: every commit before it is in them. */
  readonly coveredUntil: string | null;
  readonly obstacles: readonly Obstacle[];
  /** Rows of the DDL log whose tables have changes before them in their transaction, by the position of its commit. */
  readonly bornLate: ReadonlyMap<bigint, readonly DdlRow[]>;
  /** Former names of tables, by the ids of the rows of the DDL log that renamed them. */
  readonly renames: ReadonlyMap<string, string>;
  /** Names of the tables at the point, by oid: those of the full and those that a command made or renamed since. */
  readonly tables: ReadonlyMap<number, string>;
  /** Tables of a project's services that change. */
  readonly serviceTables: readonly SeenTable[];
  readonly definitions: SeenDefinitions;
  /** Tables of which a change may be missing. */
  readonly uncovered: readonly UncoveredTable[];
  /** Tables of which a change in the last minute before the point may not have been counted. None of `uncovered`. */
  readonly unsettled: readonly UncoveredTable[];
  /**
   * Where the sequences stood whenever a segment up to the point's was taken, several values of one where it moved: one
   * that was restarted or dropped right behind the point is known by an earlier value only.
   */
  readonly sequences: SegmentHeader["sequences"];
}

/** `full`: the backup that `snapshot` is of. Errors: those of reading the segments. */
export async function survey(
  segments: AsyncIterable<OpenedSegment>,
  point: Point,
  snapshot: SnapshotView,
  full: Pick<Manifest, "consistentAt" | "snapshot" | "tables">,
): Promise<Survey> {
  const surveyor = new Surveyor(point, snapshot, full);
  for await (const segment of segments) {
    surveyor.take(segment);
    if (surveyor.done) break;
  }
  return surveyor.result();
}

class Surveyor {
  readonly #point: Point;
  readonly #snapshot: SnapshotView;
  readonly #full: Pick<Manifest, "consistentAt" | "snapshot">;
  readonly #headers: SegmentHeader[] = [];
  readonly #obstacles: Obstacle[] = [];
  readonly #closed = new Map<string, string>();
  readonly #bornLate = new Map<bigint, DdlRow[]>();
  readonly #renames = new Map<string, string>();
  /** Names of the tables at the place that is read, by oid. */
  readonly #tables = new Map<number, string>();
  #commitLsn = 0n;
  #logRelation: Relation | null = null;
  readonly #names = new Map<number, string>();
  #skips = false;
  #ddl: DdlTransaction | null = null;
  #place = { lsn: "", at: "" };
  #counts = { transactions: 0, changes: 0, ddl: 0 };
  #reached: { lsn: string; at: string } | null = null;
  #passed = false;
  readonly #uncovered = new Map<string, UncoveredTable>();
  readonly #seen = new SeenTables();

  constructor(point: Point, snapshot: SnapshotView, full: Pick<Manifest, "consistentAt" | "snapshot" | "tables">) {
    this.#full = full;
    for (const { oid, schema, name } of full.tables) this.#tables.set(oid, quoteQualified(schema, name));
    this.#point = point;
    this.#snapshot = snapshot;
  }

  get done(): boolean {
    return this.#passed;
  }

  take(segment: OpenedSegment): void {
    this.#headers.push(segment.header);
    const nextXid = BigInt(segment.header.nextXid);
    for (const { data } of readRecords(segment.name, segment.records)) {
      if (this.#passed) return;
      switch (messageKind(data)) {
        case "begin":
          this.#begin(data, nextXid);
          break;
        case "relation":
          this.#relation(data);
          break;
        case "insert":
        case "update":
        case "delete":
        case "truncate":
          if (!this.#skips) this.#change(data);
          break;
        case "commit":
          this.#commit(data);
          break;
        default:
          break;
      }
    }
  }

  result(): Survey {
    const { headers, since } = sinceFull(this.#headers, this.#full);
    for (const table of uncoveredTables(headers, since)) {
      this.#uncovered.set(quoteQualified(table.schema, table.name), table);
    }
    const last = this.#headers.at(-1);
    const unlogged = unloggedDefinitions(headers, "");
    return {
      ...this.#counts,
      reachedLsn: this.#reached?.lsn ?? null,
      reachedAt: this.#reached?.at ?? null,
      passedPoint: this.#passed,
      coveredUntil: last?.takenAt ?? null,
      bornLate: this.#bornLate,
      renames: this.#renames,
      tables: this.#tables,
      obstacles: unlogged === null ? this.#obstacles : [...this.#obstacles, unlogged],
      serviceTables: this.#seen.tables,
      definitions: this.#seen.definitions,
      uncovered: [...this.#uncovered.values()],
      unsettled: unsettledTables(last, this.#momentOfPoint()).filter(({ schema, name }) =>
        !this.#uncovered.has(quoteQualified(schema, name))
      ),
      sequences: furthestValues(this.#headers),
    };
  }

  #momentOfPoint(): string | null {
    return this.#point.by === "time" ? momentOf(this.#point.at) : this.#reached?.at ?? null;
  }

  #begin(data: Uint8Array, nextXid: bigint): void {
    const message = decodeMessage(data);
    if (message.kind !== "begin") return;
    const xid = widenXid(message.xid, nextXid);
    this.#skips = this.#snapshot.sees(xid);
    this.#commitLsn = message.commitLsn;
    this.#place = { lsn: formatLsn(message.commitLsn), at: momentOf(message.committedAt) ?? "" };
    if (this.#skips) return;
    const point = this.#point;
    this.#passed = (point.by === "time" && message.committedAt > point.at) ||
      (point.by === "lsn" && message.commitLsn >= point.lsn) || (point.by === "before_xid" && xid === point.xid);
  }

  #relation(data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind !== "relation") return;
    const { relation } = message;
    this.#names.set(relation.oid, quoteQualified(relation.schema, relation.name));
    this.#seen.relation(relation);
    if (relation.schema === ddlLog.schema && relation.name === ddlLog.name) this.#logRelation = relation;
  }

  #change(data: Uint8Array): void {
    const oid = relationOf(data);
    if (oid === null || oid !== this.#logRelation?.oid) {
      this.#counts.changes++;
      this.#seen.change(oid, data);
      const name = oid === null ? undefined : this.#names.get(oid);
      const reason = name === undefined ? undefined : this.#closed.get(name);
      if (name !== undefined && reason !== undefined && !this.#uncovered.has(name)) {
        this.#uncovered.set(name, { ...partsOf(name), reason });
      }
      return;
    }
    const message = decodeMessage(data);
    if (message.kind !== "insert" || this.#logRelation === null) return;
    const row = readDdlRow(
      new Map(this.#logRelation.columns.map((column, index) => {
        const value = message.row[index];
        return [column.name, typeof value === "string" ? value : null] as const;
      })),
    );
    this.#counts.ddl++;
    const step = (this.#ddl ??= new DdlTransaction()).next(row);
    for (const { type, oid, identity } of row.objects) {
      if (type !== "table" || oid == null || identity === null) continue;
      const former = this.#tables.get(oid);
      if (former !== undefined && former !== identity) this.#renames.set(row.id, former);
      if (row.what === "drop") this.#tables.delete(oid);
      else this.#tables.set(oid, identity);
    }
    if (step.do === "define" && isTableFromQuery(row)) {
      this.#bornLate.set(this.#commitLsn, [...this.#bornLate.get(this.#commitLsn) ?? [], row]);
    }
    if (step.do === "run" || step.do === "define") this.#seen.definition(row);
    if (step.do === "refuse") this.#obstacles.push({ what: step.names, ...this.#place, why: step.why });
    if (step.do === "close") {
      for (const table of step.tables) {
        const reason = `${step.names} at ${this.#place.lsn} computed its values anew`;
        this.#closed.set(table, reason);
        this.#uncovered.set(table, { ...partsOf(table), reason });
      }
    }
  }

  #commit(data: Uint8Array): void {
    const message = decodeMessage(data);
    this.#ddl = null;
    if (message.kind !== "commit" || this.#skips) return;
    this.#counts.transactions++;
    this.#reached = { lsn: formatLsn(message.endLsn), at: momentOf(message.committedAt) ?? "" };
  }
}

/** The least and the greatest of each: which of them is ahead depends on the sequence's direction. */
function furthestValues(headers: readonly SegmentHeader[]): SegmentHeader["sequences"] {
  type Standing = SegmentHeader["sequences"][number];
  const ends = new Map<string, { least: Standing; greatest: Standing }>();
  for (const standing of headers.flatMap((header) => header.sequences)) {
    const key = JSON.stringify([standing.schema, standing.name]);
    const known = ends.get(key);
    const value = BigInt(standing.lastValue);
    if (known === undefined) ends.set(key, { least: standing, greatest: standing });
    // Of equal values the one that was handed out counts.
    else if (value < BigInt(known.least.lastValue) || (value === BigInt(known.least.lastValue) && standing.isCalled)) {
      ends.set(key, { ...known, least: standing });
    }
    const now = ends.get(key);
    const isGreater = now !== undefined && (value > BigInt(now.greatest.lastValue) ||
      (value === BigInt(now.greatest.lastValue) && standing.isCalled));
    if (isGreater) ends.set(key, { ...now, greatest: standing });
  }
  return [...ends.values()].flatMap(({ least, greatest }) => least === greatest ? [greatest] : [least, greatest]);
}

/** `schema.name` as the log has it, for a message. */
function partsOf(identity: string): { readonly schema: string; readonly name: string } {
  const [schema, name] = splitQualified(identity) ?? ["", identity];
  return { schema: unquoteIdent(schema), name: unquoteIdent(name) };
}
