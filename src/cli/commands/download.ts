import { type DownloadBucket, downloadBucket } from "../../shared/download/bucket.ts";
import type { Contents } from "../../shared/download/contents.ts";
import { downloadDocument } from "../../shared/download/document.ts";
import {
  type DownloadFormat,
  downloadFormats,
  type NamedTable,
  parseExpiry,
  tableLabel,
} from "../../shared/download/format.ts";
import { sweepDownloads } from "../../shared/download/sweep.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { type FilesNamed, parseFilesNamed } from "../../shared/files/files_named.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { endDownload, listDownloads, readDownload } from "../../shared/jobs/download_queries.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { downloadToBucket } from "../download_bucket.ts";
import { downloadToFile, filePath } from "../download_file.ts";
import { namedSource } from "../download_source.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
import { openStore, storeCredentials } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { amount } from "../progress.ts";
import { tableOf } from "../table_names.ts";

/** What is wanted, apart from where it goes. */
export interface DownloadWanted {
  readonly format: DownloadFormat;
  readonly table: NamedTable | null;
  /** For the format `files`; null for all others. */
  readonly files: FilesNamed | null;
}

/**
 * The document: `{id, backup, table, format, file | url, files[], bytes, sha256, expiresAt}`; `id` is that of the download,
 * null with --out. `list`: an array of the downloads; `remove`: `{id, removed}`; --dry-run: `{dryRun, backup, table, format,
 * files, bytes, isExact}`.
 */
export async function run(context: Context): Promise<Outcome> {
  const [what = "", which] = context.words;
  if (what === "list") return await list(context);
  if (what === "remove") return await remove(context, which);
  if (which !== undefined) {
    throw new HoldfastError("usage", "download takes one backup, or `list`, or `remove` with the id of a download");
  }
  return await download(context, what === "" ? undefined : what);
}

async function download(context: Context, wantedBackup: string | undefined): Promise<Outcome> {
  const { settings, log } = context;
  const wanted = wantedOf(context);
  const out = settings.get("out");
  const expirySeconds = parseExpiry(settings.need("expires"), wanted.format);
  if (out !== undefined && settings.isFlag("expires")) {
    throw new HoldfastError("usage", "--expires is of a link; a file of --out stays until you remove it");
  }
  const path = out === undefined ? null : await filePath(out);
  const read = { store: await openStore(context), ring: await keyRing(settings), compressor: await loadZstd(), log };
  const isSaved = path !== null || settings.has("dry-run");
  const session = isSaved ? await sessionAtHand(context) : await installedSession(context, "holdfast:download");
  try {
    const source = await namedSource(context, read, session, wantedBackup, wanted);
    try {
      const { backup, contents, fileName } = source;
      if (settings.has("dry-run")) return planned(backup, wanted, contents);
      const target = { backup, ...wanted, contents, fileName, ring: read.ring };
      if (path !== null) return await downloadToFile(context, session, target, path);
      if (session === null) throw new HoldfastError("internal", "a link without a database");
      return await downloadToBucket(context, session, bucketOf(context), target, expirySeconds);
    } finally {
      await source.close();
    }
  } finally {
    await session?.close();
  }
}

/** Errors: `usage`. */
function wantedOf({ settings }: Context): DownloadWanted {
  const named = settings.get("table");
  const table = named === undefined ? null : tableOf(named);
  const files = filesOf(settings.get("files"));
  const text = settings.get("format") ?? (files !== null ? "files" : table === null ? "bundle" : "csv");
  const format = downloadFormats.find((one) => one === text);
  if (format === undefined) {
    throw new HoldfastError("usage", `--format ${text} is none of ${downloadFormats.join(", ")}`);
  }
  if (format === "bundle" && table !== null) {
    throw new HoldfastError("usage", "a bundle is of a whole backup; a table comes as csv, json or sql");
  }
  if ((format === "files") !== (files !== null) || (files !== null && table !== null)) {
    throw new HoldfastError("usage", "--files names files of Storage, which come as --format files alone", {
      hint: "For one file `--files bucket/name`, for those of a bucket `--files bucket/`.",
    });
  }
  return { format, table, files };
}

