/** Every SQL call of the change stream. What changes state is a function of schema `backup`. */
import { HoldfastError } from "../../errors.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection, Row } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { formatLsn, parseLsn } from "../decode/lsn.ts";
import type { SegmentHeader } from "../segments/segment.ts";
import type { KnownDefinitions } from "./obstacles.ts";

/** An open chain, with its last segment. */
export interface Chain {
  readonly id: string;
  readonly slot: string;
  readonly publications: readonly string[];
  readonly startLsn: bigint;
  /** Below which its segments are in the store. */
  readonly prefix: string;
  readonly last: LastSegment | null;
  /** As the last segment told them; null: there is none. */
  readonly definitions: KnownDefinitions | null;
  readonly obstacles: NonNullable<SegmentHeader["obstacles"]>;
}

export interface LastSegment {
  readonly name: string;
  /** SHA-256 of the sealed bytes in hex, of those that were there first where an erasure has rewritten it. */
  readonly linkHash: string;
  readonly startLsn: bigint;
  readonly endLsn: bigint;
  readonly part: number;
  readonly endsInTransaction: boolean;
  /** The last row of the spool that is in it. */
  readonly spoolPosition: string | null;
  /** Seconds since it was taken, by the server's clock. */
  readonly ageSeconds: number;
}

/** The lease's token, or null while another drainer has it. */
export async function claimDrain(connection: Connection, worker: string, leaseSeconds: number): Promise<string | null> {
  const [row] = await call(connection, "select backup.claim_drain($1, $2::interval) as token", [
    worker,
    `${leaseSeconds} seconds`,
  ]);
  return row?.["token"] ?? null;
}

/** Renews the lease; its commit also makes every earlier commit durable. `lease_lost`. */
export async function holdDrain(connection: Connection, token: string, leaseSeconds: number): Promise<void> {
  await call(connection, "select backup.hold_drain($1::bigint, $2::interval)", [token, `${leaseSeconds} seconds`]);
}

/** `coveredUntil`: every commit before that moment is stored; null where the end was not reached. */
export async function releaseDrain(
  connection: Connection,
  token: string,
  coveredUntil: string | null,
  failure: HoldfastError | null,
): Promise<void> {
  await call(connection, "select backup.release_drain($1::bigint, $2::timestamptz, $3)", [
    token,
    coveredUntil,
    failure === null ? null : `${failure.code}: ${failure.message}`,
  ]);
}

export async function openChain(connection: Connection): Promise<Chain | null> {
  const [row] = await call(
    connection,
    `select c.id, c.slot_name, pg_catalog.array_to_json(c.publications) as publications, c.start_lsn, c.store_prefix, c.definitions,
            (
              select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
                'lsn', o.lsn, 'at', ${isoMoment("o.at")}, 'what', o.what, 'why', o.why
              ) order by o.lsn), '[]')
              from backup.obstacles as o where o.chain_id = c.id
            ) as obstacles,
            s.name, coalesce(s.link_hash, s.stored_hash) as link_hash, s.start_lsn as segment_start, s.end_lsn, s.part, s.ends_in_transaction, s.spool_position,
            extract(epoch from backup.clock_now() - s.taken_at)::bigint as age
       from backup.chains as c
       left join lateral (
         select g.* from backup.segments as g where g.chain_id = c.id order by g.end_lsn desc, g.part desc limit 1
       ) as s on true
      where c.ended_at is null`,
    [],
  );
  if (row === undefined) return null;
  return {
    id: text(row, "id"),
    slot: text(row, "slot_name"),
    publications: JSON.parse(text(row, "publications")) as string[],
    startLsn: parseLsn(text(row, "start_lsn")),
    prefix: text(row, "store_prefix"),
    definitions: JSON.parse(row["definitions"] ?? "null") as KnownDefinitions | null,
    obstacles: JSON.parse(text(row, "obstacles")) as Chain["obstacles"],
    last: row["name"] === null ? null : {
      name: text(row, "name"),
      linkHash: text(row, "link_hash"),
      startLsn: parseLsn(text(row, "segment_start")),
      endLsn: parseLsn(text(row, "end_lsn")),
      part: Number(row["part"]),
      endsInTransaction: row["ends_in_transaction"] === "t",
      spoolPosition: row["spool_position"] ?? null,
      ageSeconds: Number(row["age"]),
    },
  };
}

/** What a chain's slot is like. */
export interface SlotState {
  readonly present: boolean;
  readonly active: boolean;
  readonly walStatus: string | null;
  readonly confirmedLsn: bigint | null;
  /** From here on the server keeps its log for the slot: an old transaction of any database holds it back. */
  readonly restartLsn: bigint | null;
  readonly retainedBytes: number | null;
  readonly limitBytes: number;
}

