import { mkdir, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import { asHoldfastError, HoldfastError } from "../../shared/errors.ts";
import type { ListedFile } from "../../shared/format/file_list.ts";
import { fileListsOf } from "../../shared/format/manifest.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { type PlannedFile, planPutBack, type PutBackMode, type PutBackPlan } from "../../shared/files/plan_put_back.ts";
import { makeBuckets, putBack, type PutBackDeps, readPresentFiles } from "../../shared/files/put_back.ts";
import type { Connection } from "../../shared/postgres/connection.ts";
import { syncFd } from "../../shared/store/file.ts";
import { readFileList, recordedPart } from "../../shared/verify/read_file_list.ts";
import { type ObjectDeps, readObject } from "../../shared/verify/read_object.ts";
import type { OpenedBackup } from "../../shared/verify/find_backup.ts";
import type { Context } from "../context.ts";
import { keyRing, sourceDatabase, targetDatabase } from "../open.ts";
import { openNamed } from "../open_past.ts";
import { openStore, projectStorage, targetStorage } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { amount } from "../progress.ts";

/** What `<files>` names. */
interface Wanted {
  /** Null: every bucket. */
  readonly bucket: string | null;
  /** Null: all of them. */
  readonly name: string | null;
}

/** Lines of a plan that people see; the document has all. */
const shownFiles = 20;

/**
 * One file (`bucket/name`), a bucket (`bucket/`) or all (`all`). The document: `{id, ok, dryRun, put, bytes, same, differs, lost,
 * orphans[], files[{file, state, puts}], warnings[]}`; with --out `{id, ok, folder, written, bytes, lost, warnings[]}`. Exit 3 where the backup has no content of
 * something that was asked for.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings } = context;
  const [what = "", id = ""] = context.words;
  const wanted = wantedOf(what);
  const mode = modeOf(settings.get("apply"));
  const read = { store: await openStore(context), ring: await keyRing(settings), compressor: await loadZstd() };
  const backup = await openNamed(context, read, id);
  if ((backup.manifest.files ?? null) === null) {
    throw new HoldfastError("not_found", `backup ${backup.manifest.id} holds no files`, {
      hint: "`holdfast list` shows others; a backup by the CLI needs SUPABASE_URL and SUPABASE_SECRET_KEY for files.",
    });
  }
  const reader: ObjectDeps = { store: read.store, compressor: read.compressor, epochOf: backup.epochOf };
  const files = await filesOf(reader, backup, wanted);
  if (files.length === 0) throw new HoldfastError("not_found", `backup ${backup.manifest.id} has no file of ${what}`);
  const out = settings.get("out");
  if (out !== undefined) return await writeAll(context, reader, backup, files, out);
  return await putAll(context, reader, backup, { wanted, files, mode });
}

/** Errors: `usage`. */
function wantedOf(what: string): Wanted {
  if (what === "all") return { bucket: null, name: null };
  const slash = what.indexOf("/");
  if (slash < 1) {
    throw new HoldfastError("usage", "what is to come back is not named", {
      hint: "Give `bucket/name` for a file, `bucket/` for a bucket, or `all`.",
    });
  }
  return { bucket: what.slice(0, slash), name: slash === what.length - 1 ? null : what.slice(slash + 1) };
}

function modeOf(text: string | undefined): PutBackMode | null {
  if (text === undefined || text === "missing" || text === "merge") return text ?? null;
  throw new HoldfastError("usage", "--apply of files is `missing` or `merge`", {
    hint: "Files that came after the backup are listed and never removed.",
  });
}

async function filesOf(
  reader: ObjectDeps,
  { manifest }: OpenedBackup,
  { bucket, name }: Wanted,
): Promise<ListedFile[]> {
  const found: ListedFile[] = [];
  for (const list of fileListsOf(manifest)) {
    const files = await readFileList(reader, list);
    found.push(...files.filter((file) => (bucket ?? file.bucket) === file.bucket && (name ?? file.name) === file.name));
  }
  return found;
}

async function putAll(
  context: Context,
  reader: ObjectDeps,
  backup: OpenedBackup,
  { wanted, files, mode }: {
    readonly wanted: Wanted;
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
  const session = await (other ?? await sourceDatabase(context)).connect("holdfast:files");
  try {
    const deps: PutBackDeps = { reader, target, session, fetch: (input, init) => fetch(input, init) };
    const plan = await planOf(session, wanted, files, mode ?? "merge");
    const lines = planLines(plan, new URL(target.projectUrl).host);
    const { manifest } = backup;
    const document = documentOf(manifest.id, plan);
    if (mode === null || settings.has("dry-run")) return { exit: 0, document: { ...document, dryRun: true }, lines };
    if (!settings.has("yes")) {
      context.note(lines.join("\n"));
      if (!await context.confirm(`This puts files into ${new URL(target.projectUrl).host}.`, "restore")) {
        const missing = new HoldfastError("confirmation_missing", "nothing was put back");
        return { exit: missing.exit, document: { ...document, dryRun: true, ...missing.toDocument() }, lines };
      }
    }
    await audit(session, "files.restored", manifest.id, { into: new URL(target.projectUrl).host, files: document.put });
    const made = await makeBuckets(deps, manifest.files?.buckets ?? [], plan.buckets);
    let bytes = 0;
    for (const { file } of plan.files.filter(({ puts }) => puts)) {
      if (signal.aborted) throw new HoldfastError("cancelled", "it was cancelled; what was put back stays");
      await putBack(deps, file);
      bytes += file.size ?? 0;
      progress.update({ label: "putting files back", done: bytes, total: plan.bytes, unit: "bytes" });
    }
    progress.clear();
    const lost = plan.files.filter(({ state }) => state === "lost").length;
    return {
      exit: lost > 0 ? 3 : 0,
      document: { ...document, ok: lost === 0, dryRun: false, madeBuckets: made },
      lines: [
        `${amount(document.put, "files")} of backup ${manifest.id} are back, ${
          amount(plan.bytes, "bytes")
        }, read back and equal.`,
        ...lines.slice(1),
      ],
    };
  } finally {
    await session.close();
  }
}

async function planOf(
  session: Connection,
  { name }: Wanted,
  files: readonly ListedFile[],
  mode: PutBackMode,
): Promise<PutBackPlan> {
  const present = await readPresentFiles(session, [...new Set(files.map(({ bucket }) => bucket))]);
  return planPutBack(files, name === null ? present : present.filter((file) => file.name === name), mode);
}

function documentOf(id: string, plan: PutBackPlan) {
  const count = (state: PlannedFile["state"]) => plan.files.filter((file) => file.state === state).length;
  const lost = count("lost");
  return {
    id,
    ok: lost === 0,
    put: plan.files.filter(({ puts }) => puts).length,
    bytes: plan.bytes,
    same: count("same"),
    differs: count("differs"),
    later: count("later"),
    lost,
    orphans: plan.orphans.map(({ bucket, name }) => `${bucket}/${name}`),
    files: plan.files.map(({ file, state, puts }) => ({ file: `${file.bucket}/${file.name}`, state, puts })),
    warnings: warningsOf(plan),
  };
}

function warningsOf(plan: PutBackPlan): string[] {
  const warnings: string[] = [];
  for (const { file, state } of plan.files) {
    const name = `${file.bucket}/${file.name}`;
    if (state === "lost") warnings.push(`${name}: the backup has no content of it (${file.missed})`);
    if (state === "later") warnings.push(`${name}: its version of the backup's moment was missed; a later one is put`);
  }
  return warnings;
}

const reasons: Readonly<Record<PlannedFile["state"], string>> = {
  gone: "is not there",
  differs: "has another content there",
  same: "is the same there",
  lost: "has no content in the backup",
  later: "is not there as of the backup; a later version is put",
};

function planLines(plan: PutBackPlan, host: string): string[] {
  const puts = plan.files.filter((file) => file.puts);
  const lines = plan.files.filter(({ state }) => state !== "same").slice(0, shownFiles).map((
    { file, state, puts: isPut },
  ) => [
    isPut ? "  put" : "  leave",
    `${file.bucket}/${file.name}`,
    reasons[state],
  ]);
  const same = plan.files.filter(({ state }) => state === "same").length;
  return [
    `${amount(puts.length, "files")}, ${amount(plan.bytes, "bytes")}, into Storage of ${host}:`,
    ...columns(lines),
    ...(same === 0 ? [] : [`  ${amount(same, "files")} are the same there`]),
    ...(plan.orphans.length === 0
      ? []
      : [`  ${amount(plan.orphans.length, "files")} there are not in the backup, and stay`]),
    ...warningsOf(plan).map((warning) => `  warning: ${warning}`),
  ];
}

/** In the database that is at hand, before anything is written: who had which files stands there whatever comes of it. */
async function audit(session: Connection, action: string, backup: string, detail: Readonly<Record<string, unknown>>) {
  const [row] = await session.query(
    "select pg_catalog.to_regprocedure('backup.audit(text, text, jsonb)') is not null as installed",
  );
  // Another project's database need not have Holdfast.
  if (row?.["installed"] !== "t") return;
  await session.query("select backup.audit($1, $2, $3::jsonb)", [action, `backup:${backup}`, JSON.stringify(detail)]);
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
      await audit(session, "files.saved", backup, { files });
    } finally {
      await session.close();
    }
  } catch (error) {
    const { message } = asHoldfastError(error);
    context.note(`warning: nothing of this is recorded in the database: ${message}`);
  }
}

