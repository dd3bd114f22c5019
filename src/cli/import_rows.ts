/** An import of an export: rows beside the live ones, what differs, then into place by the way of all restores of rows. */
import type { Ledger } from "../shared/erase/ledger.ts";
import { isErasedUser } from "../shared/erase/remove_erased.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { ProjectFilesSettings } from "../shared/files/project_files.ts";
import { differencesOf } from "../shared/import/differences.ts";
import { type FilesPlan, planFiles, putBefore, putFile, verifyFiles } from "../shared/import/import_files.ts";
import { beginImport, finishImport } from "../shared/import/import_queries.ts";
import { type LaidDocument, layDocument, type Selection } from "../shared/import/lay_document.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import { liveName } from "../shared/rows/apply/difference.ts";
import { readDone } from "../shared/rows/apply/done_counts.ts";
import { recordOf, refuseForeseen } from "../shared/rows/apply/foreseen.ts";
import type { RowsPlan } from "../shared/rows/apply/plan_rows.ts";
import type { Beside } from "../shared/rows/beside/beside.ts";
import { pairUser } from "../shared/rows/beside/user_pair.ts";
import type { UserChoice } from "../shared/rows/beside/lay_user.ts";
import { RowsWork } from "../shared/rows/work.ts";
import type { Context } from "./context.ts";
import type { DocumentFile } from "./document_file.ts";
import { askedFor, importDocument, importLines, type ImportShown } from "./import_shown.ts";
import { sourceDatabase } from "./open.ts";
import { projectStorage } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { readMap } from "./read_map.ts";
import { safetyOf } from "./restore_rows.ts";
import { rowsText } from "./rows_shown.ts";

/** `all`: refused where anything is there already; `missing`: that stays as it is, and the rest goes in. */
export type ImportMode = "all" | "missing";

export interface ImportWanted {
  readonly context: Context;
  readonly document: DocumentFile;
  /** For records of the import. */
  readonly session: Connection;
  readonly selection: Selection;
  readonly ledger: Ledger;
  /** Null: only the plan. */
  readonly mode: ImportMode | null;
  readonly isPlan: boolean;
  /** Of what was asked for: a try that was broken off is gone on with by the same. */
  readonly digest: string;
}

/** A writer in the way is waited for this long; then nothing is changed. */
const lockMs = 10_000;

/**
 * Errors: `rows_exist`, `rows_conflict`, `table_not_found`, `value_unfit`, `payload_invalid`, `export_unsigned`, `import_not_agreed`,
 * those of `RowsWork`: with the live rows as they were, but for what steps have committed, which the same command goes on from.
 */
export async function importInto(wanted: ImportWanted): Promise<Outcome> {
  const { context, document: { identity }, isPlan, digest } = wanted;
  const { clock, random, log, signal } = context;
  const target = await sourceDatabase(context);
  const work = await RowsWork.begin({ target, clock, random, log, signal }, {
    scope: "user",
    mode: isPlan ? "beside" : "missing",
    sourceBackup: identity.export,
    pointAt: null,
    userId: identity.user,
    digest,
  });
  try {
    return await withRows(wanted, work);
  } catch (error) {
    throw await work.fail(error);
  } finally {
    await work.close();
  }
}

/** What is beside, and what putting it into place would do. */
interface Planned {
  readonly laid: LaidDocument;
  readonly beside: Beside;
  readonly plan: RowsPlan;
  /** `before`: that an earlier try has put. */
  readonly files: FilesPlan & { readonly before: number };
  readonly conflicts: readonly Conflict[];
  readonly shown: ImportShown;
}

