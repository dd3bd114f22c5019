/** What the functions that work on backups have in common: stores, keys and the database, opened when a leg needs them. */
import type { BackupDeps } from "../backup/deps.ts";
import { parseKeyRing } from "../crypto/key_ring.ts";
import { loadZstd } from "../format/zstd.ts";
import { prefixOfBackup, recognise } from "../identity/identity_queries.ts";
import { placeIn } from "../identity/settle_place.ts";
import { tellStores } from "../jobs/copy_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { projectRef, variables } from "./environment.ts";
import { databaseOf, frontDeps, type IsolateRuntime } from "./front.ts";
import { firstStore, type PlaceDeps, storesOf } from "./places.ts";
import type { RequireStored } from "./require_backup.ts";
import { backupById, listBackups } from "../verify/find_backup.ts";

export type Works = ReturnType<typeof worksOf>;

/** Call it once when the isolate starts; its budget and its slot are the isolate's. Throws nothing. */
export function worksOf(runtime: IsolateRuntime) {
  const { environment, fetch } = runtime;
  const front = frontDeps(runtime);
  const { clock, random, log } = front;
  const outside: PlaceDeps = { environment, fetch, clock, random, log };
  const open = async (): Promise<BackupDeps> => {
    const ring = parseKeyRing(environment[variables.keys]);
    const store = firstStore(outside);
    return { database: databaseOf(environment), store, ring, compressor: await loadZstd(), clock, random, log };
  };
  /** Whether there is a second store SQL cannot know. */
  const tellPair = async (connection: Connection) => {
    const pair = await storesOf(connection, outside);
    await tellStores(connection, pair.first.label, pair.second?.store.label ?? null);
    return pair;
  };
  return {
    front,
    outside,
    budget: front.budget,
    open,
    tellPair,
    /** With the store where that backup is. */
    openFor: async (connection: Connection, backup: string): Promise<BackupDeps> => {
      const deps = await open();
      return { ...deps, store: placeIn(deps.store, await prefixOfBackup(connection, backup)) };
    },
    /** Both stores, as told; for what reads and prunes all that lies there. */
    storesDeps: async (connection: Connection) => {
      await recognise(connection, projectRef(environment));
      const { store: unplaced, ...deps } = await open();
      const { first, second } = await tellPair(connection);
      return { ...deps, unplaced, connection, first, second: second?.store ?? null };
    },
    requireStored: (async (connection, backup) => {
      backupById(await listBackups(placeIn(firstStore(outside), await prefixOfBackup(connection, backup))), backup);
    }) satisfies RequireStored,
  };
}
