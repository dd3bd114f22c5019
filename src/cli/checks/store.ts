import { sameBytes, toHex } from "../../shared/crypto/digest.ts";
import { probePrefix } from "../../shared/monitor/probe.ts";
import type { Random } from "../../shared/random.ts";
import type { Store } from "../../shared/store/store.ts";
import type { Context } from "../context.ts";
import { openStore, storePlace } from "../open_store.ts";
import { type Check, fail, failed, ok, warn } from "./check.ts";
import { checkLocks } from "./locks.ts";

/** The store of --store, by a probe. */
export async function* checkStore(context: Context): AsyncIterable<Check> {
  if (context.settings.get("store") === undefined) {
    yield warn("store", "not set", "Set BACKUP_STORE.");
    return;
  }
  let store: Store;
  try {
    store = await openStore(context);
  } catch (error) {
    yield failed("store", error);
    return;
  }
  yield* probe("store", store, context.random);
  if (store.lock !== null) yield* checkLocks(context, "store locks", storePlace(context.settings), store);
  if (store.kind === "supabase-storage" && context.settings.get("secondary") === undefined) {
    const way = "Keep a copy elsewhere: an s3:// store of another provider.";
    yield warn("store", "the project's own Storage goes when the project goes, and the backups with it", way);
  }
}

/** Creates, refuses to overwrite, reads, lists and removes a probe of 4 KiB. `what` is the name of the check. */
export async function* probe(what: string, store: Store, random: Random): AsyncIterable<Check> {
  const name = `${probePrefix}${toHex(random(12))}`;
  const bytes = random(4096);
  try {
    await store.create(name, bytes);
    if (!sameBytes(await store.read(name), bytes)) {
      yield fail(what, `${store.label} gave back other bytes than were written`, "Check what is in between.");
      return;
    }
    const again = await store.create(name, random(64));
    if (again !== "existed" || !sameBytes(await store.read(name), bytes)) {
      yield fail(what, `${store.label} lets an object be overwritten`, "Use a store that knows create-only writes.");
      return;
    }
    const listed: string[] = [];
    for await (const object of store.list(probePrefix)) listed.push(object.name);
    if (!listed.includes(name)) {
      yield fail(what, `${store.label} does not list what it holds`, "Grant the right to list.");
    }
    await store.remove([name]);
    if ((await store.size(name)) !== null) {
      yield warn(what, `${store.label} kept a removed object`, "Grant the right to remove.");
    } else yield ok(what, `${store.label}: write, read, list and remove work`);
  } catch (error) {
    await store.remove([name]).catch(() => {});
    yield failed(what, error);
  }
}
