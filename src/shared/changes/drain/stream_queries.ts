/** Every SQL call of the change stream. What changes state is a function of schema `backup`. */
import { HoldfastError } from "../../errors.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection, Row } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { formatLsn, parseLsn } from "../decode/lsn.ts";
import type { SegmentHeader } from "../segments/segment.ts";

/** An open chain, with its last segment. */
export interface Chain {
  readonly id: string;
  readonly slot: string;
  readonly publications: readonly string[];
  readonly startLsn: bigint;
  readonly last: LastSegment | null;
}

export interface LastSegment {
  readonly name: string;
  /** SHA-256 of the sealed bytes in hex. */
  readonly storedHash: string;
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
    `select c.id, c.slot_name, pg_catalog.array_to_json(c.publications) as publications, c.start_lsn,
            s.name, s.stored_hash, s.start_lsn as segment_start, s.end_lsn, s.part, s.ends_in_transaction, s.spool_position,
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
    last: row["name"] === null ? null : {
      name: text(row, "name"),
      storedHash: text(row, "stored_hash"),
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
  readonly retainedBytes: number | null;
  readonly limitBytes: number;
}

export async function slotState(connection: Connection): Promise<SlotState | null> {
  const [row] = await call(
    connection,
    "select present, active, wal_status, confirmed_flush_lsn, retained_bytes, limit_bytes from backup.slot_state()",
    [],
  );
  if (row === undefined) return null;
  const confirmed = row["confirmed_flush_lsn"] ?? null;
  return {
    present: row["present"] === "t",
    active: row["active"] === "t",
    walStatus: row["wal_status"] ?? null,
    confirmedLsn: confirmed === null ? null : parseLsn(confirmed),
    retainedBytes: row["retained_bytes"] == null ? null : Number(row["retained_bytes"]),
    limitBytes: Number(row["limit_bytes"]),
  };
}

export async function endChain(connection: Connection, chain: string, reason: string): Promise<void> {
  await call(connection, "select backup.end_chain($1, $2)", [chain, reason]);
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

/** Values of all sequences that are not the platform's own; those that a transaction holds are named only. */
export async function readSequenceValues(
  connection: Connection,
): Promise<Required<Pick<SegmentHeader, "sequences" | "heldSequences">>> {
  const rows = await call(
    connection,
    `select s.schema_name as schema, s.sequence_name as name, s.last_value as value, s.is_called as called, s.held
       from backup.sequence_values() as s`,
    [],
  );
  const nameOf = (row: Row) => ({ schema: text(row, "schema"), name: text(row, "name") });
  return {
    sequences: rows.filter((row) => row["held"] !== "t").map((row) => ({
      ...nameOf(row),
      lastValue: text(row, "value"),
      isCalled: row["called"] === "t",
    })),
    heldSequences: rows.filter((row) => row["held"] === "t").map(nameOf),
  };
}

/** Names and types of the columns of every table that is streamed, and whether the event triggers that log DDL are on. */
export async function readDefinitions(connection: Connection): Promise<NonNullable<SegmentHeader["definitions"]>> {
  const [row] = await connection.query(
    `select pg_catalog.md5(coalesce(pg_catalog.string_agg(
              pg_catalog.concat_ws(' ', a.attrelid, n.nspname, c.relname, a.attnum, a.attname, a.atttypid, a.atttypmod),
              e'\\n' order by a.attrelid, a.attnum
            ), '')) as hash,
            (
              select count(*) = 3 from pg_catalog.pg_event_trigger as e
              where e.evtname in ('holdfast_after_ddl', 'holdfast_after_drop', 'holdfast_after_rewrite')
                and e.evtenabled = 'A'
            ) as logged
       from pg_catalog.pg_attribute as a
       join pg_catalog.pg_class as c on c.oid = a.attrelid
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and c.relpersistence = 'p' and c.oid >= 16384 and a.attnum > 0
        and not a.attisdropped and backup.is_streamed_schema(n.nspname)`,
  );
  return { hash: row?.["hash"] ?? "", logged: row?.["logged"] === "t" };
}

/**
 * Since when the counters of tables count: changes with a reset, and with a crash, after which the server starts anew. Asked
 * after them, so that none is of a transaction from `nextXid` on.
 */
export async function readCounting(
  connection: Connection,
): Promise<Required<Pick<SegmentHeader, "countedSince" | "countedNextXid">>> {
  const [row] = await connection.query(
    `select backup.counting_since() as since,
            pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot()) as next_xid`,
  );
  return { countedSince: row?.["since"] ?? "", countedNextXid: text(row ?? {}, "next_xid") };
}

/**
 * Every commit before this moment (ISO 8601) is in the counters that are read from now on; null: nobody knows, since this
 * role may not see what all sessions do (`pg_read_all_stats`). A session tells what it did when it is idle outside of a
 * transaction, and may keep it for a minute even then (PGSTAT_MAX_INTERVAL).
 */
export async function readCountedUntil(connection: Connection): Promise<string | null> {
  const [row] = await connection.query(
    `select case when coalesce(pg_catalog.bool_or(a.query = '<insufficient privilege>' or a.state = 'disabled'), false) then null
            else pg_catalog.to_char(
              (least(
                pg_catalog.clock_timestamp(),
                min(least(a.xact_start, a.query_start)) filter (where a.state is distinct from 'idle')
              ) - interval '60 seconds') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'
            ) end as until
       from pg_catalog.pg_stat_activity as a
       join pg_catalog.pg_database as d on d.oid = a.datid and d.datname = pg_catalog.current_database()
      where a.pid <> pg_catalog.pg_backend_pid()
        and coalesce(a.backend_type, '') not in ('walsender', 'autovacuum worker', 'parallel worker')`,
  );
  return row?.["until"] ?? null;
}

/**
 * Makes the publications' lists agree with the catalog, in one transaction; what they cannot carry. The counters are those of
 * right before: a table that gets an identity meanwhile is not said to have changed unseen by what was published then.
 */
export async function publishTables(
  connection: Connection,
  publications: readonly string[],
): Promise<SegmentHeader["uncovered"]> {
  const counted = new Map(
    (await call(
      connection,
      `select s.relid as oid, s.n_tup_upd as updated, s.n_tup_del as deleted, s.n_tup_ins as inserted
         from pg_catalog.pg_stat_all_tables as s
        where s.n_tup_upd + s.n_tup_del + s.n_tup_ins > 0 and backup.is_streamed_schema(s.schemaname)`,
      [],
    )).map((row) => [text(row, "oid"), row]),
  );
  const rows = await call(
    connection,
    `select t.table_oid as oid, t.schema_name as schema, t.table_name as name, t.missing, t.reason, t.of_extension,
            t.seen_updated, t.seen_deleted, t.unlogged_file
       from backup.publish_tables($1::name[]) as t`,
    [`{${publications.join(",")}}`],
  );
  return rows.map((row) => {
    const counters = counted.get(text(row, "oid")) ?? {};
    // What was counted while it was published is in the stream; the counters may be of a little before.
    const unseen = (counter: string) =>
      Math.max(0, Number(counters[counter] ?? 0) - Number(row[`seen_${counter}`] ?? 0));
    return {
      oid: Number(text(row, "oid")),
      schema: text(row, "schema"),
      name: text(row, "name"),
      missing: row["missing"] === "everything" ? "everything" as const : "updates and deletes" as const,
      reason: text(row, "reason"),
      ...row["of_extension"] === "t" ? { ofExtension: true as const } : {},
      ...row["unlogged_file"] == null ? {} : { file: Number(row["unlogged_file"]) },
      updated: unseen("updated"),
      deleted: unseen("deleted"),
      inserted: Number(counters["inserted"] ?? 0),
    };
  });
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
