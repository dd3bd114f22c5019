/** Rows out of a full backup: its chunks, opened and checked as a restore does it. */
import { HoldfastError } from "../../errors.ts";
import type { Compressor } from "../../format/compressor.ts";
import type { ManifestChunk } from "../../format/manifest.ts";
import { readAhead } from "../../store/read_ahead.ts";
import type { Store } from "../../store/store.ts";
import { countCopyRows } from "../../verify/copy_rows.ts";
import { decodeCapture } from "../../verify/decode_capture.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../../verify/find_backup.ts";
import { readObject } from "../../verify/read_object.ts";
import { orderCopyFields } from "./backup_fields.ts";
import { type BackupTable, backupTables } from "./backup_tables.ts";
import { captureGraph } from "./capture_graph.ts";
import { nameOf } from "./fold_partitions.ts";
import type { PastRows } from "./past.ts";
import { compileRowFilter } from "./row_filter.ts";

/**
 * The rows of the full backup that `wanted` names (see `openBackup`). `tables` are those that a restore of rows takes:
 * the user's and those of auth and storage, without bookkeeping and what an extension keeps. A partitioned table is
 * listed before its leaves, which are listed too, each with its own rows alone: `graph` tells them apart. What a capture
 * does not hold is `0`: the oid of a partitioned table and its columns' attnums.
 * `read` keeps two opened chunks and 16 MiB of sealed ones.
 * Errors: those of `openBackup` and `readObject` of the capture; `manifest_damaged` where it does not fit the manifest.
 */
export async function openBackupRows(deps: ReadDeps, wanted: string): Promise<PastRows> {
  const backup = await openBackup(deps, wanted);
  const { manifest } = backup;
  const { schemaObject } = manifest;
  const bytes = await readObject({ ...deps, epochOf: backup.epochOf }, { kind: "schema", ...schemaObject });
  const capture = decodeCapture(bytes, schemaObject.name);
  const graph = captureGraph(capture);
  const tables = backupTables(capture, graph, manifest);
  const byName = new Map(tables.map((one) => [nameOf(one.table), one]));
  return {
    backupId: manifest.id,
    at: manifest.consistentAt,
    tables: tables.map(({ table }) => table),
    graph,
    read(table, filter): AsyncIterable<Uint8Array> {
      const found = byName.get(nameOf(table));
      if (found === undefined) throw new HoldfastError("internal", "a table is read that the backup does not list");
      return readTable(deps, backup, found, filter);
    },
    close: () => Promise.resolve(),
  };
}

async function* readTable(
  deps: ReadDeps,
  backup: OpenedBackup,
  { stored }: BackupTable,
  filter: Parameters<PastRows["read"]>[1],
): AsyncGenerator<Uint8Array> {
  for (const { columns, order, chunks } of stored) {
    const keep = compileRowFilter(columns, filter);
    if (keep === null) continue;
    for await (const text of openChunks(deps, backup, chunks)) {
      const kept = keep(text);
      if (kept.byteLength > 0) yield orderCopyFields(kept, columns.length, order);
    }
  }
}

/** In their order; the next is opened while the caller works on one. */
async function* openChunks(
  deps: { readonly store: Store; readonly compressor: Compressor },
  backup: OpenedBackup,
  chunks: readonly ManifestChunk[],
): AsyncGenerator<Uint8Array> {
  const listed = chunks.map((chunk) => ({ ...chunk, name: chunk.object, size: chunk.storedBytes }));
  let before: Promise<Uint8Array> | null = null;
  for await (const { object, bytes } of readAhead(deps.store, listed)) {
    const opening = openChunk(deps.compressor, backup, object, bytes);
    // Whoever does not come back for it need not hear of its error.
    opening.catch(() => {});
    if (before !== null) yield await before;
    before = opening;
  }
  if (before !== null) yield await before;
}

async function openChunk(
  compressor: Compressor,
  { epochOf }: OpenedBackup,
  { object: name, hash, rawBytes, storedBytes, storedHash, rows }: ManifestChunk,
  bytes: Uint8Array,
): Promise<Uint8Array> {
  const text = await readObject(
    { store: { read: () => Promise.resolve(bytes) }, compressor, epochOf },
    { kind: "chunk", name, rawBytes, hash, stored: { bytes: storedBytes, hash: storedHash } },
  );
  const found = countCopyRows(text);
  if (found !== rows) {
    throw new HoldfastError("object_damaged", `${name} holds ${found} rows, the manifest says ${rows}`);
  }
  return text;
}