async function withRows(wanted: ImportWanted, work: RowsWork): Promise<Outcome> {
  const { context, isPlan, document: { identity } } = wanted;
  const { settings } = context;
  const startMs = context.clock.monotonicMs();
  if (await isErasedUser(work.connection, wanted.ledger, identity.user)) {
    throw new HoldfastError("user_erased", "the person was erased, and is not brought back");
  }
  const choice = await choiceOf(context, identity.user);
  const planned = await planOf(wanted, work, choice);
  const { shown, beside, laid } = planned;
  if (isPlan) {
    await work.fail(new HoldfastError("cancelled", "only the plan was wanted"));
    const ask = askedFor(identity);
    return {
      exit: 0,
      document: importDocument(shown, { dryRun: true, ask: JSON.parse(ask) as unknown }),
      lines: [...importLines(shown), `An administrator asks for it by: call import-export '${ask}'`],
    };
  }
  if (planned.conflicts.length > 0) throw inTheWay(planned.conflicts);
  refuseForeseen(planned.plan, settings.has("fire-triggers"));
  const storage = storageFor(context, planned.files);
  await verifyFiles(planned.files.put.map(({ file }) => file), wanted.document.readBeside);
  const refusal = await unconfirmed(context, work, shown);
  if (refusal !== null) return refusal;
  await work.requireRoom(planned.plan.bytes);
  const safetyRun = await safetyOf(context, work);
  // A person's answer and a backup lie between: what the rows go into is looked at once more.
  const now = await pairUser(pairDeps(work), laid.laid, choice);
  if (now.pairs.length !== beside.pairs.length) throw new HoldfastError("rows_conflict", "tables changed meanwhile");
  const again = await work.plan(now, "missing");
  refuseForeseen(again, settings.has("fire-triggers"));
  const late = await conflictsOf(wanted, work, laid, now, again, planned.files);
  if (late.length > 0) throw inTheWay(late);
  const id = await beginImport(wanted.session, identity);
  context.log.step("import.begun", { import: id });
  const fireTriggers = settings.has("fire-triggers");
  const result = await work.apply(now, { mode: "missing", wholeTables: false, fireTriggers, lockMs }, safetyRun);
  context.log.step("import.rows", { import: id });
  if (storage !== null) await work.keptAlive(() => putFiles(wanted, planned.files, storage));
  const filesPut = planned.files.put.length + planned.files.before;
  // Whoever is killed behind this line is told by it what was done.
  await work.note({ state: { digest: wanted.digest, files: filesPut } });
  await work.finish(recordOf(now, result), (context.clock.monotonicMs() - startMs) / 1000);
  context.log.step("import.restored", { import: id });
  await finishImport(wanted.session, id, result.inserted, filesPut);
  for (const note of shown.notes) context.note(`warning: ${note}`);
  return {
    exit: 0,
    document: importDocument(shown, {
      ok: true,
      import: id,
      inserted: result.inserted,
      putFiles: filesPut,
      restore: work.lease?.id ?? null,
      sequences: result.sequences,
      safetyRun,
    }),
    lines: [
      `Export ${identity.export} is in place: ${
        rowsText(result.inserted)
      } and ${filesPut} files, read again and equal.`,
      ...(safetyRun === null ? [] : [`The safety backup from before is ${safetyRun}.`]),
    ],
  };
}

/** Null: it was confirmed. Errors: `confirmation_wrong`. */
async function unconfirmed(context: Context, work: RowsWork, shown: ImportShown): Promise<Outcome | null> {
  if (context.settings.has("yes")) return null;
  context.note(importLines(shown).join("\n"));
  const { database } = work.identity;
  if (await work.waiting(() => context.confirm(`This changes ${database}.`, database))) return null;
  const missing = new HoldfastError("confirmation_missing", "nothing was imported");
  await work.fail(new HoldfastError("cancelled", "it was not confirmed"));
  return {
    exit: missing.exit,
    document: importDocument(shown, { dryRun: true, ...missing.toDocument() }),
    lines: [`Nothing was imported. ${missing.hint}`],
  };
}

async function choiceOf(context: Context, user: string): Promise<UserChoice> {
  const map = await readMap(context);
  return { user, as: null, credentials: false, shared: false, map, replaces: false };
}

function pairDeps({ connection, schema }: RowsWork) {
  return { connection, schema, sameDatabase: false };
}

async function planOf(wanted: ImportWanted, work: RowsWork, choice: UserChoice): Promise<Planned> {
  const { context, document: { source, identity }, selection, ledger } = wanted;
  const onRows = async (rows: number) => {
    context.progress.update({ label: "rows beside", done: rows, total: null, unit: "rows" });
    await work.loaded(rows);
  };
  const deps = { ...pairDeps(work), ledger, onRows };
  const laid = await layDocument(deps, source, selection, `holdfast: rows of export ${identity.export}`);
  const beside = await pairUser(pairDeps(work), laid.laid, choice);
  context.progress.clear();
  const plan = await work.plan(beside, "missing");
  const wantsFiles = selection.only === null && !context.settings.has("without-files");
  const found = await planFiles(work.connection, wantsFiles ? laid.document.files : []);
  const files = await settleFiles(wanted, work, found);
  const conflicts = await conflictsOf(wanted, work, laid, beside, plan, files);
  const shown: ImportShown = {
    identity,
    consistentAt: laid.document.consistentAt,
    database: work.identity.database,
    tables: await differencesOf(work.connection, beside.pairs, plan.tables),
    laid,
    files,
    conflicts: conflicts.map(({ text }) => text),
    notes: plan.tables.flatMap(({ notes }) => notes),
  };
  return { laid, beside, plan, files, conflicts, shown };
}

