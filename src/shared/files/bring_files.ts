/** Files of a backup or a moment into a project's Storage: planned, held against the erasure ledger, put back a few at a time. */
import { erasedFiles } from "../erase/erased_files.ts";
import type { Ledger } from "../erase/ledger.ts";
import { asHoldfastError, type ErrorCode, HoldfastError } from "../errors.ts";
import type { ListedFile } from "../format/file_list.ts";
import { severalAtOnce } from "../replicate/several.ts";
import { bytesOf, planPutBack, type PutBackMode, type PutBackPlan } from "./plan_put_back.ts";
import { makeBuckets, putBack, type PutBackDeps, readPresentFiles } from "./put_back.ts";

export interface BringPlan extends PutBackPlan {
  /** Of people who were erased: they are not put back. */
  readonly erased: readonly ListedFile[];
}

/**
 * Nothing is changed. `wholeBuckets`: what else lies in their buckets is an orphan. Errors: `target_differs` where the database has no
 * Storage, those of the connection.
 */
export async function planBringing(
  { session }: Pick<PutBackDeps, "session">,
  ledger: Ledger,
  files: readonly ListedFile[],
  { mode, wholeBuckets }: { readonly mode: PutBackMode; readonly wholeBuckets: boolean },
): Promise<BringPlan> {
  const present = await readPresentFiles(session, [...new Set(files.map(({ bucket }) => bucket))]);
  const { kept, erased } = await withoutErased(ledger, files);
  const plan = planPutBack(kept, present, mode);
  return { ...plan, orphans: wholeBuckets ? plan.orphans : [], erased };
}

/** What the ledger lets through, and what not. */
export async function withoutErased(
  ledger: Ledger,
  files: readonly ListedFile[],
): Promise<{ readonly kept: readonly ListedFile[]; readonly erased: readonly ListedFile[] }> {
  const gone = await erasedFiles(ledger, files.map((file) => ({ ...file, owners: ownersOf(file.row) })));
  const ids = new Set([...gone].map(({ id }) => id));
  return { kept: files.filter(({ id }) => !ids.has(id)), erased: files.filter(({ id }) => ids.has(id)) };
}

/** Ids of users that a row of storage.objects names. */
export function ownersOf(row: string): string[] {
  const { owner, owner_id } = JSON.parse(row) as { readonly owner?: string | null; readonly owner_id?: string | null };
  return [...new Set([owner, owner_id].filter((id) => typeof id === "string" && id !== ""))] as string[];
}

/** The same file with another owner. Of two members of one name the later counts, for JSON.parse as for jsonb. */
export function givenTo(file: ListedFile, user: string): ListedFile {
  const { owner, owner_id } = JSON.parse(file.row) as { readonly owner?: unknown; readonly owner_id?: unknown };
  const given = [...owner == null ? [] : ["owner"], ...owner_id == null ? [] : ["owner_id"]];
  const members = given.map((name) => `, ${JSON.stringify(name)}: ${JSON.stringify(user)}`).join("");
  return { ...file, row: `${file.row.trimEnd().slice(0, -1)}${members}}` };
}

export interface BroughtFiles {
  readonly put: number;
  readonly bytes: number;
  readonly madeBuckets: readonly string[];
  /** Not put back, for a reason of their own. */
  readonly failed: readonly { readonly file: string; readonly code: string; readonly message: string }[];
}

export interface BringOptions {
  /** Files on their way at the same time, and bytes of them. */
  readonly most: number;
  readonly mostBytes: number;
  readonly signal?: AbortSignal;
  /** False ends it before the next file. */
  readonly onFile?: (bytes: number) => boolean | void;
}

/** For a process. A file is held part by part, whatever its size. */
export const processBounds = { most: 4, mostBytes: 32 * 1024 * 1024 } as const;

/** What is wrong with one file and leaves the others as they are. */
const ofOneFile: ReadonlySet<ErrorCode> = new Set(["object_missing", "object_damaged", "target_differs"]);

/** Errors: `cancelled`, with what was put back in place; those of Storage, the store and the database. */
export async function bringFiles(
  deps: Omit<PutBackDeps, "inTurn">,
  plan: PutBackPlan,
  bucketRows: readonly string[],
  { most, mostBytes, signal, onFile }: BringOptions,
): Promise<BroughtFiles> {
  const wanted = plan.files.filter(({ puts }) => puts);
  const madeBuckets = await makeBuckets(deps, bucketRows, [...new Set(wanted.map(({ file }) => file.bucket))]);
  const failed: { file: string; code: string; message: string }[] = [];
  let put = 0;
  let bytes = 0;
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = last.then(work);
    last = mine.catch(() => {});
    return mine;
  };
  const pieces = wanted.map(({ file, replaces }) => ({ file, replaces, bytes: bytesOf(file), alone: false }));
  await severalAtOnce(pieces, { most, mostBytes }, async ({ file, replaces }) => {
    if (signal?.aborted === true) throw new HoldfastError("cancelled", "it was cancelled; what was put back stays");
    try {
      await putBack({ ...deps, inTurn }, file, replaces);
      put++;
      bytes += bytesOf(file);
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      if (!ofOneFile.has(code)) throw error;
      failed.push({ file: `${file.bucket}/${file.name}`, code, message });
    }
    return onFile?.(bytes) !== false;
  });
  return { put, bytes, madeBuckets, failed };
}
