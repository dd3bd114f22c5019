/** Making, finding and re-wrapping the epochs of a repository in its store. docs/format.md, "Epochs". */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import { epochName, parseEpochName, prefixes } from "../format/layout.ts";
import type { Random } from "../random.ts";
import type { Store } from "../store/store.ts";
import { sameBytes } from "./digest.ts";
import { decodeEpochFile, encodeEpochFile, readRecipients } from "./epoch_file.ts";
import { deriveEpoch, type Epoch, type EpochFacts, epochLifeMs, type EpochSource, newEpochFacts } from "./epoch.ts";
import { keyBytes, type KeyRing } from "./key_ring.ts";

export interface EpochDeps {
  readonly store: Store;
  readonly ring: KeyRing;
  readonly clock: Clock;
  readonly random: Random;
}

export interface Rewrapped {
  readonly epochId: string;
  /** Ids of the keys that open it now. */
  readonly wrappedFor: readonly string[];
  /** Ids of the keys that opened it before and no longer do. */
  readonly dropped: readonly string[];
}

/** Errors: `key_wrong` naming the keys needed, also for an epoch that the store does not have; `object_damaged`. */
export async function openEpoch(store: Store, ring: KeyRing, repositoryId: string, epochId: string): Promise<Epoch> {
  const opened = await decodeEpochFile(await readEpochFile(store, epochId), { id: epochId, repositoryId }, ring);
  return await deriveEpoch(opened.facts, opened.secret);
}

/** Opens each epoch once and keeps it. A failure is not kept. Holds one small entry an epoch, about twelve a year. */
export function epochSource(store: Store, ring: KeyRing, repositoryId: string): EpochSource {
  const opened = new Map<string, Promise<Epoch>>();
  return (epochId) => {
    const known = opened.get(epochId);
    if (known !== undefined) return known;
    const fresh = openEpoch(store, ring, repositoryId, epochId);
    opened.set(epochId, fresh);
    fresh.catch(() => opened.delete(epochId));
    return fresh;
  };
}

/** A fresh epoch, wrapped for every key of the ring, in the store and read back. */
export async function newEpoch(deps: EpochDeps, repositoryId: string): Promise<Epoch> {
  return await makeEpoch(deps, newEpochFacts(repositoryId, deps.clock.now(), deps.random));
}

async function makeEpoch(deps: Omit<EpochDeps, "clock">, facts: EpochFacts): Promise<Epoch> {
  const secret = deps.random(keyBytes);
  const name = epochName(facts.id);
  const bytes = await encodeEpochFile(facts, secret, deps.ring);
  if ((await deps.store.create(name, bytes)) === "existed") {
    throw new HoldfastError("object_conflict", `${name} exists already`, { retry: "backoff" });
  }
  await checkReadBack(deps.store, name, bytes);
  return await deriveEpoch(facts, secret);
}

/**
 * The epoch that seals new objects: the newest of this repository while it is younger than 30 days, else a new one.
 * A newest epoch that the ring cannot open is `key_wrong` and never replaced in silence: a mistyped key would divide the
 * repository. Two callers at once may both make one; both then take the newer, and the other stays unused.
 */
export async function currentEpoch(deps: EpochDeps, repositoryId: string): Promise<Epoch> {
  const newest = (await listEpochs(deps.store)).at(-1);
  if (newest !== undefined) {
    const epoch = await openEpoch(deps.store, deps.ring, repositoryId, newest);
    if (deps.clock.now().getTime() - epoch.createdAt.getTime() < epochLifeMs) return epoch;
  }
  const made = await newEpoch(deps, repositoryId);
  const newestNow = (await listEpochs(deps.store)).at(-1) ?? made.id;
  return newestNow <= made.id ? made : await openEpoch(deps.store, deps.ring, repositoryId, newestNow);
}

/**
 * The epoch of the erasure ledger. Its id says the beginning of time, so it sorts before all others, is never the current one and
 * seals nothing but the ledger; it is wrapped anew and copied as every epoch is, and never shredded. Made where there is none;
 * of two that were made at once the first by name is taken. Errors: those of keys and store.
 */