/** Nothing is called imported that is not there afterwards, as it is in the document. */
async function conflictsOf(
  { mode }: ImportWanted,
  work: RowsWork,
  { laid }: LaidDocument,
  { pairs, unfit }: Beside,
  plan: RowsPlan,
  files: FilesPlan,
): Promise<Conflict[]> {
  const found: Conflict[] = [];
  const add = (text: string, isThere = false) => found.push({ text, isThere });
  for (const { reason } of unfit) add(reason);
  for (const bucket of files.buckets) add(`there is no bucket ${bucket}, which its files need: make it first`);
  if (mode === "missing") return found;
  const { tables: done } = await readDone(work.connection, work.schema, pairs);
  for (const pair of pairs) {
    const name = liveName(pair);
    const { insert = 0, unchanged = 0 } = plan.tables.find(({ table }) => table === name) ?? {};
    const there = unchanged - (done.find(({ table }) => table === name)?.inserted ?? 0);
    if (there > 0) {
      add(`${rowsText(there)} of ${name} are there already, or may not come into an account that is there`, true);
    }
    const all = laid.tables.find(({ side }) => side.name === pair.side.name)?.rows ?? 0;
    const parentless = all - insert - unchanged;
    if (parentless > 0) add(`${rowsText(parentless)} of ${name} refer to rows that are not there`);
  }
  if (files.there.length > 0) add(`${files.there.length} files are there already`, true);
  return found;
}

/** What stands in the way of importing all of it. */
interface Conflict {
  readonly text: string;
  /** That it is there already, and nothing else. */
  readonly isThere: boolean;
}

function inTheWay(conflicts: readonly Conflict[]): HoldfastError {
  const isThere = conflicts.every((conflict) => conflict.isThere);
  return new HoldfastError(isThere ? "rows_exist" : "rows_conflict", conflicts.map(({ text }) => text).join("; "));
}

/** Of files that are there: what an earlier try of the same import has put is no conflict. */
async function settleFiles(
  { context, mode, document: { identity } }: ImportWanted,
  work: RowsWork,
  files: FilesPlan,
): Promise<FilesPlan & { readonly before: number }> {
  const target = projectStorage(context.settings);
  if (work.lease?.goesOn !== true || mode !== "all" || target === null) return { ...files, before: 0 };
  const deps = { target, session: work.connection, fetch: fetching, inTurn: oneAtATime };
  const states = new Map<FilesPlan["there"][number], "put" | "half" | "strange">();
  for (const file of files.there) states.set(file, await putBefore(deps, file, identity.user));
  const of = (state: "put" | "half" | "strange") => files.there.filter((file) => states.get(file) === state);
  const half = of("half").map((file) => ({ file, replaces: true }));
  return { ...files, put: [...files.put, ...half], there: of("strange"), before: of("put").length };
}

const fetching = (input: string, init: RequestInit) => fetch(input, init);

/** Null: there is nothing to put. Errors: `setting_missing`. */
function storageFor({ settings }: Context, { put }: FilesPlan): ProjectFilesSettings | null {
  if (put.length === 0) return null;
  const storage = projectStorage(settings);
  if (storage !== null) return storage;
  throw new HoldfastError(
    "setting_missing",
    "SUPABASE_URL and SUPABASE_SECRET_KEY are not both set: files go into Storage",
    {
      hint: "Set them, or leave the files out with --without-files.",
    },
  );
}

/** They are put one after the other, so that each has the session for itself. */
const oneAtATime = <T>(work: () => Promise<T>): Promise<T> => work();

async function putFiles(
  { context, document: { readBeside, identity }, session }: ImportWanted,
  { put, bytes }: FilesPlan,
  target: ProjectFilesSettings,
): Promise<void> {
  let done = 0;
  for (const one of put) {
    if (context.signal.aborted) throw new HoldfastError("cancelled", "it was cancelled; what was put stays");
    await putFile({ target, session, fetch: fetching, inTurn: oneAtATime }, one, identity.user, readBeside);
    context.log.step("import.file", {});
    done += one.file.bytes;
    context.progress.update({ label: "files", done, total: bytes, unit: "bytes" });
  }
  context.progress.clear();
}
