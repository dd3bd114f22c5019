/** A backup back into the very database: maintenance mode, a safety backup, definitions and rows by difference, checks. */
import { sha256Hex } from "../shared/crypto/digest.ts";
import { HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { enterMaintenance } from "../shared/maintenance/switch_on.ts";
import { leaveMaintenance } from "../shared/maintenance/switch_off.ts";
import { readActor } from "../shared/restore/in_place/actor.ts";
import { planNow, type SettleContext, settleDefinitions } from "../shared/restore/in_place/settle_definitions.ts";
import { putSequencesAhead, refreshViews } from "../shared/restore/in_place/finish_rows.ts";
import { findLeftOver } from "../shared/restore/in_place/left_over.ts";
import { readContents } from "../shared/restore/read_contents.ts";
import { ownSchema, stateSchema } from "../shared/restore/target.ts";
import { openBackupRows } from "../shared/rows/past/backup_rows.ts";
import type { LayDeps } from "../shared/rows/beside/lay.ts";
import { type DatabaseBeside, layDatabaseBeside, pairAgain } from "../shared/rows/beside/database_beside.ts";
import { liveName, type RestoreMode } from "../shared/rows/apply/difference.ts";
import { requireDeletable } from "../shared/rows/apply/published_deletes.ts";
import type { PastRows } from "../shared/rows/past/past.ts";
import type { RowsPlan } from "../shared/rows/apply/plan_rows.ts";
import { RowsWork } from "../shared/rows/work.ts";
import { quoteQualified } from "../shared/schema/quote.ts";
import { applySettings } from "../shared/schema/apply_settings.ts";
import type { Database } from "../shared/postgres/connection.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { chooseChecks, type ChosenChecks, runChosenChecks } from "./in_place_checks.ts";
import { type InPlaceSubject, planDocument, planShown, restoredInPlace } from "./in_place_shown.ts";
import { keepSmokesFor } from "./in_place_smokes.ts";
import { maintenanceDeps } from "./maintenance_deps.ts";
import { keyRing, sourceDatabase, targetDatabase } from "./open.ts";
import { newestOfNoRestore } from "./open_past.ts";
import { openStore } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { modeOf, safetyOf } from "./restore_rows.ts";
import { recordOf, refuseForeseen } from "../shared/rows/apply/foreseen.ts";

/** A table that somebody writes to is waited for so long. */
const lockMs = 30_000;

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], mode, definitions{steps, kept[]}, differences[], …}`; until it
 * is confirmed, and with --dry-run, `{dryRun: true, …}`. Broken off, the project stays closed, and the same call goes on.
 */
export async function restoreInPlace(context: Context, wanted: string): Promise<Outcome> {
  const { settings, clock, random, log, signal } = context;
  const mode = modeOf(settings.get("apply")) ?? "replace";
  const checks = await chooseChecks(context);
  const read: ReadDeps = {
    store: await openStore(context),
    ring: await keyRing(settings),
    compressor: await loadZstd(),
  };
  const target = await targetDatabase(context) ?? await sourceDatabase(context);
  const backup = wanted === "latest" ? await newestOfNoRestore(context, read) : await openBackup(read, wanted);
  const source = await openBackupRows(read, backup.manifest.id);
  const choices = [mode, settings.has("drop-extra"), settings.has("credentials")];
  const work = await RowsWork.begin({ target, clock, random, log, signal }, {
    scope: "full",
    mode,
    sourceBackup: source.backupId,
    pointAt: null,
    userId: null,
    digest: await sha256Hex(new TextEncoder().encode(JSON.stringify(["full", source.backupId, choices]))),
  });
  try {
    const { capture } = await readContents(read, backup);
    return await new InPlace(context, work, target, backup, source, mode, checks).run(capture);
  } catch (error) {
    throw await work.fail(error);
  } finally {
    await work.close();
    await source.close();
  }
}

class InPlace {
  readonly #context: Context;
  readonly #work: RowsWork;
  readonly #target: Database;
  readonly #backup: OpenedBackup;
  readonly #source: PastRows;
  readonly #mode: RestoreMode;
  readonly #checks: ChosenChecks;

  constructor(
    context: Context,
    work: RowsWork,
    target: Database,
    backup: OpenedBackup,
    source: PastRows,
    mode: RestoreMode,
    checks: ChosenChecks,
  ) {
    this.#context = context;
    this.#work = work;
    this.#target = target;
    this.#backup = backup;
    this.#source = source;
    this.#mode = mode;
    this.#checks = checks;
  }

  async run(was: SettleContext["was"]): Promise<Outcome> {
    const { settings, clock, log, signal } = this.#context;
    const work = this.#work;
    let startMs = clock.monotonicMs();
    await work.connection.execute(applySettings.join(";\n"));
    const settling: SettleContext = {
      connection: work.connection,
      clock,
      log,
      signal,
      was,
      leaveOutSchemas: [ownSchema, stateSchema, work.schema],
      options: {
        sameDatabase: this.#isSource(),
        dropExtra: settings.has("drop-extra"),
        replacesRows: this.#mode === "replace",
        ...await readActor(work.connection),
      },
    };
    const definitions = await planNow(settling);
    const [refused] = definitions.refused;
    if (refused !== undefined && this.#mode === "replace") {
      throw new HoldfastError("definitions_stuck", `${refused.identity}: ${refused.reason}`);
    }
    await work.requireRoom(this.#backup.manifest.totals.rawBytes);
    const deps = this.#besideDeps();
    const beside = await layDatabaseBeside(deps, { credentials: settings.has("credentials") }, this.#subject());
    this.#context.progress.clear();
    const plan = await work.plan(beside, this.#mode);
    const loadMs = clock.monotonicMs() - startMs;
    await requireDeletable(work.connection, losingRows(plan, beside));
    const about = this.#about();
    const shown = planShown(about, { definitions, rows: plan, beside, loadMs });
    const dryRun = planDocument(about, { definitions, rows: plan, beside });
    if (settings.has("dry-run")) {
      await work.fail(new HoldfastError("cancelled", "only the plan was wanted"));
      return { exit: 0, document: dryRun, lines: shown };
    }
    if (!settings.has("yes")) {
      this.#context.note(shown.join("\n"));
      const askedMs = clock.monotonicMs();
      const question = `This changes ${this.#target.label}.`;
      const isConfirmed = await work.waiting(() => this.#context.confirm(question, work.identity.database));
      startMs += clock.monotonicMs() - askedMs;
      if (!isConfirmed) {
        const missing = new HoldfastError("confirmation_missing", "nothing was restored");
        await work.fail(new HoldfastError("cancelled", "it was not confirmed"));
        return {
          exit: missing.exit,
          document: { ...dryRun, ...missing.toDocument() },
          lines: [`Nothing was restored. ${missing.hint}`],
        };
      }
    }
    this.#refuseForeseen(plan, was);
    return await this.#carryOut(settling, deps, beside, startMs);
  }

  /** Before the project is closed. Of a `replace`, what its definitions will settle is no obstacle. */
  #refuseForeseen(plan: RowsPlan, was: SettleContext["was"]): void {
    const known = new Set(was.tables.map(({ schema, name }) => quoteQualified(schema, name)));
    const isOpen = (other: string | null) => this.#mode !== "replace" || (other !== null && !known.has(other));
    const conflicts = plan.tables.map((table) => ({
      ...table,
      conflicts: table.conflicts.filter(({ what, other }) => isOpen(what === "still referred to" ? other : null)),
    }));
    refuseForeseen({ ...plan, tables: conflicts }, this.#context.settings.has("fire-triggers"));
  }

  async #carryOut(
    settling: SettleContext,
    deps: LayDeps,
    laid: DatabaseBeside,
    startMs: number,
  ): Promise<Outcome> {
    const { settings, clock } = this.#context;
    const work = this.#work;
    const fenced = work.identity.installed && !settings.has("without-maintenance");
    if (fenced) {
      const message = settings.get("message") ?? "The data of this app is being restored. Please try again later.";
      const closed = await enterMaintenance(await maintenanceDeps(this.#context), {
        message,
        until: settings.get("until") ?? null,
        by: null,
      });
      this.#context.note(`maintenance mode is on; tried and refused: ${closed.probed.join(", ")}`);
    }
    const safetyRun = await safetyOf(this.#context, work);
    work.changed();
    await work.applying(safetyRun);
    // Only what stands in the way of the rows; of a merge the definitions stay as they are.
    const before = this.#mode === "replace" ? await settleDefinitions(settling, "before") : null;
    const beside = await pairAgain(deps, laid);
    const result = await work.apply(beside, {
      mode: this.#mode,
      wholeTables: true,
      fireTriggers: settings.has("fire-triggers"),
      lockMs,
    }, safetyRun);
    const after = before === null ? null : await settleDefinitions(settling, "after");
    await putSequencesAhead(work.connection, settling.was);
    const views = await refreshViews(work.connection);
    if (work.identity.installed) {
      await work.connection.query(
        "select backup.end_chain(c.id, 'a full restore in place') from backup.chains as c where c.ended_at is null",
      );
    }
    const differences = this.#mode === "replace" ? await findLeftOver(settling, work, beside, result) : [];
    const checks = await runChosenChecks(this.#context, this.#target, {
      manifest: this.#backup.manifest,
      was: settling.was,
      leaveOutSchemas: settling.leaveOutSchemas,
      mode: this.#mode,
      ...this.#checks,
    });
    await keepSmokesFor(this.#context, work, checks);
    await work.finish(recordOf(beside, result), (clock.monotonicMs() - startMs) / 1000);
    if (fenced) {
      const opened = await leaveMaintenance(await maintenanceDeps(this.#context));
      this.#context.note(`maintenance mode is off; tried and done: ${opened.probed.join(", ")}`);
    }
    return restoredInPlace(this.#about(), {
      result,
      definitions: { steps: (before?.steps ?? 0) + (after?.steps ?? 0), kept: after?.plan.kept ?? [] },
      leftOut: laid.leftOut,
      differences,
      checks,
      views,
      safetyRun,
      restore: work.lease?.id ?? null,
      sideSchema: work.schema,
      durationMs: clock.monotonicMs() - startMs,
    });
  }

  #about(): InPlaceSubject {
    return {
      manifest: this.#backup.manifest,
      source: this.#source,
      mode: this.#mode,
      target: this.#target.label,
      database: this.#work.identity.database,
    };
  }

  #besideDeps(): LayDeps {
    let bytes = 0;
    let rows = 0;
    const { rawBytes } = this.#backup.manifest.totals;
    return {
      connection: this.#work.connection,
      source: this.#source,
      sameDatabase: this.#isSource(),
      schema: this.#work.schema,
      onRows: async (moreRows, moreBytes) => {
        bytes += moreBytes;
        rows += moreRows;
        this.#context.progress.update({
          label: "rows beside",
          done: Math.min(bytes, rawBytes),
          total: rawBytes,
          unit: "bytes",
        });
        await this.#work.loaded(rows);
      },
    };
  }

  #isSource(): boolean {
    const { project } = this.#backup.manifest;
    const { identity } = this.#work;
    return project.systemIdentifier === identity.systemIdentifier && project.database === identity.database;
  }

  #subject(): string {
    return `holdfast: backup ${this.#source.backupId} of ${this.#source.at}`;
  }
}

/** Oids of the tables that rows are taken out of. */
function losingRows(plan: RowsPlan, beside: DatabaseBeside): string[] {
  const losing = new Set(plan.tables.filter((one) => one.update + one.delete > 0).map((one) => one.table));
  return beside.pairs.filter((pair) => losing.has(liveName(pair))).map(({ fit }) => fit.live.oid);
}
