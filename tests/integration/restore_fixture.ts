/** A small backup of a live database, written with the format's own seal but without the backup engine. */
import { readFileSync } from "node:fs";
import type { Clock } from "../../src/shared/clock.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { newEpoch } from "../../src/shared/crypto/epochs.ts";
import { sha256Hex } from "../../src/shared/crypto/digest.ts";
import { generateKey, type KeyRing, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import type { Compressor } from "../../src/shared/format/compressor.ts";
import { seal } from "../../src/shared/format/container.ts";
import type { Manifest, ManifestChunk } from "../../src/shared/format/manifest.ts";
import { sealManifest } from "../../src/shared/format/manifest_codec.ts";
import { objectName } from "../../src/shared/format/object_name.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { silentLog } from "../../src/shared/log.ts";
import type { Connection, Database } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import type { RestoreDeps } from "../../src/shared/restore/run.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import type { SchemaCapture } from "../../src/shared/schema/capture_format.ts";
import { quoteIdent, quoteQualified } from "../../src/shared/schema/quote.ts";
import type { Store } from "../../src/shared/store/store.ts";
import type { Cluster } from "../support/cluster.ts";

export interface WrittenBackup {
  readonly id: string;
  readonly keys: string;
  readonly ring: KeyRing;
  readonly capture: SchemaCapture;
  readonly manifest: Manifest;
}

export interface WriteOptions {
  /** Bytes of COPY text at which a chunk is cut. Default 20,000, so that small tables have several. */
  readonly chunkBytes?: number;
  readonly keys?: string;
  readonly clock?: Clock;
}

export function databaseOf(cluster: Cluster, role?: string, database?: string): Database {
  return openDatabase({ url: cluster.url(role, database), caPem: readFileSync(cluster.caFile, "utf8") });
}

export async function restoreDeps(store: Store, ring: KeyRing, target: Database): Promise<RestoreDeps> {
  return { store, ring, target, compressor: await sharedZstd(), clock: systemClock, log: silentLog };
}

/** Reads everything in one snapshot; the database must be quiet meanwhile, since nothing is locked. */
export async function writeBackup(source: Database, store: Store, options: WriteOptions = {}): Promise<WrittenBackup> {
  const keys = options.keys ?? generateKey(webCryptoRandom).entry;
  const ring = parseKeyRing(keys);
  const clock = options.clock ?? systemClock;
  const compressor = await sharedZstd();
  const deps = { store, ring, clock, random: webCryptoRandom };
  const repository = await openOrCreateRepository(deps);
  const epoch = await newEpoch(deps, repository.id);
  const connection = await source.connect("holdfast:test");
  try {
    await connection.execute("begin isolation level repeatable read read only");
    const capture = await captureSchema(connection, { leaveOutSchemas: ["backup", "holdfast"] });
    await connection.execute("set row_security = off");
    const put = async (kind: "chunk" | "schema", plaintext: Uint8Array) => {
      const { name, hash } = await objectName(epoch, kind, plaintext);
      const sealed = await seal({ random: webCryptoRandom, compressor }, epoch, { kind, name, plaintext });
      const outcome = await store.create(name, sealed);
      const bytes = outcome === "created" ? sealed : await store.read(name);
      return {
        name,
        hash,
        rawBytes: plaintext.byteLength,
        storedBytes: bytes.byteLength,
        storedHash: await sha256Hex(bytes),
      };
    };
    const tables: Manifest["tables"] = [];
    for (const shape of capture.tables) {
      const text = await copyOf(connection, shape);
      const chunks: ManifestChunk[] = [];
      for (const part of cut(text, options.chunkBytes ?? 20_000)) {
        const { name, hash, rawBytes, storedBytes, storedHash } = await put("chunk", part);
        const rows = part.reduce((sum, byte) => sum + (byte === 10 ? 1 : 0), 0);
        chunks.push({
          object: name,
          rows,
          rawBytes,
          storedBytes,
          hash,
          storedHash,
          fromBlock: 0,
          toBlock: null,
          takenFrom: null,
        });
      }
      tables.push({
        schema: shape.schema,
        name: shape.name,
        oid: Number(shape.oid),
        relfilenode: Number(shape.relfilenode),
        columns: shape.copyColumns.map((name) => ({
          name,
          type: shape.columns.find((column) => column.name === name)?.type ?? "",
        })),
        rows: chunks.reduce((sum, chunk) => sum + chunk.rows, 0),
        rawBytes: text.byteLength,
        fingerprint: "",
        dataOwner: shape.dataOwner,
        chunks,
      });
    }
    const schemaObject = await put("schema", new TextEncoder().encode(JSON.stringify(capture)));
    const [here] = await connection.query(
      `select system_identifier::text as system, pg_catalog.current_database() as database,
              pg_catalog.pg_current_snapshot()::text as snapshot, pg_catalog.pg_current_wal_insert_lsn()::text as lsn
         from pg_catalog.pg_control_system()`,
    );
    await connection.execute("commit");
    const id = crypto.randomUUID();
    const now = clock.now().toISOString();
    const chunks = tables.flatMap((table) => table.chunks);
    const storedBytes = chunks.reduce((sum, chunk) => sum + chunk.storedBytes, 0);
    const manifest: Manifest = {
      format: "holdfast/manifest",
      version: 1,
      id,
      tiers: ["manual"],
      repositoryId: repository.id,
      project: { ref: null, systemIdentifier: here?.["system"] ?? "", database: here?.["database"] ?? "" },
      previousManifest: null,
      generation: 1,
      createdAt: now,
      consistentAt: now,
      snapshot: { text: here?.["snapshot"] ?? "", walInsertLsn: here?.["lsn"] ?? "" },
      server: {
        versionNum: connection.serverVersion,
        encoding: capture.server.encoding,
        collate: capture.server.collate,
        ctype: capture.server.ctype,
      },
      holdfastVersion: "0.1.0",
      epoch: epoch.id,
      schemaObject,
      tables,
      sequences: capture.sequences.map(({ schema, name, lastValue, isCalled }) => ({
        schema,
        name,
        lastValue,
        isCalled,
      })),
      largeObjects: [],
      warnings: [],
      notCaptured: [],
      totals: {
        tables: tables.length,
        rows: tables.reduce((sum, table) => sum + table.rows, 0),
        rawBytes: tables.reduce((sum, table) => sum + table.rawBytes, 0),
        storedBytes,
        newStoredBytes: storedBytes,
        objects: new Set([schemaObject.name, ...chunks.map((chunk) => chunk.object)]).size,
      },
    };
    const sealed = await sealManifest({ random: webCryptoRandom, compressor }, epoch, manifest);
    await store.create(sealed.name, sealed.bytes);
    return { id, keys, ring, capture, manifest };
  } finally {
    await connection.close();
  }
}

async function copyOf(
  connection: Connection,
  shape: SchemaCapture["tables"][number],
): Promise<Uint8Array> {
  const columns = shape.copyColumns.map((name) => quoteIdent(name)).join(", ");
  const filter = shape.rowFilter === null ? "" : ` where ${shape.rowFilter}`;
  const parts: Uint8Array[] = [];
  await connection.copyOut(
    `copy (select ${columns} from only ${quoteQualified(shape.schema, shape.name)}${filter}) to stdout`,
    (bytes) => parts.push(bytes.slice()),
  );
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}

/** Pieces of whole rows. */
function cut(text: Uint8Array, chunkBytes: number): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let start = 0; start < text.byteLength;) {
    const newline = text.indexOf(10, Math.min(start + chunkBytes, text.byteLength) - 1);
    const end = newline < 0 ? text.byteLength : newline + 1;
    pieces.push(text.subarray(start, end));
    start = end;
  }
  return pieces;
}

/** One compressor for all files of this process, under the name that all fixtures use: a second `init` would reset the first. */
function sharedZstd(): Promise<Compressor> {
  const place = globalThis as { [key: symbol]: Promise<Compressor> | undefined };
  return place[Symbol.for("holdfast.tests.zstd")] ??= loadZstd();
}
