/** One leg of a restore of rows in a function: lays rows beside, or puts them into place, as far as its budget goes. */
import { z } from "zod";
import type { Budget } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { filesLeg, filesStateWarnings, type LegProject, readFilesState } from "../files/files_leg.ts";
import { claimRestore, readRestore } from "../jobs/restore_queries.ts";
import type { RestoreRow } from "../jobs/restore_row.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import type { BeforeCommit } from "../restore/before_commit.ts";
import { quoteQualified } from "../schema/quote.ts";
import { openBackup, type ReadDeps } from "../verify/find_backup.ts";
import { liveName, type RestoreMode, workNames } from "./apply/difference.ts";
import { isNothing, recordOf, refuseForeseen } from "./apply/foreseen.ts";
import { readDone, triesOf } from "./apply/done_counts.ts";
import { readAsOwner } from "./apply/read_as_owner.ts";
import { layAsked, pairAsked, type RowsAsked, subjectOf, warningsOf } from "./asked.ts";
import type { Beside, PairDeps } from "./beside/beside.ts";
import { type Laid, readLaid } from "./beside/laid.ts";
import { LegOver } from "./beside/side_tables.ts";
import { safetyIsTaken } from "./leg_safety.ts";
import { notePeople } from "./note_people.ts";
import { openBackupRows } from "./past/backup_rows.ts";
import { markSides, refuseChanged } from "./side_marks.ts";
import { RowsWork } from "./work.ts";
import type { LegRequest } from "./leg_request.ts";

export interface RowsLegDeps {
  /** The database that legs are called for: rows go into it. */
  readonly database: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The store that backups are in. Errors: those of settings and keys. */
  readonly open: () => Promise<ReadDeps>;
  readonly beforeCommit?: BeforeCommit | undefined;
  /** The project's Storage, for files of a person; null or absent: they stay where they are, which is told. */
  readonly project?: LegProject | null;
}

export interface RowsLeg {
  readonly worker: string;
  readonly budget: Budget;
  /** See `WorkDeps`. */
  readonly capBytes?: number;
}

/** Longer than the platform lets a leg live. */
const leaseSeconds = 170;
/** A writer in the way is waited for this long; then nothing is changed. */
const lockMs = 10_000;

/** What of the state a leg needs. */
const stateFormat = z.looseObject({
  sameDatabase: z.boolean().default(false),
  safety: z.boolean().default(true),
  fireTriggers: z.boolean().default(false),
  withFiles: z.boolean().default(true),
  /** Null: there was nothing that rows could go into, or no way to tell. */
  plan: z.looseObject({ tables: z.array(z.looseObject({ table: z.string() })).readonly() }).nullish(),
});

/**
 * Nothing when another leg is at it, or when it was asked to end. What keeps the restore from going on is written down with it,
 * and not thrown. Errors: those of the connection, before the restore is claimed.
 */
export async function runRowsLeg(
  deps: RowsLegDeps,
  connection: Connection,
  id: string,
  leg: RowsLeg,
  request: (sideSchema: string) => Promise<LegRequest>,
): Promise<void> {
  const lease = await claimRestore(connection, id, { worker: leg.worker, leaseSeconds });
  if (lease === null) return;
  const row = await readRestore(connection, id);
  const sideSchema = row.sideSchema;
  if (sideSchema === null) throw new HoldfastError("internal", `restore ${id} has no side schema`);
  const applying = row.stage === "applying";
  const work = await RowsWork.leg({ ...deps, target: deps.database, capBytes: leg.capBytes }, {
    ...lease,
    sideSchema,
    applying,
  });
  try {
    const wanted = await request(sideSchema);
    if (applying) await applyLeg(deps, leg, work, row, wanted);
    else await layLeg(deps, leg, work, row, wanted);
  } catch (error) {
    if (error instanceof LegOver) await work.rest();
    else throw await work.fail(error);
  } finally {
    await work.close();
  }
}