export async function ledgerEpoch(deps: Omit<EpochDeps, "clock">, repositoryId: string): Promise<Epoch> {
  const first = async () => (await listEpochs(deps.store)).find(isLedgerEpoch);
  const there = await first();
  if (there !== undefined) return await openEpoch(deps.store, deps.ring, repositoryId, there);
  const made = await makeEpoch(deps, newEpochFacts(repositoryId, new Date(0), deps.random));
  const taken = await first() ?? made.id;
  return taken === made.id ? made : await openEpoch(deps.store, deps.ring, repositoryId, taken);
}

/** Does the id belong to the epoch of an erasure ledger? */
export const isLedgerEpoch = (id: string): boolean => id.startsWith("e19700101T000000Z-");

/**
 * Wraps every epoch for exactly the keys of the ring; objects are not touched. To retire a key, run it with both keys
 * in the ring, then without the old one. Safe to repeat; a file is only replaced by one that was opened in memory first.
 */
export async function rewrap(deps: Omit<EpochDeps, "clock">, repositoryId: string): Promise<Rewrapped[]> {
  const done: Rewrapped[] = [];
  for (const epochId of await listEpochs(deps.store)) done.push(await rewrapOne(deps, epochId, repositoryId));
  return done;
}

async function rewrapOne(
  { store, ring }: Pick<EpochDeps, "store" | "ring">,
  epochId: string,
  repositoryId: string,
): Promise<Rewrapped> {
  const expected = { id: epochId, repositoryId };
  const before = await decodeEpochFile(await readEpochFile(store, epochId), expected, ring);
  const bytes = await encodeEpochFile(before.facts, before.secret, ring);
  const after = await decodeEpochFile(bytes, expected, ring);
  if (!sameBytes(after.secret, before.secret)) throw new HoldfastError("internal", "a wrapped epoch does not open");
  const name = epochName(epochId);
  await store.replace(name, bytes);
  await checkReadBack(store, name, bytes);
  const dropped = before.wrappedFor.filter((id) => !after.wrappedFor.includes(id));
  return { epochId, wrappedFor: after.wrappedFor, dropped };
}

/**
 * After `rewrap` of the first store: brings its key files into a second one that has them, byte for byte. What the first one lost
 * and the second has is wrapped anew there. Ids of those epochs that the first one lost. Errors: as those of `rewrap`.
 */
export async function rewrapSecond(
  deps: Omit<EpochDeps, "clock">,
  second: Store,
  repositoryId: string,
): Promise<string[]> {
  const firsts = new Set(await listEpochs(deps.store));
  const lost: string[] = [];
  for (const epochId of await listEpochs(second)) {
    if (firsts.has(epochId)) {
      const name = epochName(epochId);
      const bytes = await deps.store.read(name);
      await second.replace(name, bytes);
      await checkReadBack(second, name, bytes);
    } else {
      await rewrapOne({ ...deps, store: second }, epochId, repositoryId);
      lost.push(epochId);
    }
  }
  return lost;
}

/** Which keys open which epoch, oldest first; nothing is opened. Errors: `object_damaged`, `format_newer`, the store's. */
export async function listRecipients(
  store: Store,
): Promise<{ readonly epochId: string; readonly wrappedFor: readonly string[] }[]> {
  const found = [];
  for (const epochId of await listEpochs(store)) {
    found.push({ epochId, wrappedFor: readRecipients(await readEpochFile(store, epochId), epochId) });
  }
  return found;
}

/** Ids of all epochs, oldest first. */
export async function listEpochs(store: Store): Promise<string[]> {
  const ids: string[] = [];
  for await (const { name } of store.list(prefixes.keys)) {
    const id = parseEpochName(name);
    if (id !== null) ids.push(id);
  }
  return ids.sort();
}

async function readEpochFile(store: Store, epochId: string): Promise<Uint8Array> {
  try {
    return await store.read(epochName(epochId));
  } catch (cause) {
    if (!(cause instanceof HoldfastError) || cause.code !== "object_missing") throw cause;
    throw new HoldfastError("key_wrong", `epoch ${epochId} has no key file in ${store.label}`, {
      hint: "The object belongs to another repository, or v1/keys/ was not copied with it.",
      cause,
    });
  }
}

async function checkReadBack(store: Store, name: string, bytes: Uint8Array): Promise<void> {
  if (!sameBytes(await store.read(name), bytes)) {
    throw new HoldfastError("store_lied", `${store.label} gave back other bytes than were written to ${name}`);
  }
}
