/** A task of ranges: each is taken over, or read, sealed, put and read back; then all are recorded at once. */
import { sha256Hex } from "../crypto/digest.ts";
import type { Epoch } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";
import { open, seal } from "../format/container.ts";
import { objectName } from "../format/object_name.ts";
import { completeTask, renewLease, type Task } from "../jobs/queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { putAndReadBack } from "../store/put.ts";
import type { Budget } from "./budget.ts";
import { CapReached, type ChunkBuffer } from "./chunk_buffer.ts";
import type { BackupDeps } from "./deps.ts";
import type { Limits } from "./limits.ts";
import { halve, isSingleRow, type Range } from "./ranges.ts";
import { copyStatement, type RunTable, tableOf } from "./run_tables.ts";
import { inSnapshot } from "./session.ts";
import { isUnchanged } from "./takeover.ts";
import { decodeRanges, encodeRanges, type WorkRange } from "./task_detail.ts";

/** Requests on their way at the same time, each of some hundred bytes. */
const holdsAtOnce = 8;
/** A look and a renewal. */
const callsPerHold = 2;

export interface ChunksContext {
  readonly deps: BackupDeps;
  /** Bookkeeping and reading: never both at the same time. */
  readonly connection: Connection;
  readonly epoch: Epoch;
  readonly snapshotName: string;
  readonly tables: ReadonlyMap<string, RunTable>;
  readonly buffer: ChunkBuffer;
  readonly limits: Limits;
  readonly budget: Budget;
  readonly leaseSeconds: number;
  readonly progress: (read: { readonly rows: number; readonly rawBytes: number; readonly storedBytes: number }) => void;
}

/** Text of one range in the buffer. */
interface Section {
  readonly work: WorkRange;
  readonly start: number;
  readonly end: number;
  readonly rows: number;
}

/** A range whose rows are those of the base's chunk. */
interface TakenRange {
  readonly work: WorkRange;
  readonly base: NonNullable<WorkRange["base"]>;
}

/** A chunk as `complete_task` takes it. */
interface ChunkRecord {
  readonly oid: string;
  readonly from_block: number;
  readonly from_item: number;
  readonly to_block: number | null;
  readonly to_item: number;
  readonly rows: number;
  readonly raw_bytes: number;
  readonly stored_bytes: number;
  readonly object: string;
  readonly hash: string;
  readonly stored_hash: string;
  readonly taken_from: string | null;
}

export interface ObjectRecord {
  readonly name: string;
  readonly kind: "chunk" | "schema" | "files" | "blob" | "manifest";
  readonly raw_bytes: number;
  readonly stored_bytes: number;
  readonly hash: string;
  readonly stored_hash: string;
  readonly epoch: string;
  readonly created: boolean;
}

/**
 * Does the task, or as much of it as the budget allows, and records it; the rest becomes tasks of its own.
 * Errors: `keeper_lost`, `lock_timeout`, `table_unreadable`, `row_too_large`, `lease_lost`, those of the store.
 */
export async function doChunks(context: ChunksContext, task: Task): Promise<void> {
  let queue = decodeRanges(task);
  const chunks: ChunkRecord[] = [];
  const objects: ObjectRecord[] = [];
  for (let batch = 0; queue.length > 0 && !(batch > 0 && context.budget.spent()); batch++) {
    if (batch > 0) await renewLease(context.connection, task, context.leaseSeconds);
    const read = await readBatch(context, queue);
    context.deps.log.step("chunk.read", { task: task.id });
    const { held, left: notHeld } = await holdTaken(context, read.taken);
    chunks.push(...held);
    // Many small tables on a slow store take longer than a leg may: what is not sealed in time is read again by another.
    let left = read.sections;
    while (left.length > 0 && !(objects.length > 0 && context.budget.spent())) {
      const [section, ...others] = left;
      if (section === undefined) break;
      const sealed = await sealSection(context, section);
      chunks.push(sealed.chunk);
      objects.push(sealed.object);
      left = others;
    }
    queue = [...notHeld, ...left.map((section) => section.work), ...read.queue];
  }
  context.deps.log.step("chunk.put", { task: task.id });
  const rest = queue.length === 0
    ? []
    : [{ detail: encodeRanges(queue), estimated_bytes: queue.reduce((sum, each) => sum + each.estimatedBytes, 0) }];
  await completeTask(context.connection, task, { chunks, objects, rest });
  context.budget.spendCalls(2);
  context.deps.log.step("chunk.recorded", { task: task.id });
}

