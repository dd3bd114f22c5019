/** Names out of a store, and a look that each is gone. */
import { asHoldfastError } from "../errors.ts";
import type { KeptInStore } from "../jobs/retention_queries.ts";
import type { Store } from "../store/store.ts";

export interface Removal {
  readonly gone: readonly string[];
  readonly kept: readonly KeptInStore[];
}

/**
 * What the store refuses to let go, or says to be gone and still has, is kept and named: an object lock ends some day. Errors: any other
 * of the store; then nothing is known of these names, and they are tried again.
 */
export async function removeFrom(store: Store, names: readonly string[]): Promise<Removal> {
  const refusals = new Map<string, string>();
  try {
    await store.remove(names);
  } catch (error) {
    if (asHoldfastError(error).code !== "store_denied") throw error;
    // Which of them it refused only one by one tells.
    for (const name of names) {
      try {
        await store.remove([name]);
      } catch (alone) {
        const failure = asHoldfastError(alone);
        if (failure.code !== "store_denied") throw alone;
        refusals.set(name, failure.message);
      }
    }
  }
  const gone: string[] = [];
  const kept: KeptInStore[] = [];
  for (const name of names) {
    if (await store.size(name) === null) gone.push(name);
    else kept.push({ name, why: `${store.label}: ${refusals.get(name) ?? "it is still there after its removal"}` });
  }
  return { gone, kept };
}

/** Out of every store, the first one last: as long as it lies there, somebody who lists it knows that there is work left. */
export async function removeEverywhere(stores: readonly Store[], names: readonly string[]): Promise<Removal> {
  let left = names;
  const kept: KeptInStore[] = [];
  for (const store of [...stores].reverse()) {
    const removal = await removeFrom(store, left);
    left = removal.gone;
    kept.push(...removal.kept);
  }
  return { gone: left, kept };
}
