/** Every sealed object of a store, opened and searched for what names a person. */
import { decodeMessage, messageKind, relationOf } from "../../changes/decode/pgoutput.ts";
import { decodeSegment, readRecords } from "../../changes/segments/segment.ts";
import type { EpochSource } from "../../crypto/epoch.ts";
import { HoldfastError } from "../../errors.ts";
import type { Compressor } from "../../format/compressor.ts";
import { open } from "../../format/container.ts";
import { decodeHeader, type ObjectKind } from "../../format/container_header.ts";
import { decodeFileList } from "../../format/file_list.ts";
import { prefixes } from "../../format/layout.ts";
import { objectsOf } from "../../format/manifest.ts";
import { openManifest } from "../../format/manifest_codec.ts";
import { nameOf } from "../../rows/past/fold_partitions.ts";
import type { Store } from "../../store/store.ts";
import { listBackups } from "../../verify/find_backup.ts";
import { inParallel } from "../rewrite/scan_full.ts";
import { type Forms, holds } from "./forms.ts";

/** Where something of the person still stands, in what is not theirs. */
export interface Found {
  readonly object: string;
  readonly what: "rows" | "changes" | "definition" | "file" | "list of files" | "record";
  readonly table: string | null;
  /** Rows, changes, or 1. */
  readonly count: number;
}

export interface Searched {
  readonly objects: number;
  readonly rawBytes: number;
  readonly found: readonly Found[];
  /** Names in which something stands and that no backup and no list names: they are to be swept. */
  readonly unnamed: readonly string[];
}

export interface SearchDeps {
  readonly store: Store;
  readonly compressor: Compressor;
  readonly epochOf: EpochSource;
  readonly signal?: AbortSignal;
  readonly onProgress?: (at: { readonly label: string; readonly done: number; readonly total: number }) => void;
}

/** Of rows and of what rows are found in. Key files, claims, and the ledger with its terms hold no row of anybody. */
const searched = [prefixes.objects, prefixes.blobs, prefixes.changes, prefixes.backups, prefixes.anchors];
const maxBytes = 1_200 * 1024 * 1024;
/** In memory at once. */
const atOnce = 2;

/** Errors: those of keys and store: what does not open was not searched, and nothing is proved. */
export async function searchStore(deps: SearchDeps, forms: Forms): Promise<Searched> {
  const names: { readonly name: string; readonly size: number }[] = [];
  for (const prefix of searched) for await (const one of deps.store.list(prefix)) names.push(one);
  const { tables, named } = await namesOf(deps);
  const isNamed = (name: string) => !name.startsWith(prefixes.objects) || named.has(name);
  const total = names.reduce((sum, { size }) => sum + size, 0);
  const found: Found[] = [];
  const unnamed: string[] = [];
  const parts = new Set<string>();
  const blobs: string[] = [];
  let [rawBytes, done] = [0, 0];
  await inParallel(names, atOnce, deps.signal, async ({ name, size }) => {
    const bytes = await deps.store.read(name);
    const { kind } = decodeHeader(bytes, name);
    const plain = await open(deps, { kind, name, bytes, maxBytes });
    rawBytes += plain.byteLength;
    done += size;
    deps.onProgress?.({ label: "searching", done, total });
    if (kind === "files") {
      for (const { object } of decodeFileList(plain, name).flatMap((file) => file.parts)) parts.add(object);
    }
    if (!holds(plain, forms)) return;
    if (kind === "blob") blobs.push(name);
    else if (isNamed(name)) found.push(...where(kind, name, plain, tables.get(name) ?? null, forms));
    else unnamed.push(name);
  });
  // Every list was opened by now.
  for (const object of blobs) {
    if (parts.has(object)) found.push({ object, what: "file", table: null, count: 1 });
    else unnamed.push(object);
  }
  const order = (a: Found, b: Found) => a.object < b.object ? -1 : a.object > b.object ? 1 : 0;
  return { objects: names.length, rawBytes, found: found.sort(order), unnamed: unnamed.sort() };
}

/** What manifests name, and which table a chunk holds rows of. */
async function namesOf(
  deps: SearchDeps,
): Promise<{ readonly tables: ReadonlyMap<string, string>; readonly named: ReadonlySet<string> }> {
  const tables = new Map<string, string>();
  const named = new Set<string>();
  for (const { name } of await listBackups(deps.store)) {
    const { manifest } = await openManifest(deps, name, await deps.store.read(name));
    for (const table of manifest.tables) for (const { object } of table.chunks) tables.set(object, nameOf(table));
    for (const object of objectsOf(manifest)) named.add(object.name);
  }
  return { tables, named };
}

function where(kind: ObjectKind, object: string, plain: Uint8Array, table: string | null, forms: Forms): Found[] {
  switch (kind) {
    case "chunk":
      return [{ object, what: "rows", table, count: countLines(plain, forms) }];
    case "segment":
      return inSegment(object, plain, forms);
    case "schema":
      return [{ object, what: "definition", table: null, count: 1 }];
    case "files":
      return [{ object, what: "list of files", table: null, count: 1 }];
    case "manifest":
    case "anchor":
      return [{ object, what: "record", table: null, count: 1 }];
    case "blob":
    case "claim":
    case "erasure":
    case "terms":
      throw new HoldfastError("object_damaged", `${object} is a ${kind}, which does not belong there`);
  }
}

function countLines(text: Uint8Array, forms: Forms): number {
  let count = 0;
  for (let at = 0; at < text.length;) {
    const found = text.indexOf(0x0a, at);
    const end = found < 0 ? text.length : found;
    if (holds(text.subarray(at, end), forms)) count++;
    at = end + 1;
  }
  return Math.max(count, 1);
}

function inSegment(name: string, plain: Uint8Array, forms: Forms): Found[] {
  const { records } = decodeSegment(name, plain);
  const names = new Map<number, string>();
  const counts = new Map<string, number>();
  for (const { data } of readRecords(name, records)) {
    if (messageKind(data) === "relation") {
      const message = decodeMessage(data);
      if (message.kind === "relation") names.set(message.relation.oid, nameOf(message.relation));
    }
    if (!holds(data, forms)) continue;
    const table = names.get(relationOf(data) ?? 0) ?? "";
    counts.set(table, (counts.get(table) ?? 0) + 1);
  }
  if (counts.size === 0) counts.set("", 1);
  return [...counts].map(([table, count]) => ({ object: name, what: "changes", table: table || null, count }));
}
