/** A backup back into the very database: maintenance mode, a safety backup, definitions and rows by difference, checks. */
import { sha256Hex } from "../shared/crypto/digest.ts";
import { HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { enterMaintenance } from "../shared/maintenance/switch_on.ts";
import { leaveMaintenance } from "../shared/maintenance/switch_off.ts";
import { type CheckResult, runChecks } from "../shared/restore/in_place/checks.ts";
import type { DefinitionPlan } from "../shared/restore/in_place/change_format.ts";
import {
  planNow,
  readActor,
  type SettleContext,
  settleDefinitions,
} from "../shared/restore/in_place/settle_definitions.ts";
import { putSequencesAhead, refreshViews } from "../shared/restore/in_place/finish_rows.ts";
import { readContents } from "../shared/restore/read_contents.ts";
import { ownSchema, stateSchema } from "../shared/restore/target.ts";
import { openBackupRows } from "../shared/rows/past/backup_rows.ts";
import type { BesideDeps } from "../shared/rows/beside/beside.ts";
import { type DatabaseBeside, layDatabaseBeside, pairAgain } from "../shared/rows/beside/database_beside.ts";
import type { RestoreMode } from "../shared/rows/apply/difference.ts";
import type { PastRows } from "../shared/rows/past/past.ts";
import type { RowsPlan } from "../shared/rows/apply/plan_rows.ts";
import type { PutBackResult } from "../shared/rows/apply/put_back.ts";
import { RowsWork } from "../shared/rows/work.ts";
import { quoteQualified } from "../shared/schema/quote.ts";
import { applySettings } from "../shared/schema/apply_settings.ts";
import type { Database } from "../shared/postgres/connection.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { maintenanceDeps } from "./maintenance_deps.ts";
import { keyRing, sourceDatabase, targetDatabase } from "./open.ts";
import { newestOfNoRestore } from "./open_past.ts";
import { openStore } from "./open_store.ts";
import type { Outcome } from "./output.ts";
import { amount, duration } from "./progress.ts";
import { modeOf, recordOf, refuseForeseen, safetyOf } from "./restore_rows.ts";
import { planLines } from "./rows_shown.ts";
import { readSettingFile } from "./settings.ts";
import { parseTableNames, tableOf } from "./table_names.ts";

/** A table that somebody writes to is waited for so long. */
const lockMs = 30_000;
/** Differences that are listed. */
const mostListed = 10;

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], mode, definitions{steps, kept[]}, differences[], …}`; until it
 * is confirmed, and with --dry-run, `{dryRun: true, …}`. Broken off, the project stays closed, and the same call goes on.
 */
export async function restoreInPlace(context: Context, wanted: string): Promise<Outcome> {
  const { settings, clock, random, log, signal } = context;
  const mode = modeOf(settings.get("apply")) ?? "replace";
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
    return await new InPlace(context, work, target, backup, source, mode).run(capture);
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

  constructor(
    context: Context,
    work: RowsWork,
    target: Database,
    backup: OpenedBackup,
    source: PastRows,
    mode: RestoreMode,
  ) {
    this.#context = context;
    this.#work = work;
    this.#target = target;
    this.#backup = backup;
    this.#source = source;
    this.#mode = mode;
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
    const shown = this.#shown(definitions, plan, beside, loadMs);
    const dryRun = this.#document(plan, definitions, beside, { dryRun: true });
    if (settings.has("dry-run")) {
      await work.fail(new HoldfastError("cancelled", "only the plan was wanted"));
      return { exit: 0, document: dryRun, lines: shown };
    }
    if (!settings.has("yes")) {
      this.#context.note(shown.join("\n"));
      const askedMs = clock.monotonicMs();
      const isConfirmed = await this.#context.confirm(`This changes ${this.#target.label}.`, work.identity.database);
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
    deps: BesideDeps,
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
    const differences = await this.#differences(settling, result, beside);
    const checks = await this.#checks(settling);
    const failed = checks.filter(({ ok }) => ok === false);
    await work.finish(recordOf(beside, result), (clock.monotonicMs() - startMs) / 1000);
    if (fenced) {
      const opened = await leaveMaintenance(await maintenanceDeps(this.#context));
      this.#context.note(`maintenance mode is off; tried and done: ${opened.probed.join(", ")}`);
    }
    const kept = after?.plan.kept ?? [];
    const seconds = clock.monotonicMs() - startMs;
    const steps = (before?.steps ?? 0) + (after?.steps ?? 0);
    return {
      exit: differences.length + failed.length === 0 ? 0 : 3,
      document: {
        id: this.#source.backupId,
        ok: differences.length + failed.length === 0,
        inserted: result.inserted,
        updated: result.updated,
        deleted: result.deleted,
        warnings: laid.leftOut.map(({ table, reason, rows }) => `${rows} rows of ${table} stay out: ${reason}`),
        restore: work.lease?.id ?? null,
        mode: this.#mode,
        definitions: { steps, kept },
        differences,
        checks,
        views,
        safetyRun,
        sideSchema: work.schema,
        database: this.#target.label,
        durationMs: Math.round(seconds),
      },
      lines: [
        `Backup ${this.#source.backupId} is restored in place in ${duration(seconds)}: ${steps} definitions changed, ` +
        `${result.inserted} rows inserted, ${result.updated} put back, ${result.deleted} deleted.`,
        ...kept.map((note) => `  kept: ${note.identity}: ${note.reason}`),
        ...differences.slice(0, mostListed).map((one) => `  differs: ${one}`),
        ...checks.map(({ check, ok, detail }) => `  ${ok === false ? "FAILED " : ""}${check}: ${detail}`),
        ...(safetyRun === null ? [] : [`The safety backup from before is ${safetyRun}.`]),
        "Take a full backup now: the change stream begins anew.",
      ],
    };
  }

  /** As people would try it; the project is opened whatever comes of it, since closed it serves nobody. */
  async #checks(settling: SettleContext): Promise<CheckResult[]> {
    const { settings, clock, log, signal } = this.#context;
    const email = settings.get("check-user");
    const smoke = settings.get("smoke");
    const table = settings.get("check-table");
    const critical = parseTableNames(settings.get("critical"), "critical").map(tableOf);
    const password = settings.variable("BACKUP_CHECK_PASSWORD");
    if (email !== undefined && password === undefined) {
      throw new HoldfastError("setting_missing", "--check-user is set and BACKUP_CHECK_PASSWORD is not");
    }
    return await runChecks({
      database: this.#target,
      project: (await maintenanceDeps(this.#context)).project,
      clock,
      log,
      signal,
    }, {
      manifest: this.#backup.manifest,
      was: settling.was,
      leaveOutSchemas: settling.leaveOutSchemas,
      mode: this.#mode,
      critical: critical.length === 0 ? null : critical,
      user: email === undefined || password === undefined ? null : { email, password },
      table: table === undefined ? null : tableOf(table),
      smoke: smoke === undefined ? null : await readSettingFile(smoke, "smoke"),
    });
  }

  /** What is not as the backup has it, beyond what the plan keeps. */
  async #differences(settling: SettleContext, result: PutBackResult, beside: DatabaseBeside): Promise<string[]> {
    const found: string[] = [];
    if (this.#mode !== "replace") return found;
    const left = await planNow(settling);
    found.push(...left.steps.map((step) => `${step.identity}: ${step.reason}`));
    for (const { fit, side } of beside.pairs) {
      const [row] = await this.#work.connection.query(`select count(*) as n from ${side.sql}`);
      const expected = Number(row?.["n"]);
      if (expected !== fit.past.rows && fit.past.schema !== "auth") {
        found.push(
          `${fit.past.schema}.${fit.past.name}: ${expected} rows came beside, ${fit.past.rows} are in the backup`,
        );
      }
    }
    const again = await this.#work.plan(beside, "replace");
    for (const table of again.tables) {
      if (table.insert + table.update + table.delete > 0) found.push(`${table.table}: rows changed since`);
    }
    if (result.tables.length !== beside.pairs.length) found.push("a table was passed over");
    return found;
  }

  #besideDeps(): BesideDeps {
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

  #shown(definitions: DefinitionPlan, rows: RowsPlan, beside: DatabaseBeside, loadMs: number): string[] {
    const { totals } = this.#backup.manifest;
    return [
      ...planLines(rows, {
        subject: `Backup ${this.#source.backupId}, ${amount(totals.rows, "rows")}`,
        at: this.#source.at,
        database: this.#work.identity.database,
        rows: totals.rows,
        loadMs,
      }),
      ...(this.#mode === "replace"
        ? [
          `  definitions: ${definitions.steps.length} to change`,
          ...definitions.steps.map((step) => `    ${step.action} ${step.identity}: ${step.reason}`),
          ...definitions.kept.map((note) => `    kept ${note.identity}: ${note.reason}`),
        ]
        : ["  definitions stay as they are; --apply replace makes them what they were"]),
      ...beside.leftOut.map(({ table, reason, rows: n }) => `  ${n} rows of ${table} stay out: ${reason}`),
    ];
  }

  #document(rows: RowsPlan, definitions: DefinitionPlan, beside: DatabaseBeside, more: object): object {
    return {
      id: this.#source.backupId,
      ok: false,
      inserted: 0,
      updated: 0,
      deleted: 0,
      warnings: beside.leftOut.map(({ table, reason, rows: n }) => `${n} rows of ${table} stay out: ${reason}`),
      mode: this.#mode,
      plan: rows.tables,
      definitions,
      database: this.#target.label,
      ...more,
    };
  }
}
