/** `keys rotate`: every epoch of both stores is wrapped for exactly the keys of the ring. */
import { listRecipients, rewrap, rewrapSecond } from "../shared/crypto/epochs.ts";
import type { KeyRing } from "../shared/crypto/key_ring.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { epochName } from "../shared/format/layout.ts";
import { readCopyLag } from "../shared/jobs/copy_queries.ts";
import type { Store } from "../shared/store/store.ts";
import type { Context } from "./context.ts";
import { installedSession } from "./installed.ts";
import { keyRing } from "./open.ts";
import { openStores } from "./open_store.ts";
import type { Outcome } from "./output.ts";

interface Planned {
  readonly epoch: string;
  readonly wrappedFor: readonly string[];
  /** Keys that open it in one of the stores, and no more afterwards. */
  readonly dropped: readonly string[];
}

/**
 * The document: `{epochs[{epoch, wrappedFor[], dropped[]}], stores[], earlier[], done}`; `earlier`: stores that keep what key files
 * held before, which dropped keys still open, with exit 3. `repositoryOf` the first store; `audit` is told before and once it is done.
 * Errors: those of keys and stores. Safe to repeat.
 */
export async function rotate(
  context: Context,
  repositoryOf: (store: Store) => Promise<string>,
  audit: (ring: KeyRing, action: "key.rotating" | "key.rotated", epochs: number) => Promise<void>,
): Promise<Outcome> {
  const { settings, random } = context;
  const ring = await keyRing(settings);
  const [store, second] = await openStores(context);
  if (store === undefined) throw new HoldfastError("setting_missing", "--store is not set");
  const stores = second === undefined ? [store] : [store, second];
  if (second === undefined) await noteSecond(context);
  const plan = await planOf(stores, ring);
  const lines = plan.map(({ epoch, dropped }) =>
    `${epoch} opens with ${ring.ids.join(", ")}${
      dropped.length === 0 ? "" : `, and no more with ${dropped.join(", ")}`
    }`
  );
  const undone = { epochs: plan, stores: stores.map(({ label }) => label), earlier: [], done: false };
  if (settings.has("dry-run")) return { exit: 0, document: undone, lines };
  if (plan.some(({ dropped }) => dropped.length > 0) && !settings.has("yes")) {
    context.note(lines.join("\n"));
    if (!(await context.confirm("Keys that are dropped open nothing any more.", "drop"))) {
      const missing = new HoldfastError("confirmation_missing", "no key file was changed");
      return { exit: missing.exit, document: { ...undone, ...missing.toDocument() }, lines: [missing.message] };
    }
  }
  const repository = await repositoryOf(store);
  // Before a key file is touched: what the audit refuses is not done.
  await audit(ring, "key.rotating", plan.length);
  await rewrap({ store, ring, random }, repository);
  if (second !== undefined) await rewrapSecond({ store, ring, random }, second, repository);
  const earlier = [];
  for (const one of stores) if (!(await forgetEarlier(context, one, plan))) earlier.push(one.label);
  await audit(ring, "key.rotated", plan.length);
  const where = second === undefined ? "" : ", in both stores";
  const stay = earlier.map((label) => `${label} keeps what the files held before: keys that were dropped open that.`);
  return {
    exit: earlier.length === 0 ? 0 : 3,
    document: { ...undone, earlier, done: true },
    lines: [...lines, `${plan.length} key files were rewritten and read back${where}.`, ...stay],
  };
}

/** An epoch may be in one of the stores alone. */
async function planOf(stores: readonly Store[], ring: KeyRing): Promise<Planned[]> {
  const opened = new Map<string, Set<string>>();
  for (const store of stores) {
    for (const { epochId, wrappedFor } of await listRecipients(store)) {
      opened.set(epochId, new Set([...opened.get(epochId) ?? [], ...wrappedFor]));
    }
  }
  return [...opened].sort(([a], [b]) => a < b ? -1 : 1).map(([epoch, before]) => ({
    epoch,
    wrappedFor: ring.ids,
    dropped: [...before].filter((id) => !ring.ids.includes(id)),
  }));
}

/** Where a bucket keeps versions. False: some stay, which is told; the rotation itself stands. */
async function forgetEarlier({ note }: Context, { lock, label }: Store, plan: readonly Planned[]): Promise<boolean> {
  if (lock === null) return true;
  try {
    for (const { epoch } of plan) await lock.forgetEarlier(epochName(epoch));
    return true;
  } catch (error) {
    const { code, message, hint } = asHoldfastError(error);
    note(`warning: ${code}: ${label} still has key files as they were: ${message} (${hint})`);
    return false;
  }
}

/** Where the database knows of one. */
async function noteSecond(context: Context): Promise<void> {
  if (context.settings.get("db-url") === undefined) return;
  const session = await installedSession(context, "holdfast:keys");
  try {
    const known = (await readCopyLag(session))?.store;
    if (known === undefined) return;
    context.note(
      `warning: the second store, ${known}, is not set here: keys that are dropped open its key files until replication has rewritten them`,
    );
  } finally {
    await session.close();
  }
}