/** One short transaction: as many ranges of the queue as make one chunk's worth of text. */
async function readBatch(
  context: ChunksContext,
  queue: readonly WorkRange[],
): Promise<{ sections: Section[]; taken: TakenRange[]; queue: WorkRange[] }> {
  const { connection, buffer, limits, tables } = context;
  const sections: Section[] = [];
  const taken: TakenRange[] = [];
  const batch = prefixOf(queue, limits.chunkBytes);
  const locked = [...new Set(batch.map((work) => work.oid))].map((oid) => tableOf(tables, oid));
  let rest = [...queue];
  const alone = batch[0] !== undefined && isSingleRow(batch[0].range);
  buffer.reset(alone ? limits.rowCapBytes : limits.chunkCapBytes);
  await inSnapshot(connection, context.snapshotName, locked, async () => {
    for (const work of batch) {
      const table = tableOf(tables, work.oid);
      context.budget.spendCalls(1);
      if (work.base !== null && await isUnchanged(connection, table, work.range, work.base)) {
        taken.push({ work, base: work.base });
        context.progress({ rows: work.base.rows, rawBytes: work.base.rawBytes, storedBytes: 0 });
        rest = rest.slice(1);
        continue;
      }
      if (buffer.length >= limits.chunkBytes) return;
      const start = buffer.length;
      const rows = await readRange(context, table, work.range);
      if (rows === "cap" && start > 0) {
        // Alone it may fit.
        buffer.cutTo(start);
        return;
      }
      if (rows === "cap") {
        rest = [...await splitRange(context, table, work), ...rest.slice(1)];
        return;
      }
      if (rows > 0) sections.push({ work, start, end: buffer.length, rows });
      rest = rest.slice(1);
    }
  });
  return { sections, taken, queue: rest };
}

/**
 * Nobody puts these objects again: their locks are renewed here, where the store has any, until the budget is spent. At least the
 * first ones are. `left`: ranges whose objects are not held yet. Errors: those of the store; `object_missing` for one that is gone.
 */
async function holdTaken(
  { deps, budget }: ChunksContext,
  taken: readonly TakenRange[],
): Promise<{ readonly held: ChunkRecord[]; readonly left: WorkRange[] }> {
  const { lock } = deps.store;
  const locks = taken.length > 0 && lock !== null && await lock.inForce() !== null;
  let done = 0;
  while (locks && done < taken.length && !(done > 0 && budget.spent())) {
    const some = taken.slice(done, done + holdsAtOnce);
    await Promise.all(some.map(({ base }) => lock.hold(base.object)));
    budget.spendCalls(some.length * callsPerHold);
    done += some.length;
  }
  const held = locks ? taken.slice(0, done) : taken;
  return {
    held: held.map(({ work, base }) => takenRecord(work, base)),
    left: taken.slice(held.length).map(({ work }) => work),
  };
}

/** Ranges from the queue's start until they are a chunk's worth; those to be taken over count little. */
function prefixOf(queue: readonly WorkRange[], chunkBytes: number): WorkRange[] {
  let bytes = 0;
  const prefix: WorkRange[] = [];
  for (const work of queue) {
    if (prefix.length > 0 && bytes + work.estimatedBytes > chunkBytes && work.base === null) break;
    prefix.push(work);
    if (work.base === null) bytes += work.estimatedBytes;
  }
  return prefix;
}

