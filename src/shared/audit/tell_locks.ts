/** What a store's locks are, for the security audit. */
import { listEpochs } from "../crypto/epochs.ts";
import { epochName } from "../format/layout.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Store } from "../store/store.ts";

/** A key file's own lock, which spares it the bucket's default, ends after minutes. */
const keyMayBeLockedMs = 60 * 60 * 1000;

/** Nothing of a kind of store that has no locks. Errors: those of the store and the connection. */
export async function tellLocks(connection: Connection, store: Store, now: Date): Promise<void> {
  const { lock, label } = store;
  if (lock === null) return;
  const inForce = await lock.inForce();
  const newest = inForce === null ? undefined : (await listEpochs(store)).at(-1);
  const ofKey = newest === undefined ? null : await lock.retentionOf(epochName(newest));
  const facts = {
    mode: inForce?.mode.toLowerCase() ?? "none",
    days: inForce?.days ?? 0,
    keys: ofKey !== null && ofKey.until.getTime() - now.getTime() > keyMayBeLockedMs,
  };
  await connection.query("select backup.tell_fact($1, $2::jsonb)", [`lock:${label}`, JSON.stringify(facts)]);
}
