/** A manifest that was rewritten, as the database has to know it: what differs from what it knows. */
import { sha256Hex } from "../../crypto/digest.ts";
import { HoldfastError } from "../../errors.ts";
import { fileListsOf, type Manifest, type ManifestChunk } from "../../format/manifest.ts";
import { openManifest } from "../../format/manifest_codec.ts";
import type { LookDeps } from "./look.ts";
import { type KnownChunk, rangeKey, readKnownObjects, recordRewritten } from "./rewriting_queries.ts";

/** By its name, as it stands in the store. In the transaction that is open. Errors: those of `openManifest` and the connection. */
export async function recordManifest(deps: LookDeps, name: string): Promise<void> {
  const bytes = await deps.store.read(name);
  const { manifest } = await openManifest(deps, name, bytes);
  const { rewritten } = manifest;
  if (rewritten === undefined) throw new HoldfastError("internal", `${name} was not rewritten`);
  const known = await readKnownObjects(deps.connection, name);
  const chunks = known === null ? [] : differing(manifest, known.chunks);
  const lists = fileListsOf(manifest).flatMap((list, at) => {
    const before = known?.lists[at];
    return before === undefined || before === list.object ? [] : [{ before, list }];
  });
  const record = (
    kind: string,
    one: Pick<ManifestChunk, "object" | "rawBytes" | "storedBytes" | "hash" | "storedHash">,
  ) => ({
    name: one.object,
    kind,
    raw_bytes: one.rawBytes,
    stored_bytes: one.storedBytes,
    hash: one.hash,
    stored_hash: one.storedHash,
    epoch: manifest.epoch,
    created: true,
  });
  const fresh = new Set(chunks.map(({ object }) => object));
  const facts = {
    name,
    ...rewritten,
    hash: await sha256Hex(bytes),
    stored_bytes: bytes.byteLength,
    rows: manifest.totals.rows,
    raw_bytes: manifest.totals.rawBytes,
    total_bytes: manifest.totals.storedBytes,
    chunks,
    lists,
    objects: [
      ...manifest.tables.flatMap((table) => table.chunks).filter(({ object }) => fresh.has(object))
        .map((chunk) => record("chunk", chunk)),
      ...lists.map(({ list }) => record("files", list)),
    ],
  };
  await recordRewritten(deps.connection, "backup", facts);
}

function differing({ tables }: Manifest, known: readonly KnownChunk[]) {
  const now = new Map(
    tables.flatMap(({ oid, chunks }) =>
      chunks.map((chunk) => [rangeKey(oid, chunk.fromBlock, chunk.fromItem ?? 0), chunk] as const)
    ),
  );
  return known.flatMap(({ key, object }) => {
    const chunk = now.get(key);
    if (chunk?.object === object) return [];
    const [table_oid, from_block, from_item] = key.split(" ").map(Number);
    return [{
      table_oid,
      from_block,
      from_item,
      object: chunk?.object ?? null,
      rows: chunk?.rows ?? 0,
      raw_bytes: chunk?.rawBytes ?? 0,
      stored_bytes: chunk?.storedBytes ?? 0,
      hash: chunk?.hash ?? null,
      stored_hash: chunk?.storedHash ?? null,
    }];
  });
}
