/** Files of a full backup, or of a moment, into the project's own Storage, leg by leg of a function: list after list, within the budget. */
import { z } from "zod";
import type { Budget } from "../backup/budget.ts";
import { planPoint } from "../changes/plan/plan_point.ts";
import { parsePoint } from "../changes/plan/point.ts";
import type { Clock } from "../clock.ts";
import { knownEntries } from "../erase/erase_queries.ts";
import { readLedger } from "../erase/ledger.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { ListedFile } from "../format/file_list.ts";
import { fileListsOf } from "../format/manifest.ts";
import {
  claimRestore,
  failRestore,
  finishRestore,
  keysUsed,
  readRestore,
  restoreProgress,
  restRestore,
} from "../jobs/restore_queries.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Log } from "../log.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../verify/find_backup.ts";
import { bringFiles, givenTo, ownersOf, planBringing } from "./bring_files.ts";
import { type FilesByList, filesOfFull, filesOfMoment } from "./files_by_list.ts";
import type { FilesOutline } from "./files_outline.ts";
import { bytesOf, type PlannedFile, type PutBackMode } from "./plan_put_back.ts";
import type { ProjectFilesSettings } from "./project_files.ts";

export interface LegProject extends ProjectFilesSettings {
  readonly fetch: Fetch;
}

export interface FilesLegDeps {
  /** The project's own: rows of storage.objects are looked at and set there. */
  readonly session: Connection;
  readonly read: ReadDeps;
  readonly project: LegProject;
  readonly budget: Budget;
  /** For a moment. */
  readonly clock: Clock;
  readonly log: Log;
  readonly database: Database;
}

/** Which files, and how they go into place. */
export interface FilesAsked {
  /** A full backup; of a moment the one that it stands on. */
  readonly backup: string;
  /** ISO 8601; null: as of the backup. */
  readonly at: string | null;
  readonly mode: PutBackMode;
  /** Null: of every bucket. */
  readonly bucket: string | null;
  /** Those that this person owns; null: everybody's. Under `as` they become the new account's. */
  readonly user: string | null;
  readonly as: string | null;
}

/** How far it is, as a restore's state keeps it: no name of a file. */
const filesState = z.object({
  /** The list that comes next, and the id of a file up to which those before it go. */
  list: z.int().default(0),
  after: z.string().nullable().default(null),
  /** Files of it that are dealt with, in the order of their names. */
  at: z.int().default(0),
  put: z.int().default(0),
  bytes: z.int().default(0),
  same: z.int().default(0),
  differs: z.int().default(0),
  lost: z.int().default(0),
  erased: z.int().default(0),
  failed: z.int().default(0),
  /** Left to the CLI. */
  tooLarge: z.int().default(0),
  done: z.boolean().default(false),
});
export type FilesState = z.infer<typeof filesState>;

export function readFilesState(state: unknown): FilesState {
  return filesState.parse(state ?? {});
}

/** One request takes a file, and each byte of it is opened, sent and read back: some 50 ms of CPU a MiB. */
const mostBytes = 8 * 1024 * 1024;
/** A file's requests and statements. */
const callsPerFile = 8;
const textsOfContent = 2;

/**
 * Puts back until the budget is spent; one file at least. What is there already is told from what is missing each time, so that a leg that
 * was killed is repeated. Errors: those of the store, the keys, Storage and the ledger; of a moment those of `planPoint`.
 */
export async function filesLeg(deps: FilesLegDeps, asked: FilesAsked, from: FilesState): Promise<FilesState> {
  const { read, session, project, budget } = deps;
  const { backup, files: all } = await filesAsked(deps, asked);
  const { manifest, epochOf } = backup;
  const reader = { store: read.store, compressor: read.compressor, epochOf };
  const ledger = await readLedger(read, await knownEntries(session, read.store.label));
  let state = from;
  for (const list of all.lists.slice(from.list)) {
    const listed = await all.read(state.list, state.after);
    const files = listed.files.filter((file) => isWanted(file, asked))
      .map((file) => asked.as === null ? file : givenTo(file, asked.as));
    budget.spendText(list.files, list.rawBytes);
    const plan = await planBringing({ session }, ledger, files, { mode: asked.mode, wholeBuckets: false });
    const left = plan.files.slice(state.at);
    const fits = left.filter(({ file, puts }) => puts && bytesOf(file) <= mostBytes);
    let before = 0;
    const brought = await bringFiles(
      { reader, target: project, session, fetch: project.fetch },
      { ...plan, files: fits },
      manifest.files?.buckets ?? [],
      {
        most: 1,
        mostBytes,
        onFile: (bytes) => {
          budget.spendText(0, (bytes - before) * textsOfContent);
          budget.spendCalls(callsPerFile);
          before = bytes;
          return !budget.spent();
        },
      },
    );
    // One after the other, in the plan's order.
    const tried = brought.put + brought.failed.length;
    const isOver = tried === fits.length;
    const last = fits[tried - 1];
    const passed = left.slice(0, isOver || last === undefined ? left.length : left.indexOf(last) + 1);
    const count = (is: (one: PlannedFile) => boolean) => passed.filter(is).length;
    state = {
      ...state,
      list: isOver ? state.list + 1 : state.list,
      after: isOver ? listed.after : state.after,
      at: isOver ? 0 : state.at + passed.length,
      put: state.put + brought.put,
      bytes: state.bytes + brought.bytes,
      failed: state.failed + brought.failed.length,
      same: state.same + count((one) => one.state === "same"),
      differs: state.differs + count((one) => one.state === "differs" && !one.puts),
      lost: state.lost + count((one) => one.state === "lost"),
      tooLarge: state.tooLarge + count(({ file, puts }) => puts && bytesOf(file) > mostBytes),
      erased: state.erased + (isOver ? plan.erased.length : 0),
    };
    if (!isOver || budget.spent()) return { ...state, done: isOver && state.list === all.lists.length };
  }
  return { ...state, done: true };
}

