/** A backup back into the very database: maintenance mode, a safety backup, definitions and rows by difference, checks. */
import { sha256Hex } from "../shared/crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { changingTypes } from "../shared/restore/in_place/changing_types.ts";
import { readEarlierTries } from "../shared/restore/in_place/earlier_tries.ts";
import { inheritGone } from "../shared/restore/in_place/gone_definitions.ts";
import { requireWritable } from "../shared/restore/in_place/require_writable.ts";
import { readActor } from "../shared/restore/in_place/actor.ts";
import { planNow, type SettleContext, settleDefinitions } from "../shared/restore/in_place/settle_definitions.ts";
import { putSequencesAhead, refreshViews } from "../shared/restore/in_place/finish_rows.ts";
import { findLeftOver } from "../shared/restore/in_place/left_over.ts";
import { readContents } from "../shared/restore/read_contents.ts";
import { ownSchema, stateSchema } from "../shared/restore/target.ts";
import { openBackupRows } from "../shared/rows/past/backup_rows.ts";
import type { LayDeps } from "../shared/rows/beside/lay.ts";
import { type DatabaseBeside, layDatabaseBeside, pairAgain } from "../shared/rows/beside/database_beside.ts";
import type { RestoreMode } from "../shared/rows/apply/difference.ts";
import { requireDeletable } from "../shared/rows/apply/published_deletes.ts";
import { nameOf } from "../shared/rows/past/fold_partitions.ts";
import type { PastRows } from "../shared/rows/past/past.ts";
import { RowsWork } from "../shared/rows/work.ts";
import { sessionName } from "../shared/rows/work_begin.ts";
import { applySettings } from "../shared/schema/apply_settings.ts";
import type { Database } from "../shared/postgres/connection.ts";
import type { OpenedBackup, ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { chooseChecks, type ChosenChecks, runChosenChecks } from "./in_place_checks.ts";
import { type InPlaceSubject, planDocument, planShown, restoredInPlace, withFence } from "./in_place_shown.ts";
import { changingRows, losingRows, refuseForeseenInPlace } from "./in_place_foreseen.ts";
import { keepFilledBuckets } from "./in_place_buckets.ts";
import { InPlaceFence } from "./in_place_fence.ts";
import { leaveSide } from "./in_place_side.ts";
import { keepSmokesFor } from "./in_place_smokes.ts";
import { maintenanceDeps, untilOf } from "./maintenance_deps.ts";
import { keyRing, sourceDatabase, targetDatabase } from "./open.ts";
import { openNamed } from "./open_past.ts";
import { openStore } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { modeOf, safetyOf } from "./restore_rows.ts";
import { isSkipped } from "./safety_backup.ts";
import { recordDone } from "./source_record.ts";
import { tellPage } from "./status_page.ts";
import { recordOf } from "../shared/rows/apply/foreseen.ts";

/** A table that somebody writes to is waited for so long. */
const lockMs = 30_000;

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], mode, definitions{steps, kept[]}, differences[], maintenance,
 * …}`; until it is confirmed, and with --dry-run, `{dryRun: true, …}`. Broken off before the safety backup is there, the project
 * is open as before; later it stays closed, and the same call goes on. One that a person had closed stays so.
 */
export async function restoreInPlace(context: Context, wanted: string): Promise<Outcome> {
  const { settings, clock, random, log, signal } = context;
  const mode = modeOf(settings.get("apply")) ?? "replace";
  const checks = await chooseChecks(context);
  untilOf(context);
  const read: ReadDeps = {
    store: await openStore(context),
    ring: await keyRing(settings),
    compressor: await loadZstd(),
  };
  const other = await targetDatabase(context);
  const target = other ?? await sourceDatabase(context);
  // What is wrong with the settings shows before anything is loaded.
  await maintenanceDeps(context, other);
  const backup = await openNamed(context, read, wanted);
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
  let inPlace: InPlace | null = null;
  try {
    await work.usedKeys(read.ring);
    requireSafety(context, work.identity.database);
    // By this name the next try ends it, if a statement of this one is under way still.
    await work.connection.execute(`set application_name = '${sessionName(work.schema)}'`);
    const { capture } = await readContents(read, backup);
    inPlace = new InPlace(context, { work, target, isOther: other !== null, backup, source, mode, checks });
    return await inPlace.run(capture);
  } catch (error) {
    const told = await work.fail(error);
    throw inPlace?.told(told) ?? told;
  } finally {
    await work.close();
    await source.close();
  }
}

/** Errors: `confirmation_wrong`, `usage`: without a safety backup, and without its name, nothing is begun. */
function requireSafety({ settings }: Context, database: string): void {
  if (isSkipped(settings.get("skip-safety-backup"), database) || settings.has("dry-run")) return;
  if (settings.get("target-db-url") === undefined) return;
  throw new HoldfastError("usage", "a safety backup is taken of the database of --db-url only", {
    hint: `Name the target with --db-url, or go without one: --skip-safety-backup ${database}.`,
  });
}

interface InPlaceParts {
  readonly work: RowsWork;
  readonly target: Database;
  /** The target is that of --target-db-url. */
  readonly isOther: boolean;
  readonly backup: OpenedBackup;
  readonly source: PastRows;
  readonly mode: RestoreMode;
  readonly checks: ChosenChecks;
}

class InPlace {
  readonly #context: Context;
  readonly #work: RowsWork;
  readonly #target: Database;
  readonly #isOther: boolean;
  readonly #backup: OpenedBackup;
  readonly #source: PastRows;
  readonly #mode: RestoreMode;
  readonly #checks: ChosenChecks;
  /** Once the project was closed. */
  #fence: InPlaceFence | null = null;

  constructor(context: Context, { work, target, isOther, backup, source, mode, checks }: InPlaceParts) {
    this.#context = context;
    this.#work = work;
    this.#target = target;
    this.#isOther = isOther;
    this.#backup = backup;
    this.#source = source;
    this.#mode = mode;
    this.#checks = checks;
  }

  /** The error, and what it leaves the project in. */
  told(error: unknown): unknown {
    return this.#fence === null ? error : this.#fence.told(error);
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
      sideSchema: work.schema,
      options: {
        sameDatabase: this.#isSource(),
        dropExtra: settings.has("drop-extra"),
        replacesRows: this.#mode === "replace",
        ...await readActor(work.connection),
      },
    };
    const definitions = await work.keptAlive(() => planNow(settling));
    const [refused] = definitions.refused;
    if (refused !== undefined && this.#mode === "replace") {
      throw new HoldfastError("definitions_stuck", `${refused.identity}: ${refused.reason}`);
    }
    await work.requireRoom(this.#backup.manifest.totals.rawBytes);
    const deps = this.#besideDeps();
    const laid = await layDatabaseBeside(deps, {
      credentials: settings.has("credentials"),
      changingTypes: this.#mode === "replace" ? changingTypes(definitions, was) : null,
    }, this.#subject());
    this.#context.progress.clear();
    const { beside, plan } = await work.keptAlive(async () => {
      const beside = this.#mode === "replace" ? await keepFilledBuckets(deps, laid) : laid;
      return { beside, plan: await work.plan(beside, this.#mode) };
    });
    const loadMs = clock.monotonicMs() - startMs;
    await requireDeletable(work.connection, losingRows(plan, beside));
    await requireWritable(work.connection, changingRows(plan, beside));
    const about = this.#about();
    const shown = planShown(about, { definitions, rows: plan, beside, loadMs });
    const dryRun = planDocument(about, { definitions, rows: plan, beside });
    if (settings.has("dry-run")) {
      await work.leave("only the plan was wanted");
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
        await work.leave("it was not confirmed");
        return {
          exit: missing.exit,
          document: { ...dryRun, ...missing.toDocument() },
          lines: [`Nothing was restored. ${missing.hint}`],
        };
      }
    }
    refuseForeseenInPlace({ definitions, rows: plan, beside }, this.#mode, settings.has("fire-triggers"));
    return await this.#carryOut(settling, deps, beside, startMs);
  }

  async #carryOut(
    settling: SettleContext,
    deps: LayDeps,
    laid: DatabaseBeside,
    startMs: number,
  ): Promise<Outcome> {
    const { settings, clock } = this.#context;
    const work = this.#work;
    const fence = this.#fence = await this.#close();
    const isReplace = this.#mode === "replace";
    const ownSafety = await this.#unlessChanged(async () => {
      const run = await safetyOf(this.#context, work);
      work.check();
      return run;
    });
    // Before anything of it is changed; of a merge the first step of rows is that.
    if (isReplace) work.changed();
    const earlier = await readEarlierTries(work.connection, { id: work.lease?.id ?? null, schema: work.schema });
    if (earlier.olderSafety !== null) {
      const { run, begun } = earlier.olderSafety;
      this.#context.note(`notice: the restore of ${begun} was broken off; the safety backup from before it is ${run}`);
    }
    const safetyRun = earlier.safetyRun ?? ownSafety;
    await work.applying(safetyRun);
    let isChanged = isReplace;
    const { before, beside, result } = await this.#unlessChanged(async () => {
      const { before, beside } = await work.keptAlive(async () => {
        if (isReplace) await inheritGone(work.connection, work.schema, earlier);
        return {
          // Only what stands in the way of the rows; of a merge the definitions stay as they are.
          before: isReplace ? await settleDefinitions(settling, "before") : null,
          beside: await pairAgain(deps, laid),
        };
      });
      const options = { mode: this.#mode, wholeTables: true, fireTriggers: settings.has("fire-triggers"), lockMs };
      const result = await work.apply(beside, options, safetyRun, () => Promise.resolve(void (isChanged = true)));
      return { before, beside, result };
    }, (code) => isChanged || code === "database_unreachable");
    const { after, refreshed, differences, checks } = await work.keptAlive(async () => {
      const after = before === null ? null : await settleDefinitions(settling, "after");
      await fence?.pauseJobs(work.connection);
      await putSequencesAhead(work.connection, settling.was);
      const refreshed = await refreshViews(work.connection);
      if (work.identity.installed) {
        await work.connection.query(
          "select backup.end_chain(c.id, 'a full restore in place') from backup.chains as c where c.ended_at is null",
        );
      }
      const differences = this.#mode === "replace" ? await findLeftOver(settling, work, beside, result) : [];
      const checks = await runChosenChecks(this.#context, this.#target, this.#other(), {
        manifest: {
          tables: this.#backup.manifest.tables.map((table) => ({
            ...table,
            rows: table.rows - (laid.erased.get(nameOf(table)) ?? 0),
          })),
        },
        was: settling.was,
        leaveOutSchemas: settling.leaveOutSchemas,
        mode: this.#mode,
        ...this.#checks,
      });
      await keepSmokesFor(this.#context, work, checks);
      return { after, refreshed, differences: [...differences, ...refreshed.failed], checks };
    });
    const tables = recordOf(beside, result);
    const seconds = (clock.monotonicMs() - startMs) / 1000;
    // The end of both in one transaction: killed before it, the same call goes on; after it there is nothing left to do.
    const fenced = await fence?.openAndFinish(tables, seconds);
    if (fenced === undefined) await work.finish(tables, seconds);
    else await this.#tellPage();
    if (this.#isOther) {
      const [sourceBackup, targetLabel] = [this.#source.backupId, this.#target.label];
      const request = { scope: "full", mode: this.#mode, sourceBackup, targetLabel } as const;
      await recordDone(this.#context, request, { tables, measuredSeconds: seconds });
    }
    if (isReplace) await leaveSide(this.#context, work, earlier);
    const outcome = restoredInPlace(this.#about(), {
      result,
      definitions: {
        steps: (before?.steps ?? 0) + (after?.steps ?? 0),
        kept: after?.plan.kept ?? [],
        gone: after?.gone ?? [],
        again: after?.again ?? [],
        emptied: [...before?.emptied ?? [], ...after?.emptied ?? []],
      },
      leftOut: laid.leftOut,
      differences,
      checks,
      views: refreshed.views,
      safetyRun,
      safetyRunOfThisTry: ownSafety,
      restore: work.lease?.id ?? null,
      sideSchema: work.schema,
      durationMs: clock.monotonicMs() - startMs,
    });
    return fenced === undefined ? outcome : withFence(outcome, fenced);
  }

  /** Opens the project again where `work` fails before anything was changed, and nobody else has taken over. */
  async #unlessChanged<T>(work: () => Promise<T>, isChanged: (code: string) => boolean = () => false): Promise<T> {
    return await work().catch(async (error: unknown) => {
      const { code } = asHoldfastError(error);
      if (code !== "lease_lost" && !isChanged(code) && this.#fence !== null) {
        await this.#fence.takeBack();
        await this.#tellPage();
      }
      throw error;
    });
  }

  /** The public hears of it at once; another project's page is not ours. */
  async #tellPage(): Promise<void> {
    if (!this.#isOther) await tellPage(this.#context);
  }

  /** Null: without maintenance mode. */
  async #close(): Promise<InPlaceFence | null> {
    const { connection, identity, lease } = this.#work;
    if (lease === null || !identity.installed || this.#context.settings.has("without-maintenance")) return null;
    const deps = await maintenanceDeps(this.#context, this.#other());
    return await this.#work.keptAlive(async () => {
      const fence = await InPlaceFence.close(this.#context, deps, connection, lease);
      await this.#tellPage();
      return fence;
    });
  }

  #other(): Database | null {
    return this.#isOther ? this.#target : null;
  }

  #about(): InPlaceSubject {
    return {
      manifest: this.#backup.manifest,
      source: this.#source,
      mode: this.#mode,
      target: this.#target.label,
      database: this.#work.identity.database,
      safetySkipped: this.#context.settings.isFlag("skip-safety-backup"),
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
