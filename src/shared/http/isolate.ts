/** From a function's runtime to what its door needs: the one place where the rooms of the product are put together. */
import { putAnchor } from "../audit/anchor.ts";
import { tellKeys } from "../audit/tell_keys.ts";
import type { BackupDeps } from "../backup/deps.ts";
import { newestEpoch } from "../backup/repository_epoch.ts";
import { drain, functionDrainLimits } from "../changes/drain/drain.ts";
import { functionOpenLimits } from "../checks/deps.ts";
import { runChecksLeg } from "../checks/leg.ts";
import { asHoldfastError } from "../errors.ts";
import { parseKeyRing } from "../crypto/key_ring.ts";
import { downloadBucket } from "../download/bucket.ts";
import { runDownloadLeg } from "../download/leg.ts";
import { openProjectFiles } from "../files/project_files.ts";
import { loadZstd } from "../format/zstd.ts";
import { prefixOfBackup, recognise } from "../identity/identity_queries.ts";
import { placeIn, settlePlace } from "../identity/settle_place.ts";
import type { Connection } from "../postgres/connection.ts";
import { requestCopies, tellCopiesFailed, tellStores } from "../jobs/copy_queries.ts";
import { readRestore } from "../jobs/restore_queries.ts";
import { type FullLegDeps, outlineFull, runFullLeg } from "../restore/legs.ts";
import { runReplicateLeg } from "../replicate/leg.ts";
import { planDocument } from "../retention/document.ts";
import { lookAhead, runPruneLeg } from "../retention/leg.ts";
import { runRowsLeg } from "../rows/leg.ts";
import { ownBucketOf } from "../store/open_store.ts";
import { backupById, listBackups } from "../verify/find_backup.ts";
import { runBackupLeg } from "./backup_leg.ts";
import { subjectOf } from "./call_queries.ts";
import type { DoorDeps, Leg } from "./door.ts";
import { optional, projectRef, projectStorage, required, storageKey, variables } from "./environment.ts";
import { databaseOf, frontDeps, type IsolateRuntime } from "./front.ts";
import { createIsolateBudget } from "./isolate_budget.ts";
import { firstStore, storeAddress, storesOf } from "./places.ts";
import { readLegRequest } from "./restore_request.ts";
import { runVerifyLeg } from "./verify_leg.ts";

/** Plaintext of one leg of a verification: opening and unpacking it takes some 0.3 s of CPU. */
const verifyBudgetBytes = 48 * 1024 * 1024;
const verifyLeaseSeconds = 180;

/** Call it once when the isolate starts; its budget and its slot are the isolate's. Throws nothing. */
export function isolateDeps(runtime: IsolateRuntime): DoorDeps {
  const { environment, fetch } = runtime;
  const front = frontDeps(runtime);
  const { clock, random, log } = front;
  const outside = { environment, fetch, clock, random, log };
  const budget = createIsolateBudget(clock);

  const open = async (): Promise<BackupDeps> => {
    const ring = parseKeyRing(environment[variables.keys]);
    const store = firstStore(outside);
    const project = projectStorage(environment);
    const files = project === null ? null : openProjectFiles(project, fetch);
    return { database: databaseOf(environment), store, files, ring, compressor: await loadZstd(), clock, random, log };
  };
  /** Whether there is a second store SQL cannot know. */
  const tellPair = async (connection: Connection) => {
    const pair = await storesOf(connection, outside);
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
  /** Both stores, as told; for what reads and prunes all that lies there. */
  const storesDeps = async (connection: Connection) => {
    await recognise(connection, projectRef(environment));
    const { store: unplaced, ...deps } = await open();
    const { first, second } = await tellPair(connection);
    return { ...deps, unplaced, connection, first, second: second?.store ?? null };
  };
  const prune: Leg = async (connection, run, worker) => {
    await runPruneLeg(await storesDeps(connection), run, { worker, budget: budget.next() });
  };
  const verify: Leg = async (connection, run, worker) => {
    const { store, ...deps } = await open();
    const backup = await subjectOf(connection, run);
    if (backup === null) {
      await runChecksLeg(await storesDeps(connection), run, {
        worker,
        budget: budget.next(),
        limits: functionOpenLimits,
      });
      return;
    }
    const placed = placeIn(store, await prefixOfBackup(connection, backup));
    await runVerifyLeg({ ...deps, store: placed }, connection, { run, backup }, {
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
    ...front,
    legs: { full, verify, replicate, prune },
    planRetention: async (connection) => planDocument((await lookAhead(await storesDeps(connection))).plan, true),
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
      backupById(await listBackups(placeIn(firstStore(outside), await prefixOfBackup(connection, backup))), backup);
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
