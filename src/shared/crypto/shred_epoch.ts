/**
 * The end of an epoch: without its key file nothing that it sealed opens again, whoever holds the keys. docs/format.md,
 * "Epochs". Reuse and links stay within an epoch or go by hashes of headers, so that no other epoch is hurt.
 */
import { HoldfastError } from "../errors.ts";
import { decodeHeader } from "../format/container_header.ts";
import { epochName, prefixes } from "../format/layout.ts";
import { readAhead } from "../store/read_ahead.ts";
import type { Store } from "../store/store.ts";
import { isLedgerEpoch, listEpochs } from "./epochs.ts";

/** Names of what an epoch sealed in a store, but for the objects that its backups share: they follow their manifests. */
export interface SealedByEpoch {
  readonly manifests: readonly string[];
  readonly segments: readonly string[];
  readonly anchors: readonly string[];
  /** Of who writes to the store: a newer one under another epoch has to stand there before they go. */
  readonly claims: readonly string[];
}

/**
 * By the header of every manifest, segment, anchor and claim; nothing is opened, and no key is needed. `onRead`: how many were looked
 * at. Errors: those of the store; `object_damaged` and `format_newer` for a header that tells no epoch: what it belongs to is
 * not known, so nothing may be shredded.
 */
export async function sealedByEpoch(
  store: Store,
  epochId: string,
  onRead: (done: number, of: number) => void = () => {},
): Promise<SealedByEpoch> {
  const listed: { readonly name: string; readonly size: number }[] = [];
  for (const prefix of [prefixes.backups, prefixes.changes, prefixes.anchors, prefixes.claims]) {
    for await (const object of store.list(prefix)) listed.push(object);
  }
  const found: string[] = [];
  let done = 0;
  for await (const { object, bytes } of readAhead(store, listed)) {
    if (decodeHeader(bytes, object.name).epochId === epochId) found.push(object.name);
    onRead(++done, listed.length);
  }
  const under = (prefix: string) => found.filter((name) => name.startsWith(prefix)).sort();
  return {
    manifests: under(prefixes.backups),
    segments: under(prefixes.changes),
    anchors: under(prefixes.anchors),
    claims: under(prefixes.claims),
  };
}

/**
 * Whether the store has the epoch's key file. Errors: `forbidden` for the newest epoch, which seals what comes next, and for that of
 * the erasure ledger; those of the store.
 */
export async function mayBeShredded(store: Store, epochId: string): Promise<boolean> {
  if (isLedgerEpoch(epochId)) {
    throw new HoldfastError(
      "forbidden",
      `epoch ${epochId} seals the erasure ledger: without it erased people come back`,
      {
        hint: "It seals no backup. It stays as long as the store does.",
      },
    );
  }
  const epochs = await listEpochs(store);
  if (epochs.at(-1) === epochId) {
    throw new HoldfastError("forbidden", `epoch ${epochId} seals what is written now: it cannot be shredded`, {
      hint: "A new epoch begins at the latest after 30 days.",
    });
  }
  return epochs.includes(epochId);
}

/** Where databases that are copies write: below the top of a store, each with a repository and keys of its own. */
export interface PlacesOfCopies {
  /** `clone-<8 hex>`. */
  readonly prefixes: readonly string[];
  /** Key files of the epoch in other places than the one that was asked about: it would open by each of them. */
  readonly keyFiles: readonly string[];
}

const copyName = /^(clone-[0-9a-f]{8})\/(.*)$/s;

/**
 * `top`: the store as it is set; `prefix`: the place below it that is asked about, '' for the top itself. No epoch is in two
 * places unless somebody has put it there: ids are random. Errors: those of the store.
 */
export async function placesOfCopies(top: Store, prefix: string, epochId: string): Promise<PlacesOfCopies> {
  const key = epochName(epochId);
  const prefixes = new Set<string>();
  const keyFiles = prefix !== "" && await top.size(key) !== null ? [key] : [];
  for await (const { name } of top.list("clone-")) {
    const [, place = "", rest] = copyName.exec(name) ?? [];
    if (place === "" || place === prefix) continue;
    prefixes.add(place);
    if (rest === key) keyFiles.push(name);
  }
  return { prefixes: [...prefixes].sort(), keyFiles: keyFiles.sort() };
}

/**
 * Removes manifests, segments, anchors and claims, then the key file, from every store that has a copy of it, and looks that each is
 * gone: by its name and in the listing. Safe to repeat. Errors: those of the stores; `store_lied` where something is still
 * there.
 */
export async function shredEpoch(
  stores: readonly Store[],
  epochId: string,
  { manifests, segments, anchors, claims }: SealedByEpoch,
): Promise<void> {
  const key = epochName(epochId);
  for (const store of stores) {
    for (const names of [manifests, segments, anchors, claims, [key]]) {
      if (names.length > 0) await store.remove(names);
    }
    const left = new Set<string>();
    for (const prefix of Object.values(prefixes)) {
      if (prefix === prefixes.objects || prefix === prefixes.blobs) continue;
      for await (const { name } of store.list(prefix)) left.add(name);
    }
    const kept = [key, ...manifests, ...segments, ...anchors, ...claims].find((name) => left.has(name)) ??
      (await store.size(key) === null ? undefined : key);
    if (kept !== undefined) {
      throw new HoldfastError("store_lied", `${kept} was removed from ${store.label} and is still there`, {
        hint: "An object lock or a version that is kept may hold it; run the same command again once it is lifted.",
      });
    }
  }
}
