/** Databases with Holdfast installed, and backups of them into a store in memory, in this process. */
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { type Budget, unlimited } from "../../src/shared/backup/budget.ts";
import type { BackupDeps } from "../../src/shared/backup/deps.ts";
import { type KeeperOptions } from "../../src/shared/backup/keeper.ts";
import { runLeg } from "../../src/shared/backup/leg.ts";
import { functionLimits, type Limits } from "../../src/shared/backup/limits.ts";
import { runBackup } from "../../src/shared/backup/run.ts";
import { open } from "../../src/shared/format/container.ts";
import type { Manifest, ManifestTable } from "../../src/shared/format/manifest.ts";
import { openManifest } from "../../src/shared/format/manifest_codec.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { createLog, type Log, type LogLine } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { createMemoryStore, type MemoryStore } from "../contract/memory_store.ts";
import { type Cluster, freshDatabase, query, withClient } from "../support/cluster.ts";

/** 32 bytes of zeros and a one: everybody knows it. */
export const testKeys = `test:${"A".repeat(42)}E`;

/** A fresh database of the cluster with the migrations applied as `postgres`; its URL as that role. */
export async function installedDatabase(cluster: Cluster): Promise<string> {
  return cluster.plainUrl("postgres", await freshDatabase(cluster, { installed: true }));
}

export interface World {
  readonly url: string;
  readonly deps: BackupDeps;
  readonly store: MemoryStore;
  readonly lines: readonly LogLine[];
}

export async function world(
  cluster: Cluster,
  parts: { url?: string; store?: Store; onLine?: (line: LogLine) => void } = {},
) {
  const url = parts.url ?? await installedDatabase(cluster);
  const store = createMemoryStore();
  const lines: LogLine[] = [];
  const log: Log = createLog((line) => {
    lines.push(line);
    parts.onLine?.(line);
  }, "debug");
  const deps: BackupDeps = {
    database: openDatabase({ url }),
    store: parts.store ?? store,
    ring: parseKeyRing(testKeys),
    compressor: await loadZstd(),
    clock: systemClock,
    random: webCryptoRandom,
    log,
  };
  return { url, deps, store, lines } satisfies World;
}

export interface BackupOptions {
  readonly workers?: number;
  readonly limits?: Limits;
  readonly budget?: () => Budget;
  readonly keeper?: KeeperOptions;
  readonly leaseSeconds?: number;
  readonly signal?: AbortSignal;
}

/** Small chunks, so that small tables have several. */
export const smallLimits: Limits = { ...functionLimits, chunkBytes: 64 * 1024, chunkCapBytes: 512 * 1024 };

export async function backup(deps: BackupDeps, options: BackupOptions = {}): Promise<RunRow> {
  return await runBackup(deps, { tiers: ["manual"], origin: "cli" }, {
    workers: options.workers ?? 2,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
    runLeg: (run, worker, signal) =>
      runLeg(deps, {
        run,
        worker,
        signal,
        budget: options.budget?.() ?? unlimited,
        limits: options.limits ?? smallLimits,
        ...(options.keeper === undefined ? {} : { keeper: options.keeper }),
        ...(options.leaseSeconds === undefined ? {} : { leaseSeconds: options.leaseSeconds }),
      }),
  });
}

/** The manifest of a run, opened from the store and the key alone. */
export async function manifestOf(deps: BackupDeps, run: RunRow): Promise<Manifest> {
  const repository = await readRepository(deps.store);
  const epochOf = epochSource(deps.store, deps.ring, repository?.id ?? "");
  const name = run.manifestName ?? "";
  return (await openManifest({ compressor: deps.compressor, epochOf }, name, await deps.store.read(name))).manifest;
}

export function tableIn(manifest: Manifest, schema: string, name: string): ManifestTable {
  const table = manifest.tables.find((each) => each.schema === schema && each.name === name);
  if (table === undefined) throw new Error(`${schema}.${name} is not in the manifest`);
  return table;
}

/** The COPY text of a table as the backup holds it: its chunks in their order, opened from the store. */
export async function textOf(deps: BackupDeps, table: ManifestTable): Promise<string> {
  const repository = await readRepository(deps.store);
  const epochOf = epochSource(deps.store, deps.ring, repository?.id ?? "");
  let whole = "";
  for (const chunk of table.chunks) {
    const bytes = await deps.store.read(chunk.object);
    const maxBytes = chunk.rawBytes;
    const plain = await open({ compressor: deps.compressor, epochOf }, {
      kind: "chunk",
      name: chunk.object,
      bytes,
      maxBytes,
    });
    whole += new TextDecoder("utf-8", { fatal: true }).decode(plain);
  }
  return whole;
}

/** Asks until the answer is not null, or fails after 20 s. */
export async function until<T>(what: string, ask: () => Promise<T | null>): Promise<T> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await systemClock.sleep(25);
  }
}

export { query, withClient };