async function layLeg(
  deps: RowsLegDeps,
  { budget }: RowsLeg,
  work: RowsWork,
  row: RestoreRow,
  { asked, all, mode }: LegRequest,
): Promise<void> {
  const read = await deps.open();
  const { manifest: { project } } = await openBackup(read, row.sourceBackup);
  await work.usedKeys(read.ring);
  const source = await openBackupRows(read, row.sourceBackup, { ahead: false });
  const sameDatabase = project.systemIdentifier === work.identity.systemIdentifier &&
    project.database === work.identity.database;
  if (row.stage === "planned" && asked.scope === "table") {
    const { schema, name } = asked.table;
    const table = source.tables.find((one) => one.schema === schema && one.name === name);
    await work.requireRoom(table?.rawBytes ?? 0);
  }
  let rowsDone = row.rowsDone;
  const pairDeps = { connection: work.connection, sameDatabase, schema: work.schema };
  const laid = await layAsked(
    {
      ...pairDeps,
      source,
      budget,
      onRows: async (rows) => {
        rowsDone += rows;
        await work.note({ status: "loading", rowsDone, leaseSeconds });
        deps.log.step("rows.laid", {});
      },
    },
    asked,
    `holdfast: ${subjectOf(asked)} as of ${source.at}, from backup ${source.backupId}`,
  );
  refuseStrange(asked, all, laid);
  if (asked.scope === "record" && work.lease !== null) {
    await notePeople(work.connection, work.lease.id, source.graph, laid);
  }
  await markSides(work.connection, work.schema, laid);
  const { plan, reasons } = await planOf(pairDeps, work, asked, laid, mode);
  const warnings = [...warningsOf(asked, laid), ...reasons];
  await work.note({ status: "loading", rowsDone, state: { ...row.state, sameDatabase, plan, warnings }, leaseSeconds });
  await work.finish(laid.tables.map(({ side, rows }) => ({ schema: side.past.schema, name: side.past.name, rows })));
}

/** What would be done with the rows; they stand beside also where they can be put nowhere, which the reasons say. */
async function planOf(deps: PairDeps, work: RowsWork, asked: RowsAsked, laid: Laid, mode: RestoreMode) {
  try {
    const beside = await pairAsked(deps, asked, laid);
    const plan = beside.pairs.length === 0 ? null : await work.plan(beside, mode);
    return { plan, reasons: beside.unfit.map(({ reason }) => reason) };
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    if (code !== "value_unfit" && code !== "rows_conflict") throw error;
    return { plan: null, reasons: [message] };
  }
}

/** Errors: `row_not_found`, `rows_ambiguous`. */
function refuseStrange(asked: RowsAsked, all: boolean, { tables }: Laid): void {
  if (asked.scope !== "record") return;
  const rows = tables[0]?.rows ?? 0;
  if (rows === 0) throw new HoldfastError("row_not_found", `no row of ${subjectOf(asked)} fits the condition`);
  if (rows > 1 && !all) {
    throw new HoldfastError("rows_ambiguous", `${rows} ${subjectOf(asked)} fit the condition`, {
      hint: 'Narrow the condition, or take all of them with "all": true.',
    });
  }
}

/** What all legs brought; nobody's name is kept. */
async function readBack({ connection, schema }: RowsWork, { pairs: [pair] }: Beside) {
  const found: { rows: number; visible: number }[] = [];
  const tries = pair === undefined ? [] : await triesOf(connection, schema, workNames.delta(pair.place));
  for (const name of tries) {
    const read = pair === undefined
      ? []
      : await readAsOwner(connection, { ...pair, delta: quoteQualified(schema, name) });
    found.push(...read.map(({ rows, visible }) => ({ rows, visible })));
  }
  return found;
}

/** The rows are in place, whatever comes of reading them as their owner, or of a wish to end that came too late. */
async function noteReadBack({ log }: RowsLegDeps, work: RowsWork, row: RestoreRow, beside: Beside): Promise<void> {
  try {
    await work.note({ state: { ...row.state, readBack: await readBack(work, beside) }, leaseSeconds });
  } catch (error) {
    log.warn("rows.not_read_back", { code: asHoldfastError(error).code });
  }
}

