/**
 * The files of what a drill restored: rows of storage.objects in its database against the lists, either way, and content read back by its
 * hashes; a sample where there is much. No Storage belongs to that database: what is read is held for a moment, and goes nowhere.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import type { Budget } from "../backup/budget.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { FilesByList } from "../files/files_by_list.ts";
import type { ListedFile } from "../format/file_list.ts";
import type { Manifest } from "../format/manifest.ts";
import { fileListsOf } from "../format/manifest.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { isVerdict } from "../verify/is_verdict.ts";
import type { ReadPart } from "../verify/read_file_list.ts";

const count = z.int().nonnegative();

/** How far it is; no name of a file. */
export const provenFilesFormat = z.object({
  list: count,
  /** Of the list: files that are dealt with, and parts of the next one. */
  at: count,
  part: count,
  /** All parts of that one are sound by now. */
  isSound: z.boolean(),
  after: z.string().nullable(),
  /** That the moment has, in buckets that are copied. */
  files: count,
  /** Of them those whose version was gone before it was copied. */
  withoutContent: count,
  /** Read back whole, each part by its hash; bytes of them. */
  checked: count,
  bytes: count,
  /** Of these, as many have the MD5 that Storage had given them. */
  sameMd5: count,
  /** Rows without a file, and files without a row, in the database that was restored. */
  rowsAlone: count,
  filesAlone: count,
  problems: z.array(z.object({ object: z.string(), message: z.string() })),
  problemsTotal: count,
  done: z.boolean(),
});
export type ProvenFiles = z.infer<typeof provenFilesFormat>;

export const noFilesYet: ProvenFiles = {
  list: 0,
  at: 0,
  part: 0,
  isSound: true,
  after: null,
  files: 0,
  withoutContent: 0,
  checked: 0,
  bytes: 0,
  sameMd5: 0,
  rowsAlone: 0,
  filesAlone: 0,
  problems: [],
  problemsTotal: 0,
  done: false,
};

/** Of a project with no more than this all are read. */
const mostFiles = 1_000;
const mostBytes = 256 * 1024 * 1024;
/** Named in the evidence; more are counted. */
const mostProblems = 20;

/** Which share of the files is read, from 0 to 1. Pure. */
export function shareOf(manifest: Manifest): number {
  const lists = fileListsOf(manifest);
  const files = lists.reduce((sum, list) => sum + list.files - list.missed, 0);
  const bytes = lists.reduce((sum, list) => sum + list.partBytes, 0);
  return Math.min(1, mostFiles / Math.max(files, 1), mostBytes / Math.max(bytes, 1));
}

/** By chance, and the same in each leg of the drill. Pure. */
export function isChosen(drill: string, file: string, share: number): boolean {
  const digits = createHash("sha256").update(`${drill} ${file}`).digest("hex").slice(0, 8);
  return Number.parseInt(digits, 16) < share * 2 ** 32;
}

export interface ProveFilesDeps {
  readonly drill: string;
  /** Into the restored database. */
  readonly session: Connection;
  /** Of the full backup. */
  readonly manifest: Manifest;
  readonly source: FilesByList;
  readonly readPart: ReadPart;
  readonly budget: Budget;
  readonly signal?: AbortSignal;
  readonly onFile?: (done: ProvenFiles) => void;
}

/** Goes on until the budget is spent; one part at least. Errors: `cancelled`, what says nothing of an object but of the way to it. */
export async function proveFiles(deps: ProveFilesDeps, from: ProvenFiles): Promise<ProvenFiles> {
  const { manifest, source, budget } = deps;
  const share = shareOf(manifest);
  const buckets = comparedBuckets(manifest);
  let state = from;
  for (; state.list <= source.lists.length; state = { ...state, list: state.list + 1 }) {
    const list = source.lists[state.list];
    const read = list === undefined ? { files: [], after: null } : await source.read(state.list, state.after);
    budget.spendText(list?.files ?? 0, list?.rawBytes ?? 0);
    const files = read.files.filter(({ bucket, inSnapshot }) => inSnapshot && buckets.includes(bucket));
    if (state.at === 0 && state.part === 0) {
      state = await compareRows(deps, state, { files, buckets, upTo: read.after });
    }
    const chosen = files.filter(({ id, missed }) => missed === null && isChosen(deps.drill, id, share));
    state = await readBack(deps, state, chosen);
    if (state.at < chosen.length) return state;
    state = { ...state, at: 0, part: 0, after: read.after };
    deps.onFile?.(state);
    if (budget.spent() && list !== undefined) return { ...state, list: state.list + 1 };
  }
  return { ...state, done: true };
}

