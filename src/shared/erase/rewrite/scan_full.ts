/** One backup looked through, parents before children; what changes is sealed anew beside it. The manifest stays as it is. */
import { HoldfastError } from "../../errors.ts";
import { fileListsOf, type Manifest } from "../../format/manifest.ts";
import { nameOf } from "../../rows/past/fold_partitions.ts";
import { captureGraph } from "../../rows/past/capture_graph.ts";
import type { SchemaCapture } from "../../schema/capture_format.ts";
import type { Identity, LedgerEntry } from "../entry.ts";
import type { HashKey } from "../hashes.ts";
import { identityKey, mapOf, planRemoval, type RemovalTable, usersIdentity } from "../removal_plan.ts";
import { isLogOfAuth } from "../scrub_payload.ts";
import type { ChunkDone, ChunkTask, Hands, ListDone, StreamRules } from "./hands.ts";
import { chunkKey } from "./new_manifest.ts";
import type { FoundTerm } from "./terms.ts";

export interface FullToScan {
  readonly name: string;
  readonly storedHash: string;
  readonly manifest: Manifest;
  readonly capture: SchemaCapture;
  readonly entries: readonly LedgerEntry[];
  /** It stays as it is; what goes in it is gone in the stream behind it all the same. */
  readonly isHeld: boolean;
}

export interface ScannedFull {
  readonly full: FullToScan;
  readonly chunks: ReadonlyMap<string, ChunkDone>;
  readonly lists: ReadonlyMap<string, ListDone>;
  /** Of rows that go and that the ledger does not name, and over which columns. */
  readonly gone: ReadonlySet<string>;
  readonly identities: readonly Identity[];
  readonly rules: StreamRules;
  readonly terms: readonly FoundTerm[];
}

export interface ScanOptions {
  readonly keys: readonly HashKey[];
  /** Columns by which the change stream tells rows of a table, where they are not its key. By `nameOf`. */
  readonly alsoBy: ReadonlyMap<string, readonly (readonly string[])[]>;
  /** Of chunks that several backups share: the same answer under the same question. */
  readonly cache: Map<string, Promise<ChunkDone>>;
  readonly signal?: AbortSignal;
  readonly onRead: (rawBytes: number) => void;
}

/** Errors: those of `readObject`, `cancelled`. */
export async function scanFull(hands: Hands, full: FullToScan, options: ScanOptions): Promise<ScannedFull> {
  const { entries, manifest } = full;
  const hashes = [...new Set(entries.flatMap((entry) => entry.hashes))];
  const identities = entries.flatMap(({ rows }) => rows);
  await hands.begin({ keys: options.keys, hashes, identities }, null);
  const ledger = new Set(hashes);
  const groups = planRemoval(captureGraph(full.capture), mapOf(entries));
  const known = new Set([usersIdentity, ...identities].map(identityKey));
  const state = { gone: new Set<string>(), digest: [0, 0] as [number, number], identities: [] as Identity[] };
  const chunks = new Map<string, ChunkDone>();
  const applied = entries.map(({ number }) => number).join();
  for (const { tables, cyclic } of groups) {
    for (let more = true; more;) {
      more = false;
      const tasks = tables.filter((table) => matters(table, known)).flatMap((table) => tasksOf(table, full, options));
      const found: string[] = [];
      const removedFrom = new Set<RemovalTable>();
      await inParallel(tasks, hands.atOnce, options.signal, async ({ key, task }) => {
        const question = JSON.stringify([
          task.object.name,
          task.epoch,
          nameOf(task.table),
          task.columns,
          task.alsoBy,
          task.looksOnly,
          applied,
          state.digest,
          state.gone.size,
        ]);
        const asked = options.cache.get(question);
        const answer = asked ?? hands.chunk(task);
        if (asked === undefined) options.cache.set(question, answer);
        const done = await answer;
        if (asked === undefined) options.onRead(task.object.rawBytes);
        chunks.set(key, done);
        if (done.removed > 0) removedFrom.add(task.table);
        for (const hash of done.gone) if (!ledger.has(hash) && !state.gone.has(hash)) found.push(hash);
      });
      const fresh = [...new Set(found)];
      const told = [...removedFrom].flatMap((table) => [
        ...table.identities,
        ...(options.alsoBy.get(nameOf(table)) ?? []).map((columns): Identity => ({
          schema: table.schema,
          name: table.name,
          columns: [...columns].sort(),
        })),
      ]);
      for (const identity of told) known.add(identityKey(identity));
      state.identities.push(...told);
      if (fresh.length === 0 && told.length === 0) continue;
      for (const hash of fresh) learn(state, hash);
      await hands.learn(fresh, told);
      more = cyclic && fresh.length > 0;
    }
  }
  const objects = groups.flatMap(({ tables }) => tables).find((table) => nameOf(table) === "storage.objects");
  const lists = new Map<string, ListDone>();
  if (objects !== undefined && !full.isHeld) {
    await inParallel(fileListsOf(manifest), hands.atOnce, options.signal, async (list) => {
      lists.set(list.object, await hands.list({ list, epoch: manifest.epoch, table: objects }));
      options.onRead(list.rawBytes);
    });
  }
  return {
    full,
    chunks,
    lists,
    gone: state.gone,
    identities: state.identities,
    rules: rulesOf(groups.flatMap(({ tables }) => tables)),
    terms: [...chunks.values(), ...lists.values()].flatMap(({ terms }) => terms),
  };
}

/** One after the other, some at once. Errors: the first of them, `cancelled`. */
export async function inParallel<T>(
  items: readonly T[],
  atOnce: number,
  signal: AbortSignal | undefined,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    for (;;) {
      if (signal?.aborted === true) {
        throw new HoldfastError("cancelled", "rewriting was cancelled; the next one goes on");
      }
      const item = items[next++];
      if (item === undefined) return;
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
}

/** The rules of every table and leaf. */
export function rulesOf(tables: readonly RemovalTable[]): StreamRules {
  return {
    tables: tables.flatMap((table) =>
      [table, ...table.table.partitions].map(({ schema, name }) => ({ name: { schema, name }, table }))
    ),
  };
}

function matters(table: RemovalTable, known: ReadonlySet<string>): boolean {
  return isLogOfAuth(table) ||
    [...table.identities, ...table.ways.map(({ to }) => to)].some((identity) => known.has(identityKey(identity)));
}

function tasksOf(
  table: RemovalTable,
  { manifest: { tables, epoch }, isHeld }: FullToScan,
  { alsoBy }: ScanOptions,
): { readonly key: string; readonly task: ChunkTask }[] {
  const leaves = new Set([table, ...table.table.partitions].map(nameOf));
  return tables.filter((one) => leaves.has(nameOf(one))).flatMap(({ oid, columns, chunks }) =>
    chunks.map(({ object: name, rawBytes, hash, storedBytes, storedHash }) => ({
      key: chunkKey(oid, name),
      task: {
        object: { kind: "chunk", name, rawBytes, hash, stored: { bytes: storedBytes, hash: storedHash } },
        epoch,
        table,
        columns: columns.map((column) => column.name),
        alsoBy: alsoBy.get(nameOf(table)) ?? [],
        looksOnly: isHeld,
      },
    }))
  );
}

/** The digest tells one set of hashes from another, in whatever order they came. */
function learn(state: { gone: Set<string>; digest: [number, number] }, hash: string): void {
  if (state.gone.has(hash)) return;
  state.gone.add(hash);
  state.digest[0] ^= parseInt(hash.slice(0, 8), 16);
  state.digest[1] ^= parseInt(hash.slice(8, 16), 16);
}
