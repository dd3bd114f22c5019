/** Records of a segment without the rows of erased people. docs/format.md, "Segments". */
import { encodeChange } from "../changes/decode/encode_change.ts";
import { decodeMessage, messageKind, relationOf } from "../changes/decode/pgoutput.ts";
import { type Relation, type RowChange, unchanged, type Value } from "../changes/decode/messages.ts";
import { readRecords, RecordBuffer, type SegmentRecord } from "../changes/segments/segment.ts";
import type { TableName } from "../restore/project_rows.ts";
import type { ReadColumn } from "./judge_row.ts";
import type { Fate, TableRewriter } from "./table_rewriter.ts";

export interface RewrittenRecords {
  /** Null: nothing of it is to be changed. */
  readonly records: Uint8Array | null;
  /** Changes that are left out. */
  readonly removed: number;
  readonly changed: number;
  /** Hashes of rows that go, and of rows that stay although one of the same key went. */
  readonly gone: readonly string[];
  readonly disputed: readonly string[];
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

/** Errors: `object_damaged`. */
export function rewriteRecords(
  name: string,
  records: Uint8Array,
  tables: StreamTables,
  onGone: OnGone = () => {},
): RewrittenRecords {
  const out = new RecordBuffer();
  const found = { removed: 0, changed: 0, gone: [] as string[], disputed: [] as string[] };
  for (const record of readRecords(name, records)) {
    const data = rewriteRecord(record, tables, onGone, found);
    if (data !== null) out.append(record.lsn, record.xid, data);
  }
  const touched = found.removed + found.changed > 0;
  return { ...found, records: touched ? out.bytes() : null };
}

/** Null: the change goes. */
function rewriteRecord(
  { data }: SegmentRecord,
  tables: StreamTables,
  onGone: OnGone,
  found: { removed: number; changed: number; gone: string[]; disputed: string[] },
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
  const columns = relation.columns.map(({ name }) => name);
  if (message.kind === "delete") {
    const read = readerOf(message.old.values, message.old.what === "key" ? relation : null);
    const goes = rewriter.judge.goesByKey(read) ||
      (message.old.what === "row" && rewriter.fateOf(read).kind === "goes");
    if (!goes) return data;
    found.removed++;
    return null;
  }
  const read = readerOf(message.row, null);
  const fate = rewriter.fateOf(read);
  if (fate.kind === "goes") {
    found.removed++;
    onGone(relation, columns, read);
    found.gone.push(...rewriter.judge.hashes(read));
    return null;
  }
  const before = message.kind === "update" && message.old !== null
    ? readerOf(message.old.values, message.old.what === "key" ? relation : null)
    : null;
  for (const one of before === null ? [read] : [read, before]) {
    if (rewriter.judge.wasGone(one)) found.disputed.push(...rewriter.judge.hashes(one));
  }
  if (fate.kind === "stays") return data;
  found.changed++;
  return encodeChange(changed(message, rewriter, fate, before));
}

function changed(
  message: Exclude<RowChange, { kind: "delete" }>,
  rewriter: TableRewriter,
  fate: Extract<Fate, { kind: "changes" }>,
  before: ReadColumn | null,
): RowChange {
  const row = withValues(message.row, fate.values);
  if (message.kind === "insert") return { ...message, row };
  if (message.old?.what !== "row" || before === null) return { ...message, row };
  // The row that it was is told by all of it, and was changed in the same way where it stands before.
  const was = rewriter.fateOf(before);
  const values = was.kind === "changes" ? withValues(message.old.values, was.values) : message.old.values;
  return { ...message, row, old: { what: "row", values } };
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
