/** Files of Storage on their way out of a backup: one as it is, those of a bucket as a tar archive. */
import { z } from "zod";
import type { Ledger } from "../erase/ledger.ts";
import { HoldfastError } from "../errors.ts";
import { withoutErased } from "../files/bring_files.ts";
import { type FilesNamed, isNamed } from "../files/files_named.ts";
import { folderName } from "../files/folder_names.ts";
import { bytesOf, planPutBack } from "../files/plan_put_back.ts";
import type { ListedFile } from "../format/file_list.ts";
import type { Contents, Step } from "./contents.ts";
import { tarBytes, tarEnd, tarHeader, tarHeaders, tarPadding } from "./tar.ts";
import type { ReadPart } from "../verify/read_file_list.ts";

/** A list, which is read when its turn comes. */
export interface ListToRead {
  readonly files: number;
  /** Of its text. */
  readonly rawBytes: number;
  /** Of the content that it names. */
  readonly contentBytes: number;
  /** The same files in the same order each time. Errors: those of reading it. */
  readonly read: () => Promise<readonly ListedFile[]>;
}

export interface FilesToSend {
  /** Id of the full backup, and its moment, or that which is asked for. */
  readonly backup: string;
  readonly at: string;
  readonly lists: readonly ListToRead[];
  readonly part: ReadPart;
  /** Files of those who were erased are left out. */
  readonly ledger: Ledger;
}

const count = z.int().nonnegative();
const filesMark = z.strictObject({
  /** What comes next: a list, a file of those that are wanted of it, and a part of that. */
  list: count,
  file: count,
  part: count,
  /** Before that list. */
  sent: count,
  missed: count,
  erased: count,
  ended: z.boolean(),
});
export type FilesMark = z.infer<typeof filesMark>;

/** At the end of an archive. No bucket is called so. */
const aboutName = "about.json";

/**
 * Names in the archive are those of `folderName`; at its end `about.json`: `{backup, at, bucket, files, missed, erased}`. Errors of the
 * steps: `not_found` for one file that is not there, or has no content; those of the store and the keys.
 */
export function filesContents(source: FilesToSend, wanted: FilesNamed): Contents<FilesMark> {
  const sum = (of: (list: ListToRead) => number) => source.lists.reduce((total, list) => total + of(list), 0);
  const files = wanted.name === null ? sum((list) => list.files) + 1 : 1;
  return {
    markSchema: filesMark,
    bytes: sum((list) => list.contentBytes) + (wanted.name === null ? tarBytes(0) * files + tarEnd.byteLength : 0),
    isExact: false,
    files,
    steps: (from) => filesSteps(source, wanted, from ?? start),
  };
}

const start: FilesMark = { list: 0, file: 0, part: 0, sent: 0, missed: 0, erased: 0, ended: false };

async function* filesSteps(
  source: FilesToSend,
  wanted: FilesNamed,
  from: FilesMark,
): AsyncGenerator<Step<FilesMark>> {
  if (from.ended) return;
  let mark = from;
  for (const list of source.lists.slice(from.list)) {
    if (wanted.name !== null && mark.sent > 0) return;
    const { files, missed, erased } = await wantedOf(source, list, wanted);
    let read = list.rawBytes;
    for (const file of files.slice(mark.file)) {
      for (let part = mark.part; part < Math.max(file.parts.length, 1); part++) {
        const pieces = await piecesOf(source, file, part, wanted.name === null);
        const isLast = part + 1 >= file.parts.length;
        mark = isLast ? { ...mark, file: mark.file + 1, part: 0 } : { ...mark, part: part + 1 };
        const after = mark;
        const bytes = file.parts[part]?.rawBytes ?? 0;
        yield { pieces, rows: read === 0 ? 0 : list.files, read: read + bytes, mark: () => after };
        read = 0;
      }
    }
    const next: FilesMark = {
      ...mark,
      list: mark.list + 1,
      file: 0,
      part: 0,
      sent: mark.sent + files.length,
      missed: mark.missed + missed,
      erased: mark.erased + erased,
    };
    mark = next;
    yield { pieces: [], rows: read === 0 ? 0 : list.files, read, mark: () => next };
  }
  if (wanted.name !== null) {
    if (mark.sent === 0) throw notThere(source, wanted, mark);
    return;
  }
  const ended = { ...mark, ended: true };
  yield { pieces: [...about(source, wanted, mark), tarEnd], rows: 0, read: 0, mark: () => ended };
}

/** Those of the list that are sent; a later version stands in the place of one that was missed. */
async function wantedOf({ ledger }: FilesToSend, list: ListToRead, wanted: FilesNamed) {
  const named = (await list.read()).filter((file) => isNamed(wanted, file));
  const { kept, erased } = await withoutErased(ledger, named);
  const plan = planPutBack(kept, [], "merge").files;
  return {
    files: plan.filter(({ puts }) => puts).map(({ file }) => file),
    missed: plan.filter(({ puts }) => !puts).length,
    erased: erased.length,
  };
}

async function piecesOf(
  { part: readPart, at }: FilesToSend,
  file: ListedFile,
  number: number,
  isArchive: boolean,
): Promise<Uint8Array[]> {
  const part = file.parts[number];
  const content = part === undefined ? [] : [await readPart(part)];
  if (!isArchive) return content;
  const size = bytesOf(file);
  const header = number === 0 ? tarHeaders(folderName(file), size, changedAt(file, at)) : [];
  return [...header, ...content, ...(number + 1 >= file.parts.length ? [tarPadding(size)] : [])];
}

function changedAt({ row }: ListedFile, otherwise: string): Date {
  const { updated_at } = JSON.parse(row) as { readonly updated_at?: unknown };
  const at = new Date(typeof updated_at === "string" ? updated_at : otherwise);
  return Number.isNaN(at.getTime()) || at.getTime() < 0 ? new Date(otherwise) : at;
}

function about({ backup, at }: FilesToSend, { bucket }: FilesNamed, { sent, missed, erased }: FilesMark): Uint8Array[] {
  const facts = { backup, at, bucket, files: sent, missed, erased };
  const text = new TextEncoder().encode(`${JSON.stringify(facts, null, 2)}\n`);
  return [tarHeader(aboutName, text.byteLength, new Date(at)), text, tarPadding(text.byteLength)];
}

function notThere({ backup }: FilesToSend, { bucket }: FilesNamed, { missed, erased }: FilesMark): HoldfastError {
  const why = missed > 0
    ? `backup ${backup} has no content of that file: it went before it was copied`
    : erased > 0
    ? "that file was of somebody who was erased"
    : `backup ${backup} has no such file in bucket ${bucket ?? ""}`;
  return new HoldfastError("not_found", why, { hint: "`holdfast restore-file bucket/ <id>` shows which there are." });
}
