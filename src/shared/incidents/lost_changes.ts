/** What a stretch of the change stream did to tables: counts by table, and the transactions that took most. Pure; keeps no row's value. */
import { formatLsn } from "../changes/decode/lsn.ts";
import type { Begin, Relation } from "../changes/decode/messages.ts";
import { momentOf } from "../changes/decode/moment.ts";
import { decodeMessage, messageKind, relationOf } from "../changes/decode/pgoutput.ts";
import { readDdlRow } from "../changes/definitions/ddl_replay.ts";
import { type OpenedSegment, readRecords } from "../changes/segments/segment.ts";
import { ddlLog } from "../changes/segments/streamed.ts";
import { widenXid } from "../changes/segments/visibility.ts";
import { quoteQualified } from "../schema/quote.ts";

/** Of one table, in one transaction or in the whole stretch. */
export interface TableChanges {
  /** `schema.name`, quoted where needed. */
  readonly table: string;
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
  /** How often all of its rows were taken away; the stream does not tell how many there were. */
  readonly truncated: number;
}

export interface ChangedTable extends TableChanges {
  /** Commits of the first and the last change of it. ISO 8601 with microseconds. */
  readonly firstAt: string;
  readonly lastAt: string;
}

export interface SeenTransaction {
  /** 64 bits, as `restore-point --before-xid` takes it. */
  readonly xid: string;
  /** Of its commit record. */
  readonly lsn: string;
  /** ISO 8601 with microseconds. */
  readonly committedAt: string;
  readonly tables: readonly TableChanges[];
  /** Tables that it dropped, quoted where needed. */
  readonly droppedTables: readonly string[];
  /** `schema.table.column` of tables that it did not drop. */
  readonly droppedColumns: readonly string[];
}

export interface LostChanges {
  /** In the order of their names. */
  readonly tables: readonly ChangedTable[];
  /** Transactions with a drop or a TRUNCATE, newest first, then those that took or changed most rows; each once. */
  readonly transactions: readonly SeenTransaction[];
  readonly transactionsSeen: number;
  readonly firstCommitAt: string | null;
  readonly lastCommitAt: string | null;
}

/** Kept of each sort. A storm of drops or of large deletes is told by its newest and its largest. */
const mostDrops = 100;
const mostByRows = 20;

interface Counts {
  inserted: number;
  updated: number;
  deleted: number;
  truncated: number;
}

interface Totals extends Counts {
  first: bigint;
  last: bigint;
}

interface Under {
  readonly begin: Begin;
  readonly xid: bigint;
  readonly tables: Map<string, Counts>;
  readonly droppedTables: Set<string>;
  readonly droppedColumns: Set<string>;
}

/** Takes segments in the order of their chain. Changes of a transaction whose beginning it was not given are passed over. */
export class LostChangesReader {
  readonly #since: bigint;
  readonly #relations = new Map<number, Relation>();
  readonly #tables = new Map<string, Totals>();
  #drops: SeenTransaction[] = [];
  readonly #byDeleted = new Largest((one) => sum(one, "deleted"));
  readonly #byUpdated = new Largest((one) => sum(one, "updated"));
  #under: Under | null = null;
  #seen = 0;
  #first: bigint | null = null;
  #last: bigint | null = null;

  /** `since`: commits before that moment (microseconds since 1970) are passed over. */
  constructor(since: bigint) {
    this.#since = since;
  }

  /** Errors: `object_damaged`. */
  take(segment: OpenedSegment): void {
    const nextXid = BigInt(segment.header.nextXid);
    for (const { data } of readRecords(segment.name, segment.records)) {
      const kind = messageKind(data);
      if (kind === "begin") this.#begin(data, nextXid);
      else if (kind === "relation") this.#relation(data);
      else if (kind === "commit") this.#commit();
      else if (this.#under !== null) this.#change(this.#under, kind, data);
    }
  }

  result(): LostChanges {
    const transactions = new Map<string, SeenTransaction>();
    for (const one of [...this.#drops].reverse().concat(this.#byDeleted.all(), this.#byUpdated.all())) {
      transactions.set(`${one.xid} ${one.lsn}`, one);
    }
    return {
      tables: listed(this.#tables).map(({ first, last, ...counts }) => ({
        ...counts,
        firstAt: momentOf(first) ?? "",
        lastAt: momentOf(last) ?? "",
      })),
      transactions: [...transactions.values()],
      transactionsSeen: this.#seen,
      firstCommitAt: momentOf(this.#first),
      lastCommitAt: momentOf(this.#last),
    };
  }

  #begin(data: Uint8Array, nextXid: bigint): void {
    const begin = decodeMessage(data);
    if (begin.kind !== "begin") return;
    this.#under = begin.committedAt < this.#since ? null : {
      begin,
      xid: widenXid(begin.xid, nextXid),
      tables: new Map(),
      droppedTables: new Set(),
      droppedColumns: new Set(),
    };
  }

