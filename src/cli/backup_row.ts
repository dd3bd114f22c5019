/** A run as `list` and `create` show it: read from a row of backup.runs, or from a manifest. */
import { z } from "zod";
import { type Manifest, quarantineOf } from "../shared/format/manifest.ts";
import type { Connection, Row } from "../shared/postgres/connection.ts";
import { HoldfastError } from "../shared/errors.ts";

export interface RunSummary {
  readonly id: string;
  readonly kind: string;
  /** The tier that keeps it longest is the last; most have one. */
  readonly tier: string;
  readonly status: string;
  /** Of an incremental: the moment at which the changes that it owns begin; null for every other run. */
  readonly from: string | null;
  /** Of an incremental: the full backup that its end is restored from; null for every other run, and while there is none. */
  readonly full: string | null;
  readonly consistentAt: string | null;
  readonly rows: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** Of it, what this run added to the store. */
  readonly newStoredBytes: number;
  readonly durationMs: number | null;
  /** Every configured store holds all of it. */
  readonly complete: boolean;
  /** When every object of it was last read and found sound; null: never, or not known here. */
  readonly verifiedAt: string | null;
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

const moment = (column: string) => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')`;

/** Up to where the chain was stored before the incremental. */
const fromColumn = `case when kind = 'incremental' then (
    select coalesce(max(before.taken_at), min(c.started_at))
    from backup.chains as c
    left join backup.segments as before on before.chain_id = c.id
      and before.end_lsn <= (select min(own.start_lsn) from backup.segments as own where own.run_id = r.id)
    where c.id = r.chain_id
  ) end`;

/** The newest of its chain that is not behind its end, as a restore to that end chooses. */
const fullColumn = `case when kind = 'incremental' then (
    select f.id from backup.runs as f
    where f.kind = 'full' and f.status = 'succeeded' and f.chain_id = r.chain_id and f.wal_lsn <= r.wal_lsn
    order by f.wal_lsn desc limit 1
  ) end`;

const columns = `id, kind, array_to_string(tiers, ',') as tier, status, ${
  moment(fromColumn)
} as from_at, ${fullColumn} as full_id,
  ${moment("consistent_at")} as consistent_at, rows,
  raw_bytes, stored_bytes, new_stored_bytes, (extract(epoch from finished_at - created_at) * 1000)::bigint as duration_ms,
  complete_at is not null as complete, ${moment("verified_at")} as verified_at, warnings::text as warnings`;

const backupsOnly = "kind = 'full' and status in ('succeeded', 'quarantined')";

/** Those of the hours that the hourly tier keeps: older ones would hide the full backups. */
const recentIncrementals = `kind = 'incremental' and consistent_at > backup.clock_now() - (
    select p.keep from backup.policies as p where p.tier = 'hourly'
  )`;

/** Newest first, by the moment that they show. */
export async function listRuns(session: Connection, limit: number, all: boolean): Promise<RunSummary[]> {
  const rows = await session.query(
    `select ${columns} from backup.runs as r where ${all ? "true" : `${backupsOnly} or ${recentIncrementals}`}
     order by coalesce(r.consistent_at, r.created_at) desc, created_at desc limit $1::int`,
    [String(limit)],
  );
  return rows.map(fromRow);
}

/** Errors: `run_not_found`. */
export async function summariseRun(session: Connection, id: string): Promise<RunSummary> {
  const [row] = await session.query(`select ${columns} from backup.runs as r where id = $1::uuid`, [id]);
  if (row === undefined) throw new HoldfastError("run_not_found", `there is no run ${id}`);
  return fromRow(row);
}

/**
 * The id of the backup that `wanted` names: an id, or its first letters (4 at least). Errors: `backup_not_found`,
 * `backup_ambiguous`.
 */
export async function findRun(session: Connection, wanted: string): Promise<string> {
  const letters = wanted.toLowerCase();
  const found = /^[0-9a-f-]{4,36}$/.test(letters)
    ? await session.query(`select id from backup.runs where ${backupsOnly} and id::text like $1 limit 2`, [
      `${letters}%`,
    ])
    : [];
  const [only, second] = found;
  if (only?.["id"] && second === undefined) return only["id"];
  if (second !== undefined) throw new HoldfastError("backup_ambiguous", `several backups start with ${wanted}`);
  throw new HoldfastError("backup_not_found", `there is no backup ${wanted}`);
}

/** The incremental that `wanted` names (an id, or its first letters, 4 at least), with its last position; null: none. */
export async function findIncremental(
  session: Connection,
  wanted: string,
): Promise<{ readonly id: string; readonly endLsn: string } | null> {
  const letters = wanted.toLowerCase();
  if (!/^[0-9a-f-]{4,36}$/.test(letters)) return null;
  const [only, second] = await session.query(
    "select id, wal_lsn from backup.runs where kind = 'incremental' and wal_lsn is not null and id::text like $1 limit 2",
    [`${letters}%`],
  );
  if (second !== undefined) throw new HoldfastError("backup_ambiguous", `several incrementals start with ${wanted}`);
  return only === undefined ? null : { id: only["id"] ?? "", endLsn: only["wal_lsn"] ?? "" };
}

export function fromManifest(manifest: Manifest): RunSummary {
  return {
    id: manifest.id,
    kind: "full",
    tier: manifest.tiers.join(","),
    status: quarantineOf(manifest) === null ? "succeeded" : "quarantined",
    from: null,
    full: null,
    consistentAt: manifest.consistentAt,
    rows: manifest.totals.rows,
    rawBytes: manifest.totals.rawBytes,
    storedBytes: manifest.totals.storedBytes,
    newStoredBytes: manifest.totals.newStoredBytes,
    durationMs: null,
    complete: true,
    verifiedAt: null,
    warnings: manifest.warnings,
  };
}

const warningsFormat = z.array(z.object({ code: z.string(), message: z.string() }));

function fromRow(row: Row): RunSummary {
  const duration = row["duration_ms"];
  return {
    id: row["id"] ?? "",
    kind: row["kind"] ?? "",
    tier: row["tier"] ?? "",
    status: row["status"] ?? "",
    from: row["from_at"] ?? null,
    full: row["full_id"] ?? null,
    consistentAt: row["consistent_at"] ?? null,
    rows: Number(row["rows"]),
    rawBytes: Number(row["raw_bytes"]),
    storedBytes: Number(row["stored_bytes"]),
    newStoredBytes: Number(row["new_stored_bytes"]),
    durationMs: duration === null || duration === undefined ? null : Number(duration),
    complete: row["complete"] === "t",
    verifiedAt: row["verified_at"] ?? null,
    warnings: warningsFormat.parse(JSON.parse(row["warnings"] ?? "[]")),
  };
}