/** Errors: `run_state` for a mode that the plan did not look at. */
export function refuseUnplanned({ asked }: LegRequest, mode: RestoreMode): void {
  if (mode !== "replace" || asked.scope !== "user" || asked.choice.replaces) return;
  throw new HoldfastError("run_state", "which rows a replacement may delete was not looked up for this plan", {
    hint: 'Plan it with "mode": "replace".',
  });
}

/** A person's files once their rows are in place, from where the leg before was. Errors: `LegOver`, those of `filesLeg`. */
async function bringTheirs(
  { open, project, database, clock, log }: RowsLegDeps,
  budget: Budget,
  work: RowsWork,
  row: RestoreRow,
  { user, as }: { readonly user: string; readonly as: string | null },
  mode: RestoreMode,
): Promise<void> {
  const before = readFilesState(row.state["files"]);
  if (before.done) return;
  const told = (row.state["warnings"] ?? []) as readonly string[];
  if (project === null || project === undefined) {
    const warning = "their files stay where they are: the function does not know the project's Storage";
    return await work.note({ state: { ...row.state, warnings: [...told, warning] }, leaseSeconds });
  }
  const asked = {
    backup: row.sourceBackup,
    at: null,
    mode: mode === "missing" ? "missing" as const : "merge" as const,
    bucket: null,
    user: user.toLowerCase(),
    as: as?.toLowerCase() ?? null,
  };
  const legDeps = { session: work.connection, read: await open(), project, budget, database, clock, log };
  const files = await filesLeg(legDeps, asked, before);
  const warnings = files.done ? [...told, ...filesStateWarnings(files)] : told;
  await work.note({ state: { ...row.state, files, warnings }, leaseSeconds });
  if (!files.done) throw new LegOver();
}

/** Somebody confirmed a plan that had these tables. Errors: `table_not_found`. */
function refuseGone(planned: readonly { readonly table: string }[], { pairs, unfit }: Beside): void {
  const there = new Set(pairs.map(liveName));
  const gone = planned.filter(({ table }) => !there.has(table)).map(({ table }) => table);
  if (gone.length === 0 && pairs.length > 0) return;
  throw new HoldfastError(
    "table_not_found",
    gone.length === 0
      ? unfit[0]?.reason ?? "there is no table for the rows"
      : `${gone.join(", ")}: the plan had it, and it is not there any more under that name`,
    { hint: "Nothing was changed by this leg. Plan again." },
  );
}

async function applyLeg(
  deps: RowsLegDeps,
  { budget }: RowsLeg,
  work: RowsWork,
  row: RestoreRow,
  wanted: LegRequest,
): Promise<void> {
  const { asked } = wanted;
  const { mode } = row;
  if (mode === "beside" || mode === "in_place") {
    throw new HoldfastError("internal", `restore ${row.id} applies without a mode`);
  }
  refuseUnplanned(wanted, mode);
  const state = stateFormat.parse(row.state);
  const laid = await readLaid(work.connection, work.schema);
  if (laid === null) throw new HoldfastError("run_state", `restore ${row.id} has no rows beside`);
  const pairDeps = { connection: work.connection, sameDatabase: state.sameDatabase, schema: work.schema };
  await refuseChanged(work.connection, work.schema, laid);
  const beside = await pairAsked(pairDeps, asked, laid);
  refuseGone(state.plan?.tables ?? [], beside);
  const plan = await work.plan(beside, mode);
  if (!isNothing(plan)) {
    refuseForeseen(plan, state.fireTriggers);
    await work.requireRoom(plan.bytes);
    if (state.safety && row.safetyRun === null && !(await safetyIsTaken(deps.clock, work))) return;
    const options = { mode, wholeTables: asked.scope === "table", fireTriggers: state.fireTriggers, lockMs };
    await work.apply(beside, options, null, (rows) => {
      // A step that was put off is met again by the next leg: this one goes on to one that can be taken.
      if (rows > 0 && budget.spent()) throw new LegOver();
      return Promise.resolve();
    });
  }
  if (asked.scope === "user" && state.withFiles) await bringTheirs(deps, budget, work, row, asked.choice, mode);
  const done = await readDone(work.connection, work.schema, beside.pairs);
  if (asked.scope === "record") await noteReadBack(deps, work, row, beside);
  await work.finish(recordOf(beside, done));
}
