/** A manifest whose objects were rewritten. Pure. */
import type { Manifest, ManifestChunk, ManifestFileList } from "../../format/manifest.ts";
import type { ChunkDone, ListDone } from "./hands.ts";

/** One key a chunk: two tables can have chunks of the same content. */
export const chunkKey = (oid: number, object: string): string => `${oid} ${object}`;

export interface RewrittenObjects {
  readonly chunks: ReadonlyMap<string, ChunkDone>;
  /** By the list's name. */
  readonly lists: ReadonlyMap<string, ListDone>;
}

const touched = ({ removed, changed }: ChunkDone): boolean => removed + changed > 0;

/** Null: nothing of it changes. `storedHash`: of its sealed bytes as they are. */
export function rewriteManifest(
  manifest: Manifest,
  storedHash: string,
  { chunks, lists }: RewrittenObjects,
  through: number,
): Manifest | null {
  const any = [...chunks.values()].some(touched) || [...lists.values()].some(({ list }) => list !== null);
  if (!any) return null;
  const tables = manifest.tables.map((table) => {
    const fresh = table.chunks.flatMap((chunk) => {
      const done = chunks.get(chunkKey(table.oid, chunk.object));
      return done === undefined || !touched(done) ? [chunk] : rewrittenChunk(chunk, done);
    });
    return {
      ...table,
      chunks: fresh,
      rows: sum(fresh, (one) => one.rows),
      rawBytes: sum(fresh, (one) => one.rawBytes),
    };
  });
  const files = manifest.files == null
    ? {}
    : { files: { ...manifest.files, lists: manifest.files.lists.map((list) => lists.get(list.object)?.list ?? list) } };
  const named = new Map(
    tables.flatMap((table) => table.chunks.map((chunk) => [chunk.object, chunk.storedBytes] as const)),
  );
  const newLists: readonly ManifestFileList[] = files.files?.lists ?? [];
  return {
    ...manifest,
    ...files,
    tables,
    rewritten: {
      revision: (manifest.rewritten?.revision ?? 0) + 1,
      original: manifest.rewritten?.original ?? storedHash,
      through,
    },
    totals: {
      ...manifest.totals,
      rows: sum(tables, (table) => table.rows),
      rawBytes: sum(tables, (table) => table.rawBytes),
      storedBytes: sum([...named.values()], (bytes) => bytes) + manifest.schemaObject.storedBytes +
        sum(newLists, (list) => list.storedBytes + list.partStoredBytes),
      objects: new Set([manifest.schemaObject.name, ...named.keys(), ...newLists.map(({ object }) => object)]).size,
    },
  };
}

function rewrittenChunk(chunk: ManifestChunk, { object, rows }: ChunkDone): ManifestChunk[] {
  if (object === null) return [];
  const { name, ...facts } = object;
  return [{ ...chunk, ...facts, object: name, rows, takenFrom: null }];
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
