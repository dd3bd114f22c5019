/** Rows out of a full backup: its chunks, opened and checked as a restore does it. */
import { knownEntries } from "../../erase/erase_queries.ts";
import { readLedger } from "../../erase/ledger.ts";
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
import type { PastPiece, PastRows } from "./past.ts";
import { compileRowFilter } from "./row_filter.ts";

/**
 * The rows of the full backup that `wanted` names (see `openBackup`). `tables` are those that a restore of rows takes:
 * the user's and those of auth and storage, without bookkeeping and what an extension keeps. A partitioned table is
 * listed before its leaves, which are listed too, each with its own rows alone: `graph` tells them apart. What a capture
 * does not hold is `0`: the oid of a partitioned table and its columns' attnums.
 * `read` keeps two opened chunks and 16 MiB of sealed ones; without `ahead`, for a process with little memory, one of each.
 * Errors: those of `openBackup` and `readObject` of the capture; `manifest_damaged` where it does not fit the manifest.
 */
export async function openBackupRows(
  deps: ReadDeps,
  wanted: string,
  { ahead = true }: { readonly ahead?: boolean } = {},
): Promise<PastRows> {
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
    definitions: () => Promise.resolve(capture),
    read(table, filter, after = null): AsyncIterable<PastPiece> {
      const found = byName.get(nameOf(table));
      if (found === undefined) throw new HoldfastError("internal", "a table is read that the backup does not list");
      return readTable({ ...deps, ahead }, backup, found, filter, after);
    },
    erased: async (database) => await readLedger(deps, await knownEntries(database, deps.store.label)),
    close: () => Promise.resolve(),
  };
}

interface ChunkDeps {
  readonly store: Store;
  readonly compressor: Compressor;
  readonly ahead: boolean;
}

/** A piece is a chunk; its end is the chunk's place among all of the table. */
async function* readTable(
  deps: ChunkDeps,
  backup: OpenedBackup,
  { stored }: BackupTable,
  filter: Parameters<PastRows["read"]>[1],
  after: string | null,
): AsyncGenerator<PastPiece> {
  const from = after === null ? 0 : Number(after);
  let place = 0;
  for (const { columns, order, chunks } of stored) {
    const left = chunks.slice(Math.max(0, from - place));
    place += chunks.length - left.length;
    const keep = compileRowFilter(columns, filter);
    if (keep === null) {
      place += left.length;
      continue;
    }
    for await (const text of openChunks(deps, backup, left)) {
      place++;
      const kept = keep(text);
      const rows = kept.byteLength > 0 ? orderCopyFields(kept, columns.length, order) : kept;
      yield { rows, end: String(place), looked: text.byteLength };
    }
  }
}

/** In their order; with `ahead` the next is opened while the caller works on one. */
async function* openChunks(
  { store, compressor, ahead }: ChunkDeps,
  backup: OpenedBackup,
  chunks: readonly ManifestChunk[],
): AsyncGenerator<Uint8Array> {
  if (!ahead) {
    for (const chunk of chunks) yield await openChunk(compressor, backup, chunk, await store.read(chunk.object));
    return;
  }
  const listed = chunks.map((chunk) => ({ ...chunk, name: chunk.object, size: chunk.storedBytes }));
  let before: Promise<Uint8Array> | null = null;
  for await (const { object, bytes } of readAhead(store, listed)) {
    const opening = openChunk(compressor, backup, object, bytes);
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