export async function slotState(connection: Connection): Promise<SlotState | null> {
  const [row] = await call(
    connection,
    "select present, active, wal_status, confirmed_flush_lsn, restart_lsn, retained_bytes, limit_bytes from backup.slot_state()",
    [],
  );
  if (row === undefined) return null;
  const lsn = (column: string) => row[column] == null ? null : parseLsn(row[column]);
  return {
    present: row["present"] === "t",
    active: row["active"] === "t",
    walStatus: row["wal_status"] ?? null,
    confirmedLsn: lsn("confirmed_flush_lsn"),
    restartLsn: lsn("restart_lsn"),
    retainedBytes: row["retained_bytes"] == null ? null : Number(row["retained_bytes"]),
    limitBytes: Number(row["limit_bytes"]),
  };
}

/** `missing`: the segment from which on what is stored cannot be reached; null: the chain ends with its last one. */
export async function endChain(
  connection: Connection,
  chain: string,
  reason: string,
  missing: string | null = null,
): Promise<void> {
  await call(connection, "select backup.end_chain($1, $2, $3)", [chain, reason, missing]);
}

/** As `record_segment` takes it. */
export interface SegmentRow {
  readonly chain_id: string;
  readonly start_lsn: string;
  readonly end_lsn: string;
  readonly part: number;
  readonly spool_position: string | null;
  readonly name: string;
  readonly raw_bytes: number;
  readonly stored_bytes: number;
  readonly hash: string;
  readonly stored_hash: string;
  readonly epoch: string;
  readonly transactions: number;
  readonly changes: number;
  readonly ddl: number;
  readonly first_commit_at: string | null;
  readonly last_commit_at: string | null;
  readonly taken_at: string;
  readonly ends_in_transaction: boolean;
  readonly definitions: KnownDefinitions | null;
  readonly obstacles: NonNullable<SegmentHeader["obstacles"]>;
  /** Ids of files that came or changed: they wait to be copied from then on. */
  readonly files: readonly string[];
}

function isoMoment(expression: string): string {
  return `pg_catalog.to_char(${expression} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}

/** The id of the incremental run that owns it. `lease_lost`, `run_state`. */
export async function recordSegment(connection: Connection, token: string, segment: SegmentRow): Promise<string> {
  const [row] = await call(connection, "select backup.record_segment($1::bigint, $2::jsonb) as run", [
    token,
    JSON.stringify(segment),
  ]);
  if (row === undefined) throw new HoldfastError("internal", "record_segment gave no run");
  return text(row, "run");
}

/** Up to where a drain reads, and the server's clock just before. */
export interface Horizon {
  /**
   * Where the next record of the log begins. Never `pg_current_wal_flush_lsn()`: that can lie inside of a record, and a
   * commit of which the beginning lies before a segment's end and the end behind it would be in neither of two segments.
   */
  readonly endLsn: bigint;
  /** ISO 8601, microseconds, UTC. */
  readonly takenAt: string;
  readonly nextXid: string;
}

/** The clock is read first: every commit that was made before it lies before the position. */
export async function readHorizon(connection: Connection): Promise<Horizon> {
  const [clock] = await connection.query(
    `select pg_catalog.to_char(pg_catalog.clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as now`,
  );
  const [row] = await connection.query(
    `select pg_catalog.pg_current_wal_insert_lsn() as next,
            pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) as next_xid`,
  );
  return {
    endLsn: parseLsn(row?.["next"] ?? ""),
    takenAt: clock?.["now"] ?? "",
    nextXid: row?.["next_xid"] ?? "",
  };
}

/** Is the log durable up to there? What is not cannot be decoded yet. */
export async function isFlushed(connection: Connection, lsn: bigint): Promise<boolean> {
  const [row] = await connection.query("select pg_catalog.pg_current_wal_flush_lsn() >= $1::pg_lsn as yes", [
    formatLsn(lsn),
  ]);
  return row?.["yes"] === "t";
}

/** Owners that changed and that no command of the log tells of, into the log: the segment that comes next has them. */
export async function logOwners(connection: Connection, token: string): Promise<void> {
  await call(connection, "select backup.log_owners($1)", [token]);
}

/** `schema_missing` where the schema, or this part of it, is not installed; `stream_busy` while another has the slot. */
export async function call(
  connection: Connection,
  sql: string,
  values: readonly (string | null)[],
): Promise<Row[]> {
  try {
    return await connection.query(sql, values);
  } catch (error) {
    throw streamError(error);
  }
}

export function streamError(error: unknown): unknown {
  switch (sqlstateOf(error)) {
    case "3F000":
    case "42883":
    case "42P01":
      return new HoldfastError(
        "schema_missing",
        "schema backup is not installed in this database, or an older one is",
        {
          cause: error,
        },
      );
    case "55006":
      return new HoldfastError("stream_busy", "another session reads the replication slot", { cause: error });
    default:
      return error;
  }
}
