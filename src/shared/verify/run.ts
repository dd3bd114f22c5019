/** Every object of a backup read, opened, hashed and counted against its manifest. */
import type { Clock } from "../clock.ts";
import { asHoldfastError, type ErrorCode, HoldfastError } from "../errors.ts";
import { fileListsOf, type Manifest } from "../format/manifest.ts";
import type { Log } from "../log.ts";
import { countCopyRows } from "./copy_rows.ts";
import { decodeCapture } from "./decode_capture.ts";
import { addTallies, FileRows, type FileTally, noFiles, rowsProblem } from "./file_rows.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "./find_backup.ts";
import { isVerdict } from "./is_verdict.ts";
import { checkFileList, recordedPart } from "./read_file_list.ts";
import { type ObjectDeps, readObject, type RecordedObject } from "./read_object.ts";
import { ListsInUse, type VerifyStep, verifySteps } from "./verify_steps.ts";

export { isVerdict } from "./is_verdict.ts";

export interface VerifyDeps extends ReadDeps {
  readonly clock: Clock;
  readonly log: Log;
}

export interface VerifyProblem {
  /** Full name in the store. */
  readonly object: string;
  readonly code: ErrorCode;
  readonly message: string;
}

export interface VerifyResult {
  readonly id: string;
  readonly ok: boolean;
  /** Objects looked at, the manifest among them. */
  readonly objects: number;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** Files of Storage; null: the backup says nothing of them. */
  readonly files: VerifiedFiles | null;
  readonly problems: readonly VerifyProblem[];
}

/** Orphans either way are no damage: that a version was missed is known since the backup was made. */
export interface VerifiedFiles {
  /** Rows of storage.objects in buckets that are copied; of an incremental the files that were copied for it. */
  readonly rows: number;
  /** Of them those of which there is no content. */
  readonly withoutContent: number;
  /** Contents of versions that came after the snapshot: their rows are not in it. */
  readonly withoutRow: number;
}

export interface VerifyProgress {
  readonly objects: number;
  readonly objectsTotal: number;
  readonly storedBytes: number;
  readonly storedBytesTotal: number;
}

export interface VerifyOptions {
  /** Objects in memory at once. Default 4: enough to hide a store's latency, some 100 MB with the largest usual chunks. */
  readonly parallel?: number;
  /** Only every nth object, from the `share`th on (counted from 0): several workers divide a backup. Default: all. */
  readonly part?: { readonly share: number; readonly of: number };
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: VerifyProgress) => void;
}

const defaultParallel = 4;

/** Named problems; more are counted in one last line. A store that is gone makes every object one. */
const maxProblems = 1000;

/**
 * Verifies the backup that `wanted` names (a full id, a shortened one, `latest`). What is wrong with objects is in
 * `problems`; thrown is what keeps the manifest from being read: `backup_not_found`, `backup_ambiguous`, `key_wrong`,
 * `format_newer`, `manifest_damaged`, `object_damaged` (of the manifest), `identity_missing`, `store_…`, `cancelled`.
 */
export async function verifyBackup(
  deps: VerifyDeps,
  wanted: string,
  options: VerifyOptions = {},
): Promise<VerifyResult> {
  const backup = await openBackup(deps, wanted);
  let cursor: number | null = 0;
  const legs: VerifyLeg[] = [];
  while (cursor !== null) {
    const leg = await verifyLeg(deps, backup, { ...options, from: cursor, budgetBytes: Number.MAX_SAFE_INTEGER });
    legs.push(leg);
    cursor = leg.next;
  }
  return verifyResult(backup.manifest, legs);
}

/** What one bounded stretch of a verification found. Plain JSON, so that a run can keep it between legs. */
export interface VerifyLeg {
  /** Where the next leg starts; null: all objects have been looked at. */
  readonly next: number | null;
  readonly objects: number;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly files: FileTally;
  readonly problems: readonly VerifyProblem[];
}

/**
 * Looks at objects from index `from` of the manifest's list on, until `budgetBytes` of plaintext have been taken up or
 * none is left; at least one object a leg. A failure of the store itself ends the leg and is thrown when it is one that
 * may heal (`backoff`); the same leg may then be run again.
 */
