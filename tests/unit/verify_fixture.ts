/** A backup made without a database: two small tables, one of them with two chunks. */
import type { Clock } from "../../src/shared/clock.ts";
import { sha256Hex } from "../../src/shared/crypto/digest.ts";
import type { Epoch } from "../../src/shared/crypto/epoch.ts";
import { newEpoch } from "../../src/shared/crypto/epochs.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import type { Compressor } from "../../src/shared/format/compressor.ts";
import { seal } from "../../src/shared/format/container.ts";
import type { Manifest } from "../../src/shared/format/manifest.ts";
import { sealManifest } from "../../src/shared/format/manifest_codec.ts";
import { objectName } from "../../src/shared/format/object_name.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { silentLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import type { SchemaCapture } from "../../src/shared/schema/capture_format.ts";
import type { VerifyDeps } from "../../src/shared/verify/run.ts";
import { createMemoryStore, type MemoryStore } from "../contract/memory_store.ts";

export const fixtureKeys = `k-test:${"A".repeat(42)}E`;

/** Stands still unless a test moves it. */
export function stoppedClock(iso: string): Clock {
  return { now: () => new Date(iso), monotonicMs: () => 0, sleep: () => Promise.resolve() };
}

export interface SmallBackup {
  readonly store: MemoryStore;
  readonly epoch: Epoch;
  readonly deps: VerifyDeps;
  readonly manifest: Manifest;
  readonly manifestName: string;
  /** Names of the chunks: two of `letters`, one of `nothing`. */
  readonly chunks: readonly string[];
}

export async function makeSmallBackup(
  store = createMemoryStore(),
  at = "2026-11-21T10:00:00Z",
  warnings: Manifest["warnings"] = [],
): Promise<SmallBackup> {
  const clock = stoppedClock(at);
  const ring = parseKeyRing(fixtureKeys);
  const compressor = await sharedZstd();
  const random = webCryptoRandom;
  const repository = await openOrCreateRepository({ store, clock, random });
  const epoch = await newEpoch({ store, ring, clock, random }, repository.id);
  const put = async (kind: "chunk" | "schema", text: string) => {
    const plaintext = new TextEncoder().encode(text);
    const { name, hash } = await objectName(epoch, kind, plaintext);
    const sealed = await seal({ random, compressor }, epoch, { kind, name, plaintext });
    await store.create(name, sealed);
    return {
      name,
      hash,
      rawBytes: plaintext.byteLength,
      storedBytes: sealed.byteLength,
      storedHash: await sha256Hex(sealed),
    };
  };
  const chunk = async (text: string) => {
    const { name, ...rest } = await put("chunk", text);
    const rows = text.split("\n").length - 1;
    return { object: name, rows, ...rest, fromBlock: 0, toBlock: null, takenFrom: null };
  };
  const letters = [await chunk(`1\ta${at}\n2\tb\\nc\n`), await chunk(`3\t\\N\n${"4\tdddddddddddddddd\n".repeat(20)}`)];
  const nothing = [await chunk("\n\n\n")];
  const schemaObject = await put("schema", JSON.stringify(emptyCapture));
  const tables = [
    table("letters", 16385, ["id", "letter"], letters),
    table("nothing", 16386, [], nothing),
  ];
  const manifest: Manifest = {
    format: "holdfast/manifest",
    version: 1,
    id: crypto.randomUUID(),
    tiers: ["daily"],
    repositoryId: repository.id,
    project: { ref: null, systemIdentifier: "7", database: "postgres" },
    previousManifest: null,
    generation: 1,
    createdAt: at,
    consistentAt: at,
    snapshot: { text: "700:700:", walInsertLsn: "0/1234ABCD" },
    server: { versionNum: 150020, encoding: "UTF8", collate: "C", ctype: "C" },
    holdfastVersion: "0.1.0",
    epoch: epoch.id,
    schemaObject,
    tables,
    sequences: [],
    largeObjects: [],
    warnings,
    notCaptured: [],
    totals: {
      tables: 2,
      rows: tables.reduce((sum, one) => sum + one.rows, 0),
      rawBytes: tables.reduce((sum, one) => sum + one.rawBytes, 0),
      storedBytes: 0,
      newStoredBytes: 0,
      objects: 4,
    },
  };
  const sealed = await sealManifest({ random, compressor }, epoch, manifest);
  await store.create(sealed.name, sealed.bytes);
  return {
    store,
    epoch,
    deps: { store, ring, compressor, clock, log: silentLog },
    manifest,
    manifestName: sealed.name,
    chunks: [...letters, ...nothing].map((one) => one.object),
  };
}

function table(name: string, oid: number, columns: readonly string[], chunks: Manifest["tables"][number]["chunks"]) {
  return {
    schema: "public",
    name,
    oid,
    relfilenode: oid,
    columns: columns.map((column) => ({ name: column, type: "text" })),
    rows: chunks.reduce((sum, one) => sum + one.rows, 0),
    rawBytes: chunks.reduce((sum, one) => sum + one.rawBytes, 0),
    fingerprint: "",
    dataOwner: "user",
    chunks,
  };
}

export const emptyCapture: SchemaCapture = {
  format: 1,
  server: {
    versionNum: 150020,
    encoding: "UTF8",
    collate: "C",
    ctype: "C",
    localeProvider: "c",
    icuLocale: null,
    database: "postgres",
  },
  definitions: [],
  tables: [],
  sequences: [],
  extensions: [],
  notCaptured: [],
  warnings: [],
};

/** One compressor for all files of this process, under the name that all fixtures use: a second `init` would reset the first. */
function sharedZstd(): Promise<Compressor> {
  const place = globalThis as { [key: symbol]: Promise<Compressor> | undefined };
  return place[Symbol.for("holdfast.tests.zstd")] ??= loadZstd();
}
