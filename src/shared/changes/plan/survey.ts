/** Reads the segments that a replay would use, before anything is done to a target. */
import { quoteQualified, splitQualified, unquoteIdent } from "../../schema/quote.ts";
import {
  leftTables,
  sinceFull,
  type UncoveredTable,
  uncoveredTables,
  type UnsettledTable,
  unsettledTables,
} from "../segments/coverage.ts";
import { unloggedDefinitions } from "../segments/unlogged.ts";
import {
  type ClosedTable,
  type DdlRow,
  DdlTransaction,
  isTableFromQuery,
  namesOf,
  readDdlRow,
  tablesOf,
} from "../definitions/ddl_replay.ts";
import { momentOf } from "../decode/moment.ts";
import { formatLsn, parseLsn } from "../decode/lsn.ts";
import type { Lsn, Relation } from "../decode/messages.ts";
import { decodeMessage, messageKind, relationOf } from "../decode/pgoutput.ts";
import type { Manifest } from "../../format/manifest.ts";
import { type FileChanges, SeenFiles } from "./file_changes.ts";
import { asNamed, followNames } from "./follow_names.ts";
import { hasOwnTypes, RenamedLabels } from "./renamed_labels.ts";
import { type NamedTables, TableNames } from "./named_tables.ts";
import { comesOutOfSide } from "./side_schemas.ts";
import type { Point } from "../replay/replay.ts";
import { type SeenDefinitions, type SeenTable, SeenTables } from "./seen_tables.ts";
import { furthestValues } from "../segments/furthest_values.ts";
import { type OpenedSegment, readRecords, type SegmentHeader } from "../segments/segment.ts";
import { ddlLog, isStreamedSchema } from "../segments/streamed.ts";
import { type SnapshotView, widenXid } from "../segments/visibility.ts";

/** DDL that no replay can do, with its place. */
export interface Obstacle {
  readonly what: string;
  readonly lsn: string;
  readonly at: string;
  readonly why: string;
}

export interface Survey extends NamedTables {
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
  /** The first position of a row that may hold labels of enums: they are those of there, whenever it was committed. */
  readonly earliestLabels: Lsn | null;
  /** The first of the segments is that of the chain. */
  readonly isFromChainStart: boolean;
  /** Rows of the DDL log whose tables have changes before them in their transaction, by the position of its commit. */
  readonly bornLate: ReadonlyMap<bigint, readonly DdlRow[]>;
  /** Former names of tables, by the ids of the rows of the DDL log that renamed them. */
  readonly renames: ReadonlyMap<string, string>;
  /** Tables of a project's services that change. */
  readonly serviceTables: readonly SeenTable[];
  /** Rows of storage.objects that came, changed or went. */
  readonly files: FileChanges;
  readonly definitions: SeenDefinitions;
  /** Tables of which a change may be missing, as they are called at the point. */
  readonly uncovered: readonly UncoveredTable[];
  /** Oids of tables of which changes are missing and that were dropped before the point. */
  readonly forsaken: ReadonlySet<number>;
  /** Tables of which a change may not have been counted. None of `uncovered`. */
  readonly unsettled: readonly UnsettledTable[];
  /** Objects that got another owner around the point: a drain noticed it behind the point, and the last one before did not. */
  readonly unsettledOwners: readonly string[];
  /**
   * Where the sequences stood whenever a segment up to the point's was taken, several values of one where it moved: one
   * that was restarted or dropped right behind the point is known by an earlier value only.
   */
  readonly sequences: SegmentHeader["sequences"];
  /** Of these nobody could read the value at the point: what is known of them is older. `schema.name`, quoted where needed. */
  readonly heldSequences: readonly string[];
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
  /** By oid, or by name where the log does not tell it. */
  readonly #closed = new Map<number | string, { readonly name: string; readonly reason: string }>();
  /** That got a replica identity, by oid, with the place. */
  readonly #doubted = new Map<number, string>();
  /** Of the transaction that is read. */
  readonly #made = new Set<number>();
  readonly #bornLate = new Map<bigint, DdlRow[]>();
  readonly #renames = new Map<string, string>();
  /** At the place that is read. */
  readonly #tables: TableNames;
  /** Whose rows are in the full, or in the stream since they were made: not those that came with an extension. */
  readonly #own: Set<number>;
  /** As the stream told them. */
  readonly #relations = new Map<number, Relation>();
  #commitLsn = 0n;
  #logRelation: Relation | null = null;
  #skips = false;
  #ddl: DdlTransaction | null = null;
  #place = { lsn: "", at: "" };
  #counts = { transactions: 0, changes: 0, ddl: 0 };
  #reached: { lsn: string; at: string } | null = null;
  #passed = false;
  /** Of the first commit behind the point. */
  #passedAt: string | null = null;
  readonly #seen = new SeenTables();
  readonly #files = new SeenFiles();
  readonly #labels = new RenamedLabels();
  readonly #unsettledOwners = new Set<string>();
  #earliestLabels: Lsn | null = null;

