/** Records of a segment without the rows of erased people. docs/format.md, "Segments". */
import { encodeChange } from "../changes/decode/encode_change.ts";
import { decodeMessage, messageKind, relationOf } from "../changes/decode/pgoutput.ts";
import { type Delete, type Relation, unchanged, type Value } from "../changes/decode/messages.ts";
import { readRecords, RecordBuffer, type SegmentRecord } from "../changes/segments/segment.ts";
import type { TableName } from "../restore/project_rows.ts";
import { HoldfastError } from "../errors.ts";
import type { ErasedKeys, ReadColumn } from "./judge_row.ts";
import type { Fate, TableRewriter } from "./table_rewriter.ts";

export interface RewrittenRecords {
  /** Null: nothing of it is to be changed. */
  readonly records: Uint8Array | null;
  /** Changes that are left out. */
  readonly removed: number;
  readonly changed: number;
}

/** Which table's rules hold for a relation; null: none. `keys`: the columns by which the stream tells its rows. */
export type RewriterOf = (
  table: TableName,
  columns: readonly string[],
  keys: readonly string[],
) => TableRewriter | null;

/** `onGone` as `rewriteText` has it, with the table. */
export type OnGone = (table: TableName, columns: readonly string[], read: ReadColumn) => void;

/** The tables that the stream has described so far: parts of one transaction share them. */
export class StreamTables {
  readonly #of: RewriterOf;
  readonly #tables = new Map<number, { readonly relation: Relation; readonly rewriter: TableRewriter | null }>();

  constructor(of: RewriterOf) {
    this.#of = of;
  }

  note(relation: Relation): void {
    const columns = relation.columns.map(({ name }) => name);
    const keys = relation.columns.filter(({ isKey }) => isKey).map(({ name }) => name);
    const rewriter = relation.schema === "backup" ? null : this.#of(relation, columns, keys);
    this.#tables.set(relation.oid, { relation, rewriter });
  }

  get(oid: number): { readonly relation: Relation; readonly rewriter: TableRewriter } | null {
    const found = this.#tables.get(oid);
    if (found === undefined || found.rewriter === null) return null;
    return { relation: found.relation, rewriter: found.rewriter };
  }
}

/**
 * The stream of a database that never held those rows: changes of rows that go are left out; an update by which a row becomes the
 * person's is its end, one by which it becomes somebody else's its beginning. `erased.gone` follows what is gone. Errors:
 * `object_damaged`; `rewriting_waits` for a beginning that the stream does not carry whole.
 */
export function rewriteRecords(
  name: string,
  records: Uint8Array,
  tables: StreamTables,
  erased: ErasedKeys,
  onGone: OnGone = () => {},
): RewrittenRecords {
  const out = new RecordBuffer();
  const found = { removed: 0, changed: 0 };
  for (const record of readRecords(name, records)) {
    const data = rewriteRecord(record, tables, erased, onGone);
    if (data === null) found.removed++;
    else if (data !== record.data) found.changed++;
    if (data !== null) out.append(record.lsn, record.xid, data);
  }
  return { ...found, records: found.removed + found.changed > 0 ? out.bytes().slice() : null };
}

/** Null: the change goes. */
function rewriteRecord(
  { data }: SegmentRecord,
  tables: StreamTables,
  erased: ErasedKeys,
  onGone: OnGone,
): Uint8Array | null {
  if (messageKind(data) === "relation") {
    const message = decodeMessage(data);
    if (message.kind === "relation") tables.note(message.relation);
    return data;
  }
  const oid = relationOf(data);
  const table = oid === null ? null : tables.get(oid);
  if (table === null || !table.rewriter.matters) return data;
  const message = decodeMessage(data);
  if (message.kind !== "insert" && message.kind !== "update" && message.kind !== "delete") return data;
  const { relation, rewriter } = table;
  const before = message.kind !== "insert" && message.old !== null
    ? readerOf(message.old.values, message.old.what === "key" ? relation : null)
    : null;
  // What the old row, or its key, tells by itself.
  const was = before === null ? null : rewriter.fateOf(before);
  if (message.kind === "delete") {
    const whole = message.old.what === "row";
    if (before === null || rewriter.judge.goesByKey(before)) return null;
    if (whole ? was?.kind === "goes" : rewriter.judge.namesErased(before)) return null;
    return was?.kind === "changes" ? encodeChange({ ...message, old: changedOld(message.old, was) }) : data;
  }
  const read = readerOf(message.row, null);
  const wasGone = rewriter.judge.goesByKey(before ?? read) ||
    (was?.kind === "goes" && message.kind === "update" && message.old?.what === "row");
  const fate = rewriter.fateOf(read);
  const hashes = () => rewriter.judge.hashes(read);
  if (fate.kind === "goes") {
    onGone(relation, relation.columns.map((column) => column.name), read);
    erased.learn(hashes(), []);
    if (message.kind === "insert" || wasGone) return null;
    const key = relation.columns.map(({ isKey }, place) => isKey ? message.row[place] ?? null : null);
    const old = message.old === null ? { what: "key" as const, values: key } : changedOld(message.old, was);
    return encodeChange({ kind: "delete", relation: message.relation, old });
  }
  const row = fate.kind === "changes" ? withValues(message.row, fate.values) : message.row;
  if (message.kind === "insert" || wasGone) {
    for (const hash of [...hashes(), ...(before === null ? [] : rewriter.judge.hashes(before))]) {
      erased.gone.delete(hash);
    }
    if (message.kind === "insert") return fate.kind === "changes" ? encodeChange({ ...message, row }) : data;
    if (row.includes(unchanged)) {
      throw new HoldfastError(
        "rewriting_waits",
        `a row of ${relation.schema}.${relation.name} was given to somebody else, and the change stream lacks its large values`,
        { hint: "It can be rewritten once the backups before have aged out: the rest of them hold the row." },
      );
    }
    return encodeChange({ kind: "insert", relation: message.relation, row });
  }
  if (fate.kind === "stays" && was?.kind !== "changes") return data;
  return encodeChange({ ...message, row, old: message.old === null ? null : changedOld(message.old, was) });
}

/** The row that it was is told by all of it, and was changed in the same way where it stands before. */
function changedOld(old: Delete["old"], was: Fate | null): Delete["old"] {
  return old.what === "row" && was?.kind === "changes"
    ? { what: "row", values: withValues(old.values, was.values) }
    : old;
}

function withValues(row: readonly Value[], values: ReadonlyMap<number, string | null>): Value[] {
  return row.map((value, place) => {
    const given = values.get(place);
    return given === undefined || value === unchanged ? value : given;
  });
}

/** `key`: only the columns of the replica identity were sent. */
function readerOf(values: readonly Value[], key: Relation | null): ReadColumn {
  const encoded = new Map<number, Uint8Array>();
  return (place) => {
    const value = values[place];
    if (value === undefined || value === unchanged || (key !== null && key.columns[place]?.isKey !== true)) {
      return undefined;
    }
    if (value === null) return null;
    const known = encoded.get(place) ?? new TextEncoder().encode(value);
    encoded.set(place, known);
    return known;
  };
}
