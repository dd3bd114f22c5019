import { type Message, type Relation, unchanged, type Value } from "../../src/shared/changes/decode/messages.ts";

/** Messages as the server would write them, from the documented format; the other direction of the decoder under test. */

const utf8 = new TextEncoder();

export function bytesOf(...parts: readonly (string | Uint8Array | readonly number[])[]): Uint8Array {
  const pieces = parts.map((part) => typeof part === "string" ? utf8.encode(part) : part);
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

export function big(value: number | bigint, size: number): number[] {
  return Array.from({ length: size }, (_, index) => Number((BigInt(value) >> BigInt(8 * (size - 1 - index))) & 255n));
}

export const int16 = (value: number): number[] => big(value, 2);
export const int32 = (value: number): number[] => big(value, 4);
export const int64 = (value: bigint): number[] => big(value, 8);
export const zeroEnded = (text: string): Uint8Array => bytesOf(text, [0]);

/** The server counts from 2000. */
export const time = (since1970: bigint): number[] => int64(since1970 - BigInt(Date.UTC(2000, 0, 1)) * 1000n);

export function tuple(values: readonly Value[]): Uint8Array {
  return bytesOf(
    int16(values.length),
    ...values.map((value) => {
      if (value === null) return bytesOf("n");
      if (value === unchanged) return bytesOf("u");
      const text = utf8.encode(value);
      return bytesOf("t", int32(text.length), text);
    }),
  );
}

const schemaName = (name: string): Uint8Array => zeroEnded(name === "pg_catalog" ? "" : name);

/** `originLsn` is what the decoder leaves out of an origin. */
export function encode(message: Message, originLsn = 0n): Uint8Array {
  switch (message.kind) {
    case "begin":
      return bytesOf("B", int64(message.commitLsn), time(message.committedAt), int32(message.xid));
    case "commit":
      return bytesOf("C", [0], int64(message.commitLsn), int64(message.endLsn), time(message.committedAt));
    case "origin":
      return bytesOf("O", int64(originLsn), zeroEnded(message.name));
    case "relation":
      return bytesOf("R", relationBody(message.relation));
    case "type":
      return bytesOf("Y", int32(message.oid), schemaName(message.schema), zeroEnded(message.name));
    case "insert":
      return bytesOf("I", int32(message.relation), "N", tuple(message.row));
    case "update":
      return bytesOf("U", int32(message.relation), oldPart(message.old), "N", tuple(message.row));
    case "delete":
      return bytesOf("D", int32(message.relation), oldPart(message.old));
    case "truncate":
      return bytesOf(
        "T",
        int32(message.relations.length),
        [(message.cascade ? 1 : 0) + (message.restartIdentity ? 2 : 0)],
        ...message.relations.map(int32),
      );
    case "message":
      return bytesOf(
        "M",
        [message.transactional ? 1 : 0],
        int64(message.lsn),
        zeroEnded(message.prefix),
        int32(message.content.length),
        message.content,
      );
  }
}

function oldPart(old: { what: "key" | "row"; values: readonly Value[] } | null): Uint8Array {
  return old === null ? bytesOf() : bytesOf(old.what === "key" ? "K" : "O", tuple(old.values));
}

function relationBody(relation: Relation): Uint8Array {
  const letters = { default: "d", nothing: "n", full: "f", index: "i" } as const;
  return bytesOf(
    int32(relation.oid),
    schemaName(relation.schema),
    zeroEnded(relation.name),
    letters[relation.identity],
    int16(relation.columns.length),
    ...relation.columns.map((column) =>
      bytesOf([column.isKey ? 1 : 0], zeroEnded(column.name), int32(column.typeOid), int32(column.typeModifier))
    ),
  );
}

const long = "0123456789".repeat(7);

/** One and more of every kind, with the values that are easy to get wrong. */
export const samples: readonly Message[] = [
  { kind: "begin", commitLsn: 0xffff_ffff_ffff_fff0n, committedAt: 1_704_801_600_123_456n, xid: 4_294_967_295 },
  { kind: "begin", commitLsn: 1n, committedAt: -1n, xid: 3 },
  { kind: "commit", commitLsn: 0x16_b374_d848n, endLsn: 0x16_b374_d878n, committedAt: 946_684_800_000_000n },
  { kind: "origin", name: "elsewhere" },
  { kind: "relation", relation: { oid: 1, schema: "s", name: "no columns", identity: "nothing", columns: [] } },
  {
    kind: "relation",
    relation: {
      oid: 4_000_000_000,
      schema: "pg_catalog",
      name: 'Tägebuch "x"',
      identity: "index",
      columns: [
        { name: "id", typeOid: 20, typeModifier: -1, isKey: true },
        { name: "größe", typeOid: 3_000_000_000, typeModifier: 1_048_582, isKey: false },
      ],
    },
  },
  { kind: "relation", relation: { oid: 2, schema: "a", name: "b", identity: "default", columns: [] } },
  { kind: "relation", relation: { oid: 2, schema: "a", name: "b", identity: "full", columns: [] } },
  { kind: "type", oid: 16_400, schema: "public", name: "mood" },
  { kind: "insert", relation: 2_147_483_648, row: ["1", "", null, "ü 日本 \u{1F600}", "\ufeffmark", long, `${long}é`] },
  { kind: "insert", relation: 5, row: [] },
  { kind: "update", relation: 5, old: null, row: ["1", unchanged, null] },
  { kind: "update", relation: 5, old: { what: "key", values: ["1", null] }, row: ["2", unchanged] },
  { kind: "update", relation: 5, old: { what: "row", values: ["1", "old"] }, row: ["1", "new"] },
  { kind: "delete", relation: 5, old: { what: "key", values: ["1", null] } },
  { kind: "delete", relation: 5, old: { what: "row", values: ["1", "gone"] } },
  { kind: "truncate", relations: [1, 4_294_967_295], cascade: false, restartIdentity: false },
  { kind: "truncate", relations: [7], cascade: true, restartIdentity: false },
  { kind: "truncate", relations: [7], cascade: false, restartIdentity: true },
  { kind: "message", transactional: true, lsn: 7n, prefix: "holdfast", content: Uint8Array.of(0, 255, 10) },
  { kind: "message", transactional: false, lsn: 8n, prefix: "", content: Uint8Array.of() },
];
