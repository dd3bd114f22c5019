import { stat } from "node:fs/promises";
import { sameBytes } from "../../shared/crypto/digest.ts";
import { asHoldfastError } from "../../shared/errors.ts";
import { prefixes } from "../../shared/format/layout.ts";
import { readRepository } from "../../shared/format/repository.ts";
import { nearness } from "../../shared/store/apart.ts";
import { parseStoreAddress } from "../../shared/store/open_store.ts";
import type { Secondary } from "../../shared/store/secondary.ts";
import type { Context } from "../context.ts";
import { identitiesOf, openSecond, openStore, secondPlace, storeAddress, storePair } from "../open_store.ts";
import { type Check, fail, failed, ok, warn } from "./check.ts";
import { checkLocks } from "./locks.ts";
import { probe } from "./store.ts";

/** The second store: apart from the first, working, of the same repository, its layer, its locks. */
export async function* checkSecondStore(context: Context): AsyncIterable<Check> {
  const address = context.settings.get("secondary");
  if (address === undefined) {
    yield warn("second store", "not set: one provider holds every copy", "Set BACKUP_SECONDARY and BACKUP_RECIPIENTS.");
    return;
  }
  try {
    const second = openSecond(context);
    if (second === null) return;
    yield* checkApart(context, address);
    yield* probe("second store", second.store, context.random);
    yield* checkRepository(context, second);
    yield* checkLayer(context, second);
    const { credentials } = secondPlace(context.settings, address);
    yield* checkLocks(context, "locks", { address, credentials }, second.store);
  } catch (error) {
    yield failed("second store", error);
  }
}

/** Silent where the first one is not known here. */
async function* checkApart({ settings }: Context, second: string): AsyncIterable<Check> {
  if (settings.get("store") === undefined) return;
  const found = nearness(storePair(settings));
  if (found === null) {
    yield ok("two stores", "at different providers, or in different regions");
    return;
  }
  const disk = await isOneDisk(storeAddress(settings), second) ? ", on one disk" : "";
  const what = `the two ${found.why}${disk}`;
  if (found.kind === "same") yield fail("two stores", what, "Name another place in BACKUP_SECONDARY.");
  else yield warn("two stores", `${what}: what takes one takes both`, "Use another provider, or another region.");
}

/** Of two folders; where one is not there yet, nothing is known. */
async function isOneDisk(first: string, second: string): Promise<boolean> {
  const folders = [first, second].map(parseStoreAddress).flatMap((one) => one.kind === "file" ? [one.folder] : []);
  if (folders.length < 2) return false;
  const found = await Promise.all(folders.map((folder) => stat(folder).catch(() => null)));
  return found[0] !== null && found[0]?.dev === found[1]?.dev;
}

async function* checkRepository(context: Context, { store }: Secondary): AsyncIterable<Check> {
  const there = await readRepository(store);
  if (there === null) {
    yield warn("second store", "holds no backup yet", "Replication brings the first one there.");
    return;
  }
  if (context.settings.get("store") === undefined) return;
  const here = await openStore(context).then(readRepository).catch(() => null);
  if (here !== null && here.id !== there.id) {
    const way = "Name a place of its own in BACKUP_SECONDARY.";
    yield fail("second store", "holds the backups of another installation", way);
  }
}

/** With the identities that are at hand, what is wrapped is opened again. */
async function* checkLayer(context: Context, second: Secondary): AsyncIterable<Check> {
  const count = second.recipients.length;
  const forWhom = `objects are wrapped for ${count} recipient${count === 1 ? "" : "s"}`;
  try {
    const identities = await identitiesOf(context.settings);
    if (identities.isEmpty) {
      yield ok("age layer", `${forWhom}; no identity is here, as it should be where backups are made`);
      return;
    }
    const name = `${prefixes.objects}aa/probe`;
    const bytes = context.random(4096);
    const opened = await identities.open(name, await second.wrap(name, bytes));
    if (sameBytes(opened, bytes)) yield ok("age layer", `${forWhom}; the identity that is here opens them`);
    else yield fail("age layer", "what was wrapped opens to something else", "This is a defect; please report it.");
  } catch (error) {
    const { code, message, hint } = asHoldfastError(error);
    const what = code === "identity_wrong" ? "the identities that are here open nothing that is wrapped now" : message;
    yield fail("age layer", `${code}: ${what}`, hint);
  }
}
