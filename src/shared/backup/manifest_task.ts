/** The last task of a run: definitions unchanged, counts equal, manifest sealed, put, read back; then the run has ended. */
import { z } from "zod";
import { type AnchorDeps, putAnchor } from "../audit/anchor.ts";
import { tellKeys } from "../audit/tell_keys.ts";
import { tellLocks } from "../audit/tell_locks.ts";
import { sha256Hex } from "../crypto/digest.ts";
import type { Epoch } from "../crypto/epoch.ts";
import { epochSource } from "../crypto/epochs.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { repositoryName } from "../format/layout.ts";
import {
  type Manifest,
  type ManifestChunk,
  manifestSchema,
  quarantinedCode,
  quarantineOf,
} from "../format/manifest.ts";
import { openManifest, sealManifest } from "../format/manifest_codec.ts";
import { type DoneList, readDoneLists, warningsOfLists } from "../files/done_lists.ts";
import { placeChanged, putAtPlace, settlePlace } from "../identity/settle_place.ts";
import { finishRun, readRun, type Task } from "../jobs/queries.ts";
import { type RunRow, text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { putAndReadBack } from "../store/put.ts";
import { definitionsNow } from "./catalog.ts";
import type { ObjectRecord } from "./chunks_task.ts";
import { type BackupDeps, holdfastVersion } from "./deps.ts";
import { readRunTables, type RunTable } from "./run_tables.ts";
import { listManifests, readProject } from "./store_owner.ts";
import { knowsChain } from "./known_chain.ts";
import { shrinkage, type TableRows } from "./shrinkage.ts";

const detailFormat = z.object({
  schemaObject: z.object({
    record: z.object({
      name: z.string(),
      kind: z.literal("schema"),
      raw_bytes: z.int(),
      stored_bytes: z.int(),
      hash: z.string(),
      stored_hash: z.string(),
      epoch: z.string(),
      created: z.boolean(),
    }),
  }),
  server: z.object({ versionNum: z.int(), encoding: z.string(), collate: z.string(), ctype: z.string() }),
  sequences: z.array(
    z.object({ schema: z.string(), name: z.string(), lastValue: z.string(), isCalled: z.boolean() }),
  ),
  notCaptured: z.array(z.object({ catalog: z.string(), identity: z.string(), reason: z.string() })),
  files: manifestSchema.shape.files.unwrap().unwrap().omit({ lists: true }).nullable(),
});

export interface ManifestContext {
  /** With the store below `storePrefix`. */
  readonly deps: BackupDeps;
  /** With the store as it is set. */
  readonly unplaced: BackupDeps;
  readonly storePrefix: string;
  readonly connection: Connection;
  readonly epoch: Epoch;
}

/** Errors: `catalog_changed`, `counts_differ`, `place_changed`, those of the store. */
export async function doManifest(context: ManifestContext, task: Task): Promise<void> {
  const { deps, connection, epoch, unplaced, storePrefix } = context;
  const run = await readRun(connection, task.run);
  const detail = detailFormat.safeParse(task.detail);
  if (!detail.success) throw new HoldfastError("internal", `task ${task.id} cannot be read`);
  if (run.settledAt === null && await definitionsNow(connection) !== run.fingerprint) {
    throw new HoldfastError("catalog_changed", "definitions changed while the backup ran");
  }
  const tables = await readRunTables(connection, task.run);
  const chunks = await readChunks(connection, task);
  checkCounts(tables, chunks);
  deps.log.step("counts.recorded", { run: task.run });
  const place = await settlePlace(unplaced, connection);
  if (place.prefix !== storePrefix) throw placeChanged("this database writes elsewhere than the run began to");
  const lineage = await lineageOf(deps, connection, epoch);
  const project = await readProject(connection);
  const quarantine = await quarantineReason(connection, run, tables, chunks);
  const chain = await knowsChain(deps, connection, run) ? run.chainId : null;
  const lists = await readDoneLists(connection, task);
  const manifest = build({
    run,
    chain,
    detail: detail.data,
    tables,
    chunks,
    lists,
    lineage,
    project,
    epoch,
    quarantine,
  });
  const sealed = await sealManifest(deps, epoch, manifest);
  // What every backup needs and none puts again.
  await deps.store.lock?.hold(repositoryName);
  const openDeps = { compressor: deps.compressor, epochOf: () => Promise.resolve(epoch) };
  let stored = manifest;
  const put = await putAtPlace(
    unplaced,
    connection,
    place,
    sealed.name,
    () =>
      putAndReadBack(deps.store, sealed.name, sealed.bytes, async (bytes) => {
        // A worker that died after its put: the manifest of the same snapshot is as good as ours.
        stored = (await openManifest(openDeps, sealed.name, bytes)).manifest;
        return stored.id === manifest.id && stored.snapshot.text === manifest.snapshot.text &&
          stored.totals.rows === manifest.totals.rows;
      }),
  );
  deps.log.step("manifest.put", { run: task.run });
  const record: ObjectRecord = {
    name: sealed.name,
    kind: "manifest",
    raw_bytes: new TextEncoder().encode(JSON.stringify(stored)).byteLength,
    stored_bytes: put.storedBytes,
    hash: await sha256Hex(new TextEncoder().encode(JSON.stringify(stored))),
    stored_hash: put.storedHash,
    epoch: epoch.id,
    created: put.outcome === "created",
  };
  const status = await finishRun(connection, task, {
    name: sealed.name,
    hash: put.storedHash,
    generation: stored.generation,
    epoch: epoch.id,
    totals: {
      rows: stored.totals.rows,
      raw_bytes: stored.totals.rawBytes,
      stored_bytes: stored.totals.storedBytes,
    },
    objects: [detail.data.schemaObject.record, record],
    warnings: stored.warnings,
    quarantine_reason: quarantineOf(stored),
  });
  deps.log.step("run.recorded", { run: task.run, status });
  await anchorEnd({ ...deps, connection }, epoch);
}

/** The backup stands whatever becomes of this: the next anchor comes within the hour. */
async function anchorEnd(deps: AnchorDeps & Pick<BackupDeps, "log" | "ring" | "clock">, epoch: Epoch): Promise<void> {
  try {
    await tellKeys(deps.connection, deps.ring);
    await tellLocks(deps.connection, deps.store, deps.clock.now());
    await putAnchor(deps, epoch);
  } catch (error) {
    deps.log.warn("anchor.not_put", { code: asHoldfastError(error).code });
  }
}

type ChunksByTable = ReadonlyMap<string, readonly ManifestChunk[]>;

async function readChunks(connection: Connection, task: Task): Promise<ChunksByTable> {
  const rows = await connection.query(
    `select c.table_oid, c.from_block, c.from_item, c.to_block, c.to_item, c.rows, c.raw_bytes, c.stored_bytes, c.object,
            c.hash, c.stored_hash, c.taken_from
       from backup.chunks as c where c.run_id = $1::uuid and c.attempt = $2::int
      order by c.table_oid, c.from_block, c.from_item`,
    [task.run, String(task.attempt)],
  );
  const byTable = new Map<string, ManifestChunk[]>();
  for (const row of rows) {
    const fromItem = Number(row["from_item"]);
    const toItem = Number(row["to_item"]);
    const chunk: ManifestChunk = {
      object: text(row, "object"),
      rows: Number(row["rows"]),
      rawBytes: Number(row["raw_bytes"]),
      storedBytes: Number(row["stored_bytes"]),
      hash: text(row, "hash"),
      storedHash: text(row, "stored_hash"),
      fromBlock: Number(row["from_block"]),
      toBlock: row["to_block"] === null ? null : Number(row["to_block"]),
      ...(fromItem > 0 ? { fromItem } : {}),
      ...(toItem > 0 ? { toItem } : {}),
      takenFrom: row["taken_from"] ?? null,
    };
    const oid = text(row, "table_oid");
    const list = byTable.get(oid);
    if (list === undefined) byTable.set(oid, [chunk]);
    else list.push(chunk);
  }
  return byTable;
}

function checkCounts(tables: ReadonlyMap<string, RunTable>, chunks: ChunksByTable): void {
  for (const table of tables.values()) {
    const read = sum((chunks.get(table.oid) ?? []).map((chunk) => chunk.rows));
    if (table.countedRows === read) continue;
    throw new HoldfastError("counts_differ", `${table.sqlName} has ${table.countedRows} rows, ${read} were read`);
  }
}

interface LineagePlace {
  readonly generation: number;
  readonly previous: { readonly name: string; readonly hash: string } | null;
}

/** After the newest manifest in the store, whoever wrote it: the store may have come from another install. */
async function lineageOf(deps: BackupDeps, connection: Connection, epoch: Epoch): Promise<LineagePlace> {
  const [newest] = await listManifests(deps.store);
  if (newest === undefined) return { generation: 1, previous: null };
  const [known] = await connection.query(
    `select coalesce(r.link_hash, r.manifest_hash) as link_hash, r.generation from backup.runs as r
      where r.manifest_name = $1 and r.status in ('succeeded', 'quarantined')`,
    [newest.name],
  );
  if (known !== undefined) {
    return {
      generation: Number(known["generation"]) + 1,
      previous: { name: newest.name, hash: text(known, "link_hash") },
    };
  }
  const epochOf = epochSource(deps.store, deps.ring, epoch.repositoryId);
  const bytes = await deps.store.read(newest.name);
  const opened = await openManifest({ compressor: deps.compressor, epochOf }, newest.name, bytes);
  return { generation: opened.manifest.generation + 1, previous: { name: opened.name, hash: opened.hash } };
}

function build(parts: {
  readonly run: RunRow;
  readonly chain: string | null;
  readonly detail: z.infer<typeof detailFormat>;
  readonly tables: ReadonlyMap<string, RunTable>;
  readonly chunks: ChunksByTable;
  readonly lists: readonly DoneList[];
  readonly lineage: LineagePlace;
  readonly project: Manifest["project"];
  readonly epoch: Epoch;
  readonly quarantine: string | null;
}): Manifest {
  const { run, detail, epoch } = parts;
  const tables = [...parts.tables.values()].map((table) => {
    const chunks = [...(parts.chunks.get(table.oid) ?? [])];
    return {
      schema: table.schema,
      name: table.name,
      oid: Number(table.oid),
      relfilenode: Number(table.relfilenode),
      columns: table.columns.map(({ name, type }) => ({ name, type })),
      rows: sum(chunks.map((chunk) => chunk.rows)),
      rawBytes: sum(chunks.map((chunk) => chunk.rawBytes)),
      fingerprint: table.fingerprint,
      dataOwner: table.dataOwner,
      chunks,
    };
  });
  const record = detail.schemaObject.record;
  const all = tables.flatMap((table) => table.chunks);
  const objects = new Map(all.map((chunk) => [chunk.object, chunk]));
  const lists = parts.lists.map(({ list }) => list);
  const consistentAt = must(run.consistentAt, "consistent_at");
  return {
    format: "holdfast/manifest",
    version: 1,
    id: run.id,
    tiers: [...run.tiers],
    repositoryId: epoch.repositoryId,
    project: parts.project,
    previousManifest: parts.lineage.previous,
    generation: parts.lineage.generation,
    // The same for every try of this task, and another for another attempt.
    createdAt: consistentAt,
    consistentAt,
    snapshot: { text: must(run.snapshot, "snapshot"), walInsertLsn: must(run.walLsn, "wal_lsn") },
    chain: parts.chain,
    server: detail.server,
    holdfastVersion,
    epoch: epoch.id,
    schemaObject: {
      name: record.name,
      rawBytes: record.raw_bytes,
      storedBytes: record.stored_bytes,
      hash: record.hash,
      storedHash: record.stored_hash,
    },
    tables,
    sequences: detail.sequences,
    largeObjects: [],
    warnings: [
      ...run.warnings.map(({ code, message }) => ({ code, message })),
      ...warningsOfLists(parts.lists),
      ...(parts.quarantine === null ? [] : [{ code: quarantinedCode, message: parts.quarantine }]),
    ],
    notCaptured: detail.notCaptured,
    files: detail.files === null ? null : { ...detail.files, lists },
    totals: {
      tables: tables.length,
      rows: sum(tables.map((table) => table.rows)),
      rawBytes: sum(tables.map((table) => table.rawBytes)),
      storedBytes: sum([...objects.values()].map((chunk) => chunk.storedBytes)) + record.stored_bytes +
        sum(lists.map((list) => list.storedBytes + list.partStoredBytes)),
      newStoredBytes: run.newStoredBytes + (record.created ? record.stored_bytes : 0),
      objects: new Set([record.name, ...objects.keys(), ...lists.map((list) => list.object)]).size,
    },
  };
}

/** Compares with the newest backup that counts, if the snapshot of this run follows it. */
async function quarantineReason(
  connection: Connection,
  run: RunRow,
  tables: ReadonlyMap<string, RunTable>,
  chunks: ChunksByTable,
): Promise<string | null> {
  const rows = await connection.query(
    `select t.table_oid, t.relfilenode, t.schema_name, t.table_name, t.counted_rows, t.statistics
       from backup.run_tables as t
      where t.run_id = (
        select r.id from backup.runs as r
         where r.kind = 'full' and r.status = 'succeeded' and r.id <> $1::uuid
         order by r.consistent_at desc limit 1
      )`,
    [run.id],
  );
  const before = rows.map((row): TableRows => ({
    oid: text(row, "table_oid"),
    relfilenode: text(row, "relfilenode"),
    name: `${text(row, "schema_name")}.${text(row, "table_name")}`,
    rows: Number(row["counted_rows"] ?? 0),
    deleted: Number((JSON.parse(text(row, "statistics")) as { deleted?: number }).deleted ?? 0),
  }));
  const after = [...tables.values()].map((table): TableRows => ({
    oid: table.oid,
    relfilenode: table.relfilenode,
    name: `${table.schema}.${table.name}`,
    rows: sum((chunks.get(table.oid) ?? []).map((chunk) => chunk.rows)),
    deleted: table.statistics.deleted,
  }));
  return shrinkage(before, after);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

function must(value: string | null, what: string): string {
  if (value === null) throw new HoldfastError("internal", `the run has no ${what}`);
  return value;
}
