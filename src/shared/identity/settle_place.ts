/**
 * Where a database writes, settled before it does: the place is its own by the last claim there, or it gets a fresh one. Of two
 * databases that are the same byte for byte the first to claim keeps the place; the other one finds out before its next write.
 */
import { currentEpoch, epochSource } from "../crypto/epochs.ts";
import { toHex } from "../crypto/digest.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import type { Clock } from "../clock.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import type { Compressor } from "../format/compressor.ts";
import { claimName, lastClaimNumber, repositoryName } from "../format/layout.ts";
import { openOrCreateRepository, readRepository } from "../format/repository.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import { below, isBelow } from "../store/below.ts";
import type { Store } from "../store/store.ts";
import { listManifests, projectOfBackup } from "../backup/store_owner.ts";
import { type Claim, claimNumbers, dropOldClaims, putClaim, readClaim } from "./claim.ts";
import {
  becomeCopy,
  type ClaimState,
  holdClaim,
  intendClaim,
  isOurNonce,
  readClaimState,
  readIdentity,
  refuseAdoption,
  stillWritesTo,
} from "./identity_queries.ts";
import { type Found, hasMoved, type Identity, judge } from "./judge.ts";

export interface PlaceDeps {
  /** The store as it is set. */
  readonly store: Store;
  readonly ring: KeyRing;
  readonly compressor: Compressor;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Where a database may write. */
export interface Place {
  readonly prefix: string;
  /** The store below the prefix. */
  readonly store: Store;
  /** Number of the newest claim there, which is this database's. */
  readonly claim: number;
}

/** Somebody else may be quicker with a claim, and each copy that is noticed means another look. */
const mostLooks = 6;

/** The store below the prefix; as it is where its address names the prefix already. */
export function placeIn(store: Store, prefix: string): Store {
  return isBelow(store, prefix) ? store : below(store, prefix);
}

/**
 * Before anything is written, and often: looks at the last claim, and makes one where it is due. A database that is a copy, or
 * may be one, is given a fresh prefix, with an alert. Errors: those of keys and store, before anything was written; `store_lied`
 * for a listing without what is there; `object_conflict` for the store of another install, where this database writes elsewhere;
 * `place_changed` when others keep claiming.
 */
export async function settlePlace(deps: PlaceDeps, connection: Connection): Promise<Place> {
  for (let looks = 0; looks < mostLooks; looks++) {
    const identity = await readIdentity(connection);
    const place = identity.adopting
      ? await adopted(deps, connection, identity)
      : await settled(deps, connection, identity);
    if (place !== null) return place;
  }
  throw placeChanged("others keep writing where this database does");
}

/** As `settlePlace`, with a claim under the newest epoch whether or not one is due. Errors: as there. */
export async function claimAnew(deps: PlaceDeps, connection: Connection): Promise<Place> {
  const place = await settlePlace(deps, connection);
  const at = { ...deps, store: place.store };
  const number = await claim(at, connection, await readIdentity(connection), place.claim + 1, null);
  if (number === null) throw placeChanged("others write where this database does");
  return { ...place, claim: number };
}

/**
 * After something was put and before it counts: is the place still this database's? Whoever claims it looks at what is there
 * afterwards, so that either this look or that one finds the other. Errors: `place_changed`; those of the store.
 */
export async function assertPlace(deps: PlaceDeps, connection: Connection, place: Place): Promise<void> {
  if (!(await stillWritesTo(connection, place.prefix))) throw placeChanged("this database writes elsewhere since");
  if (await place.store.size(claimName(place.claim + 1)) === null) return;
  // A run and a drain claim beside each other.
  const last = await lastClaim({ ...deps, store: place.store });
  if (last?.claim != null && await isOurNonce(connection, last.claim.nonce)) return;
  throw placeChanged(`another database writes to ${place.store.label} since`);
}

/**
 * Puts an object by `put`, and takes it back where the place turns out to be another's; `created` says whether it is this
 * database's to take back. Errors: `place_changed`, those of `put` and the store.
 */
export async function putAtPlace<T extends { readonly outcome: "created" | "adopted" }>(
  deps: PlaceDeps,
  connection: Connection,
  place: Place,
  name: string,
  put: () => Promise<T>,
): Promise<T> {
  const result = await put();
  try {
    await assertPlace(deps, connection, place);
  } catch (error) {
    if (asHoldfastError(error).code === "place_changed" && result.outcome === "created") {
      await place.store.remove([name]);
    }
    throw error;
  }
  return result;
}

/** The newest claim at a place: its number, and null where it does not open; null where there is none. Errors: of keys and store. */
export async function lastClaim(
  at: Pick<PlaceDeps, "store" | "ring" | "compressor">,
): Promise<{ readonly number: number; readonly claim: Claim | null } | null> {
  const [number] = await claimNumbers(at.store);
  return number === undefined ? null : { number, claim: await claimAt(at, number) };
}

/** Null: something changed, and has to be looked at again. */
async function settled(deps: PlaceDeps, connection: Connection, identity: Identity): Promise<Place | null> {
  const { prefix } = identity;
  const at = { ...deps, store: placeIn(deps.store, prefix) };
  const state = await readClaimState(connection, at.store.label);
  const numbers = await claimNumbers(at.store);
  const found = await look(at, connection, state, numbers);
  const verdict = judge(identity, found);
  if (verdict.kind === "strange") {
    throw new HoldfastError("object_conflict", `${at.store.label} is not this database's: ${verdict.because}`, {
      hint: "Give this database a store of its own: another bucket, folder or prefix. Nothing was written.",
    });
  }
  if (verdict.kind === "copy") {
    deps.log.warn("identity.copy", { store: at.store.label, because: verdict.because });
    await becomeCopy(connection, prefix, verdict.because);
    return null;
  }
  if (found.newest?.isOurs === true && !state.isDue && !hasMoved(identity)) {
    return { prefix, store: at.store, claim: found.newest.number };
  }
  const number = await claim(at, connection, identity, Math.max(found.newest?.number ?? 0, state.held) + 1, null);
  if (number === null) return null;
  await dropOldClaims(at.store, numbers).catch((error: unknown) => {
    deps.log.warn("claims.kept", { code: asHoldfastError(error).code });
  });
  return { prefix, store: at.store, claim: number };
}

/** A person has said that this database takes the original's place, whoever has it. */
async function adopted(deps: PlaceDeps, connection: Connection, identity: Identity): Promise<Place | null> {
  try {
    if (isBelow(deps.store, identity.prefix)) {
      throw new HoldfastError("usage", "the store's address names the copy's own prefix, not the original's place");
    }
    const { held } = await readClaimState(connection, deps.store.label);
    const numbers = await claimNumbers(deps.store);
    const [newest = 0] = numbers;
    if (newest >= lastClaimNumber) {
      const name = claimName(newest);
      throw new HoldfastError("object_conflict", `${name} was forged, and no later claim can be made: remove it`);
    }
    const installs = await installsOf(deps, numbers);
    const number = await claim(deps, connection, identity, Math.max(newest, held) + 1, installs);
    return number === null ? null : { prefix: "", store: deps.store, claim: number };
  } catch (error) {
    const failure = asHoldfastError(error);
    if (failure.retry === "backoff") throw failure;
    await refuseAdoption(connection, `${failure.code}: ${failure.message}`);
    return null;
  }
}

/** Whoever has claimed the place, as far as its claims open: what they have signed is this database's from now on. */
async function installsOf(deps: PlaceDeps, numbers: readonly number[]): Promise<string[]> {
  const found = new Set<string>();
  for (const number of numbers) {
    const claim = await claimAt(deps, number);
    if (claim !== null) found.add(claim.install);
  }
  return [...found];
}

async function look(
  at: PlaceDeps,
  connection: Connection,
  { held, hasClaimed, hasAdopted }: ClaimState,
  [newest]: readonly number[],
): Promise<Found> {
  const here = { hasClaimed, hasClaimedHere: held > 0, hasAdoptedHere: hasAdopted };
  if (held > (newest ?? 0) && await at.store.size(claimName(held)) !== null) {
    throw new HoldfastError("store_lied", `${at.store.label} has ${claimName(held)} and does not list it`);
  }
  if (newest !== undefined) {
    const claim = await claimAt(at, newest);
    const isOurs = claim !== null && await isOurNonce(connection, claim.nonce);
    return { newest: { number: newest, claim, isOurs }, backup: null, ...here };
  }
  const [backup] = await listManifests(at.store);
  const project = backup === undefined ? null : await projectOfBackup(at, backup);
  if (backup === undefined || project === null) return { newest: null, backup: null, ...here };
  const known = await connection.query("select from backup.runs as r where r.id = $1::uuid", [backup.id]);
  return { newest: null, backup: { project, isKnown: known.length > 0 }, ...here };
}

async function claimAt(at: Pick<PlaceDeps, "store" | "ring" | "compressor">, number: number): Promise<Claim | null> {
  const repository = await readRepository(at.store);
  if (repository === null) {
    throw new HoldfastError("object_missing", `${repositoryName} is gone from ${at.store.label}`);
  }
  const epochOf = epochSource(at.store, at.ring, repository.id);
  return await readClaim({ store: at.store, compressor: at.compressor, epochOf }, number);
}

/**
 * Its number once it is held; null: another database, or another session of this one, was quicker. `adopts`: the installs whose
 * place it takes; null where it takes none.
 */
async function claim(
  at: PlaceDeps,
  connection: Connection,
  identity: Identity,
  number: number,
  adopts: readonly string[] | null,
): Promise<number | null> {
  const { id } = await openOrCreateRepository(at);
  const epoch = await currentEpoch(at, id);
  const nonce = await intendClaim(connection, { store: at.store.label, number, nonce: toHex(at.random(16)) });
  at.log.step("claim.intended", { number });
  const there = await putClaim(at, epoch, {
    number,
    nonce,
    install: identity.install,
    ref: identity.presentRef ?? identity.ref,
    ...identity.present,
    at: at.clock.now().toISOString().replace(/\.\d+Z$/, "Z"),
  });
  at.log.step("claim.put", { number });
  if (there?.nonce !== nonce) return null;
  await holdClaim(connection, nonce, adopts);
  return number;
}

export function placeChanged(why: string): HoldfastError {
  return new HoldfastError("place_changed", why);
}
