import type { Epoch } from "../crypto/epoch.ts";
import { currentEpoch, openEpoch } from "../crypto/epochs.ts";
import { HoldfastError } from "../errors.ts";
import { repositoryName } from "../format/layout.ts";
import { openOrCreateRepository, readRepository } from "../format/repository.ts";
import type { BackupDeps } from "./deps.ts";

/**
 * The epoch that seals a new attempt's objects; makes repository and epoch where there is none. Asked for by the plan
 * alone: two workers that find an empty store at the same time would make an epoch each. Errors: of key and store.
 */
export async function newestEpoch(deps: BackupDeps): Promise<Epoch> {
  const repository = await openOrCreateRepository(deps);
  return await currentEpoch(deps, repository.id);
}

/** The epoch that the plan has recorded, for all other tasks of the attempt. Errors: of key and store. */
export async function epochOfRun(deps: BackupDeps, epochId: string): Promise<Epoch> {
  const repository = await readRepository(deps.store);
  if (repository === null) {
    throw new HoldfastError("object_missing", `${repositoryName} is gone from ${deps.store.label}`);
  }
  return await openEpoch(deps.store, deps.ring, repository.id, epochId);
}
