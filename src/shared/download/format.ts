/** What a download may be, for how long, and what its files are called. */
import { HoldfastError } from "../errors.ts";
import { ownBuckets } from "../schema/own_objects.ts";
import { quoteQualified } from "../schema/quote.ts";

/**
 * `bundle`: the sealed objects, and what restores them by hand. `files`: files of Storage, one as it is or those of a bucket as a tar
 * archive. The others: rows in plain text, of one table or of all.
 */
export const downloadFormats = ["bundle", "csv", "json", "sql", "files"] as const;
export type DownloadFormat = typeof downloadFormats[number];
export type PlainFormat = Exclude<DownloadFormat, "bundle" | "files">;

/** Private, made when it is first needed. A bucket of its own: what lies in it may go at any time. */
export const downloadBucketName = ownBuckets.downloads;

export const usualExpirySeconds = 15 * 60;
const daySeconds = 24 * 60 * 60;

/** As `backup.longest_download` says it: sealed objects are of use only to whoever has the keys. */
export function longestExpirySeconds(format: DownloadFormat): number {
  return format === "bundle" ? 7 * daySeconds : daySeconds;
}

const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: daySeconds };

/** `90s`, `15m`, `2h`, `3d` → seconds. Errors: `usage`, also for longer than the format may lie there. */
export function parseExpiry(text: string, format: DownloadFormat): number {
  const [, figure = "", unit = ""] = /^([1-9]\d{0,6})([smhd])$/.exec(text.trim()) ?? [];
  const seconds = Number(figure) * (units[unit] ?? 0);
  const longest = longestExpirySeconds(format);
  if (seconds > 0 && seconds <= longest) return seconds;
  throw new HoldfastError(
    "usage",
    seconds === 0
      ? `${text} is no span of time`
      : `a download of the format ${format} lasts at most ${longest / 3600} h`,
    { hint: "Write it as 90s, 15m, 2h or 3d; `bundle` may last 7 days, the plain formats 24 hours." },
  );
}

/** Of one table's rows. JSON is a line a row. */
export const extensions: Readonly<Record<PlainFormat, string>> = { csv: "csv", json: "jsonl", sql: "sql" };

export interface NamedTable {
  readonly schema: string;
  readonly name: string;
}

/**
 * What a browser, or the CLI, calls the file: letters, digits, dots, dashes and percent signs only, whatever the table is
 * called. `bundle-8f14e45f.tar`, `public.notes-8f14e45f.csv`, `tables-8f14e45f-csv.zip`.
 */
export function fileNameOf(format: Exclude<DownloadFormat, "files">, backup: string, table: NamedTable | null): string {
  const id = backup.slice(0, 8);
  if (format === "bundle") return `bundle-${id}.tar`;
  return table === null ? `tables-${id}-${format}.zip` : `${plainName(table, asciiSign)}-${id}.${extensions[format]}`;
}

const asciiSign = /[A-Za-z0-9_-]/;
const letterSign = /[\p{L}\p{N}\p{M}_-]/u;
/** Below the 255 bytes that file systems take, with an ending. */
const longestNameBytes = 200;

/**
 * Names of files for tables in an archive, in their order: `schema.table.csv`. Letters and digits of any script stay, all
 * else is written as `%2F`, so that no name leads out of a folder; names that a file system may take for the same, or that
 * are too long for it, become `table-<place>`.
 */
export function archiveNames(tables: readonly NamedTable[], format: PlainFormat): string[] {
  const taken = new Set<string>();
  return tables.map((table, index) => {
    const wanted = plainName(table, letterSign);
    const folded = wanted.normalize("NFKC").toLowerCase();
    const fits = !taken.has(folded) && new TextEncoder().encode(wanted).byteLength <= longestNameBytes;
    taken.add(folded);
    return `${fits ? wanted : `table-${index + 1}`}.${extensions[format]}`;
  });
}

function plainName({ schema, name }: NamedTable, kept: RegExp): string {
  const written = `${escaped(schema, kept)}.${escaped(name, kept)}`;
  return written.length <= longestNameBytes ? written : written.slice(0, longestNameBytes).replace(/%.?$/, "");
}

function escaped(text: string, kept: RegExp): string {
  return [...text].map((sign) =>
    kept.test(sign)
      ? sign
      : [...new TextEncoder().encode(sign)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(
        "",
      )
  ).join("");
}

/** As audit and table of downloads have it. */
export function tableLabel(table: NamedTable | null): string | null {
  return table === null ? null : quoteQualified(table.schema, table.name);
}
