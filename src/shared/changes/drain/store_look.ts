/**
 * Is what the store has of a chain what this database has recorded? A database that was put back to an earlier state goes on
 * with its slot as if nothing had been, and a copy of it with the same slot: only the store knows that there was more.
 */
import type { BackupDeps } from "../../backup/deps.ts";
import { type ListedManifest, listManifests, projectOfBackup, readProject } from "../../backup/store_owner.ts";
import { isSameProject } from "../../format/project.ts";
import { parseSegmentName, prefixes } from "../../format/layout.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { ListedSegment } from "../segments/chain_reader.ts";
import { formatLsn } from "../decode/lsn.ts";
import { call, type Chain } from "./stream_queries.ts";

export const putBack = "the database was put back to an earlier state, or a copy of it has written into the same store";

export interface Look {
  /** Why the chain cannot go on, and from which segment on it is broken where one is gone; null: it can. */
  readonly over: { readonly reason: string; readonly missing: string | null } | null;
  /** Stored where the next segment begins, and not recorded: of a drainer that died, or of another life of the database. */
  readonly doubtful: readonly ListedSegment[];
}

const well: Look = { over: null, doubtful: [] };

/**
 * Lists the chain, and compares, where that is due: after each start of the server, and once an hour.
 * Errors: those of the connection, the keys and the store.
 */
export async function lookAtStore(
  deps: BackupDeps,
  connection: Connection,
  token: string,
  chain: Chain,
): Promise<Look> {
  const [due] = await call(connection, "select backup.look_is_due() as due", []);
  if (due?.["due"] !== "t") return well;
  const manifests = await listManifests(deps.store);
  const stored = await segmentsIn(deps, chain.id);
  const recorded = await recordedOf(connection, chain.id);
  const over = await whyOver(deps, connection, chain, { manifests, stored, recorded });
  if (over !== null) return { over, doubtful: [] };
  const doubtful = [...stored.values()].filter((one) => !recorded.includes(one.name) && follows(one, chain));
  // Else once they are settled: a drain that dies before has not looked.
  if (doubtful.length === 0) await noteLook(connection, token);
  return { over: null, doubtful: doubtful.sort((a, b) => a.endLsn < b.endLsn ? -1 : 1) };
}

export async function noteLook(connection: Connection, token: string): Promise<void> {
  await call(connection, "select backup.note_look($1::bigint)", [token]);
}

type Stored = ReadonlyMap<string, ListedSegment>;

async function segmentsIn({ store }: Pick<BackupDeps, "store">, chain: string): Promise<Stored> {
  const stored = new Map<string, ListedSegment>();
  for await (const { name, size } of store.list(`${prefixes.changes}${chain}/`)) {
    const parsed = parseSegmentName(name);
    if (parsed !== null) stored.set(name, { ...parsed, name, size });
  }
  return stored;
}

/** In their order. */
async function recordedOf(connection: Connection, chain: string): Promise<string[]> {
  const rows = await call(
    connection,
    "select s.name from backup.segments as s where s.chain_id = $1 order by s.end_lsn, s.part",
    [chain],
  );
  return rows.map((row) => text(row, "name"));
}

async function whyOver(
  deps: BackupDeps,
  connection: Connection,
  chain: Chain,
  { manifests, stored, recorded }: {
    readonly manifests: readonly ListedManifest[];
    readonly stored: Stored;
    readonly recorded: readonly string[];
  },
): Promise<Look["over"]> {
  const missing = recorded.find((name) => !stored.has(name));
  if (missing !== undefined && await deps.store.size(missing) === null) {
    return { reason: `segment ${missing} is gone from the store`, missing };
  }
  const known = new Set(recorded);
  const unknown = [...stored.values()].filter(({ name }) => !known.has(name));
  const [now] = await call(connection, "select pg_catalog.pg_current_wal_insert_lsn() >= $1::pg_lsn as reached", [
    formatLsn(
      unknown.filter((one) => follows(one, chain)).reduce((most, one) => one.endLsn > most ? one.endLsn : most, 0n),
    ),
  ]);
  const isPutBack = now?.["reached"] !== "t" || unknown.some((one) => liesBeyond(one, chain)) ||
    await hasUnknownBackup(deps, connection, chain, manifests);
  return isPutBack ? { reason: putBack, missing: null } : null;
}

/** One of this database that it does not know, of after the chain had begun. */
async function hasUnknownBackup(
  deps: BackupDeps,
  connection: Connection,
  chain: Chain,
  manifests: readonly ListedManifest[],
): Promise<boolean> {
  const rows = await call(
    connection,
    `select m.id from pg_catalog.jsonb_to_recordset($1::jsonb) as m (id uuid, at timestamptz), backup.chains as c
      where c.id = $2 and m.at > c.started_at and not exists (select from backup.runs as r where r.id = m.id)`,
    [JSON.stringify(manifests.map(({ id, createdAt }) => ({ id, at: createdAt.toISOString() }))), chain.id],
  );
  const unknown = new Set(rows.map((row) => text(row, "id")));
  const newest = manifests.find(({ id }) => unknown.has(id));
  const theirs = newest === undefined ? null : await projectOfBackup(deps, newest);
  return theirs !== null && isSameProject(await readProject(connection), theirs);
}

/** Where the next segment stands. */
function follows(segment: ListedSegment, { last, startLsn }: Chain): boolean {
  if (last?.endsInTransaction !== true) return segment.startLsn === (last?.endLsn ?? startLsn) && segment.part === 0;
  return segment.startLsn === last.startLsn && segment.endLsn === last.endLsn && segment.part === last.part + 1;
}

/** Nobody stores it before the one that comes next is recorded. */
function liesBeyond(segment: ListedSegment, { last, startLsn }: Chain): boolean {
  if (last?.endsInTransaction === true) {
    return segment.startLsn >= last.endLsn ||
      (segment.startLsn === last.startLsn && segment.endLsn === last.endLsn && segment.part > last.part + 1);
  }
  const reached = last?.endLsn ?? startLsn;
  return segment.startLsn > reached || (segment.startLsn === reached && segment.part > 0);
}