async function readRange(context: ChunksContext, table: RunTable, range: Range): Promise<number | "cap"> {
  const start = context.buffer.length;
  try {
    const { rows } = await context.connection.copyOut(
      copyStatement(table, range),
      (view) => context.buffer.append(view),
    );
    context.budget.spendText(rows, context.buffer.length - start);
    return rows;
  } catch (error) {
    if (error instanceof CapReached) {
      context.budget.spendText(0, context.buffer.length - start);
      return "cap";
    }
    if (sqlstateOf(error) === "42501") {
      throw new HoldfastError("table_unreadable", `the role that takes the backup may not read ${table.sqlName}`, {
        cause: error,
      });
    }
    throw error;
  }
}

/** A range over the cap in two. A single row is read with a cap of its own; over that, it is too large for this worker. */
async function splitRange(context: ChunksContext, table: RunTable, work: WorkRange): Promise<WorkRange[]> {
  const parts = halve(work.range, await blocksOf(context.connection, table));
  if (parts !== null) {
    return parts.map((range) => ({ ...work, range, base: null, estimatedBytes: Math.ceil(work.estimatedBytes / 2) }));
  }
  throw new HoldfastError(
    "row_too_large",
    `a row of ${table.sqlName} in page ${work.range.from.block} has more than ${context.limits.rowCapBytes} bytes of text`,
  );
}

async function blocksOf(connection: Connection, table: RunTable): Promise<number> {
  // The cap's cancel has ended the transaction's statement: a failed transaction cannot be asked.
  await connection.execute("rollback");
  const [row] = await connection.query(
    `select pg_catalog.pg_relation_size($1::oid::regclass) / pg_catalog.current_setting('block_size')::bigint as blocks`,
    [table.oid],
  );
  return Number(row?.["blocks"] ?? 0);
}

async function sealSection(
  context: ChunksContext,
  section: Section,
): Promise<{ chunk: ChunkRecord; object: ObjectRecord }> {
  const { deps, epoch, buffer } = context;
  const plaintext = buffer.slice(section.start, section.end);
  const { name, hash } = await objectName(epoch, "chunk", plaintext);
  const bytes = await seal(deps, epoch, { kind: "chunk", name, plaintext });
  const put = await putAndReadBack(deps.store, name, bytes, async (stored) => {
    const opened = await open(
      { compressor: deps.compressor, epochOf: () => Promise.resolve(epoch) },
      { kind: "chunk", name, bytes: stored, maxBytes: plaintext.byteLength },
    ).catch((error: unknown) => {
      throw damagedInStore(error, name, deps.store.label);
    });
    return await sha256Hex(opened) === hash;
  });
  context.budget.spendCalls(2);
  context.progress({ rows: section.rows, rawBytes: plaintext.byteLength, storedBytes: put.storedBytes });
  const created = put.outcome === "created";
  const shared = { raw_bytes: plaintext.byteLength, stored_bytes: put.storedBytes, hash, stored_hash: put.storedHash };
  return {
    chunk: { ...placesOf(section.work), ...shared, rows: section.rows, object: name, taken_from: null },
    object: { ...shared, name, kind: "chunk", epoch: epoch.id, created },
  };
}

/** The object of these very rows is in the store and was damaged there. It is not ours to remove: it is evidence. */
function damagedInStore(error: unknown, name: string, store: string): unknown {
  if (!(error instanceof HoldfastError) || error.code !== "object_damaged") return error;
  return new HoldfastError("object_damaged", `${name} in ${store} was damaged after it was written`, {
    hint:
      "Run verify on the earlier backups, move this object out of the store, then back up again: it is written anew.",
    cause: error,
  });
}

function takenRecord(work: WorkRange, base: TakenRange["base"]): ChunkRecord {
  return {
    ...placesOf(work),
    rows: base.rows,
    raw_bytes: base.rawBytes,
    stored_bytes: base.storedBytes,
    object: base.object,
    hash: base.hash,
    stored_hash: base.storedHash,
    taken_from: base.takenFrom,
  };
}

function placesOf({ oid, range }: WorkRange): Pick<
  ChunkRecord,
  "oid" | "from_block" | "from_item" | "to_block" | "to_item"
> {
  return {
    oid,
    from_block: range.from.block,
    from_item: range.from.item,
    to_block: range.to?.block ?? null,
    to_item: range.to?.item ?? 0,
  };
}
