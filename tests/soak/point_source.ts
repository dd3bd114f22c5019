/** A project whose history is restored from: a cluster, a database with Holdfast installed, a store in memory. */
import { readdirSync, readFileSync } from "node:fs";
import { type Cluster, startCluster } from "../../src/local/postgres.ts";
import type { BackupDeps } from "../../src/shared/backup/deps.ts";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { runLeg } from "../../src/shared/backup/leg.ts";
import { functionLimits } from "../../src/shared/backup/limits.ts";
import { runBackup } from "../../src/shared/backup/run.ts";
import { drain, type DrainResult, processDrainLimits } from "../../src/shared/changes/drain/drain.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { createLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { ask } from "./point_client.ts";
import type { Random } from "./point_random.ts";

/** `platform`: PostgreSQL 15 as hosted. `plain`: 17. `lists`: 15, where the role may not publish all tables. */
export type Variant = "platform" | "plain" | "lists";

export interface Source {
  readonly cluster: Cluster;
  readonly url: string;
  readonly database: string;
  readonly deps: BackupDeps;
}

const folder = new URL("../../supabase/migrations/", import.meta.url);
const settings = {
  max_prepared_transactions: "20",
  max_replication_slots: "10",
  // Above every lock_timeout of a history: who waits for the commit lock is no victim of one who waits for its rows.
  deadlock_timeout: "2s",
};

export async function startSource(variant: Variant): Promise<Source> {
  const cluster = await startCluster({
    version: variant === "plain" ? 17 : 15,
    platform: variant === "platform",
    durable: false,
    settings,
  });
  const database = await cluster.createDatabase(`source_${variant}`);
  const made = new URL(cluster.plainUrl(variant === "lists" ? cluster.superuser : "postgres", database));
  if (variant === "lists") {
    made.username = "owner_of_app";
    made.password = "p";
    await ask(
      cluster.plainUrl(cluster.superuser, database),
      `create role owner_of_app login replication password 'p'; alter database ${database} owner to owner_of_app`,
    );
  }
  const url = made.href;
  for (const file of readdirSync(folder).sort()) await ask(url, readFileSync(new URL(file, folder), "utf8"));
  const deps: BackupDeps = {
    database: openDatabase({ url }),
    store: createMemoryStore(),
    ring: parseKeyRing(generateKey(webCryptoRandom).entry),
    compressor: await loadZstd(),
    clock: systemClock,
    random: webCryptoRandom,
    log: createLog(() => {}, "error"),
  };
  return { cluster, url, database, deps };
}

/** Small chunks, so that small tables have several. */
const limits = { ...functionLimits, chunkBytes: 64 * 1024, chunkCapBytes: 512 * 1024 };

/** Quarantined is no failure: of many rows deleted just before, the server's counters do not tell yet. */
export async function takeFull({ deps }: Source): Promise<void> {
  const run = await runBackup(deps, { tiers: ["manual"], origin: "cli" }, {
    workers: 2,
    runLeg: (run, worker, signal) => runLeg(deps, { run, worker, signal, budget: unlimited, limits }),
  });
  if (run.status !== "succeeded" && run.status !== "quarantined") {
    throw new Error(`the full backup ended as ${run.status}`);
  }
}

/** With limits so small that ordinary transactions are cut and larger ones spooled; gives up after a while. */
export async function drainOnce({ deps }: Source, random: Random): Promise<DrainResult> {
  return await drain(deps, {
    worker: "soak",
    budget: unlimited,
    idleSeconds: 0,
    limits: { segmentBytes: 1024 * (128 + random.below(512)), peekChanges: 500 + random.below(5000) },
    signal: AbortSignal.timeout(2000),
  });
}

/** To the end of what is durable now, however far that is. */
export async function drainAll({ deps }: Source): Promise<DrainResult> {
  return await drain(deps, { worker: "soak", budget: unlimited, idleSeconds: 0, limits: processDrainLimits });
}
