/** What a segment's header says of the database, read when the segment is taken. */
import { leftOutSchemas } from "../../backup/tables.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection, Row } from "../../postgres/connection.ts";
import { catalogFingerprint } from "../../schema/fingerprint.ts";
import type { SegmentHeader } from "../segments/segment.ts";
import { call } from "./stream_queries.ts";

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

/** Columns of every table that is streamed, and whether the event triggers that log DDL are on; else the whole catalog too. */
export async function readDefinitions(connection: Connection): Promise<NonNullable<SegmentHeader["definitions"]>> {
  const [row] = await connection.query(
    `select pg_catalog.md5(coalesce(pg_catalog.string_agg(
              pg_catalog.concat_ws(' ', a.attrelid, n.nspname, c.relname, a.attnum, a.attname, a.atttypid, a.atttypmod),
              e'\\n' order by a.attrelid, a.attnum
            ), '')) as hash,
            (
              select count(*) = 6 from pg_catalog.pg_event_trigger as e
              where e.evtname in (
                  '!holdfast_after_a_command', '!holdfast_after_a_drop', '!holdfast_after_ddl', '!holdfast_after_drop',
                  '!holdfast_after_move', '!holdfast_after_rewrite'
                ) and e.evtenabled = 'A'
            ) as logged
       from pg_catalog.pg_attribute as a
       join pg_catalog.pg_class as c on c.oid = a.attrelid
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and c.relpersistence = 'p' and c.oid >= 16384 and a.attnum > 0
        and not a.attisdropped and backup.is_streamed_schema(n.nspname)`,
  );
  const known = { hash: row?.["hash"] ?? "", logged: row?.["logged"] === "t" };
  if (known.logged) return known;
  const leaveOutSchemas = await leftOutSchemas(connection);
  // No restore to a moment brings jobs: they are as of the full backup.
  return { ...known, catalog: await catalogFingerprint(connection, { leaveOutSchemas }, { jobs: false }) };
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
