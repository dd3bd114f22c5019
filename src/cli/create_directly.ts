/** A full backup by threads of this process, from --db-url to --store. */
import { type LegRunner, runBackup } from "../shared/backup/run.ts";
import { sha256Hex, toHex } from "../shared/crypto/digest.ts";
import { parseKeyRing } from "../shared/crypto/key_ring.ts";
import { HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { recognise } from "../shared/identity/identity_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import { projectOfAddress, readDatabaseUrl } from "../shared/postgres/database_url.ts";
import { openDatabase } from "../shared/postgres/pg_connection.ts";
import { summariseRun } from "./backup_row.ts";
import type { Tier } from "./commands/create.ts";
import type { Context } from "./context.ts";
import { type CreatedOutcome, createdOutcome, progressOf } from "./created.ts";
import { installedSession } from "./installed.ts";
import { legWorkers } from "./leg_workers.ts";
import { keysText, sourceOptions } from "./open.ts";
import { identitiesText, openPlace, placeToWrite, projectStorage } from "./open_store.ts";

/** Buffers of one worker with a row of ordinary size: two chunks, their sealed copies, and the driver's. */
const leastMemoryMib = 128;
/** Between two looks at a run that others do. */
const waitMs = 500;

/** Errors: those of settings; the run's own, once it failed; `cancelled`. Ctrl-C cancels the run, also a joined one. */
export async function createDirectly(context: Context, tier: Tier): Promise<CreatedOutcome> {
  const { settings, clock, random, log, signal } = context;
  const jobs = settings.integer("jobs", 1, 16);
  const memoryMib = settings.integer("max-memory", leastMemoryMib, 1_048_576);
  const keys = (await keysText(settings)) ?? "";
  const ring = parseKeyRing(keys);
  const place = placeToWrite(settings, tier === "safety");
  const store = await openPlace(context, place);
  const database = await sourceOptions(context);
  const session = await installedSession(context, "holdfast:create");
  const workers = legWorkers({
    database,
    store: place.address,
    credentials: place.credentials,
    project: projectStorage(settings),
    keys,
    identities: await identitiesText(settings),
    maxMemoryBytes: Math.floor((memoryMib * 1024 * 1024) / jobs),
    logLevel: context.logLevel,
  }, log);
  try {
    await recognise(session, projectOfAddress(readDatabaseUrl(settings.need("db-url"))));
    const mark = await markOf(store.label);
    let mayWork: Promise<boolean> = Promise.resolve(true);
    let joined = false;
    const deps = { database: openDatabase(database), store, ring, compressor: await loadZstd(), clock, random, log };
    const request = { tiers: [tier], origin: "cli", requestKey: `${mark}${toHex(random(8))}` } as const;
    const runLeg: LegRunner = async (run, name, over) => {
      if (await mayWork) return await workers.runLeg(run, name, over);
      await clock.sleep(waitMs, over).catch(() => {});
      if (await isDead(deps.database, run)) throw stalled(run);
      return { workLeft: true, tasks: 0 };
    };
    const run = await runBackup(deps, request, {
      workers: jobs,
      runLeg,
      signal,
      onProgress: (row) => context.progress.update(progressOf(row)),
      onRequested: (id, wasThere) => {
        joined = wasThere;
        if (!wasThere) return;
        context.note(`notice: backup ${id} is under way already; joined`);
        mayWork = writesTo(session, id, mark);
      },
    });
    const { kind: _, from: __, full: ___, complete: ____, verifiedAt: _____, ...summary } = await summariseRun(
      session,
      run.id,
    );
    return createdOutcome({ ...summary, joined, quarantineReason: run.quarantineReason }, context);
  } finally {
    workers.close();
    await session.close();
  }
}

/** The request's key names the store: workers with another store must keep away from a run that they joined. */
async function markOf(storeLabel: string): Promise<string> {
  return `cli:${(await sha256Hex(new TextEncoder().encode(storeLabel))).slice(0, 16)}:`;
}

async function writesTo(session: Connection, run: string, mark: string): Promise<boolean> {
  const [row] = await session.query(
    "select coalesce(starts_with(request_key, $2), false) as same from backup.runs where id = $1::uuid",
    [run, mark],
  );
  return row?.["same"] === "t";
}

/** Nobody has worked on it for as long as a watchdog waits before it fails a run; here there may be no watchdog. */
async function isDead(database: { connect(name: string): Promise<Connection> }, run: string): Promise<boolean> {
  const session = await database.connect("holdfast:create");
  try {
    const [row] = await session.query(
      `select heartbeat_at < backup.clock_now() - backup.setting_integer('run_dead_seconds') * interval '1 second' as dead
       from backup.runs where id = $1::uuid`,
      [run],
    );
    return row?.["dead"] === "t";
  } finally {
    await session.close();
  }
}

function stalled(run: string): HoldfastError {
  return new HoldfastError("run_stalled", `run ${run} writes into another store and nobody has worked on it for long`, {
    hint: "It is ended now; start the backup again.",
  });
}
