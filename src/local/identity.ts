import { closeSync, openSync, readdirSync, readFileSync, readSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { HoldfastError } from "../shared/errors.ts";

/**
 * Gives a copied, cleanly stopped data directory a system identifier of its own, so that the copy is another cluster to
 * everything that compares identifiers. PostgreSQL keeps it in `global/pg_control`, under a checksum, and in the first
 * page of each WAL segment (`access/xlog_internal.h`, `catalog/pg_control.h`; the same for 15 and 17).
 */
export function giveNewIdentity(dataDirectory: string, identifier: bigint = newIdentifier()): void {
  const controlFile = join(dataDirectory, "global/pg_control");
  const control = Uint8Array.from(readFileSync(controlFile));
  const view = new DataView(control.buffer);
  const old = view.getBigUint64(0, true);
  const checksumAt = findChecksum(control);
  view.setBigUint64(0, identifier, true);
  view.setUint32(checksumAt, crc32c(control.subarray(0, checksumAt)), true);
  writeFileSync(controlFile, control);
  for (const name of readdirSync(join(dataDirectory, "pg_wal"))) {
    if (/^[0-9A-F]{24}$/.test(name)) rewriteSegment(join(dataDirectory, "pg_wal", name), old, identifier);
  }
}

/** As initdb makes it: seconds, microseconds and process id. */
function newIdentifier(): bigint {
  const now = Date.now();
  const microseconds = (now % 1000) * 1000 + Math.floor(Math.random() * 1000);
  return (BigInt(Math.floor(now / 1000)) << 32n) | (BigInt(microseconds) << 12n) | BigInt(process.pid & 0xfff);
}

/** The checksum covers everything before it; where that ends differs between releases. */
function findChecksum(control: Uint8Array): number {
  const view = new DataView(control.buffer);
  for (let at = 64; at < 1024; at += 4) {
    if (view.getUint32(at, true) === crc32c(control.subarray(0, at))) return at;
  }
  throw new HoldfastError("internal", "pg_control has no checksum where it should be");
}

const longHeader = 0x0002;
const identifierAt = 24;

function rewriteSegment(file: string, old: bigint, identifier: bigint): void {
  const descriptor = openSync(file, "r+");
  try {
    const header = new Uint8Array(32);
    readSync(descriptor, header, 0, header.length, 0);
    const view = new DataView(header.buffer);
    const ours = (view.getUint16(2, true) & longHeader) !== 0 && view.getBigUint64(identifierAt, true) === old;
    if (!ours) return;
    view.setBigUint64(identifierAt, identifier, true);
    writeSync(descriptor, header, 0, header.length, 0);
  } finally {
    closeSync(descriptor);
  }
}

/** CRC-32C (Castagnoli), reflected, as PostgreSQL computes it. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}
