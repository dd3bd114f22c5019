import { HoldfastError } from "../../shared/errors.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import { listRestores } from "../../shared/jobs/restore_queries.ts";
import type { RestoreRow } from "../../shared/jobs/restore_row.ts";
import type { Connection, Database } from "../../shared/postgres/connection.ts";
import { openDatabase } from "../../shared/postgres/pg_connection.ts";
import { inDatabase } from "../../shared/restore/new_database.ts";
import { validateBackup, type Validation } from "../../shared/restore/validate.ts";
import { validateRows } from "../../shared/restore/validate_rows.ts";
import { backupById } from "../../shared/verify/find_backup.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing, sourceDatabase, sourceOptions, targetDatabase } from "../open.ts";
import { openStore } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { amount, duration } from "../progress.ts";

/** Restores that are looked through for an id. */
const mostRestores = 1_000;

/**
 * The document: `{id, ok, differences[{kind, name, detail}], notCompared[], tables, rows, foreignKeys, durationMs, restore}`. Exit 3
 * when there is a difference. Without a word the latest restore that ended well; else a restore's id, or a backup's.
 */
export async function run(context: Context): Promise<Outcome> {
  const [wanted] = context.words;
  const restore = await restoreOf(context, wanted);
  if (restore === null) {
    const target = await targetDatabase(context);
    if (target === null) {
      throw new HoldfastError("setting_missing", "--target-db-url is not set: a backup is compared with a database", {
        hint: "Name the database that was restored with --target-db-url; a restore's id needs --db-url.",
      });
    }
    return outcomeOf(await ofBackup(context, wanted ?? "latest", target, false), target.label, null);
  }
  if (restore.scope === "point") {
    throw new HoldfastError(
      "usage",
      `restore ${restore.id} shows a moment, and no backup holds that to compare it with`,
      {
        hint: "Compare the backup that it stands on: holdfast validate <backup id> -- --target-db-url …",
      },
    );
  }
  // Definitions and rows that came later are no business of such a restore.
  const isOfRows = restore.scope !== "full" || restore.mode === "merge" || restore.mode === "missing";
  if (isOfRows && !restore.targetIsHere) {
    throw new HoldfastError("usage", `restore ${restore.id} put rows into ${restore.targetLabel}`, {
      hint: "Where Holdfast is installed there, name that database with --db-url.",
    });
  }
  if (isOfRows) return await ofRows(context, restore);
  const target = await targetOf(context, restore);
  if (target === null) {
    throw new HoldfastError("setting_missing", `restore ${restore.id} went into ${restore.targetLabel}`, {
      hint: "Name that database with --target-db-url.",
    });
  }
  const inPlace = restore.mode !== "beside";
  return outcomeOf(await ofBackup(context, restore.sourceBackup, target, inPlace), target.label, restore);
}

/** Null: --target-db-url has to name it. One that the restore made for itself is found beside the source. */
async function targetOf(context: Context, { targetIsHere, targetLabel }: RestoreRow): Promise<Database | null> {
  if (targetIsHere) return await sourceDatabase(context);
  const named = await targetDatabase(context);
  if (named !== null) return named;
  const beside = openDatabase(inDatabase(await sourceOptions(context), targetLabel.replace(/^.*\//, "")));
  // The function knows no more of it than its name.
  return beside.label === targetLabel || !targetLabel.includes("/") ? beside : null;
}

/** Null: a backup is meant. Errors: `setting_missing` without a word and without a database; `run_not_found` there. */
async function restoreOf(context: Context, wanted: string | undefined): Promise<RestoreRow | null> {
  const { settings } = context;
  if (wanted !== undefined && settings.get("db-url") === undefined) return null;
  if (wanted === "latest") return null;
  const session = await installedSession(context, "holdfast:validate").catch((error: unknown) => {
    if (wanted === undefined || settings.get("target-db-url") === undefined) throw error;
    return null;
  });
  if (session === null) return null;
  try {
    const restores = await listRestores(session, mostRestores);
    if (wanted === undefined) return latestOf(restores);
    return restores.some(({ id }) => id.startsWith(wanted.toLowerCase())) ? backupById(restores, wanted) : null;
  } finally {
    await session.close();
  }
}

function latestOf(restores: readonly RestoreRow[]): RestoreRow {
  const latest = restores.find(({ status }) => status === "beside" || status === "succeeded");
  if (latest !== undefined) return latest;
  throw new HoldfastError("run_not_found", "no restore is recorded in this database that ended well", {
    hint: "Name a backup and --target-db-url to compare the two.",
  });
}

async function ofBackup(
  context: Context,
  id: string,
  target: Database,
  inPlace: boolean,
): Promise<Validation> {
  const { settings, clock, signal, progress } = context;
  const store = await openStore(context);
  const deps = { store, ring: await keyRing(settings), compressor: await loadZstd(), target, clock };
  const validation = await validateBackup(deps, id, {
    inPlace,
    signal,
    onProgress: ({ rows, rowsTotal }) =>
      progress.update({ label: "comparing", done: rows, total: rowsTotal, unit: "rows" }),
  });
  progress.clear();
  return validation;
}

async function ofRows(context: Context, restore: RestoreRow): Promise<Outcome> {
  const startMs = context.clock.monotonicMs();
  const session: Connection = await installedSession(context, "holdfast:validate");
  try {
    const validation = await validateRows(session, restore);
    const durationMs = Math.round(context.clock.monotonicMs() - startMs);
    return outcomeOf({ ...validation, durationMs }, restore.targetLabel, restore);
  } finally {
    await session.close();
  }
}

function outcomeOf(validation: Validation, label: string, restore: RestoreRow | null): Outcome {
  const { differences, notCompared, tables, rows, foreignKeys, durationMs } = validation;
  const what = restore === null
    ? `backup ${validation.id}`
    : `restore ${restore.id} (${restore.scope}, ${restore.mode})`;
  const looked = `${amount(tables, "rows").replace("rows", "tables")}, ${
    amount(rows, "rows")
  }, ${foreignKeys} foreign keys in ${duration(durationMs)}`;
  const unsaid = notCompared.map(({ identity, reason }) => `  not compared: ${identity}: ${reason}`);
  return {
    exit: differences.length === 0 ? 0 : 3,
    document: { ...validation, restore: restore?.id ?? null },
    lines: differences.length === 0 ? [`${label} is what ${what} says: ${looked}.`, ...unsaid] : [
      `${label} differs from ${what} (${looked}):`,
      ...differences.map(({ kind, name, detail }) => `  ${kind}: ${name}: ${detail}`),
      ...unsaid,
    ],
  };
}