  constructor(point: Point, snapshot: SnapshotView, full: Pick<Manifest, "consistentAt" | "snapshot" | "tables">) {
    this.#full = full;
    this.#tables = new TableNames(full.tables);
    this.#own = new Set(full.tables.map(({ oid }) => oid));
    this.#point = point;
    this.#snapshot = snapshot;
  }

  get done(): boolean {
    return this.#passed;
  }

  take(segment: OpenedSegment): void {
    this.#headers.push(segment.header);
    const nextXid = BigInt(segment.header.nextXid);
    for (const { data, lsn } of readRecords(segment.name, segment.records)) {
      if (this.#passed) {
        this.#lookBehind(data);
        continue;
      }
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
          if (!this.#skips) this.#change(data, lsn);
          else this.#passLabels(data);
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
    const headers = this.#headers.map((header) => ({
      ...header,
      uncovered: header.uncovered.filter(({ oid, ofExtension }) => ofExtension !== true || this.#own.has(oid ?? -1)),
    }));
    const uncovered = this.#uncovered(headers);
    const last = headers.at(-1);
    // From the last header that was taken before the full: what changed until then is in the full.
    const since = sinceFull(this.#headersToPoint(), this.#full);
    const unlogged = unloggedDefinitions(since.headers, since.since !== "");
    return {
      ...this.#counts,
      reachedLsn: this.#reached?.lsn ?? null,
      reachedAt: this.#reached?.at ?? null,
      passedPoint: this.#passed,
      coveredUntil: last?.takenAt ?? null,
      earliestLabels: this.#earliestLabels,
      isFromChainStart: this.#headers[0]?.previous == null,
      bornLate: this.#bornLate,
      renames: this.#renames,
      tables: this.#tables.tables,
      formerNames: this.#tables.formerNames,
      obstacles: unlogged === null ? this.#obstacles : [...this.#obstacles, unlogged],
      serviceTables: this.#seen.tables,
      files: this.#files.changes,
      definitions: this.#seen.definitions,
      uncovered: [...uncovered.values()],
      forsaken: new Set([...this.#closed.keys()].filter((key) => this.#isForsaken(key))),
      unsettled: this.#unsettled(headers, new Set(uncovered.keys())),
      unsettledOwners: [...this.#unsettledOwners].sort(),
      sequences: furthestValues(this.#headers),
      heldSequences: (last?.heldSequences ?? []).map(({ schema, name }) => quoteQualified(schema, name)),
    };
  }

  #isForsaken(key: number | string): key is number {
    return typeof key === "number" && this.#tables.isDropped(key);
  }

  /** By their names at the point. */
  #uncovered(all: readonly SegmentHeader[]): Map<string, UncoveredTable> {
    const found = new Map<string, UncoveredTable>();
    const add = (now: string, listed: string, reason: string) => {
      const other = `${this.#tables.wasNamed(listed) ? "formerly" : "later"} ${listed}: `;
      found.set(now, { ...partsOf(now), reason: now === listed ? reason : `${other}${reason}` });
    };
    for (const [key, { name, reason }] of this.#closed) {
      if (this.#isForsaken(key)) continue;
      const now = typeof key === "number" ? this.#tables.tables.get(key) : undefined;
      for (const each of now === undefined ? this.#tables.everNamed(name) : [now]) add(each, name, reason);
    }
    const { headers, since } = sinceFull(all, this.#full);
    for (const table of uncoveredTables(headers, since)) {
      const listed = quoteQualified(table.schema, table.name);
      for (const now of this.#tables.listedAs(table)) add(now, listed, table.reason);
    }
    return found;
  }

  /** By their names at the point, each once. */
  #unsettled(all: readonly SegmentHeader[], uncovered: ReadonlySet<string>): UnsettledTable[] {
    const { headers } = sinceFull(all, this.#full);
    const here = new Set(this.#tables.tables.values());
    const left = leftTables(headers, (listed) => this.#tables.listedAs(listed)).filter((name) => here.has(name));
    const doubted = [...this.#doubted].flatMap(([oid, reason]) => {
      const name = this.#tables.tables.get(oid);
      return name === undefined ? [] : [[name, reason] as const];
    });
    const found = new Map<string, UnsettledTable>();
    for (const [name, reason] of [...left.map((one) => [one, "it got a replica identity"] as const), ...doubted]) {
      found.set(name, { ...partsOf(name), reason, before: "identity" });
    }
    for (const table of unsettledTables(all.at(-1), this.#momentOfPoint())) {
      const { reason, before } = table;
      for (const now of this.#tables.listedAs(table)) found.set(now, { ...partsOf(now), reason, before });
    }
    return [...found].flatMap(([name, table]) => uncovered.has(name) ? [] : [table]);
  }

  /** Up to the first that was taken behind the point: definitions that are the same there were at the point. */
  #headersToPoint(): readonly SegmentHeader[] {
    const point = this.#point;
    const at = point.by === "time" ? momentOf(point.at) ?? "" : null;
    const last = this.#headers.findIndex(({ takenAt, endLsn }) =>
      at !== null ? takenAt >= at : point.by === "lsn" && parseLsn(endLsn) >= point.lsn
    );
    return last < 0 ? this.#headers : this.#headers.slice(0, last + 1);
  }

  /** A moment that no commit before the point is later than; null: it is as late as can be. */
  #momentOfPoint(): string | null {
    const point = this.#point;
    if (point.by === "time") return momentOf(point.at);
    // What the stream does not carry may have been committed behind the last commit that it does.
    const header = point.by === "lsn"
      ? this.#headers.find(({ endLsn }) => parseLsn(endLsn) >= point.lsn)
      : this.#headers.at(-1);
    const moments = [header?.takenAt, this.#passedAt ?? undefined].filter((one) => one !== undefined).sort();
    return moments[0] ?? null;
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
    if (this.#passed) this.#passedAt = momentOf(message.committedAt);
  }

  /** What tables are called behind the point: the list of the segment is read from the catalog at its end. */
  #lookBehind(data: Uint8Array): void {
    const kind = messageKind(data);
    if (kind === "relation") return this.#relation(data);
    const row = kind === "insert" ? this.#ddlRowOf(data) : null;
    if (row === null) return;
    for (const { type, oid, identity } of row.objects) {
      if (type !== "table" || oid == null || identity === null) continue;
      this.#tables.laterNamed(oid, identity);
      if (isMaking(row)) this.#tables.laterMade(oid);
    }
    if (row.what === "doubted") this.#doubt(row);
    const { since } = row.settings;
    if (since !== undefined && since <= (this.#momentOfPoint() ?? "9")) {
      for (const { identity } of row.objects) this.#unsettledOwners.add(identity ?? "");
    }
    if (row.what !== "uncovered") return;
    // What was not published can have been changed before the point, of a table that is there by then.
    const step = new DdlTransaction().next(row);
    if (step.do !== "close") return;
    this.#close(row, step.tables.filter(({ oid }) => oid != null && this.#tables.tables.has(oid)), step.names);
  }

  #relation(data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind !== "relation") return;
    const { relation } = message;
    if (relation.schema === ddlLog.schema && relation.name === ddlLog.name) this.#logRelation = relation;
    if (this.#passed) return this.#tables.laterNamed(relation.oid, quoteQualified(relation.schema, relation.name));
    this.#relations.set(relation.oid, relation);
    this.#seen.relation(asNamed(this.#tables, relation));
    this.#files.relation(relation);
  }

  /** Of a transaction that the full holds: labels that it renamed may stand in rows that come behind it. */
  #passLabels(data: Uint8Array): void {
    const row = this.#ddlRowOf(data);
    if (row !== null) this.#labels.follow(row, (this.#ddl ??= new DdlTransaction()).next(row), this.#commitLsn);
  }

  #lookAtLabels(relation: Relation, lsn: Lsn): void {
    const unclear = this.#labels.unclearFor(relation, lsn, this.#commitLsn);
    if (unclear !== null && this.#obstacles.every(({ lsn: place }) => place !== this.#place.lsn)) {
      const why = "its labels were renamed inside a function while these rows were written";
      this.#obstacles.push({ what: `rows with labels of ${unclear}`, ...this.#place, why });
    }
    const isEarlier = this.#earliestLabels === null || lsn < this.#earliestLabels;
    if (isEarlier && hasOwnTypes(relation)) this.#earliestLabels = lsn;
  }

  #change(data: Uint8Array, lsn: Lsn): void {
    const oid = relationOf(data);
    if (oid === null || oid !== this.#logRelation?.oid) {
      this.#counts.changes++;
      this.#seen.change(oid, data);
      this.#files.change(oid, data);
      const relation = oid === null ? undefined : this.#relations.get(oid);
      if (relation !== undefined) this.#lookAtLabels(relation, lsn);
      return;
    }
    const row = this.#ddlRowOf(data);
    if (row === null) return;
    this.#counts.ddl++;
    const step = (this.#ddl ??= new DdlTransaction()).next(row);
    this.#labels.follow(row, step, this.#commitLsn);
    if (row.what === "doubted") this.#doubt(row);
    const why = comesOutOfSide(row, step, (oid) => this.#tables.tables.has(oid));
    if (why !== null) this.#obstacles.push({ what: namesOf(row), ...this.#place, why });
    for (const { type, oid, extension } of row.objects) {
      if (type !== "table" || oid == null || !isMaking(row)) continue;
      this.#made.add(oid);
      if (extension !== true) this.#own.add(oid);
    }
    const former = followNames(this.#tables, row, step);
    if (former !== null) this.#renames.set(row.id, former);
    if (row.tag === "ALTER SCHEMA") {
      for (const relation of this.#relations.values()) this.#seen.relation(asNamed(this.#tables, relation));
    }
    if (step.do === "define" && isTableFromQuery(row)) {
      this.#bornLate.set(this.#commitLsn, [...this.#bornLate.get(this.#commitLsn) ?? [], row]);
    }
    if (step.do === "run" || step.do === "define") this.#seen.definition(row);
    if (step.do === "refuse") this.#obstacles.push({ what: step.names, ...this.#place, why: step.why });
    if (step.do === "close") this.#close(row, step.tables, step.names);
  }

  #close(row: DdlRow, tables: readonly ClosedTable[], names: string): void {
    for (const { name, oid } of tables) {
      const travels = row.what !== "uncovered" || isStreamedSchema(partsOf(name).schema);
      // It never was in a schema that does.
      if (!travels && (oid === null || !this.#tables.tables.has(oid))) continue;
      const what = !travels
        ? "moved it to where no changes are recorded"
        : row.what === "uncovered"
        ? "found changes that were not published"
        : "computed its values anew";
      this.#closed.set(oid ?? name, { name, reason: `${names} at ${this.#place.lsn} ${what}` });
    }
  }

  /** Nobody else has seen what this transaction made. */
  #doubt(row: DdlRow): void {
    for (const { oid } of tablesOf(row)) {
      if (oid !== null && !this.#made.has(oid)) this.#doubted.set(oid, `${namesOf(row)} at ${this.#place.lsn}`);
    }
  }

  /** Null for a change of another table than the DDL log. */
  #ddlRowOf(data: Uint8Array): DdlRow | null {
    const relation = this.#logRelation;
    if (relation === null || relationOf(data) !== relation.oid) return null;
    const message = decodeMessage(data);
    if (message.kind !== "insert") return null;
    return readDdlRow(
      new Map(relation.columns.map((column, index) => {
        const value = message.row[index];
        return [column.name, typeof value === "string" ? value : null] as const;
      })),
    );
  }

  #commit(data: Uint8Array): void {
    const message = decodeMessage(data);
    this.#ddl = null;
    this.#made.clear();
    if (message.kind !== "commit" || this.#skips) return;
    this.#counts.transactions++;
    this.#reached = { lsn: formatLsn(message.endLsn), at: momentOf(message.committedAt) ?? "" };
  }
}

/** Does the row tell of tables that are made? */
function isMaking(row: DdlRow): boolean {
  return row.what === "command" && (row.tag.startsWith("CREATE TABLE") || row.tag === "SELECT INTO");
}

/** `schema.name` as the log has it, for a message. */
function partsOf(identity: string): { readonly schema: string; readonly name: string } {
  const [schema, name] = splitQualified(identity) ?? ["", identity];
  return { schema: unquoteIdent(schema), name: unquoteIdent(name) };
}