/** Every leg of a moment makes the same plan again: the same full, the same segments, as in drills. */
async function filesAsked(
  { read, budget, database, clock, log }: FilesLegDeps,
  { backup, at }: FilesAsked,
): Promise<{ readonly backup: OpenedBackup; readonly files: FilesByList }> {
  if (at === null) {
    const opened = await openBackup(read, backup);
    return { backup: opened, files: filesOfFull(read, opened) };
  }
  const point = parsePoint(at, () => 0);
  const plan = await planPoint({ ...read, target: database, clock, log }, point, {
    uncoveredAtFull: true,
    full: backup,
  });
  budget.spendText(plan.survey.changes, 2 * plan.segments.reduce((sum, { size }) => sum + size, 0));
  return { backup: plan.full, files: await filesOfMoment(read, plan) };
}

/** Nothing is changed. Errors: those of `openBackup`; `not_found` for one without files. */
export async function outlineFiles(read: ReadDeps, connection: Connection, wanted: string): Promise<FilesOutline> {
  const { manifest } = await openBackup(read, wanted);
  if ((manifest.files ?? null) === null) throw new HoldfastError("not_found", `backup ${manifest.id} holds no files`);
  const lists = fileListsOf(manifest);
  const sum = (of: (list: (typeof lists)[number]) => number) => lists.reduce((total, list) => total + of(list), 0);
  const [row] = await connection.query("select pg_catalog.current_database() as name");
  return {
    backup: manifest.id,
    consistentAt: manifest.consistentAt,
    database: row?.["name"] ?? "",
    files: sum(({ files }) => files),
    missed: sum(({ missed }) => missed),
    bytes: sum(({ partBytes }) => partBytes),
  };
}

function isWanted(file: ListedFile, { bucket, user }: FilesAsked): boolean {
  return (bucket ?? file.bucket) === file.bucket && (user === null || ownersOf(file.row).includes(user));
}

/** What people have to know once it is over; empty: all came. */
export function filesStateWarnings({ lost, failed, tooLarge, erased }: FilesState): string[] {
  const told = (count: number, what: string) => count === 0 ? [] : [`${count} files ${what}`];
  return [
    ...told(lost, "have no content in the backup"),
    ...told(failed, "could not be put back: `restore-file` names them"),
    ...told(tooLarge, "are too large for a function: `restore-file` brings them"),
    ...told(erased, "of people who were erased are not put back"),
  ];
}

const leaseSeconds = 170;
const restState = z.looseObject({
  bucket: z.string().nullable().default(null),
  at: z.string().nullable().default(null),
  files: z.unknown().optional(),
});

/**
 * One leg of a restore of the scope `files`. Nothing when another leg is at it, or when it was asked to end. What keeps it from going on is
 * written down with it, and thrown.
 */
export async function runFilesLeg(
  deps: {
    readonly database: Database;
    readonly project: LegProject | null;
    readonly clock: Clock;
    readonly log: Log;
    readonly open: () => Promise<ReadDeps>;
  },
  connection: Connection,
  id: string,
  { worker, budget }: { readonly worker: string; readonly budget: Budget },
): Promise<void> {
  const lease = await claimRestore(connection, id, { worker, leaseSeconds });
  if (lease === null) return;
  const row = await readRestore(connection, id);
  try {
    if (deps.project === null) {
      throw new HoldfastError("setting_missing", "the function does not know the project's Storage");
    }
    const { mode } = row;
    if (mode !== "missing" && mode !== "merge") {
      throw new HoldfastError("internal", `restore ${id} has no mode of files`);
    }
    await restoreProgress(connection, lease, { status: "applying", leaseSeconds });
    const read = await deps.open();
    const { bucket, at, files } = restState.parse(row.state);
    const session = await deps.database.connect("holdfast:files");
    try {
      const asked = { backup: row.sourceBackup, at, mode, bucket, user: null, as: null };
      const legDeps = { ...deps, session, read, project: deps.project, budget };
      const state = await filesLeg(legDeps, asked, readFilesState(files));
      await keysUsed(connection, { what: "restore", id }, read.ring);
      const warnings = state.done ? filesStateWarnings(state) : [];
      await restoreProgress(connection, lease, { state: { ...row.state, files: state, warnings }, leaseSeconds });
      if (state.done) await finishRestore(connection, lease, {});
      else await restRestore(connection, lease, 0);
    } finally {
      await session.close();
    }
  } catch (error) {
    const failure = asHoldfastError(error);
    if (failure.code !== "lease_lost") await failRestore(connection, lease, failure).catch(() => {});
    throw error;
  }
}
