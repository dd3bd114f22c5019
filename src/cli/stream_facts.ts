/** What the database says of its change stream. */
import { DdlTransaction, readDdlRow } from "../shared/changes/definitions/ddl_replay.ts";
import { formatLsn } from "../shared/changes/decode/lsn.ts";
import { slotState } from "../shared/changes/drain/stream_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";

export interface StreamFacts {
  readonly chain: string;
  /** A succeeded full backup is on the chain: without one nothing of it can be restored. */
  readonly hasFull: boolean;
  /** Seconds since a drain last came to the end of the stream; null: none has since the chain began. */
  readonly lagSeconds: number | null;
  /** Age of the first moment that cannot be restored, since no replay comes past it; null: there is none behind the newest full. */
  readonly stuckSeconds: number | null;
  /** Positions in the log: kept from there on, drained up to there; null: the slot is gone. */
  readonly restartLsn: string | null;
  readonly confirmedLsn: string | null;
  /** WAL that the slot holds back; null: the slot is gone. */
  readonly retainedBytes: number | null;
  /** At so many the slot is given up. */
  readonly limitBytes: number;
  /** Why the last drain failed; null: it did not. */
  readonly failure: string | null;
  /** Tables whose changes are not all in the stream, by name. */
  readonly uncovered: readonly UncoveredTable[];
}

export interface UncoveredTable {
  /** `schema.name`, quoted where needed. */
  readonly name: string;
  /**
   * No usable replica identity; not in the log at all; this role may not publish it, or has not yet; or its values were
   * computed anew since the last full backup, so that its changes say nothing until the next.
   */
  readonly why: "identity" | "unlogged" | "unpublished" | "rewritten";
  /** What it was called when that happened; absent: the same. */
  readonly formerly?: string;
}

/** A chain that ended, with none after it. */
export interface StreamStop {
  readonly at: string;
  readonly reason: string;
}

/** The open chain, or how the last one ended; both null where no stream was ever begun. */
export async function readStream(
  session: Connection,
): Promise<{ readonly stream: StreamFacts | null; readonly stopped: StreamStop | null }> {
  const [there] = await session.query("select pg_catalog.to_regclass('backup.chains') is not null as yes");
  if (there?.["yes"] !== "t") return { stream: null, stopped: null };
  const slot = await slotState(session);
  if (slot === null) return { stream: null, stopped: await readStop(session) };
  const [row] = await session.query(
    `select c.id,
       exists (
         select from backup.runs as r where r.kind = 'full' and r.status = 'succeeded' and r.chain_id = c.id
       ) as has_full,
       case when d.drained_at >= c.started_at
         then greatest(0, floor(extract(epoch from backup.clock_now() - d.drained_at)))::bigint
       end as lag,
       (
         select greatest(0, floor(extract(epoch from backup.clock_now() - min(o.at))))::bigint
           from backup.obstacles as o
          where o.chain_id = c.id and not exists (
            select from backup.runs as r
             where r.kind = 'full' and r.status = 'succeeded' and r.chain_id = c.id and r.wal_lsn >= o.lsn
          )
       ) as stuck,
       case when d.failed_at >= c.started_at then d.failure end as failure
     from backup.chains as c, backup.drain as d where c.ended_at is null`,
  );
  // It ended between the two looks.
  if (row === undefined) return { stream: null, stopped: await readStop(session) };
  return {
    stream: {
      chain: row["id"] ?? "",
      hasFull: row["has_full"] === "t",
      lagSeconds: row["lag"] == null ? null : Number(row["lag"]),
      stuckSeconds: row["stuck"] == null ? null : Number(row["stuck"]),
      restartLsn: slot.restartLsn === null ? null : formatLsn(slot.restartLsn),
      confirmedLsn: slot.confirmedLsn === null ? null : formatLsn(slot.confirmedLsn),
      retainedBytes: slot.retainedBytes,
      limitBytes: slot.limitBytes,
      failure: row["failure"] ?? null,
      uncovered: withClosed(await readUncovered(session), await readClosed(session)),
    },
    stopped: null,
  };
}

