/** From a function's runtime to what its door needs: the one place where the rooms of the product are put together. */
import { putAnchor } from "../audit/anchor.ts";
import type { BackupDeps } from "../backup/deps.ts";
import { newestEpoch } from "../backup/repository_epoch.ts";
import { drain, functionDrainLimits } from "../changes/drain/drain.ts";
import { systemClock } from "../clock.ts";
import { parseKeyRing } from "../crypto/key_ring.ts";
import { loadZstd } from "../format/zstd.ts";
import { createLog, type LogLevel, type LogLine } from "../log.ts";
import type { Database } from "../postgres/connection.ts";
import { openDatabase } from "../postgres/pg_connection.ts";
import { webCryptoRandom } from "../random.ts";
import { readRestore } from "../jobs/restore_queries.ts";
import { type FullLegDeps, outlineFull, runFullLeg } from "../restore/legs.ts";
import { inDatabase } from "../restore/new_database.ts";
import { runRowsLeg } from "../rows/leg.ts";
import type { Fetch } from "../store/http_call.ts";
import { credentialsFrom, openStore, ownBucketOf } from "../store/open_store.ts";
import { runBackupLeg } from "./backup_leg.ts";
import { recognise } from "./call_queries.ts";
import type { DoorDeps, Leg } from "./door.ts";
import {
  defaultStore,
  type Environment,
  optional,
  projectRef,
  publishableKey,
  required,
  storageKey,
  variables,
} from "./environment.ts";
import { createIsolateBudget } from "./isolate_budget.ts";
import { createLegSlot } from "./leg_slot.ts";
import { type CheckPerson, createCheckPerson } from "./person.ts";
import { createCountRefusal } from "./refusals.ts";
import { readLegRequest } from "./restore_request.ts";
import { unwaitedClose } from "./unwaited_close.ts";
import { runVerifyLeg } from "./verify_leg.ts";

/** What only the runtime can give. */
export interface IsolateRuntime {
  readonly environment: Environment;
  readonly waitUntil: (work: Promise<void>) => void;
  readonly fetch: Fetch;
  readonly write: (line: LogLine) => void;
}

/** Plaintext of one leg of a verification: opening and unpacking it takes some 0.3 s of CPU. */
const verifyBudgetBytes = 48 * 1024 * 1024;
const verifyLeaseSeconds = 180;

/** Call it once when the isolate starts; its budget and its slot are the isolate's. Throws nothing. */
export function isolateDeps(runtime: IsolateRuntime): DoorDeps {
  const { environment, fetch, waitUntil } = runtime;
  const clock = systemClock;
  const random = webCryptoRandom;
  const log = createLog(runtime.write, logLevel(environment));
  const budget = createIsolateBudget(clock);

  const open = async (): Promise<BackupDeps> => {
    const ring = parseKeyRing(environment[variables.keys]);
    const address = storeAddress(environment);
    const store = openStore(address, credentials(environment, address), { fetch, clock, random, log });
    return { database: databaseOf(environment), store, ring, compressor: await loadZstd(), clock, random, log };
  };
  const full: Leg = async (connection, run, worker) => {
    await recognise(connection, projectRef(environment));
    await runBackupLeg(await open(), connection, run, { worker, budget: budget.next() });
  };
  const verify: Leg = async (connection, run, worker) => {
    await runVerifyLeg(await open(), connection, run, {
      worker,
      budgetBytes: verifyBudgetBytes,
      leaseSeconds: verifyLeaseSeconds,
    });
  };
  const fullDeps = (): FullLegDeps => ({
    database: databaseOf(environment),
    inDatabase: (name) => databaseOf(environment, name),
    clock,
    log,
    open,
  });
  return {
    environment,
    clock,
    random,
    log,
    waitUntil,
    slot: createLegSlot(),
    checkPerson: personCheck(environment, fetch),
    countRefusal: createCountRefusal({ clock, log }),
    openDatabase: databaseOf,
    legs: { full, verify },
    anchor: async (connection) => {
      const deps = await open();
      return await putAnchor({ ...deps, connection }, await newestEpoch(deps));
    },
    outlineFull: async (connection, backup) => await outlineFull(fullDeps(), connection, backup),
    restore: async (connection, restore, worker) => {
      const leg = { worker, budget: budget.next() };
      const { scope } = await readRestore(connection, restore);
      if (scope === "full") return await runFullLeg(fullDeps(), connection, restore, leg);
      const rowsDeps = { database: databaseOf(environment), clock, random, log, open };
      await runRowsLeg(rowsDeps, connection, restore, leg, async (schema) => await readLegRequest(connection, schema));
    },
    drain: async (worker) =>
      await drain(await open(), {
        worker,
        budget: budget.next(),
        limits: functionDrainLimits,
        ownBucket: ownBucketOf(storeAddress(environment)),
        projectRef: projectRef(environment),
      }),
  };
}

/** Nothing is fetched before a person calls. Errors: `setting_missing`. */
function personCheck(environment: Environment, fetch: Fetch): CheckPerson {
  let check: CheckPerson | undefined;
  return (token, now) => {
    const projectUrl = required(environment, variables.projectUrl).replace(/\/+$/, "");
    const issuer = optional(environment, variables.authIssuer) ?? `${projectUrl}/auth/v1`;
    check ??= createCheckPerson({ projectUrl, issuer, apiKey: publishableKey(environment), fetch });
    return check(token, now);
  };
}

function storeAddress(environment: Environment): string {
  return optional(environment, variables.store) ?? defaultStore;
}

/** The project's own, or another one of its server. */
function databaseOf(environment: Environment, name?: string): Database {
  const caPem = optional(environment, variables.databaseAuthority);
  const own = { url: required(environment, variables.databaseUrl), ...(caPem === undefined ? {} : { caPem }) };
  return unwaitedClose(openDatabase(name === undefined ? own : inDatabase(own, name)));
}

/** Storage of this project is reached with its own key; other stores by the variables that `open_store.ts` names. */
function credentials(environment: Environment, address: string) {
  const found = credentialsFrom((name) => environment[name]);
  return address.startsWith("supabase:") ? { ...found, supabaseServiceKey: storageKey(environment) } : found;
}

function logLevel(environment: Environment): LogLevel {
  const wanted = optional(environment, variables.logLevel);
  return wanted === "debug" || wanted === "warn" || wanted === "error" ? wanted : "info";
}