/** Errors: `usage`. */
function filesOf(text: string | undefined): FilesNamed | null {
  if (text === undefined) return null;
  const files = parseFilesNamed(text);
  if (files?.bucket != null) return files;
  throw new HoldfastError("usage", "--files takes `bucket/name` for one file, `bucket/` for those of a bucket");
}

/** Null where no database is named, and where it cannot be reached: store and keys are enough to save a file. */
async function sessionAtHand(context: Context): Promise<Connection | null> {
  if (context.settings.get("db-url") === undefined) return null;
  try {
    return await installedSession(context, "holdfast:download");
  } catch (error) {
    const why = error instanceof Error ? error.message : "unknown reason";
    context.note(`warning: nothing of this is recorded in the database: ${why}`);
    return null;
  }
}

/** Errors: `setting_missing`. */
export function bucketOf(context: Context): DownloadBucket {
  const { settings, clock, random, log } = context;
  const { supabaseUrl, supabaseServiceKey } = storeCredentials(settings);
  if (supabaseUrl === undefined || supabaseServiceKey === undefined) {
    const name = supabaseUrl === undefined ? "SUPABASE_URL" : "SUPABASE_SERVICE_ROLE_KEY";
    throw new HoldfastError("setting_missing", `${name} is not set: a link leads into the project's Storage`, {
      hint: `Set ${name} in the environment or in .env, or save the file here with --out.`,
    });
  }
  const deps = { fetch: (input: string, init: RequestInit) => fetch(input, init), clock, random, log };
  return downloadBucket({ projectUrl: supabaseUrl, serviceKey: supabaseServiceKey }, deps);
}

function planned(
  backup: string,
  { format, table, files: named }: DownloadWanted,
  { files, bytes, isExact }: Contents,
): Outcome {
  const label = tableLabel(table);
  const what = named !== null ? `files of bucket ${named.bucket}` : label === null ? "the whole backup" : label;
  return {
    exit: 0,
    document: { dryRun: true, backup, table: label, format, files, bytes, isExact },
    lines: [
      `Backup ${backup}, ${what}, as ${format}: ${isExact ? "" : "about "}${amount(bytes, "bytes")}` +
      `${files === 1 ? "" : ` in an archive of ${files} files`}. Nothing was made.`,
    ],
  };
}

async function list(context: Context): Promise<Outcome> {
  const { settings } = context;
  const session = await installedSession(context, "holdfast:download");
  try {
    const rows = await listDownloads(session, {
      all: settings.has("all"),
      limit: settings.integer("limit", 1, 10_000),
    });
    const lines = rows.map((row) => [
      row.id,
      row.status,
      row.format,
      row.table ?? "",
      amount(row.bytes, "bytes"),
      `${row.links} links`,
      row.expiresAt ?? "",
    ]);
    return {
      exit: 0,
      document: rows.map(downloadDocument),
      lines: lines.length === 0 ? ["There is no download."] : columns(lines),
    };
  } finally {
    await session.close();
  }
}

async function remove(context: Context, which: string | undefined): Promise<Outcome> {
  if (which === undefined || !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(which)) {
    throw new HoldfastError("usage", "download remove takes the whole id of a download", {
      hint: "`holdfast download list` shows the ids.",
    });
  }
  const session = await installedSession(context, "holdfast:download");
  try {
    const bucket = bucketOf(context);
    await endDownload(session, which);
    await sweepDownloads(session, bucket);
    const removed = (await readDownload(session, which)).status === "removed";
    return { exit: 0, document: { id: which, removed }, lines: [`Download ${which} is gone.`] };
  } finally {
    await session.close();
  }
}
