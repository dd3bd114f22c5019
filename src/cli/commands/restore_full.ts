import { HoldfastError } from "../../shared/errors.ts";
import { quarantineOf } from "../../shared/format/manifest.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import type { Database } from "../../shared/postgres/connection.ts";
import { openDatabase } from "../../shared/postgres/pg_connection.ts";
import { outlinePlan } from "../../shared/restore/plan.ts";
import { prepareRestore, restoreBackup, type RestoreProgress } from "../../shared/restore/run.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../../shared/verify/find_backup.ts";
import type { Context } from "../context.ts";
import { createDatabase, databaseExists, inDatabase, newDatabaseName } from "../new_database.ts";
import { keyRing, sourceDatabase, sourceOptions, targetDatabase } from "../open.ts";
import { openStore } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { noteWhatLatestPassedOver } from "../passed_over.ts";
import { amount, duration, type ProgressState } from "../progress.ts";

/**
 * The document: `{id, ok, inserted, updated, deleted, warnings[], target, database, held[], …}`; until it is confirmed
 * `{dryRun: true, id, database, plan[], warnings[], error}` with exit 2.
 */
export async function run(context: Context): Promise<Outcome> {
  const { settings, clock, log, signal, progress } = context;
  const [wanted = ""] = context.words;
  const parallel = settings.integer("jobs", 1, 16);
  const read: ReadDeps = {
    store: await openStore(context),
    ring: await keyRing(settings),
    compressor: await loadZstd(),
  };
  const backup = await openBackup(read, wanted);
  const { id } = backup.manifest;
  await noteWhatLatestPassedOver(context, read.store, id);
  const quarantine = quarantineOf(backup.manifest);
  if (quarantine !== null) context.note(`warning: this backup was quarantined when it was taken: ${quarantine}`);
  const place = await placeOf(context, backup);
  const plan = await planOf(context, read, backup, place);
  if (!settings.has("yes")) {
    context.note(plan.lines.join("\n"));
    if (!(await context.confirm(`This fills ${place.database.label}.`, "restore"))) {
      return notConfirmed(id, place, plan);
    }
  }
  await place.make();
  const result = await restoreBackup({ ...read, target: place.database, clock, log }, id, {
    parallel,
    signal,
    onProgress: (at) => progress.update(stateOf(at)),
  });
  for (const warning of result.warnings) context.note(`warning: ${warning}`);
  const lines = [
    `Backup ${id} is restored into ${place.database.label} in ${duration(result.durationMs)}: ${
      amount(result.inserted, "rows")
    }.`,
  ];
  if (result.warnings.length > 0) lines.push(`Warnings, listed above: ${result.warnings.length}.`);
  if (result.held.length > 0) {
    lines.push(
      "Switched off until `holdfast release`:",
      ...columns(result.held.map((one) => [`  ${one.kind}`, one.identity])),
    );
  }
  return { exit: 0, document: { ...result, database: place.database.label }, lines };
}

/** Where the backup goes. `make` creates what is not there yet; before it, nothing has changed. */
interface Place {
  readonly database: Database;
  readonly isNew: boolean;
  make(): Promise<void>;
}

async function placeOf(context: Context, backup: OpenedBackup): Promise<Place> {
  const named = await targetDatabase(context);
  if (named !== null) return { database: named, isNew: false, make: () => Promise.resolve() };
  if (context.settings.get("db-url") === undefined) {
    throw new HoldfastError("setting_missing", "neither --target-db-url nor --db-url is set", {
      hint: "Name the target with --target-db-url, or the server for a new database with --db-url.",
    });
  }
  const name = newDatabaseName(backup.manifest);
  const database = openDatabase(inDatabase(await sourceOptions(context), name));
  const server = await sourceDatabase(context);
  const session = await server.connect("holdfast:restore");
  try {
    if (await databaseExists(session, name)) return { database, isNew: false, make: () => Promise.resolve() };
  } finally {
    await session.close();
  }
  return {
    database,
    isNew: true,
    async make() {
      const maker = await server.connect("holdfast:restore");
      try {
        await createDatabase(maker, name, backup.manifest.server);
        context.note(`database ${name} was made`);
      } finally {
        await maker.close();
      }
    },
  };
}

interface ShownPlan {
  readonly steps: readonly { readonly step: string; readonly count: number; readonly reason: string }[];
  readonly warnings: readonly string[];
  readonly lines: readonly string[];
}

/** A database that is not there yet cannot be asked; what it will hold is in the manifest. */
async function planOf(context: Context, read: ReadDeps, backup: OpenedBackup, place: Place): Promise<ShownPlan> {
  const { manifest } = backup;
  const head = `Backup ${manifest.id} of ${manifest.consistentAt}, ${amount(manifest.totals.rows, "rows")}, ${
    amount(manifest.totals.rawBytes, "bytes")
  } of text, into ${place.database.label}`;
  if (place.isNew) {
    const steps = [
      { step: "database", count: 1, reason: "no target is named: a new one is made beside the source" },
      { step: "tables loaded", count: manifest.totals.tables, reason: `${manifest.totals.rows} rows` },
    ];
    const warnings = manifest.notCaptured.map((one) => `${one.identity} is not in the backup: ${one.reason}`);
    return { steps, warnings, lines: linesOf(head, steps, warnings) };
  }
  const { clock, log } = context;
  const prepared = await prepareRestore({ ...read, target: place.database, clock, log }, manifest.id)
    .catch((error: unknown) => {
      throw inTheWay(error, place);
    });
  const steps = outlinePlan(prepared.plan);
  const { warnings } = prepared.plan;
  const goesOn = prepared.resumes ? " (goes on with the restore that was begun there)" : "";
  return { steps, warnings, lines: linesOf(head + goesOn, steps, warnings) };
}

/** The same error, with the name of the database: nobody has typed it where it follows from the backup. */
function inTheWay(error: unknown, { database }: Place): unknown {
  if (!(error instanceof HoldfastError) || error.code !== "target_not_empty") return error;
  return new HoldfastError("target_not_empty", error.message, {
    hint: `${error.hint} ${database.label} is left as it is; --target-db-url names another one.`,
    cause: error,
  });
}

function linesOf(head: string, steps: ShownPlan["steps"], warnings: readonly string[]): string[] {
  return [
    `${head}:`,
    ...columns(steps.map(({ step, count, reason }) => [`  ${count.toLocaleString("en-GB")}`, step, reason])),
    ...warnings.map((warning) => `  warning: ${warning}`),
  ];
}

function notConfirmed(id: string, place: Place, plan: ShownPlan): Outcome {
  const missing = new HoldfastError("confirmation_missing", "nothing was restored");
  const { steps, warnings } = plan;
  const document = { dryRun: true, id, database: place.database.label, plan: steps, warnings, ...missing.toDocument() };
  return { exit: missing.exit, document, lines: [`Nothing was restored. ${missing.hint}`] };
}

function stateOf(at: RestoreProgress): ProgressState {
  return at.phase === "rows"
    ? { label: "loading rows", done: at.rawBytes, total: at.rawBytesTotal, unit: "bytes" }
    : { label: at.phase, done: at.definitions, total: Math.max(at.definitions, at.definitionsTotal), unit: "steps" };
}
