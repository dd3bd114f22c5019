/** What has to leave the stores once it was rewritten: noted before, and looked after until it is gone. */
import { epochSource } from "../../crypto/epochs.ts";
import { asHoldfastError } from "../../errors.ts";
import { prefixes } from "../../format/layout.ts";
import { type Manifest, objectsOf } from "../../format/manifest.ts";
import { openManifest } from "../../format/manifest_codec.ts";
import { readAhead } from "../../store/read_ahead.ts";
import type { Store } from "../../store/store.ts";
import { listBackups } from "../../verify/find_backup.ts";
import { partsOfFiles } from "../../verify/read_file_list.ts";
import { openStreamList } from "../../verify/stream_lists.ts";
import { lookAtLists } from "./look.ts";
import type { RewriteDeps } from "./rewrite_retained.ts";
import { type LeftOver, type Looked, readRemains, type Remain, settleRemains } from "./rewriting_queries.ts";
import type { ScannedFull } from "./scan_full.ts";

type PlacesDeps = Pick<RewriteDeps, "store" | "second">;

function placesOf({ store, second }: PlacesDeps): readonly Store[] {
  return second === null ? [store] : [store, second];
}

/** What the manifest named and names no more, in both stores, and what its name held before. Errors: those of the stores. */
export async function remainsOf(deps: PlacesDeps, { full, lists }: ScannedFull, manifest: Manifest): Promise<Remain[]> {
  const named = new Set(objectsOf(manifest).map(({ name }) => name));
  const gone = objectsOf(full.manifest).map(({ name }) => name).filter((name) => !named.has(name));
  const parts = [...lists.values()].flatMap((list) => list.parts);
  const through = manifest.rewritten?.through ?? 1;
  const after = full.manifest.rewritten?.through ?? 0;
  return [
    ...await objectRemains(deps, [...gone, ...parts], after, through),
    ...await earlierOf(deps, full.name, after, through),
  ];
}

/** Names that have to leave both stores. Errors: those of the stores. */
export async function objectRemains(
  deps: PlacesDeps,
  names: readonly string[],
  after: number,
  through: number,
): Promise<Remain[]> {
  const remains: Remain[] = [];
  for (const name of new Set(names)) {
    for (const place of placesOf(deps)) {
      const locked_until = await lockOf(place, name);
      remains.push({ store: place.label, name, what: "object", after, through, locked_until });
    }
  }
  return remains;
}

/** A store that can lock keeps versions: what the name held before has to go too. Errors: those of the stores. */
export async function earlierOf(deps: PlacesDeps, name: string, after: number, through: number): Promise<Remain[]> {
  const remains: Remain[] = [];
  for (const place of placesOf(deps)) {
    if (place.lock === null) continue;
    remains.push({
      store: place.label,
      name,
      what: "earlier",
      after,
      through,
      locked_until: await lockOf(place, name),
    });
  }
  return remains;
}

async function lockOf(store: Store, name: string): Promise<string | null> {
  if (store.lock === null || await store.size(name) === null) return null;
  return (await store.lock.retentionOf(name))?.until.toISOString() ?? null;
}

/**
 * Looks at everything that has to go, and takes what a store that keeps versions has of before under a name that was replaced, or
 * swept by retention. Parts of files that somebody else has too stay, and are theirs. What is left. Errors: those of stores and keys.
 */
export async function settleLeftOvers(deps: RewriteDeps, isComplete: boolean): Promise<LeftOver[]> {
  const { connection } = deps;
  const left = await readRemains(connection);
  const parts = left.filter(({ name }) => name.startsWith(prefixes.blobs));
  const others = isComplete && parts.length > 0 ? await partsNamed(deps) : new Set<string>();
  const looked: Looked[] = [];
  for (const one of left) {
    const place = placesOf(deps).find(({ label }) => label === one.store);
    if (place === undefined) continue;
    looked.push({ store: one.store, name: one.name, what: one.what, ...await look(place, one, others) });
  }
  await settleRemains(connection, looked);
  return await readRemains(connection);
}

async function look(
  store: Store,
  { name, what, replaced, lockedUntil }: LeftOver,
  others: ReadonlySet<string>,
): Promise<Pick<Looked, "gone" | "locked_until" | "why">> {
  const kept = (why: string) => ({ gone: false, locked_until: lockedUntil, why });
  const gone = { gone: true, locked_until: lockedUntil, why: null };
  if (what === "object") {
    if (others.has(name)) return gone;
    if (await store.size(name) !== null) return kept("retention sweeps it once nothing has named it for long enough");
  } else if (!replaced) return kept("the second store does not have what was put in its place");
  // Where versions are kept, what was removed is still there behind its marker.
  try {
    await store.lock?.forgetEarlier(name);
    return gone;
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    if (code !== "store_denied") throw error;
    return kept(message);
  }
}

/** Parts that files in any backup, or beside any segment, are made of. */
async function partsNamed(deps: RewriteDeps): Promise<Set<string>> {
  const reader = { ...deps, epochOf: epochSource(deps.store, deps.ring, deps.repositoryId) };
  const named = new Set<string>();
  for (const { name } of await listBackups(deps.store)) {
    const { manifest } = await openManifest(reader, name, await deps.store.read(name));
    for await (const parts of partsOfFiles(reader, manifest)) for (const { object } of parts) named.add(object);
  }
  const lists = await lookAtLists(deps.store);
  for await (const { object, bytes } of readAhead(deps.store, lists)) {
    const files = await openStreamList(reader, object.name, bytes);
    for (const { object } of files.flatMap(({ parts }) => parts)) named.add(object);
  }
  return named;
}
