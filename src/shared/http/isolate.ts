/** From a function's runtime to what its door needs: the one place where the rooms of the product are put together. */
import { putAnchor } from "../audit/anchor.ts";
import { tellKeys } from "../audit/tell_keys.ts";
import type { BackupDeps } from "../backup/deps.ts";
import { newestEpoch } from "../backup/repository_epoch.ts";
import { drain, functionDrainLimits } from "../changes/drain/drain.ts";
import { systemClock } from "../clock.ts";
import { parseIdentities } from "../crypto/age.ts";
import { asHoldfastError } from "../errors.ts";
import { parseKeyRing } from "../crypto/key_ring.ts";
import { downloadBucket } from "../download/bucket.ts";
import { runDownloadLeg } from "../download/leg.ts";
import { loadZstd } from "../format/zstd.ts";
import { prefixOfBackup, readIdentity, recognise } from "../identity/identity_queries.ts";
import { placeIn, settlePlace } from "../identity/settle_place.ts";
import { createLog, type LogLevel, type LogLine } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { openDatabase } from "../postgres/pg_connection.ts";
import { webCryptoRandom } from "../random.ts";
import { requestCopies, tellCopiesFailed, tellStores } from "../jobs/copy_queries.ts";
import { readRestore } from "../jobs/restore_queries.ts";
import { type FullLegDeps, outlineFull, runFullLeg } from "../restore/legs.ts";
import { inDatabase } from "../restore/new_database.ts";
import { runReplicateLeg } from "../replicate/leg.ts";
import { planDocument } from "../retention/document.ts";
import { lookAhead, runPruneLeg } from "../retention/leg.ts";
import { runRowsLeg } from "../rows/leg.ts";
import type { Fetch } from "../store/http_call.ts";
import { withIdentities } from "../store/layered.ts";
import { credentialsFrom, openStore, ownBucketOf } from "../store/open_store.ts";
import { openSecondary } from "../store/secondary.ts";
import type { Store } from "../store/store.ts";
import { backupById, listBackups } from "../verify/find_backup.ts";
import { runBackupLeg } from "./backup_leg.ts";
import { subjectOf } from "./call_queries.ts";
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
import { createLetIn } from "./people.ts";
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

  const storeOf = (): Store => {
    const address = storeAddress(environment);
    // What was a second store may be the first one now: without an identity, which no function has, that is told by name.
    return withIdentities(
      openStore(address, credentials(environment, address), { fetch, clock, random, log }),
      parseIdentities(undefined),
    );
  };
  const open = async (): Promise<BackupDeps> => {
    const ring = parseKeyRing(environment[variables.keys]);
    const store = storeOf();
    return { database: databaseOf(environment), store, ring, compressor: await loadZstd(), clock, random, log };
  };
  /** Both stores, below where this database writes; the second one may not be set. */
  const pairOf = async (connection: Connection) => {
    const { prefix } = await readIdentity(connection);
    const second = openSecondary((name) => secondVariable(environment, name), { fetch, clock, random, log });
    return {
      first: placeIn(storeOf(), prefix),
      second: second === null ? null : { ...second, store: placeIn(second.store, prefix) },
    };
  };
  /** Whether there is a second store SQL cannot know. */
  const tellPair = async (connection: Connection) => {
    const pair = await pairOf(connection);
    await tellStores(connection, pair.first.label, pair.second?.store.label ?? null);
    return pair;
  };
  /** With the store where that backup is. */
  const openFor = async (connection: Connection, backup: () => Promise<string>): Promise<BackupDeps> => {
    const deps = await open();
    return { ...deps, store: placeIn(deps.store, await prefixOfBackup(connection, await backup())) };
  };
  const full: Leg = async (connection, run, worker) => {
    await recognise(connection, projectRef(environment));
    const deps = await open();
    // What is wrong with the second store's settings hinders no backup.
    await tellPair(connection).catch((error: unknown) => {
      log.error("second.not_told", { code: asHoldfastError(error).code });
    });
    await runBackupLeg(deps, connection, run, { worker, budget: budget.next() });
  };
  const replicate: Leg = async (connection, run, worker) => {
    const { store: _, ...deps } = await open();
    const { first, second } = await tellPair(connection);
    // That was told, and has cancelled the run.
    if (second === null) return;
    await runReplicateLeg({ ...deps, connection, first, second }, run, { worker, budget: budget.next() });
  };
  const pruneDeps = async (connection: Connection) => {
    await recognise(connection, projectRef(environment));
    const { store: unplaced, ...deps } = await open();
    const { first, second } = await tellPair(connection);
    return { ...deps, unplaced, connection, first, second: second?.store ?? null };
  };
  const prune: Leg = async (connection, run, worker) => {
    await runPruneLeg(await pruneDeps(connection), run, { worker, budget: budget.next() });
  };
  const verify: Leg = async (connection, run, worker) => {
    const deps = await openFor(connection, () => subjectOf(connection, run));
    await runVerifyLeg(deps, connection, run, {
      worker,
      budgetBytes: verifyBudgetBytes,
      leaseSeconds: verifyLeaseSeconds,
    });
  };
  const fullDeps = (connection: Connection, backup: string): FullLegDeps => ({
    database: databaseOf(environment),
    inDatabase: (name) => databaseOf(environment, name),
    clock,
    log,
    open: () => openFor(connection, () => Promise.resolve(backup)),
  });
  const bucket = () =>
    downloadBucket({
      projectUrl: required(environment, variables.projectUrl),
      serviceKey: storageKey(environment),
      publicUrl: optional(environment, variables.publicUrl),
    }, { fetch, clock, random, log });
  return {
    environment,
    clock,
    random,
    log,
    waitUntil,
    slot: createLegSlot(),
    checkPerson: personCheck(environment, fetch),
    letIn: createLetIn({ clock, log }),
    countRefusal: createCountRefusal({ clock, log }),
    openDatabase: databaseOf,
    legs: { full, verify, replicate, prune },
    planRetention: async (connection) => planDocument((await lookAhead(await pruneDeps(connection))).plan, true),
    requestCopies: async (connection) => {
      await recognise(connection, projectRef(environment));
      try {
        await tellPair(connection);
      } catch (error) {
        await tellCopiesFailed(connection, asHoldfastError(error));
        throw error;
      }
      return await requestCopies(connection, "http", false);
    },
    anchor: async (connection) => {
      const unplaced = await open();
      await recognise(connection, projectRef(environment));
      const { store } = await settlePlace(unplaced, connection);
      const deps = { ...unplaced, store };
      await tellKeys(connection, deps.ring);
      return await putAnchor({ ...deps, connection }, await newestEpoch(deps));
    },
    downloads: {
      bucket,
      leg: async (connection, download, worker) => {
        const open = (backup: string) => openFor(connection, () => Promise.resolve(backup));
        await runDownloadLeg({ open, bucket, log }, connection, download, { worker, budget: budget.next() });
      },
    },
    requireStored: async (connection, backup) => {
      backupById(await listBackups(placeIn(storeOf(), await prefixOfBackup(connection, backup))), backup);
    },
    outlineFull: async (connection, backup) => await outlineFull(fullDeps(connection, backup), connection, backup),
    restore: async (connection, restore, worker) => {
      const leg = { worker, budget: budget.next() };
      const { scope, sourceBackup } = await readRestore(connection, restore);
      if (scope === "full") return await runFullLeg(fullDeps(connection, sourceBackup), connection, restore, leg);
      const open = () => openFor(connection, () => Promise.resolve(sourceBackup));
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
  return (token, now, address) => {
    const projectUrl = required(environment, variables.projectUrl).replace(/\/+$/, "");
    const issuer = optional(environment, variables.authIssuer) ?? `${projectUrl}/auth/v1`;
    check ??= createCheckPerson({ projectUrl, issuer, apiKey: publishableKey(environment), fetch });
    return check(token, now, address);
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

/** A second store in this project's own Storage, which is no other provider's, is reached with the project's key. */
function secondVariable(environment: Environment, name: string): string | undefined {
  return name === "SUPABASE_SECRET_KEY" ? storageKey(environment) : environment[name];
}

function logLevel(environment: Environment): LogLevel {
  const wanted = optional(environment, variables.logLevel);
  return wanted === "debug" || wanted === "warn" || wanted === "error" ? wanted : "info";
}
