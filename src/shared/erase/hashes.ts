/**
 * Keyed hashes of rows, made by the server, so that a restore of millions of rows takes none of them through this process.
 * docs/format.md, "Erasures".
 */
import type { Epoch } from "../crypto/epoch.ts";
import { sha256, toHex } from "../crypto/digest.ts";
import type { Connection } from "../postgres/connection.ts";
import { quoteLiteral } from "../schema/quote.ts";
import type { Identity } from "./entry.ts";

/** Inner and outer block of HMAC-SHA256 (RFC 2104), 64 bytes each. */
export interface HashKey {
  readonly inner: Uint8Array;
  readonly outer: Uint8Array;
}

/** The epoch's key for hashes: it opens nothing, and names nothing without the sealed hashes. */
export async function hashKeyOf(epoch: Epoch): Promise<HashKey> {
  const label = new TextEncoder().encode("holdfast/v1/erasure");
  const key = new Uint8Array(await crypto.subtle.sign("HMAC", epoch.nameKey, label));
  const block = (pad: number) => Uint8Array.from({ length: 64 }, (_, at) => (key[at] ?? 0) ^ pad);
  return { inner: block(0x36), outer: block(0x5c) };
}

/** Of temporary tables, which go with their transaction. */
export const keyTable = "pg_temp.holdfast_erasure_key";
export const hashTable = "pg_temp.holdfast_erasure_hash";

/**
 * Brings keys and hashes into temporary tables of the transaction that is open: by COPY, which no log of statements shows.
 * Errors: those of the connection.
 */
export async function layHashes(
  connection: Connection,
  keys: readonly HashKey[],
  hashes: Iterable<string>,
): Promise<void> {
  await connection.execute(
    `create temporary table holdfast_erasure_key (inner_block bytea not null, outer_block bytea not null) on commit drop;
     create temporary table holdfast_erasure_hash (hash bytea primary key) on commit drop`,
  );
  const encoder = new TextEncoder();
  const bytea = (hex: string) => `\\\\x${hex}`;
  await connection.copyIn(
    `copy ${keyTable} from stdin`,
    keys.map(({ inner, outer }) => encoder.encode(`${bytea(toHex(inner))}\t${bytea(toHex(outer))}\n`)),
  );
  await connection.copyIn(`copy ${hashTable} from stdin`, lines(hashes, (hash) => `${bytea(hash)}\n`));
  await connection.execute(`analyze ${hashTable}`);
}

/** Some 300 KB at a time. */
const linesAtOnce = 8192;

function* lines(items: Iterable<string>, lineOf: (item: string) => string): Generator<Uint8Array> {
  const encoder = new TextEncoder();
  let batch: string[] = [];
  for (const item of items) {
    batch.push(lineOf(item));
    if (batch.length < linesAtOnce) continue;
    yield encoder.encode(batch.join(""));
    batch = [];
  }
  if (batch.length > 0) yield encoder.encode(batch.join(""));
}

/**
 * SQL for the hash, as bytea, of the row of `identity` whose columns have the values `values` (SQL of texts, in the order of
 * `identity.columns`) under the key `k`; null where a value is null. The message is netstrings: length in characters, a colon,
 * the text, a comma; of schema, table, then name and value of each column.
 */
export function hashSql(identity: Identity, values: readonly string[]): string {
  const known = [identity.schema, identity.name];
  const parts = [
    known.map((text) => quoteLiteral(netstring(text))).join(" || "),
    ...identity.columns.map((column, at) => {
      const value = `(${values[at] ?? "null"})`;
      return `${quoteLiteral(netstring(column))} || pg_catalog.length(${value})::text || ':' || ${value} || ','`;
    }),
  ];
  return `pg_catalog.substr(pg_catalog.sha256(k.outer_block || pg_catalog.sha256(k.inner_block ||
    pg_catalog.convert_to(${parts.join(" || ")}, 'UTF8'))), 1, 16)`;
}

/** The same in hex, for a row that no server has. */
export async function rowHash(
  { inner, outer }: HashKey,
  identity: Identity,
  values: readonly string[],
): Promise<string> {
  const texts = [
    identity.schema,
    identity.name,
    ...identity.columns.flatMap((column, at) => [column, values[at] ?? ""]),
  ];
  const message = new TextEncoder().encode(texts.map(netstring).join(""));
  const digest = async (...parts: readonly Uint8Array[]) => {
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.byteLength;
    }
    return await sha256(bytes);
  };
  return toHex((await digest(outer, await digest(inner, message))).subarray(0, 16));
}

/** Condition: that row is in the ledger. */
export function isErasedSql(identity: Identity, values: readonly string[]): string {
  return `exists (select from ${keyTable} as k join ${hashTable} as h on h.hash = ${hashSql(identity, values)})`;
}

/** Characters, not bytes: the same in every encoding of a database. */
const netstring = (text: string): string => `${[...text].length}:${text},`;