async function readStop(session: Connection): Promise<StreamStop | null> {
  const [row] = await session.query(
    `select to_char(from_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as at, reason
     from backup.gaps where to_at is null order by from_at desc limit 1`,
  );
  return row === undefined ? null : { at: row["at"] ?? "", reason: row["reason"] ?? "" };
}

/**
 * As the drain sees it, without changing a publication: no usable identity, unlogged, or not to be published. Before there
 * is a chain only the first two are known, and empty where the server's log carries no changes.
 */
export async function readUncovered(session: Connection): Promise<UncoveredTable[]> {
  const rows = await session.query(
    `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name,
       case when c.relpersistence = 'u' then 'unlogged' when backup.has_usable_identity(c.oid) then 'unpublished'
         else 'identity' end as why
     from pg_catalog.pg_class as c
     join pg_catalog.pg_namespace as n on n.oid = c.relnamespace and backup.is_streamed_schema(n.nspname)
     left join backup.chains as a on a.ended_at is null
     where c.relkind = 'r' and c.oid >= 16384 and c.relpersistence <> 't'
       and (a.id is not null or pg_catalog.current_setting('wal_level') = 'logical')
       and not exists (
         select from pg_catalog.pg_depend as d
         where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
       )
       and not (
         backup.has_usable_identity(c.oid)
         and (a.id is null or (select count(*) from pg_catalog.pg_publication as p
              where p.pubname = any (a.publications)
                and (p.puballtables or exists (
                  select from pg_catalog.pg_publication_rel as l where l.prpubid = p.oid and l.prrelid = c.oid
                ))) = pg_catalog.cardinality(a.publications))
       )
     order by n.nspname, c.relname`,
  );
  return rows.map(({ name, why }) => ({
    name: name ?? "",
    why: why === "unlogged" || why === "unpublished" ? why : "identity",
  }));
}

/** Tables of the DDL log that a restore would close behind the newest full backup of the chain, as they are called now. */
async function readClosed(session: Connection): Promise<UncoveredTable[]> {
  const rows = await session.query(
    `select l.id, l.what, l.tag, l.objects, l.query, l.role_name, l.search_path
       from backup.ddl_log as l
       join backup.chains as c on c.ended_at is null
      where l.what in ('rewrite', 'uncovered') and l.logged_at > coalesce((
        select max(r.consistent_at) from backup.runs as r
         where r.kind = 'full' and r.status = 'succeeded' and r.chain_id = c.id
      ), c.started_at)
      order by l.id`,
  );
  const closed = rows.flatMap((row) => {
    const step = new DdlTransaction().next(readDdlRow(new Map(Object.entries(row))));
    return step.do === "close" ? step.tables : [];
  });
  const there = await session.query(
    `select distinct on (c.oid) pg_catalog.format('%I.%I', n.nspname, c.relname) as name,
            t.oid is not null and t.name <> pg_catalog.format('%I.%I', n.nspname, c.relname) as is_renamed, t.name as formerly
       from rows from (pg_catalog.jsonb_to_recordset($1::jsonb) as (name text, oid bigint)) with ordinality as t (name, oid, place)
       join pg_catalog.pg_class as c on c.oid = coalesce(t.oid::oid, pg_catalog.to_regclass(t.name)::oid)
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
      order by c.oid, is_renamed desc, t.place`,
    [JSON.stringify(closed)],
  );
  return there.map(({ name, is_renamed, formerly }) => ({
    name: name ?? "",
    why: "rewritten",
    ...(is_renamed === "t" ? { formerly: formerly ?? "" } : {}),
  }));
}

function withClosed(uncovered: readonly UncoveredTable[], closed: readonly UncoveredTable[]): UncoveredTable[] {
  const known = new Set(uncovered.map((table) => table.name));
  return [...uncovered, ...closed.filter(({ name }) => !known.has(name))];
}