export async function verifyLeg(
  deps: Pick<VerifyDeps, "store" | "compressor" | "log">,
  backup: OpenedBackup,
  options: VerifyOptions & { readonly from: number; readonly budgetBytes: number },
): Promise<VerifyLeg> {
  const { manifest } = backup;
  const { share, of } = options.part ?? { share: 0, of: 1 };
  const all = verifySteps(manifest).filter((_, index) => index % of === share);
  const storedBytesTotal = all.reduce((sum, object) => sum + object.storedBytes, 0);
  const reader: ObjectDeps = { store: deps.store, compressor: deps.compressor, epochOf: backup.epochOf };
  const look = looker(reader, manifest);
  const problems: VerifyProblem[] = [];
  const done = { objects: 0, rows: 0, rawBytes: 0, storedBytes: 0 };
  const tallies: FileTally[] = [];
  let at = options.from;
  let taken = 0;
  let failure: unknown = null;

  const worker = async () => {
    while (failure === null) {
      const object = all[at];
      if (object === undefined || (taken > 0 && taken + object.rawBytes > options.budgetBytes)) return;
      if (options.signal?.aborted) throw new HoldfastError("cancelled", "the verification was cancelled");
      at++;
      taken += Math.max(object.rawBytes, 1);
      const looked = await look(object);
      if ("problem" in looked) problems.push(looked.problem);
      else {
        done.rows += looked.rows;
        tallies.push(looked.files);
      }
      done.objects++;
      done.rawBytes += object.rawBytes;
      done.storedBytes += object.storedBytes;
      options.onProgress?.({
        objects: options.from + done.objects,
        objectsTotal: all.length,
        storedBytes: done.storedBytes,
        storedBytesTotal,
      });
    }
  };
  const stop = (error: unknown) => {
    failure ??= error;
  };
  await Promise.all(Array.from({ length: options.parallel ?? defaultParallel }, () => worker().catch(stop)));
  if (failure !== null) throw failure;
  deps.log.debug("verify.leg", { from: options.from, objects: done.objects, problems: problems.length });
  problems.sort((a, b) => a.object < b.object ? -1 : 1);
  return { ...done, files: addTallies(tallies), next: at < all.length ? at : null, problems };
}

/** The legs of one verification as one result. */
export function verifyResult(manifest: Manifest, legs: readonly VerifyLeg[]): VerifyResult {
  const sum = (of: (leg: VerifyLeg) => number) => legs.reduce((total, leg) => total + of(leg), 0);
  const found = legs.flatMap((leg) => leg.problems);
  const files = (manifest.files ?? null) === null ? null : addTallies(legs.map((leg) => leg.files));
  // What could not be read was not counted either.
  const orphans = files === null || found.length > 0 ? null : rowsProblem(manifest, files);
  const problems = orphans === null ? found : [orphans];
  const named = problems.slice(0, maxProblems);
  const [beyond] = problems.slice(maxProblems);
  if (beyond !== undefined) {
    named.push({ ...beyond, message: `${problems.length - maxProblems} more objects have problems` });
  }
  return {
    id: manifest.id,
    ok: problems.length === 0,
    objects: 1 + sum((leg) => leg.objects),
    rows: manifest.totals.rows,
    rawBytes: sum((leg) => leg.rawBytes),
    storedBytes: sum((leg) => leg.storedBytes),
    files: files === null
      ? null
      : { rows: files.rows, withoutContent: files.withoutContent, withoutRow: files.withoutRow },
    problems: named,
  };
}

type Looked = { readonly rows: number; readonly files: FileTally } | { readonly problem: VerifyProblem };

/** What looks at one step: rows of a chunk, files of a list, or what is wrong with an object. Errors: what says nothing of it. */
function looker(reader: ObjectDeps, manifest: Manifest): (step: VerifyStep) => Promise<Looked> {
  const rowsOf = rowsByObject(manifest);
  const listOf = new Map(fileListsOf(manifest).map((list) => [list.object, list]));
  const lists = new ListsInUse(reader);
  const fileRows = new FileRows(manifest);
  const isOurs = (error: unknown) => isVerdict(asHoldfastError(error));
  const recordedOf = async (step: VerifyStep): Promise<RecordedObject | null> => {
    if (step.part === null) return { ...step, stored: { bytes: step.storedBytes, hash: step.storedHash } };
    const part = await lists.part(step.list, step.part, isOurs);
    return part === undefined ? null : recordedPart(part);
  };
  return async (step) => {
    const recorded = await recordedOf(step);
    if (recorded === null) return { rows: 0, files: noFiles };
    try {
      const plaintext = await readObject(reader, recorded);
      const list = listOf.get(recorded.name);
      if (recorded.kind === "files" && list !== undefined) {
        return { rows: 0, files: fileRows.list(checkFileList(plaintext, list)) };
      }
      const rows = rowsIn(plaintext, recorded, rowsOf.get(recorded.name) ?? []);
      return { rows, files: recorded.kind === "chunk" ? fileRows.chunk(recorded.name, plaintext) : noFiles };
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      if (!isOurs(error)) throw error;
      return { problem: { object: recorded.name, code, message } };
    }
  };
}

/** Rows in a chunk. Errors: `object_damaged` where it does not hold what is recorded. */
function rowsIn(plaintext: Uint8Array, recorded: RecordedObject, expectedRows: readonly number[]): number {
  if (recorded.kind === "schema") decodeCapture(plaintext, recorded.name);
  if (recorded.kind !== "chunk") return 0;
  const rows = countCopyRows(plaintext);
  const wrong = expectedRows.find((expected) => expected !== rows);
  if (wrong !== undefined) {
    throw new HoldfastError("object_damaged", `${recorded.name} holds ${rows} rows, the manifest says ${wrong}`);
  }
  return rows;
}

/** Several ranges with the same text share an object; each says how many rows it has. */
function rowsByObject(manifest: Manifest): Map<string, number[]> {
  const rows = new Map<string, number[]>();
  for (const chunk of manifest.tables.flatMap((table) => table.chunks)) {
    const known = rows.get(chunk.object);
    if (known === undefined) rows.set(chunk.object, [chunk.rows]);
    else known.push(chunk.rows);
  }
  return rows;
}
