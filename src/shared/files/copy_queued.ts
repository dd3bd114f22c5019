/**
 * Files that the change stream told of, copied by whoever drains it, and listed beside the segments: last, so that a list in the
 * store is a promise that its parts are there. docs/decisions/0036-files.md, "Between two backups".
 */
import type { Budget } from "../backup/budget.ts";
import type { BackupDeps } from "../backup/deps.ts";
import type { Epoch } from "../crypto/epoch.ts";
import { sameBytes } from "../crypto/digest.ts";
import { formatLsn, parseLsn } from "../changes/decode/lsn.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { open, seal } from "../format/container.ts";
import { encodeFileList } from "../format/file_list.ts";
import { streamListName } from "../format/object_name.ts";
import type { Connection } from "../postgres/connection.ts";
import { putAndReadBack, type PutResult } from "../store/put.ts";
import { copyAll } from "./copy_files.ts";
import { countQueued, FileQueue, tellQueue } from "./file_queries.ts";

export interface CopyQueuedContext {
  readonly deps: Pick<BackupDeps, "store" | "compressor" | "random" | "log" | "files">;
  readonly connection: Connection;
  /** The drain's lease, and how it is renewed. */
  readonly token: string;
  readonly keep: () => Promise<void>;
  readonly chain: string;
  /** That of what is written now; asked for once there is something to copy. */
  readonly epoch: () => Promise<Epoch>;
  readonly budget: Budget;
  readonly fileBytesAtOnce: number;
  /** See `GuardedPut` of the drain. */
  readonly guarded: (name: string, put: () => Promise<PutResult>) => Promise<PutResult>;
}

/** Files of one list: an entry is some 600 bytes, and 250 more for each part. */
const filesAList = 500;

/**
 * True where files are left for the next leg. What keeps them from being copied raises an alert, and hinders no drain: they wait for the
 * next one. Errors: `lease_lost`, `place_changed`, those of the connection.
 */
export async function copyQueued(context: CopyQueuedContext): Promise<boolean> {
  const { connection, deps, token, budget } = context;
  budget.spendCalls(1);
  if (await countQueued(connection) === 0) {
    await tellQueue(connection, token, null);
    return false;
  }
  let isDone = false;
  let failure: HoldfastError | null = null;
  try {
    isDone = await copyAndList(context);
  } catch (error) {
    failure = asHoldfastError(error);
    if (failure.code === "lease_lost" || failure.code === "place_changed") throw failure;
    deps.log.warn("files.waiting", { code: failure.code, message: failure.message });
  }
  await tellQueue(connection, token, failure);
  return failure === null && !isDone;
}

async function copyAndList(context: CopyQueuedContext): Promise<boolean> {
  const { deps, connection, token } = context;
  const { files } = deps;
  if (files === null || files === undefined) {
    throw new HoldfastError("setting_missing", "SUPABASE_URL and SUPABASE_SECRET_KEY are not set for whoever drains");
  }
  const epoch = await context.epoch();
  const queue = new FileQueue(connection, token, epoch.id);
  const copying = { ...context, files, epoch, progress: () => {} };
  try {
    return await copyAll(copying, queue, context.keep, { of: "stream", leaveOut: false });
  } finally {
    await putLists(context, queue, epoch);
  }
}

/** What was copied, whatever became of the rest. */
async function putLists(context: CopyQueuedContext, queue: FileQueue, epoch: Epoch): Promise<void> {
  const { deps, chain, budget } = context;
  for (;;) {
    const next = await queue.toList(filesAList);
    if (next === null) return;
    const plaintext = encodeFileList(next.files.map(({ listed }) => listed));
    const lsn = parseLsn(next.lsn);
    const name = await streamListName(epoch, { chain, lsn }, plaintext);
    const bytes = await seal(deps, epoch, { kind: "files", name, plaintext });
    const opening = { compressor: deps.compressor, epochOf: () => Promise.resolve(epoch) };
    const put = await context.guarded(
      name,
      () =>
        putAndReadBack(deps.store, name, bytes, async (stored) => {
          const maxBytes = plaintext.byteLength;
          return sameBytes(await open(opening, { kind: "files", name, bytes: stored, maxBytes }), plaintext);
        }),
    );
    deps.log.step("files.listed", { task: "stream" });
    await queue.recordList({
      name,
      chain_id: chain,
      lsn: formatLsn(lsn),
      files: next.files.length,
      stored_bytes: put.storedBytes,
      stored_hash: put.storedHash,
      epoch: epoch.id,
    }, next.files);
    budget.spendText(next.files.length, plaintext.byteLength);
    budget.spendCalls(4);
  }
}