  #relation(data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind === "relation") this.#relations.set(message.relation.oid, message.relation);
  }

  #change(under: Under, kind: string, data: Uint8Array): void {
    if (kind === "truncate") {
      const message = decodeMessage(data);
      if (message.kind !== "truncate") return;
      for (const oid of message.relations) this.#count(under, oid, "truncated");
      return;
    }
    if (kind !== "insert" && kind !== "update" && kind !== "delete") return;
    const oid = relationOf(data) ?? 0;
    const relation = this.#relations.get(oid);
    if (relation !== undefined && relation.schema === ddlLog.schema) {
      if (relation.name === ddlLog.name && kind === "insert") dropsOf(under, relation, data);
      return;
    }
    this.#count(under, oid, kind === "insert" ? "inserted" : kind === "update" ? "updated" : "deleted");
  }

  #count(under: Under, oid: number, what: keyof Counts): void {
    const relation = this.#relations.get(oid);
    if (relation === undefined || relation.schema === ddlLog.schema) return;
    const name = quoteQualified(relation.schema, relation.name);
    const known = under.tables.get(name);
    const counts = known ?? { inserted: 0, updated: 0, deleted: 0, truncated: 0 };
    counts[what]++;
    if (known === undefined) under.tables.set(name, counts);
  }

  #add(name: string, counts: Counts, at: bigint): void {
    const known = this.#tables.get(name);
    this.#tables.set(name, {
      inserted: (known?.inserted ?? 0) + counts.inserted,
      updated: (known?.updated ?? 0) + counts.updated,
      deleted: (known?.deleted ?? 0) + counts.deleted,
      truncated: (known?.truncated ?? 0) + counts.truncated,
      first: known !== undefined && known.first < at ? known.first : at,
      last: known !== undefined && known.last > at ? known.last : at,
    });
  }

  #commit(): void {
    const under = this.#under;
    this.#under = null;
    if (under === null) return;
    this.#seen++;
    const { committedAt, commitLsn } = under.begin;
    if (this.#first === null || committedAt < this.#first) this.#first = committedAt;
    if (this.#last === null || committedAt > this.#last) this.#last = committedAt;
    for (const [name, counts] of under.tables) this.#add(name, counts, committedAt);
    const tables = listed(under.tables);
    const seen: SeenTransaction = {
      xid: String(under.xid),
      lsn: formatLsn(commitLsn),
      committedAt: momentOf(committedAt) ?? "",
      tables,
      droppedTables: [...under.droppedTables].sort(),
      droppedColumns: [...under.droppedColumns].filter((column) => !isOfOne(column, under.droppedTables)).sort(),
    };
    const drops = seen.droppedTables.length + seen.droppedColumns.length + sum(seen, "truncated");
    if (drops > 0) this.#drops = [...this.#drops, seen].slice(-mostDrops);
    this.#byDeleted.offer(seen);
    this.#byUpdated.offer(seen);
  }
}

/** The largest by a number, which has to be more than 0. */
class Largest {
  readonly #size: (one: SeenTransaction) => number;
  #kept: SeenTransaction[] = [];

  constructor(size: (one: SeenTransaction) => number) {
    this.#size = size;
  }

  offer(one: SeenTransaction): void {
    const size = this.#size(one);
    const least = this.#kept.length < mostByRows ? 0 : this.#size(this.#kept.at(-1) ?? one);
    if (size <= least) return;
    this.#kept = [...this.#kept, one].sort((a, b) => this.#size(b) - this.#size(a)).slice(0, mostByRows);
  }

  all(): readonly SeenTransaction[] {
    return this.#kept;
  }
}

/** Only of a drop that somebody asked for, or that came with it; a table's indexes, types and sequences are the table. */
function dropsOf(under: Under, relation: Relation, data: Uint8Array): void {
  const message = decodeMessage(data);
  if (message.kind !== "insert") return;
  const row = readDdlRow(
    new Map(relation.columns.map((column, index) => {
      const value = message.row[index];
      return [column.name, typeof value === "string" ? value : null] as const;
    })),
  );
  if (row.what !== "drop") return;
  for (const { type, identity, extension } of row.objects) {
    if (identity === null || extension === true) continue;
    if (type === "table") under.droppedTables.add(identity);
    if (type === "table column") under.droppedColumns.add(identity);
  }
}

function isOfOne(column: string, tables: ReadonlySet<string>): boolean {
  return [...tables].some((table) => column.startsWith(`${table}.`));
}

function listed<C extends Counts>(tables: ReadonlyMap<string, C>): (C & { readonly table: string })[] {
  return [...tables].map(([table, counts]) => ({ table, ...counts })).sort((a, b) => a.table < b.table ? -1 : 1);
}

export function sum({ tables }: Pick<SeenTransaction, "tables">, what: keyof Counts): number {
  return tables.reduce((total, table) => total + table[what], 0);
}
