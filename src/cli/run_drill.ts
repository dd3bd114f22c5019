/** A drill of the calendar, carried out from here: with the settings of the shell, which may be another provider's and a recovery key. */
import { openDatabase } from "../shared/postgres/pg_connection.ts";
import type { Connection, Database } from "../shared/postgres/connection.ts";
import { unlimited } from "../shared/backup/budget.ts";
import { toHex } from "../shared/crypto/digest.ts";
import type { KeyRing } from "../shared/crypto/key_ring.ts";
import type { BesideWorker, DrillDeps, DrillServer, PersonResult } from "../shared/drills/deps.ts";
import { type DrillRow, readDrillOf, requestDrill } from "../shared/drills/drill_queries.ts";
import { runDrillLeg } from "../shared/drills/leg.ts";
import { HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { readIdentity } from "../shared/identity/identity_queries.ts";
import { placeIn } from "../shared/identity/settle_place.ts";
import { cancelRun, readRun } from "../shared/jobs/queries.ts";
import { beginRestore, readRestore } from "../shared/jobs/restore_queries.ts";
import { isActive } from "../shared/jobs/states.ts";
import { inDatabase } from "../shared/restore/new_database.ts";
import { makeSideSchema } from "../shared/rows/beside/side_tables.ts";
import { runRowsLeg } from "../shared/rows/leg.ts";
import type { ReadDeps } from "../shared/verify/find_backup.ts";
import { checkKeys } from "./check_keys.ts";
import type { Context } from "./context.ts";
import { drillOptions, keyRing, sourceDatabase, sourceOptions } from "./open.ts";
import { openPlace, openStore, secondPlace } from "./open_store.ts";

/** Between two looks at what others work on. */
const waitMs = 500;

/** Drills that read from the second store. */
const fromSecond: ReadonlySet<string> = new Set(["disaster", "complete"]);

/**
 * The drill once it has ended, whoever did it: one that the functions are at is waited for. Errors: `not_found`, `run_state` while
 * another one is under way, `setting_missing`, `drill_keys_wrong` and `usage` before anything is recorded; `cancelled`.
 */
export async function runDrill(context: Context, session: Connection, name: string): Promise<DrillRow> {
  const { clock, signal, settings, random, progress, note } = context;
  const database = await sourceDatabase(context);
  const deps = await depsOf(context, session, database);
  await refuseWrongSettings(context, deps, name);
  const { run, joined } = await requestDrill(session, name, "cli");
  const isOurs = (await readRun(session, run)).origin === "cli";
  if (joined) {
    note(isOurs ? "going on with a drill that was broken off" : "the functions are at it; waiting for its end");
  }
  const worker = `cli:${toHex(random(4))}`;
  // Another process may be at one that was joined: whoever has done nothing of it does not end it.
  let isMine = !joined;
  for (let { status } = await readRun(session, run); isActive(status); { status } = await readRun(session, run)) {
    if (signal.aborted) {
      if (!isMine) {
        throw new HoldfastError("cancelled", "the drill goes on where it is worked on; nobody waits for it here");
      }
      await cancelRun(session, run);
      throw new HoldfastError("cancelled", "the drill was cancelled; what it had made is dropped");
    }
    const worked = isOurs && await runDrillLeg(deps, run, {
      worker,
      budget: unlimited,
      parallel: settings.integer("jobs", 1, 16),
      signal,
      progress: (at) => progress.update(at),
    });
    isMine ||= worked;
    if (!worked) await clock.sleep(waitMs, signal).catch(() => {});
  }
  progress.clear();
  return await readDrillOf(session, run);
}

async function depsOf(context: Context, session: Connection, database: Database): Promise<DrillDeps> {
  const { settings, clock, random, log } = context;
  let ring: KeyRing | undefined;
  const ringOnce = async () => ring ??= await keyRing(settings);
  const open = async (name: string): Promise<ReadDeps> => {
    const { prefix } = await readIdentity(session);
    const store = fromSecond.has(name)
      ? await openPlace(context, secondPlace(settings, settings.need("secondary")))
      : await openStore(context);
    return { store: placeIn(store, prefix), ring: await ringOnce(), compressor: await loadZstd() };
  };
  const source = settings.get("source");
  return {
    database,
    connection: session,
    server: await serverOf(context, database),
    beside: besideHere(context, database, () => open("record")),
    clock,
    random,
    log,
    ring: ringOnce,
    open: ({ drill }) => open(drill),
    byPerson: (drill) => byPerson(context, drill),
    ...(source === undefined ? {} : { source }),
  };
}

async function serverOf(context: Context, database: Database): Promise<DrillServer> {
  const named = await drillOptions(context);
  const options = named ?? await sourceOptions(context);
  return {
    database: named === null ? database : openDatabase(named),
    inDatabase: (name) => openDatabase(inDatabase(options, name)),
    isOwn: named === null,
  };
}

/** What would make a drill prove something else than its name says. */
async function refuseWrongSettings({ settings }: Context, deps: DrillDeps, name: string): Promise<void> {
  if (fromSecond.has(name)) settings.need("secondary");
  if (name !== "complete" && name !== "keys") return;
  const ring = await deps.ring();
  const recovery = ring.opening.filter((id) => ring.pairOf(id)?.d !== undefined);
  if (recovery.length === 0) {
    throw new HoldfastError("drill_keys_wrong", "no private half of a recovery key is set");
  }
  if (name === "keys") return;
  if (recovery.length < ring.opening.length) {
    throw new HoldfastError("drill_keys_wrong", "other keys than the recovery key are set");
  }
  if (deps.server.isOwn) {
    throw new HoldfastError("setting_missing", "no other server is named: this drill takes an empty one", {
      hint: "Name it in BACKUP_DRILL_DB_URL, or with --drill-db-url.",
    });
  }
}

/** Rows are laid beside by this process. */
function besideHere(context: Context, database: Database, open: () => Promise<ReadDeps>): BesideWorker {
  const { clock, random, log, signal } = context;
  return {
    begin: async (connection, { scope, backup }) => {
      const { id, sideSchema } = await beginRestore(connection, {
        scope,
        mode: "beside",
        sourceBackup: backup,
        pointAt: null,
        targetLabel: database.label,
        targetIsHere: true,
        userId: null,
        worker: "drill",
        leaseSeconds: 1,
      });
      if (sideSchema === null) throw new HoldfastError("internal", "the restore has no side schema");
      await makeSideSchema(connection, sideSchema, "holdfast: rows of a backup, laid by a drill");
      return id;
    },
    work: async (connection, restore, { scope, table, where }) => {
      const asked = scope === "table" ? { scope, table } : { scope, table, where };
      const leg = { worker: "cli", budget: unlimited };
      for (;;) {
        await runRowsLeg(
          { database, clock, random, log, open },
          connection,
          restore,
          leg,
          () => Promise.resolve({ asked, all: false, mode: "merge" }),
        );
        if ((await readRestore(connection, restore)).finishedAt !== null) return;
        // The lease under which it was begun is not over yet.
        await clock.sleep(waitMs, signal);
      }
    },
  };
}

/** What a person has to look at; the command has asked beforehand. */
async function byPerson(context: Context, { drill }: DrillRow): Promise<PersonResult> {
  const notes = context.settings.get("note") ?? "";
  if (drill !== "keys") return { ok: true, notes };
  const { ok, backup, keys } = await checkKeys(context);
  const told = keys.map(({ id, opens, why }) =>
    opens ? `${id} opens backup ${backup ?? ""}` : `${id} does not: ${why ?? ""}`
  );
  return { ok, notes: [...told, ...(notes === "" ? [] : [notes])].join("; ") };
}
