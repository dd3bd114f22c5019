/** What the function `backup` works with: full backups, copies, the drain of the change stream, anchors. */
import { putAnchor } from "../audit/anchor.ts";
import { tellKeys } from "../audit/tell_keys.ts";
import { newestEpoch } from "../backup/repository_epoch.ts";
import { drain, functionDrainLimits } from "../changes/drain/drain.ts";
import { asHoldfastError } from "../errors.ts";
import { openProjectFiles } from "../files/project_files.ts";
import { recognise } from "../identity/identity_queries.ts";
import { settlePlace } from "../identity/settle_place.ts";
import { requestCopies, tellCopiesFailed } from "../jobs/copy_queries.ts";
import { runReplicateLeg } from "../replicate/leg.ts";
import { ownBucketOf } from "../store/open_store.ts";
import { runBackupLeg } from "./backup_leg.ts";
import type { BackupDoorDeps, Leg } from "./door.ts";
import { projectRef, projectStorage } from "./environment.ts";
import type { IsolateRuntime } from "./front.ts";
import { storeAddress } from "./places.ts";
import { worksOf } from "./works.ts";

/** Once an isolate. Throws nothing. */
export function backupDoorDeps(runtime: IsolateRuntime): BackupDoorDeps {
  const { environment } = runtime;
  const { front, outside, budget, open, tellPair } = worksOf(runtime);
  const projectFiles = () => {
    const project = projectStorage(environment);
    return project === null ? null : openProjectFiles(project, outside.fetch);
  };
  const full: Leg = async (connection, run, worker) => {
    await recognise(connection, projectRef(environment));
    const deps = { ...await open(), files: projectFiles() };
    // What is wrong with the second store's settings hinders no backup.
    await tellPair(connection).catch((error: unknown) => {
      front.log.error("second.not_told", { code: asHoldfastError(error).code });
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
  return {
    ...front,
    legs: { full, replicate },
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
    drain: async (worker) =>
      await drain({ ...await open(), files: projectFiles() }, {
        worker,
        budget: budget.next(),
        limits: functionDrainLimits,
        ownBucket: ownBucketOf(storeAddress(environment)),
        projectRef: projectRef(environment),
      }),
  };
}
