import { listEpochs, openEpoch } from "../../shared/crypto/epochs.ts";
import type { KeyRing } from "../../shared/crypto/key_ring.ts";
import { readRepository } from "../../shared/format/repository.ts";
import type { Context } from "../context.ts";
import { keyRing, keysText } from "../open.ts";
import { openStore } from "../open_store.ts";
import { type Check, failed, ok, warn } from "./check.ts";

/** The keys are well-formed and open the newest epoch of the store. */
export async function* checkKeys(context: Context): AsyncIterable<Check> {
  let ring: KeyRing;
  try {
    if ((await keysText(context.settings)) === undefined) {
      yield warn("keys", "not set", "Set BACKUP_KEYS; `holdfast keygen` makes a key.");
      return;
    }
    ring = await keyRing(context.settings);
    yield ok("keys", `${ring.ids.join(", ")}; ${ring.currentId} is current`);
  } catch (error) {
    yield failed("keys", error);
    return;
  }
  if (context.settings.get("store") === undefined) return;
  try {
    const store = await openStore(context);
    const repository = await readRepository(store);
    const newest = repository === null ? undefined : (await listEpochs(store)).at(-1);
    if (repository === null || newest === undefined) {
      yield ok("keys", "the store is new; the first backup makes its first epoch");
      return;
    }
    await openEpoch(store, ring, repository.id, newest);
    yield ok("keys", `open the newest epoch, ${newest}`);
  } catch (error) {
    yield failed("keys", error);
  }
}
