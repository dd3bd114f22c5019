/** Table data into the target: chunk by chunk, each in one transaction with its marker. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { quoteIdent, quoteQualified } from "../schema/quote.ts";
import { projectCopyFields } from "../verify/copy_rows.ts";
import { type ApplyContext, wasDone } from "./apply.ts";
import type { ContentChunk } from "./contents.ts";
import { freeDeadRows } from "./dead_rows.ts";
import { checkSignal, restoreFailure } from "./sessions.ts";
import { markStep } from "./state.ts";

/** One table's rows and where they go. */
export interface TableLoad {
  /** As in the capture's `tables`. */
  readonly identity: string;
  readonly schema: string;
  readonly name: string;
  /** Columns as they stand in the chunks. */
  readonly columns: readonly string[];
  /** Indexes into `columns` of those that the target takes; all of them for a table that the restore makes. */
  readonly keep: readonly number[];
  /** Condition on the rows that are in the backup, where an extension makes others itself; null: all. */
  readonly rowFilter: string | null;
  readonly rows: number;
  readonly rawBytes: number;
  readonly chunks: readonly ContentChunk[];
}

/** Reads a chunk from the store: opened, authenticated, its hash and rows checked. */
export type ChunkReader = (chunk: ContentChunk) => Promise<Uint8Array>;

interface Job {
  readonly load: TableLoad;
  readonly chunk: ContentChunk;
  readonly key: string;
}

/** The marker's key; a table can hold the same chunk several times, so its place is part of it. */
export function chunkKey(load: TableLoad, index: number): string {
  return `chunk ${index} of ${load.identity}`;
}

/**
 * Loads every chunk that is not marked, on all lanes. Each lane reads its next chunk while the server takes the last, so
 * at most two chunks a lane are in memory. `onChunk` is called as chunks are committed.
 * Errors: `object_missing`, `object_damaged`, `counts_differ`, `target_full`, `cancelled`, those of the connection.
 */
export async function loadTables(
  context: ApplyContext,
  loads: readonly TableLoad[],
  read: ChunkReader,
  onChunk: (chunk: ContentChunk) => void,
): Promise<void> {
  await freeDeadRows(
    context,
    loads.filter((load) => load.chunks.some((_, at) => !context.done.has(chunkKey(load, at)))),
  );
  const queue = new ChunkQueue(loads, context.done);
  let failed = false;
  const take = (lane: number): Prefetch | null => {
    const job = failed || context.signal?.aborted ? undefined : queue.next(lane);
    return job === undefined ? null : prefetch(job, read);
  };
  const lanes = context.sessions.lanes.map(async (connection, lane) => {
    let current = take(lane);
    while (current !== null) {
      const bytes = await current.bytes;
      const following = take(lane);
      try {
        checkSignal(context.signal);
        if (!(bytes instanceof Uint8Array)) throw bytes.error;
        await loadChunk(context, connection, current.job, bytes);
      } catch (error) {
        failed = true;
        await following?.bytes;
        throw error;
      }
      context.log.step("restore.chunk", { lane });
      onChunk(current.job.chunk);
      current = following;
    }
  });
  const ends = await Promise.allSettled(lanes);
  for (const end of ends) if (end.status === "rejected") throw end.reason;
  checkSignal(context.signal);
}

/**
 * Chunks in the order in which lanes take them. A lane stays with its table, then goes to the largest that no other lane
 * is at: two sessions that extend one table wait for each other. Only where no such table is left does it help out.
 */
class ChunkQueue {
  readonly #open: OpenTable[];
  readonly #lanes = new Map<number, TableLoad>();

  constructor(loads: readonly TableLoad[], done: ReadonlySet<string>) {
    this.#open = loads.map((load) => {
      const jobs = load.chunks.map((chunk, index) => ({ load, chunk, key: chunkKey(load, index) }))
        .filter((job) => !done.has(job.key));
      return { load, jobs, rawBytes: jobs.reduce((sum, job) => sum + job.chunk.rawBytes, 0) };
    }).filter((table) => table.jobs.length > 0);
  }

  next(lane: number): Job | undefined {
    const elsewhere = new Set([...this.#lanes].filter(([other]) => other !== lane).map(([, load]) => load));
    const table = this.#open.find((one) => one.load === this.#lanes.get(lane)) ??
      largest(this.#open.filter((one) => !elsewhere.has(one.load))) ?? largest(this.#open);
    const job = table?.jobs.shift();
    if (table === undefined || job === undefined) return undefined;
    table.rawBytes -= job.chunk.rawBytes;
    if (table.jobs.length === 0) this.#open.splice(this.#open.indexOf(table), 1);
    this.#lanes.set(lane, table.load);
    return job;
  }
}

/** A table with chunks that no lane has taken. */
interface OpenTable {
  readonly load: TableLoad;
  readonly jobs: Job[];
  /** Of those chunks. */
  rawBytes: number;
}

function largest(tables: readonly OpenTable[]): OpenTable | undefined {
  let found: OpenTable | undefined;
  for (const table of tables) if (found === undefined || table.rawBytes > found.rawBytes) found = table;
  return found;
}

interface Prefetch {
  readonly job: Job;
  /** Never rejects, since nobody may be waiting yet. */
  readonly bytes: Promise<Uint8Array | { readonly error: unknown }>;
}

function prefetch(job: Job, read: ChunkReader): Prefetch {
  return { job, bytes: read(job.chunk).catch((error: unknown) => ({ error })) };
}

async function loadChunk(context: ApplyContext, connection: Connection, job: Job, bytes: Uint8Array): Promise<void> {
  const { load, chunk, key } = job;
  const text = load.keep.length === load.columns.length
    ? bytes
    : projectCopyFields(bytes, load.columns.length, load.keep);
  try {
    await connection.execute(`begin;\n${markStep(key)}`);
    const { rows } = await connection.copyIn(copyStatement(load), [text]);
    if (rows !== chunk.rows) {
      throw new HoldfastError("counts_differ", `${load.identity}: the target took ${rows} of ${chunk.rows} rows`);
    }
    await connection.execute("commit");
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    if (!(await wasDone(connection, key, error))) throw restoreFailure(error, load.identity, context.signal);
  }
  context.done.add(key);
}

/** A table without columns (or with none that the target takes) has no list, since SQL has no empty one. */
export function copyStatement(load: TableLoad): string {
  const columns = load.keep.map((index) => quoteIdent(load.columns[index] ?? ""));
  const list = columns.length === 0 ? "" : ` (${columns.join(", ")})`;
  return `copy ${quoteQualified(load.schema, load.name)}${list} from stdin`;
}
