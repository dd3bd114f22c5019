/** Files of Storage that come back with the rows of a restore. */
import { asHoldfastError } from "../shared/errors.ts";
import { bringFiles, type BringPlan, planBringing, processBounds } from "../shared/files/bring_files.ts";
import type { PutBackMode } from "../shared/files/plan_put_back.ts";
import type { ProjectFilesSettings } from "../shared/files/project_files.ts";
import type { ListedFile } from "../shared/format/file_list.ts";
import { fileListsOf } from "../shared/format/manifest.ts";
import type { Connection, Database } from "../shared/postgres/connection.ts";
import type { OpenedBackup, ReadDeps } from "../shared/verify/find_backup.ts";
import { auditFiles } from "./audit_files.ts";
import type { Context } from "./context.ts";
import { broughtDocument, broughtLines, filesDocument, filesExit, filesLines } from "./files_shown.ts";
import { comparedLedger } from "./ledger_hook.ts";
import { projectStorage, targetStorage } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { amount } from "./progress.ts";

export interface FilesToBring {
  readonly read: ReadDeps;
  /** That they are of, or stand on. */
  readonly backup: OpenedBackup;
  /** For people: of what they are. */
  readonly label: string;
  readonly files: () => Promise<readonly ListedFile[]>;
  readonly mode: PutBackMode;
  /** What else lies in their buckets is named as an orphan. */
  readonly wholeBuckets: boolean;
  /** Where the rows go; null: into a new database, which no Storage belongs to. */
  readonly database: Database | null;
  /** It is that of --target-db-url. */
  readonly isOther: boolean;
}

/**
 * Does `run`, which brings the rows, then brings the files. Its document gets `files`: what `broughtDocument` says, the plan with
 * --dry-run, `{ok: false, error}` where Storage failed after the rows were in place, and null where none came. Exit 3 where the backup has
 * no content of some. With --without-files nothing but `run`. Errors: those of `run`, and of the plan before it.
 */
export async function withFiles(
  context: Context,
  wanted: () => Promise<FilesToBring>,
  run: () => Promise<Outcome>,
): Promise<Outcome> {
  const { settings } = context;
  if (settings.has("without-files")) return await run();
  const bring = await wanted();
  const { manifest } = bring.backup;
  if ((manifest.files ?? null) === null) return await run();
  const target = await targetOf(context, bring);
  if ("why" in target) {
    const outcome = await run();
    const files = fileListsOf(manifest).reduce((sum, list) => sum + list.files - list.missed, 0);
    if (files === 0) return outcome;
    const warning = `${amount(files, "files")} of ${bring.label} do not come with the rows: ${target.why}; ` +
      `\`holdfast restore-file all\` brings them into a project`;
    context.note(`warning: ${warning}`);
    return merged(outcome, null, [`No files: ${target.why}.`]);
  }
  const before = await planned(context, bring, target);
  const shown = filesLines(before, new URL(target.storage.projectUrl).host);
  if (!settings.has("yes") && !settings.has("dry-run")) context.note(shown.join("\n"));
  const outcome = await run();
  if (isOnlyPlanned(outcome)) return merged(outcome, filesDocument(before), shown);
  if (outcome.exit !== 0 && outcome.exit !== 3) return outcome;
  try {
    return await put(context, bring, target, outcome);
  } catch (error) {
    const failure = asHoldfastError(error);
    const told = merged(outcome, { ok: false, ...failure.toDocument() }, [
      `FAILED: the rows are in place, the files are not: ${failure.code}: ${failure.message}`,
      "`holdfast restore-file all` goes on with them.",
    ]);
    return { ...told, exit: failure.exit };
  }
}

interface FilesTarget {
  readonly database: Database;
  readonly storage: ProjectFilesSettings;
}

async function targetOf(
  { settings }: Context,
  { database, isOther }: FilesToBring,
): Promise<FilesTarget | { readonly why: string }> {
  if (database === null) return { why: "a new database has no Storage of its own" };
  const session = await database.connect("holdfast:files");
  try {
    const [row] = await session.query("select pg_catalog.to_regclass('storage.objects') is not null as yes");
    if (row?.["yes"] !== "t") return { why: "the target has no Storage" };
  } finally {
    await session.close();
  }
  const storage = isOther ? targetStorage(settings) : projectStorage(settings);
  if (storage !== null) return { database, storage };
  const names = isOther
    ? "BACKUP_TARGET_PROJECT_URL and BACKUP_TARGET_SECRET_KEY"
    : "SUPABASE_URL and SUPABASE_SECRET_KEY";
  return { why: `${names} are not both set` };
}

async function planned(context: Context, bring: FilesToBring, target: FilesTarget): Promise<BringPlan> {
  return await inSession(target, async (session) => await planIn(context, bring, session));
}

async function planIn(context: Context, bring: FilesToBring, session: Connection): Promise<BringPlan> {
  const ledger = await comparedLedger(context, bring.read);
  return await planBringing({ session }, ledger, await bring.files(), bring);
}

async function put(context: Context, bring: FilesToBring, target: FilesTarget, outcome: Outcome): Promise<Outcome> {
  const { progress, signal } = context;
  const { read, backup: { manifest, epochOf } } = bring;
  return await inSession(target, async (session) => {
    const plan = await planIn(context, bring, session);
    const count = plan.files.filter(({ puts }) => puts).length;
    const into = new URL(target.storage.projectUrl).host;
    if (count > 0) await auditFiles(session, "files.restored", manifest.id, { into, files: count });
    const deps = {
      reader: { store: read.store, compressor: read.compressor, epochOf },
      target: target.storage,
      session,
      fetch: (input: string, init: RequestInit) => fetch(input, init),
    };
    const brought = await bringFiles(deps, plan, manifest.files?.buckets ?? [], {
      ...processBounds,
      signal,
      onFile: (done) => progress.update({ label: "putting files back", done, total: plan.bytes, unit: "bytes" }),
    });
    progress.clear();
    const told = merged(outcome, broughtDocument(plan, brought), broughtLines(plan, brought, bring.label));
    return { ...told, exit: outcome.exit === 0 ? filesExit(plan, brought) : outcome.exit };
  });
}

async function inSession<T>({ database }: FilesTarget, use: (session: Connection) => Promise<T>): Promise<T> {
  const session = await database.connect("holdfast:files");
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

function isOnlyPlanned({ exit, document }: Outcome): boolean {
  return exit === 0 && typeof document === "object" && document !== null && "dryRun" in document &&
    document.dryRun === true;
}

function merged(outcome: Outcome, files: object | null, lines: readonly string[]): Outcome {
  return { ...outcome, document: { ...(outcome.document as object), files }, lines: [...outcome.lines, ...lines] };
}
