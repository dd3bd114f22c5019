/** A task of files: those of its group whose content is not in the store yet are copied, then the group is listed. */
import type { Budget } from "../backup/budget.ts";
import type { ObjectRecord } from "../backup/chunks_task.ts";
import type { BackupDeps } from "../backup/deps.ts";
import { sha256Hex } from "../crypto/digest.ts";
import type { Epoch } from "../crypto/epoch.ts";
import { asHoldfastError } from "../errors.ts";
import { open, seal } from "../format/container.ts";
import { encodeFileList, listFacts, partBytes } from "../format/file_list.ts";
import { objectName } from "../format/object_name.ts";
import { completeTask, renewLease, returnTask, type Task } from "../jobs/queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { severalAtOnce } from "../replicate/several.ts";
import { putAndReadBack } from "../store/put.ts";
import { type CopiedFile, type FilesToCopy, FileTask, type FileToCopy } from "./file_queries.ts";
import type { ProjectFiles } from "./project_files.ts";

export interface CopyContext {
  readonly deps: Pick<BackupDeps, "store" | "compressor" | "random" | "log">;
  readonly files: ProjectFiles;
  readonly epoch: Epoch;
  readonly budget: Budget;
  /** Content on its way at the same time; each byte of it is held some six times. */
  readonly fileBytesAtOnce: number;
  readonly progress: (read: { readonly rows: number; readonly rawBytes: number; readonly storedBytes: number }) => void;
}

export interface CopyFilesContext extends CopyContext {
  readonly connection: Connection;
  readonly leaseSeconds: number;
}

/** Files between two records: each is looked at before and after. */
const filesAtOnce = 64;
/** Requests on their way at the same time. */
const requestsAtOnce = 8;
/** Parts of a file between two looks at whether it has changed: 128 MiB. */
const partsAtOnce = 64;
/** From this try on what Storage does not answer is left out, so that the rows are backed up whatever becomes of files. */
const patientTries = 4;
/** A request of Storage, a put and a read back. */
const callsPerPart = 3;

/**
 * Content counts as so much text: it does not shrink, and is received, sent and read back whole. So an isolate's garbage stays below its
 * memory too (measured under the gateway with random content).
 */
const textsOfContent = 3;
/** A look and a renewal. */
const callsPerHold = 2;

/** A part that has to be copied. */
interface Piece {
  readonly file: FileToCopy;
  /** Counted from the file's first part. */
  readonly number: number;
  readonly from: number;
  readonly to: number;
  readonly bytes: number;
  readonly alone: false;
}

/**
 * Does the task, or as much of it as the budget allows, and gives the rest back. What Storage does not have is missed, and said.
 * Errors: `lease_lost`, `object_going`, those of the store, and those of Storage that say nothing of a single file.
 */
export async function copyFiles(context: CopyFilesContext, task: Task): Promise<void> {
  const { connection } = context;
  const lease = new FileTask(connection, task);
  const keep = () => renewLease(connection, task, context.leaseSeconds);
  const isDone = await copyAll(context, lease, keep, { of: task.id, leaveOut: task.tries >= patientTries });
  if (!isDone) return await returnTask(connection, task, null);
  await putList(context, lease, task);
}

/**
 * Copies until nothing is left, and renews locks; one batch at least. False: the budget is spent before the end. `leaveOut`: what
 * Storage does not give now is `unreadable`. Errors: as of `copyFiles`.
 */
export async function copyAll(
  context: CopyContext,
  files: FilesToCopy,
  keep: () => Promise<void>,
  { of, leaveOut }: { readonly of: string; readonly leaveOut: boolean },
): Promise<boolean> {
  const { budget, deps } = context;
  for (let batch = 0;; batch++) {
    if (batch > 0) await keep();
    const next = await files.next(filesAtOnce);
    budget.spendCalls(2);
    if (next.length === 0) break;
    if (batch > 0 && budget.spent()) return false;
    deps.log.step("files.next", { task: of, files: next.length });
    const copied = await copyBatch(context, next, leaveOut);
    deps.log.step("files.put", { task: of, files: copied.length });
    await files.record(copied);
    deps.log.step("files.recorded", { task: of });
    if (budget.spent()) return false;
  }
  return await holdTaken(context, files, keep);
}

/** Nobody puts these objects again: their locks are renewed here, where the store has any. False: the budget is spent before the end. */
async function holdTaken(
  { deps, budget }: CopyContext,
  files: FilesToCopy,
  keep: () => Promise<void>,
): Promise<boolean> {
  const { lock } = deps.store;
  if (lock === null || await lock.inForce() === null) return true;
  for (;;) {
    const held = await files.nextHolds(filesAtOnce);
    if (held.length === 0) return true;
    if (budget.spent()) return false;
    const objects = [...new Set(held.flatMap(({ object }) => object ?? []))];
    for (let at = 0; at < objects.length; at += requestsAtOnce) {
      await Promise.all(objects.slice(at, at + requestsAtOnce).map((object) => lock.hold(object)));
      await keep();
    }
    budget.spendCalls(objects.length * callsPerHold);
    await files.recordHolds([...new Set(held.map(({ id }) => id))]);
  }
}

