/** What opens the objects of one store. */
import type { EpochSource } from "../crypto/epoch.ts";
import { epochSource } from "../crypto/epochs.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import { readRepository } from "../format/repository.ts";
import type { Store } from "../store/store.ts";
import type { CheckDeps, PlacedStore } from "./deps.ts";

export interface Opening extends PlacedStore {
  readonly ring: KeyRing;
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
  readonly repositoryId: string;
}

/** Null for a store in which nothing was put yet. Errors: `object_conflict` where a second store is another installation's, the store's. */
export async function openingOf(
  { first, ring, compressor }: Pick<CheckDeps, "first" | "ring" | "compressor">,
  { store, isSecond }: PlacedStore,
): Promise<Opening | null> {
  const repository = await readRepository(store);
  if (repository === null) return null;
  if (isSecond) await requireSame(first, store, repository.id);
  const epochOf = keyed(epochSource(store, ring, repository.id));
  return { store, isSecond, ring, compressor, epochOf, repositoryId: repository.id };
}

/** A key file that is damaged says nothing of what it would open: that is told as for a key that is missing. */
function keyed(epochOf: EpochSource): EpochSource {
  return async (id) => {
    try {
      return await epochOf(id);
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      if (code !== "object_damaged") throw error;
      throw new HoldfastError("key_wrong", message, { cause: error });
    }
  };
}

async function requireSame(first: Store, second: Store, id: string): Promise<void> {
  const repository = await readRepository(first);
  if (repository === null || repository.id === id) return;
  throw new HoldfastError("object_conflict", `${second.label} holds another repository than ${first.label}`);
}
