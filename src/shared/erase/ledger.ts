/** The erasure ledger of a store: read as a whole before a restore, and only ever added to. docs/format.md, "Erasures". */
import { epochSource, ledgerEpoch } from "../crypto/epochs.ts";
import { sameBytes } from "../crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { erasureName, parseErasureName, prefixes } from "../format/layout.ts";
import { decodeHeader } from "../format/container_header.ts";
import { readRepository } from "../format/repository.ts";
import type { Random } from "../random.ts";
import { readAhead } from "../store/read_ahead.ts";
import type { Store } from "../store/store.ts";
import type { ReadDeps } from "../verify/find_backup.ts";
import { type LedgerEntry, openEntry, sealEntry } from "./entry.ts";
import { type HashKey, hashKeyOf } from "./hashes.ts";

export interface Ledger {
  readonly entries: readonly LedgerEntry[];
  /** Of every epoch that an entry is sealed with: one, unless two were made at once. */
  readonly keys: readonly HashKey[];
}

/**
 * All of it; empty where nobody was erased. `known`: the number of the newest entry that the database has on record, 0 for none:
 * a store that has fewer lost some. Errors: `ledger_unreadable` for an entry that is missing, damaged or sealed for keys that
 * are not here; those of the store.
 */
export async function readLedger({ store, ring, compressor }: ReadDeps, known = 0): Promise<Ledger> {
  const objects = await listEntries(store);
  objects.forEach(({ number }, at) => {
    if (number !== at + 1) throw unreadable(store, `${erasureName(at + 1)} is missing`);
  });
  if (objects.length < known) throw unreadable(store, `${erasureName(objects.length + 1)} is missing`);
  if (objects.length === 0) return { entries: [], keys: [] };
  const repository = await readRepository(store);
  if (repository === null) throw unreadable(store, "v1/repository.json is missing");
  const epochOf = epochSource(store, ring, repository.id);
  const entries: LedgerEntry[] = [];
  const epochs = new Set<string>();
  try {
    for await (const { object, bytes } of readAhead(store, objects)) {
      entries.push(await openEntry({ compressor, epochOf }, object.number, bytes));
      epochs.add(decodeHeader(bytes, object.name).epochId);
    }
    const keys: HashKey[] = [];
    for (const id of epochs) keys.push(await hashKeyOf(await epochOf(id)));
    return { entries, keys };
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    if (!damage.has(code)) throw error;
    throw unreadable(store, message, error);
  }
}

const damage: ReadonlySet<string> = new Set(["object_damaged", "object_missing", "format_newer", "key_wrong"]);

function unreadable(store: Store, why: string, cause?: unknown): HoldfastError {
  return new HoldfastError(
    "ledger_unreadable",
    `the erasure ledger of ${store.label} cannot be read, so people who were erased could come back: ${why}`,
    cause === undefined ? {} : { cause },
  );
}

/** In the order of their numbers. */
async function listEntries(store: Store): Promise<{ number: number; name: string; size: number }[]> {
  const found: { number: number; name: string; size: number }[] = [];
  for await (const { name, size } of store.list(prefixes.erasures)) {
    const number = parseErasureName(name);
    if (number !== null) found.push({ number, name, size });
  }
  return found.sort((a, b) => a.number - b.number);
}

/** How many entries there are. Errors: those of the store. */
export async function countEntries(store: Store): Promise<number> {
  return (await listEntries(store)).length;
}

export interface PutDeps extends ReadDeps {
  readonly random: Random;
  readonly repositoryId: string;
}

/** The key for the hashes of new entries; makes the ledger's epoch where there is none. Errors: those of keys and store. */
export async function keyOfNew(deps: PutDeps): Promise<HashKey> {
  return await hashKeyOf(await ledgerEpoch(deps, deps.repositoryId));
}

/**
 * Adds an entry under the next free number, in the store and read back. Returns its number. Whoever takes the number first
 * keeps it. Errors: `store_lied`, those of keys and store.
 */
export async function putEntry(deps: PutDeps, entry: Omit<LedgerEntry, "number">): Promise<number> {
  const { store } = deps;
  const epoch = await ledgerEpoch(deps, deps.repositoryId);
  for (let number = await countEntries(store) + 1;; number++) {
    const name = erasureName(number);
    const sealed = await sealEntry(deps, epoch, { ...entry, number });
    if (await store.create(name, sealed) === "existed") {
      // Our own, where only the answer was lost.
      if (!sameBytes(await store.read(name), sealed)) continue;
    } else if (!sameBytes(await store.read(name), sealed)) {
      throw new HoldfastError("store_lied", `${store.label} gave back other bytes than were written to ${name}`);
    }
    return number;
  }
}