/** As many parts as the budget allows, at least one; those of a file without a hole. */
async function copyBatch(
  context: CopyContext,
  files: readonly FileToCopy[],
  leaveOut: boolean,
): Promise<CopiedFile[]> {
  const { budget } = context;
  const bounds = { most: requestsAtOnce, mostBytes: context.fileBytesAtOnce };
  const parts = new Map<FileToCopy, Map<number, ObjectRecord>>(files.map((file) => [file, new Map()]));
  const unreadable = new Set<FileToCopy>();
  await severalAtOnce(files.flatMap(piecesOf), bounds, async (piece) => {
    if (unreadable.has(piece.file)) return true;
    const content = await readPiece(context.files, piece, leaveOut);
    if (content === null) unreadable.add(piece.file);
    else parts.get(piece.file)?.set(piece.number, await putPart(context, content));
    budget.spendText(0, piece.bytes * textsOfContent);
    budget.spendCalls(callsPerPart);
    return !budget.spent();
  });
  return files.flatMap((file): CopiedFile[] => {
    const version = { object_id: file.id, version: file.version };
    if (unreadable.has(file) || file.size === null) return [{ ...version, unreadable: true }];
    const done = parts.get(file) ?? new Map<number, ObjectRecord>();
    const inOrder: ObjectRecord[] = [];
    for (let part = done.get(file.parts); part !== undefined; part = done.get(file.parts + inOrder.length)) {
      inOrder.push(part);
    }
    const complete = file.parts + inOrder.length === countParts(file.size);
    return inOrder.length === 0 && !complete ? [] : [{ ...version, first: file.parts, parts: inOrder, complete }];
  });
}

function countParts(size: number): number {
  return Math.ceil(size / partBytes);
}

function piecesOf(file: FileToCopy): Piece[] {
  const size = file.size ?? 0;
  const end = Math.min(countParts(size), file.parts + partsAtOnce);
  return Array.from({ length: Math.max(end - file.parts, 0) }, (_, index) => {
    const number = file.parts + index;
    const from = number * partBytes;
    const to = Math.min(from + partBytes, size);
    return { file, number, from, to, bytes: to - from, alone: false };
  });
}

/** Null for what Storage does not have, and with `leaveOut` for what it does not give now either. */
async function readPiece(files: ProjectFiles, piece: Piece, leaveOut: boolean): Promise<Uint8Array | null> {
  const { file, from, to } = piece;
  try {
    return await files.read({ ...file, from, to, whole: from === 0 && to === file.size });
  } catch (error) {
    const { code, retry } = asHoldfastError(error);
    if (code === "object_missing" || (leaveOut && retry === "backoff")) return null;
    throw error;
  }
}

async function putPart(context: CopyContext, plaintext: Uint8Array): Promise<ObjectRecord> {
  const record = await putContent(context, "blob", plaintext);
  context.progress({ rows: 0, rawBytes: plaintext.byteLength, storedBytes: record.stored_bytes });
  return record;
}

async function putList(context: CopyFilesContext, lease: FileTask, task: Task): Promise<void> {
  const files = await lease.toList();
  const plaintext = encodeFileList(files);
  const record = await putContent(context, "files", plaintext);
  context.budget.spendText(files.length, plaintext.byteLength);
  const list = {
    object: record.name,
    rawBytes: record.raw_bytes,
    storedBytes: record.stored_bytes,
    hash: record.hash,
    storedHash: record.stored_hash,
    ...listFacts(files),
  };
  const unreadable = files.filter(({ missed }) => missed === "unreadable").length;
  await completeTask(context.connection, task, { list, unreadable, objects: [record] });
  context.deps.log.step("files.listed", { task: task.id });
}

async function putContent(
  { deps, epoch }: Pick<CopyContext, "deps" | "epoch">,
  kind: "blob" | "files",
  plaintext: Uint8Array,
): Promise<ObjectRecord> {
  const { name, hash } = await objectName(epoch, kind, plaintext);
  const bytes = await seal(deps, epoch, { kind, name, plaintext });
  const put = await putAndReadBack(deps.store, name, bytes, async (stored) => {
    const opening = { compressor: deps.compressor, epochOf: () => Promise.resolve(epoch) };
    const opened = await open(opening, { kind, name, bytes: stored, maxBytes: plaintext.byteLength });
    return await sha256Hex(opened) === hash;
  });
  return {
    name,
    kind,
    raw_bytes: plaintext.byteLength,
    stored_bytes: put.storedBytes,
    hash,
    stored_hash: put.storedHash,
    epoch: epoch.id,
    created: put.outcome === "created",
  };
}
