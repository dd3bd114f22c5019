/** A small repository in memory with one epoch, and a sound manifest. The same on every run. */
import type { Clock } from "../../src/shared/clock.ts";
import { currentEpoch, epochSource } from "../../src/shared/crypto/epochs.ts";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Manifest } from "../../src/shared/format/manifest.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import type { Random } from "../../src/shared/random.ts";
import { createMemoryStore } from "../contract/memory_store.ts";

/** Bytes that repeat for a seed and never within a run. For tests only: anybody can guess them. */
export function seeded(seed: number): Random {
  let state = seed >>> 0 || 1;
  return (length) =>
    Uint8Array.from({ length }, () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state & 0xff;
    });
}

/** A whole number from 0 up to but not including `limit`. */
export function pick(random: Random, limit: number): number {
  const bytes = random(4);
  return new DataView(bytes.buffer).getUint32(0) % limit;
}

export function clockAt(iso: string): Clock & { set(iso: string): void } {
  let now = Date.parse(iso);
  return {
    now: () => new Date(now),
    monotonicMs: () => now,
    sleep: (ms) => Promise.resolve(void (now += ms)),
    set: (next) => void (now = Date.parse(next)),
  };
}

export async function world(seed = 1) {
  const random = seeded(seed);
  const clock = clockAt("2026-11-21T18:45:00Z");
  const store = createMemoryStore();
  const key = generateKey(random);
  const ring = parseKeyRing(key.entry);
  const repository = await openOrCreateRepository({ store, clock, random });
  const epoch = await currentEpoch({ store, ring, clock, random }, repository.id);
  const compressor = await loadZstd();
  return {
    random,
    clock,
    store,
    key,
    ring,
    repository,
    epoch,
    compressor,
    sealDeps: { random, compressor },
    openDeps: { compressor, epochOf: epochSource(store, ring, repository.id) },
  };
}

export async function failureOf(act: Promise<unknown> | (() => unknown)): Promise<HoldfastError> {
  try {
    await (typeof act === "function" ? act() : act);
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error("this should have failed");
}

const name = (hex: string) => `v1/objects/${hex.repeat(32).slice(0, 2)}/${hex.repeat(32)}`;

export function sampleManifest(facts: { repositoryId: string; epoch: string }): Manifest {
  const chunk = {
    object: name("ab"),
    rows: 3,
    rawBytes: 30,
    storedBytes: 100,
    hash: "11".repeat(32),
    storedHash: "22".repeat(32),
    fromBlock: 0,
    toBlock: 4,
    takenFrom: null,
  };
  return {
    format: "holdfast/manifest",
    version: 1,
    id: "7b0c2f6e-8a51-4a39-b7f5-2f2b8b2f6a10",
    tiers: ["daily", "weekly"],
    repositoryId: facts.repositoryId,
    project: { ref: null, systemIdentifier: "7300000000000000001", database: "postgres" },
    previousManifest: null,
    generation: 1,
    createdAt: "2026-11-21T18:45:00.123Z",
    consistentAt: "2026-11-21T18:45:01.456Z",
    snapshot: { text: "100:105:101", walInsertLsn: "16/B374D848" },
    server: { versionNum: 150020, encoding: "UTF8", collate: "C.UTF-8", ctype: "C.UTF-8" },
    holdfastVersion: "0.1.0",
    epoch: facts.epoch,
    schemaObject: {
      name: name("cd"),
      rawBytes: 10,
      storedBytes: 90,
      hash: "33".repeat(32),
      storedHash: "44".repeat(32),
    },
    tables: [{
      schema: "public",
      name: 'Odd "Name"\tü',
      oid: 16400,
      relfilenode: 16400,
      columns: [{ name: "id", type: "bigint" }, { name: "body", type: "text" }],
      rows: 5,
      rawBytes: 50,
      fingerprint: "f",
      dataOwner: "user",
      chunks: [chunk, { ...chunk, object: name("ef"), rows: 2, rawBytes: 20, fromBlock: 4, toBlock: null }],
    }],
    sequences: [{ schema: "public", name: "s", lastValue: "-9223372036854775808", isCalled: true }],
    largeObjects: [],
    warnings: [{ code: "large_objects", message: "one" }],
    notCaptured: [{ catalog: "pg_largeobject_metadata", identity: "1", reason: "not yet" }],
    totals: { tables: 1, rows: 5, rawBytes: 50, storedBytes: 290, newStoredBytes: 290, objects: 3 },
  };
}
