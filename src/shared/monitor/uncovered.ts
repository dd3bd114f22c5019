/** Tables whose changes are not all in the change stream, and what to do about them. */
import { DdlTransaction, readDdlRow } from "../changes/definitions/ddl_replay.ts";
import type { Connection } from "../postgres/connection.ts";

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

/** Of the open chain, by name; nothing where there is none. Errors: those of the connection. */
export async function readUncoveredOfStream(session: Connection): Promise<UncoveredTable[]> {
  const [open] = await session.query("select exists (select from backup.chains where ended_at is null) as yes");
  if (open?.["yes"] !== "t") return [];
  return withClosed(await readUncovered(session), await readClosed(session));
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

/** What to do about a table whose changes are not all in the stream. */
const remedies = {
  identity: "give each a primary key, or `alter table … replica identity full`",
  unlogged: "`alter table … set logged`, or live with the state of the full backup",
  unpublished: "the role that drains has to own them; inserts alone may be covered",
  rewritten: "a command wrote what the stream does not hold; take a full backup (`holdfast create`)",
} as const satisfies Record<UncoveredTable["why"], string>;
/** Names that are told; all are counted. */
const mostNames = 3;

export function uncoveredReasons(tables: readonly UncoveredTable[]): string[] {
  return uncoveredFindings(tables).map(({ found, remedy }) => `${found}: ${remedy}`);
}

/** By what is the matter with them, each with the way out. */
export function uncoveredFindings(
  tables: readonly UncoveredTable[],
): { readonly found: string; readonly remedy: string }[] {
  return Object.entries(remedies).flatMap(([why, remedy]) => {
    const names = tables.filter((table) => table.why === why).map(({ name, formerly }) =>
      formerly === undefined ? name : `${name} (formerly ${formerly})`
    );
    if (names.length === 0) return [];
    const more = names.length > mostNames ? ` and ${names.length - mostNames} more` : "";
    return [{ found: `changes of ${names.slice(0, mostNames).join(", ")}${more} are not all in the stream`, remedy }];
  });
}
