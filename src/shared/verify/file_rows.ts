/** Rows of storage.objects in a backup against the files that its lists name: orphans either way. Pure. */
import type { ListedFile } from "../format/file_list.ts";
import type { Manifest } from "../format/manifest.ts";
import { nameOfManifest } from "../format/manifest_codec.ts";

/** Commutative, so that legs and threads add theirs up. Plain JSON. */
export interface FileTally {
  /** Rows of files of the buckets that are copied. */
  readonly rows: number;
  /** Of the ids of these rows, whatever their order. */
  readonly rowsMark: number;
  /** Versions that the snapshot shows, as the lists have them. */
  readonly listed: number;
  readonly listedMark: number;
  /** Of them those whose content is missed: rows without bytes. */
  readonly withoutContent: number;
  /** Contents that came in the place of a missed one: bytes whose row is not of the snapshot. */
  readonly withoutRow: number;
}

export const noFiles: FileTally = { rows: 0, rowsMark: 0, listed: 0, listedMark: 0, withoutContent: 0, withoutRow: 0 };

export function addTallies(tallies: readonly FileTally[]): FileTally {
  return tallies.reduce((sum, one) => ({
    rows: sum.rows + one.rows,
    rowsMark: (sum.rowsMark ^ one.rowsMark) >>> 0,
    listed: sum.listed + one.listed,
    listedMark: (sum.listedMark ^ one.listedMark) >>> 0,
    withoutContent: sum.withoutContent + one.withoutContent,
    withoutRow: sum.withoutRow + one.withoutRow,
  }), noFiles);
}

/** What counts the chunks and lists of one backup. */
export class FileRows {
  readonly #chunks: ReadonlySet<string>;
  readonly #bucketField: number;
  readonly #idField: number;
  readonly #nameField: number;
  readonly #buckets: ReadonlySet<string>;

  constructor({ tables, files }: Manifest) {
    const table = files == null
      ? undefined
      : tables.find(({ schema, name }) => schema === "storage" && name === "objects");
    const columns = table?.columns.map(({ name }) => name) ?? [];
    this.#chunks = new Set(table?.chunks.map(({ object }) => object));
    [this.#bucketField, this.#idField, this.#nameField] = [
      columns.indexOf("bucket_id"),
      columns.indexOf("id"),
      columns.indexOf("name"),
    ];
    this.#buckets = copiedBuckets(files);
  }

  /** Of the COPY text of a chunk, whichever table's it is. */
  chunk(object: string, text: Uint8Array): FileTally {
    if (!this.#chunks.has(object) || this.#idField < 0) return noFiles;
    let [rows, rowsMark] = [0, 0];
    for (const row of new TextDecoder().decode(text).split("\n").slice(0, -1)) {
      const fields = row.split("\t");
      // Names of buckets have no sign that COPY would escape.
      if (fields[this.#nameField] === "\\N" || !this.#buckets.has(fields[this.#bucketField] ?? "")) continue;
      rows++;
      rowsMark = (rowsMark ^ markOf(fields[this.#idField] ?? "")) >>> 0;
    }
    return { ...noFiles, rows, rowsMark };
  }

  list(files: readonly ListedFile[]): FileTally {
    const ours = files.filter(({ bucket }) => this.#buckets.has(bucket));
    const shown = ours.filter(({ inSnapshot }) => inSnapshot);
    return {
      ...noFiles,
      listed: shown.length,
      listedMark: shown.reduce((mark, { id }) => (mark ^ markOf(id)) >>> 0, 0),
      withoutContent: shown.filter(({ missed }) => missed !== null).length,
      withoutRow: ours.filter(({ inSnapshot, missed }) => !inSnapshot && missed === null).length,
    };
  }
}

function copiedBuckets(files: Manifest["files"]): ReadonlySet<string> {
  const all = (files?.buckets ?? []).map((row) => String((JSON.parse(row) as { readonly id?: unknown }).id));
  return new Set(all.filter((id) => /^[\w!\-.*'() &$@=;:+,?/]+$/.test(id) && !files?.leftOut.includes(id)));
}

/** Of a UUID: ids are random, so that 32 bits of all of them together tell another set of as many. */
function markOf(id: string): number {
  const digits = id.replaceAll("-", "");
  let mark = 0;
  for (let at = 0; at < 32; at += 8) mark ^= Number.parseInt(digits.slice(at, at + 8), 16);
  return mark >>> 0;
}

/** Null where each row is listed, and each entry has its row. F-51. */
export function rowsProblem(
  manifest: Manifest,
  { rows, rowsMark, listed, listedMark }: FileTally,
): { readonly object: string; readonly code: "counts_differ"; readonly message: string } | null {
  if (rows === listed && rowsMark === listedMark) return null;
  const which = rows === listed ? ", but not of the same files" : "";
  return {
    object: nameOfManifest(manifest),
    code: "counts_differ",
    message: `storage.objects has ${rows} rows of copied buckets, its lists name ${listed}${which}`,
  };
}