/** Into a folder, named as in Storage. Errors: `usage` for a name that would leave the folder, and for a file that is there. */
async function writeAll(
  context: Context,
  reader: ObjectDeps,
  { manifest }: OpenedBackup,
  files: readonly ListedFile[],
  folder: string,
): Promise<Outcome> {
  const plan = planPutBack(files, [], "merge");
  await auditSaved(context, manifest.id, plan.files.filter(({ puts }) => puts).length);
  for (const { file, puts } of plan.files) {
    if (!puts) continue;
    const parts = [file.bucket, ...file.name.split("/")];
    if (parts.some((part) => part === "" || part === "." || part === ".." || part.includes("\0"))) {
      throw new HoldfastError("usage", "the name of a file would lead out of the folder", {
        hint: "Name the files that you want one by one.",
      });
    }
    const path = join(folder, ...parts);
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
  const written = plan.files.filter(({ puts }) => puts).length;
  const warnings = warningsOf(plan).filter((warning) => !warning.endsWith("a later one is put"));
  return {
    exit: lost > 0 ? 3 : 0,
    document: { id: manifest.id, ok: lost === 0, folder, written, bytes: plan.bytes, lost, warnings },
    lines: [
      `${amount(written, "files")} of backup ${manifest.id} are in ${folder}, ${amount(plan.bytes, "bytes")}.`,
      ...warnings,
    ],
  };
}
