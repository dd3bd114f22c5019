/** What a store keeps from being removed: locks, versions, and whether what lies there bears it out. */
import { asHoldfastError } from "../../shared/errors.ts";
import { parseEpochName, prefixes } from "../../shared/format/layout.ts";
import { listManifests } from "../../shared/backup/store_owner.ts";
import { defaultLock, type LockSettings, mostLockDays, type Retention } from "../../shared/store/lock.ts";
import { bucketFacts, parseStoreAddress, type StoreCredentials } from "../../shared/store/open_store.ts";
import type { BucketFacts } from "../../shared/store/s3_bucket.ts";
import type { Store } from "../../shared/store/store.ts";
import type { Context } from "../context.ts";
import { storeDeps } from "../open_store.ts";
import { type Check, fail, failed, ok, warn } from "./check.ts";

const dayMs = 24 * 60 * 60 * 1000;
const way =
  `Use a bucket with object lock; backups are locked there for ${defaultLock.days} days (lock= in its address).`;

/** What was seen of two objects that lie there; undefined where there is none. */
export interface SeenLocks {
  readonly now: Date;
  /** Of the newest manifest. */
  readonly manifest: Retention | null | undefined;
  /** Of the newest key file. */
  readonly key: Retention | null | undefined;
}

/** Of a store at an address; `name` is that of the check. Never throws. */
export async function* checkLocks(
  context: Context,
  name: string,
  { address, credentials }: { readonly address: string; readonly credentials: StoreCredentials },
  store: Store,
): AsyncIterable<Check> {
  try {
    const place = parseStoreAddress(address);
    const facts = await bucketFacts(address, credentials, storeDeps(context));
    const asked = place.kind === "s3" ? place.lock : null;
    yield* lockChecks(facts, asked, name);
    if (store.lock === null || (await store.lock.inForce()) === null) return;
    yield* seenChecks(await look(store, context.clock.now()), name);
  } catch (error) {
    yield failed(name, asHoldfastError(error));
  }
}

async function look(store: Store, now: Date): Promise<SeenLocks> {
  const keys: string[] = [];
  for await (const { name } of store.list(prefixes.keys)) if (parseEpochName(name) !== null) keys.push(name);
  const [manifest] = await listManifests(store);
  const key = keys.sort().at(-1);
  const retentionOf = async (name: string | undefined) =>
    name === undefined ? undefined : await store.lock?.retentionOf(name) ?? null;
  return { now, manifest: await retentionOf(manifest?.name), key: await retentionOf(key) };
}

/** What the bucket does with what is removed or overwritten; `facts` null: it is no bucket of S3. `asked`: by the address. */
export function lockChecks(facts: BucketFacts | null, asked: LockSettings | null, name = "locks"): Check[] {
  if (facts === null) {
    return [warn(name, "this kind of store has none: whoever can write there can remove everything", way)];
  }
  const kept = {
    on: "versions are kept",
    suspended: "versions are kept no more",
    off: "no versions are kept",
    unknown: "the server does not tell whether versions are kept",
  };
  const versions = kept[facts.versioning];
  const wanted = asked !== null && asked.days > 0 ? fail : warn;
  if (facts.lock === "unknown") {
    return [wanted(name, `${versions}; the server does not tell whether objects are locked, so none is`, way)];
  }
  if (facts.lock === "off") {
    return [wanted(name, `${versions}; no object lock: a thief of the credentials can remove everything`, way)];
  }
  const { preset } = facts.lock;
  const { days, mode } = asked ?? defaultLock;
  const checks: Check[] = [];
  if (preset !== null && preset.days > mostLockDays) {
    const why =
      `the bucket locks for ${preset.days} days by default: what was erased or is past its time could not be removed within thirty days`;
    checks.push(fail(name, why, `Set the bucket's default to at most ${mostLockDays} days, or to none.`));
  }
  if (days > 0) {
    checks.unshift(
      ok(name, `${versions}; what is new is locked for ${days} days (${mode.toLowerCase()}), keys are not`),
    );
  } else if (preset === null) {
    checks.unshift(warn(name, `${versions}; object lock is on and locks nothing, as the address says lock=off`, way));
  } else {
    const lock = `what is new is locked for ${preset.days} days (${preset.mode.toLowerCase()})`;
    const why = `${versions}; ${lock} by the bucket's default, and is not renewed, as the address says lock=off`;
    checks.unshift(warn(name, why, "Leave lock=off out of the address."));
  }
  return checks;
}

/** Whether what lies there is locked as it should be. */
export function seenChecks({ now, manifest, key }: SeenLocks, name = "locks"): Check[] {
  const checks: Check[] = [];
  if (manifest !== undefined) {
    const left = manifest === null ? 0 : manifest.until.getTime() - now.getTime();
    const until = manifest?.until.toISOString().slice(0, 10);
    if (left > (mostLockDays + 1) * dayMs) {
      const why = `the newest backup is locked until ${until}, which is more than ${mostLockDays} days`;
      checks.push(fail(name, why, "The bucket's default stands before an object's own lock: set it to none."));
    } else if (left > 0) checks.push(ok(name, `the newest backup is locked until ${until}`));
    else {
      const why = manifest === null
        ? "the server tells no lock of the newest backup"
        : `the newest backup's lock ended ${until}`;
      const hint = manifest === null
        ? "Allow s3:GetObjectRetention; a backup from before object lock was used is not locked, the next one is."
        : "Take a backup: it renews the locks of what it shares with others.";
      checks.push(warn(name, why, hint));
    }
  }
  // An hour: a key file's own lock, which spares it the bucket's default, ends after minutes.
  if (key != null && key.until.getTime() - now.getTime() > dayMs / 24) {
    const why = `the newest key file is locked until ${
      key.until.toISOString().slice(0, 10)
    }: its epoch cannot be shredded before`;
    checks.push(
      warn(name, why, "It is from before locks were set by object, or the bucket's default stands before them."),
    );
  }
  return checks;
}
