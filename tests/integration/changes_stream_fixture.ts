/** A chain's segments as any reader sees them, sources whose drainer dies at a step, and restores compared with the source. */
import type { BackupDeps } from "../../src/shared/backup/deps.ts";
import { unlimited } from "../../src/shared/backup/budget.ts";
import {
  drain,
  type DrainOptions,
  type DrainResult,
  processDrainLimits,
} from "../../src/shared/changes/drain/drain.ts";
import { inOrder, listSegments, readChain } from "../../src/shared/changes/segments/chain_reader.ts";
import { decodeMessage } from "../../src/shared/changes/decode/pgoutput.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { planPoint, type PointChoices, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { type OpenedSegment, readRecords } from "../../src/shared/changes/segments/segment.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import type { LogLine } from "../../src/shared/log.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { Store } from "../../src/shared/store/store.ts";
import type { MemoryStore } from "../contract/memory_store.ts";
import { type Cluster, freshDatabase, query } from "../support/cluster.ts";
import { world } from "./backup_fixture.ts";

/** Stops a process at a line of its log: the line throws, and from then on its sessions answer nothing. */
export class Killer {
  fired = 0;
  #armed: { readonly event: string; left: number } | null = null;
  #dead = false;

  /** At the `nth` line of this name from now on. */
  arm(event: string, nth = 1): void {
    this.#armed = { event, left: nth };
    this.#dead = false;
    this.fired = 0;
  }

  disarm(): void {
    this.#armed = null;
    this.#dead = false;
  }

  onLine(line: LogLine): void {
    if (this.#armed?.event !== line.event || --this.#armed.left > 0) return;
    this.#armed = null;
    this.fired++;
    this.#dead = true;
    throw new Error(`killed at ${line.event}`);
  }

  mortal(database: Database): Database {
    return {
      ...database,
      connect: async (name: string) => {
        const connection = await database.connect(name);
        return new Proxy(connection, {
          get: (target, property) => {
            const value: unknown = Reflect.get(target, property, target);
            if (typeof value !== "function") return value;
            return (...parameters: unknown[]) => {
              if (this.#dead && property !== "close") return Promise.reject(new Error("its process is dead"));
              return Reflect.apply(value, target, parameters) as unknown;
            };
          },
        });
      },
    };
  }
}

export interface Source {
  readonly url: string;
  readonly deps: BackupDeps;
  readonly killer: Killer;
  readonly store: MemoryStore;
  readonly lines: readonly LogLine[];
}

export async function mortalSource(cluster: Cluster, parts: { readonly store?: Store } = {}): Promise<Source> {
  const killer = new Killer();
  const made = await world(cluster, { ...parts, onLine: (line) => killer.onLine(line) });
  return { ...made, deps: { ...made.deps, database: killer.mortal(made.deps.database) }, killer };
}

/** Every drain stores a segment, also where nothing happened. */
export const drainOptions = (more: Partial<DrainOptions> = {}): DrainOptions => ({
  worker: "test",
  budget: unlimited,
  limits: processDrainLimits,
  idleSeconds: 0,
  ...more,
});

/** Drains once nobody else has the lease any more. */
export async function drainNow(deps: BackupDeps, more: Partial<DrainOptions> = {}): Promise<DrainResult> {
  const deadline = performance.now() + 20_000;
  for (;;) {
    const result = await drain(deps, drainOptions(more));
    if (result.outcome !== "busy") return result;
    if (performance.now() > deadline) throw new Error("the lease never ran out");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** What a killed drainer leaves: its lease, cut short so that no test waits 90 seconds for it. */
export async function leaseRunsOut(url: string): Promise<void> {
  await query(url, "update backup.drain set lease_until = clock_timestamp() - interval '1 second'");
}

/** Every segment of a chain, opened and linked. */
export async function storedChain(deps: BackupDeps, chain: string): Promise<OpenedSegment[]> {
  const repository = await readRepository(deps.store);
  const epochOf = epochSource(deps.store, deps.ring, repository?.id ?? "");
  const listed = (await listSegments(deps.store)).get(chain) ?? [];
  const opened: OpenedSegment[] = [];
  const reader = { store: deps.store, compressor: deps.compressor, epochOf };
  for await (const segment of readChain(reader, inOrder(listed))) opened.push(segment);
  return opened;
}

/** First columns of all rows that were inserted into this table, in the order of the stream. */
export function insertedInto(segments: readonly OpenedSegment[], table: string): string[] {
  const oids = new Map<number, string>();
  const found: string[] = [];
  for (const segment of segments) {
    for (const { data } of readRecords(segment.name, segment.records)) {
      const message = decodeMessage(data);
      if (message.kind === "relation") {
        oids.set(message.relation.oid, `${message.relation.schema}.${message.relation.name}`);
      } else if (message.kind === "insert" && oids.get(message.relation) === table) {
        const [first] = message.row;
        found.push(typeof first === "string" ? first : "");
      }
    }
  }
  return found;
}

/** By table of these schemas: how many rows, and a hash of all of them. */
export async function tableHashes(url: string, schemas: readonly string[] = ["app"]): Promise<Record<string, string>> {
  const tables = await query(
    url,
    `select c.oid::regclass::text as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where n.nspname = any ($1) and c.relkind = 'r' order by 1`,
    [schemas],
  );
  const found: Record<string, string> = {};
  for (const { name } of tables) {
    const [row] = await query(
      url,
      `select count(*) || ':' || md5(coalesce(string_agg(whole_row::text, e'\\n' order by whole_row::text collate "C"), '')) as hash
         from only ${String(name)} as whole_row`,
    );
    found[String(name)] = String(row?.["hash"]);
  }
  return found;
}

export interface Copy {
  readonly url: string;
  readonly name: string;
  readonly target: Database;
}

export async function emptyTarget(cluster: Cluster): Promise<Copy> {
  const name = await freshDatabase(cluster, { platform: false });
  const url = cluster.plainUrl(cluster.superuser, name);
  // As when `postgres` made it: it may make schemas there.
  await query(url, `alter database "${name}" owner to postgres`);
  return { url, name, target: openDatabase({ url }) };
}

/** A new database as the source was at the point. */
export async function restored(
  cluster: Cluster,
  deps: BackupDeps,
  point: Point = { by: "end" },
  choices: PointChoices = {},
): Promise<Copy> {
  const copy = await emptyTarget(cluster);
  const restoreDeps = { ...deps, target: copy.target };
  await restorePoint(restoreDeps, await planPoint(restoreDeps, point, choices));
  return copy;
}

export { query };