/** Either way, between two ids: the last list is followed by what comes behind it, of which there should be nothing. */
async function compareRows(
  { session, budget }: ProveFilesDeps,
  state: ProvenFiles,
  { files, buckets, upTo }: {
    readonly files: readonly ListedFile[];
    readonly buckets: readonly string[];
    readonly upTo: string | null;
  },
): Promise<ProvenFiles> {
  const rows = await session.query(
    `select o.id, pg_catalog.to_jsonb(o) ->> 'version' as version from storage.objects as o
      where o.bucket_id in (select b.id from pg_catalog.jsonb_array_elements_text($1::jsonb) as b (id)) and o.name is not null
        and ($2::uuid is null or o.id > $2::uuid) and ($3::uuid is null or o.id <= $3::uuid)`,
    [JSON.stringify(buckets), state.after, upTo],
  );
  budget.spendCalls(1);
  const there = new Map(rows.map((row) => [text(row, "id"), row["version"] ?? null]));
  const isThere = ({ id, row }: ListedFile) =>
    there.has(id) && there.get(id) === ((JSON.parse(row) as { readonly version?: string | null }).version ?? null);
  const matched = files.filter(isThere).length;
  return {
    ...state,
    files: state.files + files.length,
    withoutContent: state.withoutContent + files.filter(({ missed }) => missed !== null).length,
    rowsAlone: state.rowsAlone + there.size - matched,
    filesAlone: state.filesAlone + files.length - matched,
  };
}

async function readBack(
  { readPart, budget, signal, onFile }: ProveFilesDeps,
  from: ProvenFiles,
  chosen: readonly ListedFile[],
): Promise<ProvenFiles> {
  let state = from;
  for (const file of chosen.slice(from.at)) {
    if (state.bytes > 2 * mostBytes) return { ...state, at: chosen.length, part: 0 };
    // What another leg has read is not hashed as one: its parts are.
    const md5 = state.part === 0 ? createHash("md5") : null;
    for (const part of file.parts.slice(state.part)) {
      if (signal?.aborted === true) throw new HoldfastError("cancelled", "the drill was cancelled");
      try {
        const content = await readPart(part);
        md5?.update(content);
        state = { ...state, bytes: state.bytes + part.rawBytes };
      } catch (error) {
        const failure = asHoldfastError(error);
        if (!isVerdict(failure)) throw error;
        const problems = [...state.problems, { object: part.object, message: failure.message }].slice(0, mostProblems);
        state = { ...state, isSound: false, problems, problemsTotal: state.problemsTotal + 1 };
      }
      state = { ...state, part: state.part + 1 };
      budget.spendText(0, part.rawBytes);
      budget.spendCalls(1);
      if (budget.spent() && state.part < file.parts.length) return state;
    }
    const { isSound } = state;
    const isSame = isSound && md5 !== null && md5.digest("hex") === etagOf(file);
    state = {
      ...state,
      at: state.at + 1,
      part: 0,
      isSound: true,
      checked: state.checked + (isSound ? 1 : 0),
      sameMd5: state.sameMd5 + (isSame ? 1 : 0),
    };
    onFile?.(state);
    if (budget.spent()) return state;
  }
  return state;
}

function etagOf({ row }: ListedFile): string {
  const { metadata } = JSON.parse(row) as { readonly metadata?: { readonly eTag?: unknown } | null };
  return String(metadata?.eTag ?? "").replaceAll('"', "");
}

/** Those that the manifest knows and does not leave out. */
function comparedBuckets({ files }: Manifest): string[] {
  const ids = (files?.buckets ?? []).map((row) => String((JSON.parse(row) as { readonly id?: unknown }).id));
  return ids.filter((id) => !files?.leftOut.includes(id));
}

/** What the evidence calls differences. Pure. */
export function fileDifferences(
  { rowsAlone, filesAlone, problems, problemsTotal }: ProvenFiles,
): { readonly kind: "rows"; readonly name: string; readonly detail: string }[] {
  const told = (of: number, name: string, detail: string) => of === 0 ? [] : [{ kind: "rows" as const, name, detail }];
  return [
    ...told(rowsAlone, "files of Storage", `${rowsAlone} rows of storage.objects have no file in the backup`),
    ...told(filesAlone, "files of Storage", `${filesAlone} files of the backup have no row in storage.objects`),
    ...problems.map(({ object, message }) => ({ kind: "rows" as const, name: object, detail: message })),
    ...told(problemsTotal - problems.length, "files of Storage", `${problemsTotal - problems.length} more parts`),
  ];
}
