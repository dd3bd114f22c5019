import { mkdir, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { asHoldfastError, HoldfastError } from "../../shared/errors.ts";
import type { ListedFile } from "../../shared/format/file_list.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { bringFiles, planBringing, processBounds, withoutErased } from "../../shared/files/bring_files.ts";
import { type FilesNamed, isNamed, parseFilesNamed } from "../../shared/files/files_named.ts";
import { folderNames } from "../../shared/files/folder_names.ts";
import { planPutBack, type PutBackMode } from "../../shared/files/plan_put_back.ts";
import { syncFd } from "../../shared/store/file.ts";
import { recordedPart } from "../../shared/verify/read_file_list.ts";
import { type ObjectDeps, readObject } from "../../shared/verify/read_object.ts";
import type { ReadDeps } from "../../shared/verify/find_backup.ts";
import { auditFiles } from "../audit_files.ts";
import type { Context } from "../context.ts";
import { broughtDocument, broughtLines, filesDocument, filesExit, filesLines, filesWarnings } from "../files_shown.ts";
import { type FilesOfState, filesOfState } from "../files_of_state.ts";
import { comparedLedger } from "../ledger_hook.ts";
import { keyRing, sourceDatabase, targetDatabase } from "../open.ts";
import { namedState } from "../open_past.ts";
import { openStore, projectStorage, targetStorage } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { amount } from "../progress.ts";

/**
 * One file (`bucket/name`), a bucket (`bucket/`) or all (`all`), of a backup or a moment. The document: `{id, ok, dryRun, put, bytes, same,
 * differs, later, lost, erased, orphans[], files[{file, state, puts}], warnings[]}`, once they were put with `madeBuckets[]` and `failed[]`;
 * with --out `{id, ok, folder, written, bytes, lost, oddNames[{file, path}], warnings[]}`. Exit 3 where there is no content of something that was asked for.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings } = context;
  const [what = "", id] = context.words;
  const wanted = wantedOf(what);
  const mode = modeOf(settings.get("apply"));
  const state = namedState(settings, id);
  const read = { store: await openStore(context), ring: await keyRing(settings), compressor: await loadZstd() };
  const source = await filesOfState(context, read, state);
  if ((source.backup.manifest.files ?? null) === null) {
    throw new HoldfastError("not_found", `backup ${source.backup.manifest.id} holds no files`, {
      hint: "`holdfast list` shows others; a backup by the CLI needs SUPABASE_URL and SUPABASE_SECRET_KEY for files.",
    });
  }
  const files = await source.read((file) => isNamed(wanted, file));
  if (files.length === 0) throw new HoldfastError("not_found", `${source.label} has no file of ${what}`);
  const out = settings.get("out");
  if (out !== undefined) return await writeAll(context, read, source, files, out);
  return await putAll(context, read, source, { wanted, files, mode });
}

/** Errors: `usage`. */
function wantedOf(what: string): FilesNamed {
  const files = parseFilesNamed(what);
  if (files !== null) return files;
  throw new HoldfastError("usage", "what is to come back is not named", {
    hint: "Give `bucket/name` for a file, `bucket/` for a bucket, or `all`.",
  });
}

function modeOf(text: string | undefined): PutBackMode | null {
  if (text === undefined || text === "missing" || text === "merge") return text ?? null;
  throw new HoldfastError("usage", "--apply of files is `missing` or `merge`", {
    hint: "Files that came after the backup are listed and never removed.",
  });
}

function readerOf({ store, compressor }: ReadDeps, { backup }: FilesOfState): ObjectDeps {
  return { store, compressor, epochOf: backup.epochOf };
}

async function putAll(
  context: Context,
  read: ReadDeps,
  source: FilesOfState,
  { wanted, files, mode }: {
    readonly wanted: FilesNamed;
    readonly files: readonly ListedFile[];
    readonly mode: PutBackMode | null;
  },
): Promise<Outcome> {
  const { settings, progress, signal } = context;
  const other = await targetDatabase(context);
  const target = other === null ? projectStorage(settings) : targetStorage(settings);
  if (target === null) {
    const [url, key] = other === null
      ? ["SUPABASE_URL", "SUPABASE_SECRET_KEY"]
      : ["BACKUP_TARGET_PROJECT_URL", "BACKUP_TARGET_SECRET_KEY"];
    throw new HoldfastError(
      "setting_missing",
      `${url} and ${key} are not both set: files go into a project's Storage`,
      {
        hint: "Set them, or write the files into a folder with --out.",
      },
    );
  }
  const ledger = await comparedLedger(context, read);
  const session = await (other ?? await sourceDatabase(context)).connect("holdfast:files");
  try {
    const plan = await planBringing({ session }, ledger, files, {
      mode: mode ?? "merge",
      wholeBuckets: wanted.name === null,
    });
    const host = new URL(target.projectUrl).host;
    const lines = filesLines(plan, host);
    const { manifest } = source.backup;
    const document = { id: manifest.id, ok: plan.files.every(({ state }) => state !== "lost"), ...filesDocument(plan) };
    if (mode === null || settings.has("dry-run")) return { exit: 0, document: { ...document, dryRun: true }, lines };
    if (!settings.has("yes")) {
      context.note(lines.join("\n"));
      if (!await context.confirm(`This puts files into ${host}.`, "restore")) {
        const missing = new HoldfastError("confirmation_missing", "nothing was put back");
        return { exit: missing.exit, document: { ...document, dryRun: true, ...missing.toDocument() }, lines };
      }
    }
    await auditFiles(session, "files.restored", manifest.id, { into: host, files: document.put });
    const deps = {
      reader: readerOf(read, source),
      target,
      session,
      fetch: (input: string, init: RequestInit) => fetch(input, init),
    };
    const brought = await bringFiles(deps, plan, manifest.files?.buckets ?? [], {
      ...processBounds,
      signal,
      onFile: (done) => progress.update({ label: "putting files back", done, total: plan.bytes, unit: "bytes" }),
    });
    progress.clear();
    const exit = filesExit(plan, brought);
    return {
      exit,
      document: { id: manifest.id, ok: exit === 0, dryRun: false, ...broughtDocument(plan, brought) },
      lines: broughtLines(plan, brought, source.label),
    };
  } finally {
    await session.close();
  }
}

/** Store and keys are enough to save files: without a database it is said that nothing is recorded. */
async function auditSaved(context: Context, backup: string, files: number): Promise<void> {
  if (context.settings.get("db-url") === undefined) {
    context.note("notice: no database at hand, so the audit does not tell of this");
    return;
  }
  try {
    const session = await (await sourceDatabase(context)).connect("holdfast:files");
    try {
      await auditFiles(session, "files.saved", backup, { files });
    } finally {
      await session.close();
    }
  } catch (error) {
    const { message } = asHoldfastError(error);
    context.note(`warning: nothing of this is recorded in the database: ${message}`);
  }
}

/** Into a folder, named as in Storage where that can be, else in `odd-names`. Errors: `usage` for a file that is there. */
async function writeAll(
  context: Context,
  read: ReadDeps,
  source: FilesOfState,
  files: readonly ListedFile[],
  folder: string,
): Promise<Outcome> {
  const { manifest } = source.backup;
  const reader = readerOf(read, source);
  const { kept, erased } = await withoutErased(await comparedLedger(context, read), files);
  const plan = { ...planPutBack(kept, [], "merge"), orphans: [], erased };
  await auditSaved(context, manifest.id, plan.files.filter(({ puts }) => puts).length);
  const puts = plan.files.filter((one) => one.puts).map(({ file }) => file);
  const names = folderNames(puts);
  const oddNames = puts.flatMap((file, index) => {
    const path = names[index] ?? "";
    return path === `${file.bucket}/${file.name}` ? [] : [{ file: `${file.bucket}/${file.name}`, path }];
  });
  for (const [index, file] of puts.entries()) {
    const path = join(folder, names[index] ?? "");
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(path, "wx").catch((cause: unknown) => {
      throw new HoldfastError("usage", "a file of that name is in the folder, or cannot be made there", { cause });
    });
    try {
      for (const part of file.parts) {
        const content = await readObject(reader, recordedPart(part));
        for (let at = 0; at < content.byteLength;) {
          at += (await handle.write(content, at, content.byteLength - at)).bytesWritten;
        }
      }
      await syncFd(handle.fd);
    } finally {
      await handle.close();
    }
    context.progress.update({ label: "writing files", done: 0, total: null, unit: "bytes" });
  }
  context.progress.clear();
  const lost = plan.files.filter(({ state }) => state === "lost").length;
  const written = puts.length;
  const warnings = filesWarnings(plan).filter((warning) => !warning.endsWith("a later one is put"));
  return {
    exit: lost > 0 ? 3 : 0,
    document: { id: manifest.id, ok: lost === 0, folder, written, bytes: plan.bytes, lost, oddNames, warnings },
    lines: [
      `${amount(written, "files")} of ${source.label} are in ${folder}, ${amount(plan.bytes, "bytes")}.`,
      ...oddNames.map(({ file, path }) => `  ${path} is ${JSON.stringify(file)}`),
      ...warnings,
    ],
  };
}
