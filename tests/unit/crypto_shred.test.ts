import { describe, expect, it } from "vitest";
import { isLedgerEpoch, listEpochs, newEpoch, openEpoch, rewrap } from "../../src/shared/crypto/epochs.ts";
import { mayBeShredded, sealedByEpoch, shredEpoch } from "../../src/shared/crypto/shred_epoch.ts";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { putEntry, readLedger } from "../../src/shared/erase/ledger.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { seal } from "../../src/shared/format/container.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { failureOf, world } from "./format_fixture.ts";

const names = {
  manifest: "v1/backups/20260101T000000Z-daily-6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01/manifest",
  segment: "v1/changes/c1/0000000000000001-0000000000000002",
  anchor: `v1/anchors/6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01/000000000000001-${"ab".repeat(32)}`,
} as const;

/** Two epochs, the older with a manifest, a segment and an anchor, the newer with a segment. */
async function twoEpochs() {
  const { store, random, clock, repository } = await world();
  const ring = parseKeyRing(generateKey(random).entry);
  const compressor = await loadZstd();
  const older = await newEpoch({ store, ring, clock, random }, repository.id);
  const later = { ...clock, now: () => new Date(clock.now().getTime() + 60_000) };
  const newer = await newEpoch({ store, ring, clock: later, random }, repository.id);
  const put = async (epoch: typeof older, kind: keyof typeof names, name: string) => {
    const plaintext = new TextEncoder().encode(name);
    await store.create(name, await seal({ random, compressor }, epoch, { kind, name, plaintext }));
  };
  for (const kind of ["manifest", "segment", "anchor"] as const) await put(older, kind, names[kind]);
  await put(newer, "segment", "v1/changes/c1/0000000000000002-0000000000000003");
  return { store, ring, repository, older, newer };
}

describe("shredding an epoch", () => {
  it("finds what it sealed by the headers, without a key, and nothing of another epoch", async () => {
    const { store, older, newer } = await twoEpochs();
    expect(await sealedByEpoch(store, older.id)).toEqual({
      manifests: [names.manifest],
      segments: [names.segment],
      anchors: [names.anchor],
      claims: [],
    });
    expect(await sealedByEpoch(store, newer.id)).toMatchObject({ manifests: [], anchors: [] });
    expect(await mayBeShredded(store, older.id)).toBe(true);
    expect(await mayBeShredded(store, "e20200101T000000Z-00000000")).toBe(false);
    expect(await failureOf(mayBeShredded(store, newer.id))).toMatchObject({ code: "forbidden" });
  });

  it("never is that of the erasure ledger, which rotation wraps anew", async () => {
    const { random, clock } = await world();
    const store = createMemoryStore();
    const repository = await openOrCreateRepository({ store, clock, random });
    const [old, fresh] = [generateKey(random).entry, generateKey(random).entry];
    const compressor = await loadZstd();
    const deps = { store, random, clock, compressor, repositoryId: repository.id };
    const entry = { erasure: "6f1c8c7e-1111-4c4e-9c36-5f1f4a1f7a01", at: "2026-01-01T00:00:00Z", map: emptyMap };
    await putEntry({ ...deps, ring: parseKeyRing(old) }, { ...entry, rows: [], hashes: ["ab".repeat(16)] });
    const [ledgers = ""] = (await listEpochs(store)).filter(isLedgerEpoch);
    expect(await failureOf(mayBeShredded(store, ledgers))).toMatchObject({ code: "forbidden" });
    const before = await readLedger({ ...deps, ring: parseKeyRing(old) });
    await rewrap({ ...deps, ring: parseKeyRing(`${fresh},${old}`) }, repository.id);
    await rewrap({ ...deps, ring: parseKeyRing(fresh) }, repository.id);
    expect(await readLedger({ ...deps, ring: parseKeyRing(fresh) })).toEqual(before);
  });

  it("removes it from every store that has a copy, and leaves the other epoch as it was", async () => {
    const { store, ring, repository, older, newer } = await twoEpochs();
    const copy = createMemoryStore();
    for (const [name, bytes] of store.objects) copy.objects.set(name, bytes);
    await shredEpoch([store, copy], older.id, await sealedByEpoch(store, older.id));
    for (const one of [store, copy]) {
      expect(await failureOf(openEpoch(one, ring, repository.id, older.id))).toMatchObject({ code: "key_wrong" });
      await openEpoch(one, ring, repository.id, newer.id);
      expect([...one.objects.keys()].filter((name) => name.startsWith("v1/changes/"))).toHaveLength(1);
    }
    await shredEpoch([store, copy], older.id, await sealedByEpoch(store, older.id));
  });

  it("does not believe a store that keeps what was removed, whatever it is", async () => {
    for (const kept of [/^v1\/keys\//, /^v1\/backups\//, /^v1\/anchors\//]) {
      const { store, older } = await twoEpochs();
      const locked: Store = { ...store, remove: (all) => store.remove(all.filter((name) => !kept.test(name))) };
      const sealed = await sealedByEpoch(store, older.id);
      expect(await failureOf(shredEpoch([locked], older.id, sealed))).toMatchObject({ code: "store_lied" });
    }
  });

  it("removes nothing while an object does not say whose it is", async () => {
    const { store, older } = await twoEpochs();
    store.objects.set(names.segment, new Uint8Array(100));
    expect(await failureOf(sealedByEpoch(store, older.id))).toMatchObject({ code: "object_damaged" });
  });
});
