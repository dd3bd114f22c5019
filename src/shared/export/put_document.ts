/** The document, part by part, from `backup.export_pieces` to where it is fetched from; the last part is signed. */
import type { Budget } from "../backup/budget.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { quoteLiteral } from "../schema/quote.ts";
import { blockBytes } from "./document_format.ts";
import type { ExportKey } from "./export_key.ts";
import { type ExportLease, type ExportRow, recordExportPart } from "./export_queries.ts";
import type { ExportTarget } from "./export_target.ts";
import { signatureText } from "./signature.ts";

export interface PutDeps {
  readonly connection: Connection;
  readonly target: ExportTarget;
  readonly key: ExportKey;
}

/**
 * From the row's parts on. `lost`: what was laid is not there any more, as after a crash of the server. Errors: `lease_lost`, those of
 * the target.
 */
export async function putDocument(
  { connection, target, key }: PutDeps,
  lease: ExportLease,
  { documentBytes, parts: before }: Pick<ExportRow, "documentBytes" | "parts">,
  { budget, leaseSeconds }: { readonly budget: Budget; readonly leaseSeconds: number },
): Promise<"done" | "rest" | "lost"> {
  const signed = documentBytes ?? 0;
  const parts = [...before];
  const full = Math.floor(signed / blockBytes);
  while (parts.length <= full) {
    if (parts.length > before.length && budget.spent()) return "rest";
    const from = parts.length * blockBytes;
    const to = Math.min(signed, from + blockBytes);
    let bytes = await readPieces(connection, lease.id, from, to);
    if (bytes.byteLength !== to - from) return "lost";
    if (parts.length === full) {
      const rest = bytes.byteLength === 0 ? [] : [await sha256Hex(bytes)];
      const blocks = [...parts.map(({ sha256 }) => sha256), ...rest];
      bytes = joined(bytes, await signatureText(key, lease.id, signed, blocks));
    }
    await target.putDocument(parts.length, bytes);
    const part = { bytes: bytes.byteLength, sha256: await sha256Hex(bytes) };
    await recordExportPart(connection, lease, part, leaseSeconds);
    parts.push(part);
    budget.spendText(0, 2 * bytes.byteLength);
    budget.spendCalls(3);
  }
  return "done";
}

/** Before the one field of the one row, and behind it: what COPY's binary format puts around them. */
const headBytes = 19 + 2 + 4;
const trailBytes = 2;

/** Bytes `from` to `to` of the document, or fewer where they are not there. */
async function readPieces(connection: Connection, id: string, from: number, to: number): Promise<Uint8Array> {
  if (to === from) return new Uint8Array(0);
  const read = new Uint8Array(headBytes + to - from + trailBytes);
  let length = 0;
  await connection.copyOut(
    `copy (
       select coalesce(pg_catalog.string_agg(
         pg_catalog.substr(p.body, (greatest(${from} - p.begins, 0) + 1)::int,
           (least(${to} - p.begins, pg_catalog.octet_length(p.body)) - greatest(${from} - p.begins, 0))::int),
         ''::bytea order by p.begins
       ), '')
       from backup.export_pieces as p
       where p.export_id = ${
      quoteLiteral(id)
    } and p.begins < ${to} and p.begins + pg_catalog.octet_length(p.body) > ${from}
     ) to stdout (format binary)`,
    (bytes) => {
      if (length + bytes.byteLength > read.byteLength) {
        throw new HoldfastError("internal", "a part of an export is longer than it was asked for");
      }
      read.set(bytes, length);
      length += bytes.byteLength;
    },
  );
  const size = new DataView(read.buffer).getInt32(headBytes - 4);
  return read.subarray(headBytes, headBytes + Math.max(0, size));
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.byteLength + b.byteLength);
  both.set(a);
  both.set(b, a.byteLength);
  return both;
}
