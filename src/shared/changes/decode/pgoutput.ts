import { damaged, MessageBytes } from "./message_bytes.ts";
import {
  type Delete,
  type Message,
  type Relation,
  type ReplicaIdentity,
  type StreamColumn,
  type Truncate,
  unchanged,
  type Update,
  type Value,
} from "./messages.ts";

export type MessageKind = Message["kind"];

/** By first byte. Source: "Logical Replication Message Formats" in the PostgreSQL documentation, protocol version 1. */
const kinds: readonly (MessageKind | undefined)[] = byLetter<MessageKind>({
  B: "begin",
  C: "commit",
  O: "origin",
  R: "relation",
  Y: "type",
  I: "insert",
  U: "update",
  D: "delete",
  T: "truncate",
  M: "message",
});

const identities: readonly (ReplicaIdentity | undefined)[] = byLetter<ReplicaIdentity>({
  d: "default",
  n: "nothing",
  f: "full",
  i: "index",
});

const newRow = letter("N");
const oldKey = letter("K");
const oldRow = letter("O");
const textValue = letter("t");
const nullValue = letter("n");
const unchangedValue = letter("u");

/**
 * One message of pgoutput, protocol version 1, values as text. `bytes` may be a view that is lent: nothing of it is kept.
 *
 * What is not exactly such a message (unknown types, flags and kinds of value, a cut end, bytes after the end, text that is
 * not UTF-8, an unchanged value anywhere but in the new row of an update) is `object_damaged`; a value longer than any
 * string is `row_too_large`. Whether a row fits its relation is the caller's to check.
 */
export function decodeMessage(bytes: Uint8Array): Message {
  const reader = new MessageBytes(bytes);
  const message = read(reader);
  if (reader.left > 0) throw damaged("has bytes after its end");
  return message;
}

/** The kind alone, without looking at the rest. `object_damaged` for none and for one that is not known. */
export function messageKind(data: Uint8Array): MessageKind {
  return kindOf(new MessageBytes(data).byte());
}

/** Oid of the table that a relation, insert, update or delete is about; null for other kinds. Errors: `object_damaged`. */
export function relationOf(data: Uint8Array): number | null {
  const reader = new MessageBytes(data);
  switch (kindOf(reader.byte())) {
    case "relation":
    case "insert":
    case "update":
    case "delete":
      return reader.uint32();
    default:
      return null;
  }
}

function kindOf(type: number): MessageKind {
  const kind = kinds[type];
  if (kind === undefined) throw damaged("is of an unknown type");
  return kind;
}

function read(from: MessageBytes): Message {
  const kind = kindOf(from.byte());
  switch (kind) {
    case "insert": {
      const relation = from.uint32();
      if (from.byte() !== newRow) throw damaged("has no new row where one belongs");
      return { kind, relation, row: values(from, false) };
    }
    case "update":
      return update(from);
    case "delete":
      return { kind, relation: from.uint32(), old: old(from, from.byte()) };
    case "begin":
      return { kind, commitLsn: from.lsn(), committedAt: from.time(), xid: from.uint32() };
    case "commit":
      flags(from, 0);
      return { kind, commitLsn: from.lsn(), endLsn: from.lsn(), committedAt: from.time() };
    case "relation":
      return { kind, relation: relation(from) };
    case "truncate":
      return truncate(from);
    case "type":
      return { kind, oid: from.uint32(), schema: schema(from), name: from.name() };
    case "origin":
      from.lsn();
      return { kind, name: from.name() };
    case "message":
      return {
        kind,
        transactional: flags(from, 1) === 1,
        lsn: from.lsn(),
        prefix: from.name(),
        content: from.content(),
      };
  }
}

function update(from: MessageBytes): Update {
  const relation = from.uint32();
  let part = from.byte();
  let before: Update["old"] = null;
  if (part !== newRow) {
    before = old(from, part);
    part = from.byte();
  }
  if (part !== newRow) throw damaged("has no new row where one belongs");
  return { kind: "update", relation, old: before, row: values(from, true) };
}

function old(from: MessageBytes, part: number): Delete["old"] {
  if (part === oldKey) return { what: "key", values: values(from, false) };
  if (part === oldRow) return { what: "row", values: values(from, false) };
  throw damaged("has no old row where one belongs");
}

function values(from: MessageBytes, mayBeUnchanged: boolean): Value[] {
  const list: Value[] = [];
  for (let left = count(from); left > 0; left--) {
    const kind = from.byte();
    if (kind === textValue) list.push(from.text());
    else if (kind === nullValue) list.push(null);
    else if (kind === unchangedValue && mayBeUnchanged) list.push(unchanged);
    else throw damaged("has a value of a kind that does not belong there");
  }
  return list;
}

function relation(from: MessageBytes): Relation {
  const oid = from.uint32();
  const inSchema = schema(from);
  const name = from.name();
  const identity = identities[from.byte()];
  if (identity === undefined) throw damaged("has an unknown replica identity");
  const columns: StreamColumn[] = [];
  for (let left = count(from); left > 0; left--) {
    const isKey = flags(from, 1) === 1;
    columns.push({ isKey, name: from.name(), typeOid: from.uint32(), typeModifier: from.int32() });
  }
  return { oid, schema: inSchema, name, identity, columns };
}

function truncate(from: MessageBytes): Truncate {
  const tables = from.int32();
  const options = flags(from, 3);
  if (from.left !== tables * 4) throw damaged("names another number of tables than it says");
  const relations: number[] = [];
  while (relations.length < tables) relations.push(from.uint32());
  return { kind: "truncate", relations, cascade: (options & 1) !== 0, restartIdentity: (options & 2) !== 0 };
}

/** A count of columns or values. Each takes at least a byte, so a false one ends at the end of the message. */
function count(from: MessageBytes): number {
  const number = from.uint16();
  if (number > 0x7fff) throw damaged("has a negative number of columns");
  return number;
}

/** A byte of flags of which the lower ones are known. */
function flags(from: MessageBytes, known: number): number {
  const byte = from.byte();
  if ((byte & ~known) !== 0) throw damaged("has unknown flags");
  return byte;
}

/** The server writes an empty name for its own catalog. */
function schema(from: MessageBytes): string {
  return from.name() || "pg_catalog";
}

function byLetter<T>(table: Readonly<Record<string, T>>): (T | undefined)[] {
  const list = new Array<T | undefined>(256).fill(undefined);
  for (const [key, value] of Object.entries(table)) list[letter(key)] = value;
  return list;
}

function letter(text: string): number {
  return text.charCodeAt(0);
}
