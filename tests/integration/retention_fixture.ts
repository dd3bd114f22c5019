/** Prunes of a database with two stores in memory, and what has to lie there afterwards, told by manifests alone. */
import { type Budget, unlimited } from "../../src/shared/backup/budget.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { objectsOf } from "../../src/shared/format/manifest.ts";
import { openManifest } from "../../src/shared/format/manifest_codec.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { tellStores } from "../../src/shared/jobs/copy_queries.ts";
import { readRun, recordVerification } from "../../src/shared/jobs/queries.ts";
import { requestPrune } from "../../src/shared/jobs/retention_queries.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { isActive } from "../../src/shared/jobs/states.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { runPruneLeg } from "../../src/shared/retention/leg.ts";
import type { Store } from "../../src/shared/store/store.ts";
import type { Cluster } from "../support/cluster.ts";
import { backup, query } from "./backup_fixture.ts";
import { drainNow } from "./changes_stream_fixture.ts";
import { copies, type Pair, pairOfStores } from "./replicate_fixture.ts";

export interface PruneParts {
  readonly first?: Store;
  readonly second?: Store;
  readonly budget?: () => Budget;
  readonly database?: Database;
}

/** Requests a prune, or goes on with the one that is active, until it has ended. */
export async function prune(pair: Pair, parts: PruneParts = {}): Promise<RunRow> {
  const connection = await (parts.database ?? pair.deps.database).connect("holdfast:test");
  const { store, ...deps } = pair.deps;
  const first = parts.first ?? store;
  const second = parts.second ?? pair.second;
  try {
    await tellStores(connection, pair.store.label, pair.second.label);
    const requested = await requestPrune(connection, "cli");
    if (requested === null) throw new Error("nothing was requested");
    for (let leg = 0; leg < 600; leg++) {
      const options = { worker: `test-${leg}`, budget: parts.budget?.() ?? unlimited };
      await runPruneLeg({ ...deps, connection, first, second, unplaced: first }, requested.run, options);
      const run = await readRun(connection, requested.run);
      if (!isActive(run.status)) return run;
      await query(pair.url, "update backup.tasks set not_before = null where run_id = $1", [run.id]);
    }
    throw new Error("the run has not ended");
  } finally {
    await connection.close();
  }
}

/** Makes a backup older: as if it had been taken so many days before. */
export async function age(pair: Pair, run: string, days: number): Promise<void> {
  await query(
    pair.url,
    `update backup.runs set created_at = created_at - $2 * interval '1 day', started_at = started_at - $2 * interval '1 day',
       finished_at = finished_at - $2 * interval '1 day', consistent_at = consistent_at - $2 * interval '1 day',
       heartbeat_at = heartbeat_at - $2 * interval '1 day'
     where id = $1`,
    [run, days],
  );
  // Segments before it: each with the oldest backup behind it.
  await query(
    pair.url,
    `update backup.segments as s set taken_at = least(s.taken_at, now() - $2 * interval '1 day' - interval '1 minute')
     from backup.runs as r where r.id = $1 and r.chain_id = s.chain_id and s.end_lsn <= r.wal_lsn`,
    [run, days],
  );
}

export async function verified(pair: Pair, run: string): Promise<void> {
  const connection = await pair.deps.database.connect("holdfast:test");
  try {
    await recordVerification(connection, run, []);
  } finally {
    await connection.close();
  }
}

/** As if two days and more had gone by since objects were condemned. */
export async function passGrace(pair: Pair): Promise<void> {
  await query(pair.url, "update backup.condemned set condemned_at = condemned_at - interval '3 days'");
}

export interface Fulls {
  readonly old: RunRow;
  readonly kept: readonly RunRow[];
}

/**
 * Five backups, each with rows that no other has, and segments before each; the first 200 days old, the second 20, which is before the
 * window; all in both stores, the newest verified.
 */
export async function fiveBackups(cluster: Cluster): Promise<{ readonly pair: Pair; readonly fulls: Fulls }> {
  const pair = await pairOfStores(cluster);
  await query(pair.url, "create table public.notes (id int primary key, t text not null)");
  await query(pair.url, "insert into public.notes select i, repeat(md5(i::text), 8) from generate_series(1, 900) as i");
  await copies(pair);
  const taken: RunRow[] = [];
  for (let n = 0; n < 5; n++) {
    for (let segment = 0; segment < 3; segment++) {
      await query(pair.url, "update public.notes set t = md5(t) || repeat($1, 200)", [String(n)]);
      await drainNow(pair.deps);
    }
    taken.push(await backup(pair.deps));
  }
  await drainNow(pair.deps);
  await copies(pair);
  const [old, ...kept] = taken as [RunRow, ...RunRow[]];
  await age(pair, old.id, 200);
  await age(pair, kept[0]?.id ?? "", 20);
  await query(pair.url, "update backup.runs set origin = 'http' where kind = 'full'");
  await verified(pair, kept.at(-1)?.id ?? "");
  return { pair, fulls: { old, kept } };
}

/** A further backup, verified and in both stores; the oldest that is kept grows old, and the one after it stands before the window. */
export async function oneMore(pair: Pair, { kept }: Fulls): Promise<Fulls> {
  await query(pair.url, "update public.notes set t = md5(t) || repeat('more', 50)");
  await drainNow(pair.deps);
  const taken = await backup(pair.deps);
  await copies(pair);
  await query(pair.url, "update backup.runs set origin = 'http' where kind = 'full'");
  await verified(pair, taken.id);
  const [old, ...rest] = kept as [RunRow, ...RunRow[]];
  await age(pair, old.id, 200);
  await age(pair, rest[0]?.id ?? "", 20);
  return { old, kept: [...rest, taken] };
}

/** Of the manifests that lie in a store: all that they name. The store's objects are exactly these once all was swept. */
export async function namedIn(pair: Pair, store: Store): Promise<{ manifests: string[]; objects: string[] }> {
  const repository = await readRepository(store);
  const epochOf = epochSource(pair.store, pair.deps.ring, repository?.id ?? "");
  const manifests: string[] = [];
  const objects = new Set<string>();
  for await (const { name } of store.list("v1/backups/")) {
    manifests.push(name);
    const { manifest } = await openManifest(
      { compressor: pair.deps.compressor, epochOf },
      name,
      await store.read(name),
    );
    for (const object of objectsOf(manifest)) objects.add(object.name);
  }
  return { manifests: manifests.sort(), objects: [...objects].sort() };
}

export async function objectsIn(store: Store): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of store.list("v1/objects/")) names.push(name);
  return names.sort();
}

/** No manifest of either store lacks an object there. */
export async function damage(pair: Pair): Promise<string[]> {
  const lacking: string[] = [];
  for (const store of [pair.store, pair.second]) {
    const there = new Set(await objectsIn(store));
    const { objects } = await namedIn(pair, store);
    lacking.push(...objects.filter((name) => !there.has(name)).map((name) => `${store.label} lacks ${name}`));
  }
  return lacking;
}
