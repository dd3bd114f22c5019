/** What is kept in the first store, opened as far as a rewriting has to know it. */
import { type ListedSegment, listSegments } from "../../changes/segments/chain_reader.ts";
import { openSegment, readRecords } from "../../changes/segments/segment.ts";
import { decodeMessage, messageKind } from "../../changes/decode/pgoutput.ts";
import type { EpochSource } from "../../crypto/epoch.ts";
import { openManifest } from "../../format/manifest_codec.ts";
import { parseFileListName, prefixes } from "../../format/layout.ts";
import type { Connection } from "../../postgres/connection.ts";
import { nameOf } from "../../rows/past/fold_partitions.ts";
import type { Store } from "../../store/store.ts";
import { decodeCapture } from "../../verify/decode_capture.ts";
import { listBackups, type ReadDeps } from "../../verify/find_backup.ts";
import { readObject } from "../../verify/read_object.ts";
import type { BackupFacts } from "./plan_rewriting.ts";
import { readKnownBackups } from "./rewriting_queries.ts";
import type { FullToScan } from "./scan_full.ts";

export interface LookDeps extends ReadDeps {
  readonly connection: Connection;
  readonly epochOf: EpochSource;
}

/** `isRecorded`: the database knows of its rewriting; else somebody was killed between the two. */
export interface SeenBackup extends BackupFacts {
  readonly isRecorded: boolean;
}

/** Every manifest of the store. Errors: those of `openManifest` and the store: what cannot be opened cannot be rewritten. */
export async function lookAtBackups(deps: LookDeps): Promise<SeenBackup[]> {
  const known = await readKnownBackups(deps.connection);
  const found: SeenBackup[] = [];
  for (const { name } of await listBackups(deps.store)) {
    const { manifest } = await openManifest(deps, name, await deps.store.read(name));
    const { through = 0, hold = null } = known.get(name) ?? {};
    const says = manifest.rewritten?.through ?? 0;
    found.push({
      name,
      consistentAt: new Date(manifest.consistentAt),
      through: Math.max(through, says),
      hold,
      isRecorded: !known.has(name) || says <= through,
    });
  }
  return found;
}

/** Errors: as those of `lookAtBackups`. */
export async function openFull(
  deps: LookDeps,
  name: string,
  { entries, isHeld }: Pick<FullToScan, "entries" | "isHeld">,
): Promise<FullToScan> {
  const { manifest, storedHash } = await openManifest(deps, name, await deps.store.read(name));
  const { name: object, rawBytes, hash } = manifest.schemaObject;
  const capture = decodeCapture(await readObject(deps, { kind: "schema", name: object, rawBytes, hash }), object);
  return { name, storedHash, manifest, capture, entries, isHeld };
}

/** Segments by chain that may hold somebody of the entries up to `through`, with all parts of their ranges. */
export async function lookAtSegments(
  store: Store,
  known: KnownNames,
  through: number,
): Promise<Map<string, readonly ListedSegment[]>> {
  const chains = new Map<string, readonly ListedSegment[]>();
  for (const [chain, segments] of await listSegments(store)) {
    const range = ({ startLsn, endLsn }: ListedSegment) => `${startLsn}-${endLsn}`;
    const ranges = new Set(segments.filter(({ name }) => isDue(known.get(name), through)).map(range));
    const due = segments.filter((one) => ranges.has(range(one)));
    if (due.length > 0) chains.set(chain, due);
  }
  return chains;
}

/** Every list of files beside segments. Errors: those of the store. */
export async function lookAtLists(store: Store): Promise<{ readonly name: string; readonly size: number }[]> {
  const lists: { readonly name: string; readonly size: number }[] = [];
  for await (const one of store.list(prefixes.changes)) if (parseFileListName(one.name) !== null) lists.push(one);
  return lists;
}

/** Names of those that may hold files of somebody of the entries up to `through`. Errors: those of the store. */
export async function lookAtDueLists(store: Store, known: KnownNames, through: number): Promise<string[]> {
  return (await lookAtLists(store)).map(({ name }) => name).filter((name) => isDue(known.get(name), through));
}

type KnownNames = ReadonlyMap<string, { readonly through: number; readonly isBehind: boolean }>;

/** What the database does not know may be from any time. */
const isDue = (one: { readonly through: number; readonly isBehind: boolean } | undefined, through: number): boolean =>
  one === undefined || (!one.isBehind && one.through < through);

/** Does the stream tell rows of any table by something else than its primary key? */
export function hasOtherIdentities({ definitions }: FullToScan["capture"]): boolean {
  return definitions.some(({ statements }) => statements.some((one) => /replica identity using index/i.test(one)));
}

/** The columns by which it does, by `nameOf`: as the stream itself describes its tables. */
export async function readStreamKeys(
  deps: Pick<LookDeps, "store" | "compressor" | "epochOf">,
  segments: readonly ListedSegment[],
): Promise<Map<string, readonly (readonly string[])[]>> {
  const keys = new Map<string, readonly (readonly string[])[]>();
  for (const { name } of segments) {
    const { records } = await openSegment(deps, name, await deps.store.read(name));
    for (const { data } of readRecords(name, records)) {
      if (messageKind(data) !== "relation") continue;
      const message = decodeMessage(data);
      if (message.kind !== "relation" || message.relation.identity !== "index") continue;
      const columns = message.relation.columns.filter(({ isKey }) => isKey).map((column) => column.name).sort();
      const known = keys.get(nameOf(message.relation)) ?? [];
      if (!known.some((one) => one.join("\0") === columns.join("\0"))) {
        keys.set(nameOf(message.relation), [...known, columns]);
      }
    }
  }
  return keys;
}
