/**
 * Tables that a publication sends deletes or updates of although their rows have no replica identity: the server refuses both
 * then (SQLSTATE 55000). For the time of a transaction they are identified by whole rows, and its subscribers hear of all.
 */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";

interface PublishedTable {
  /** `schema.name`, quoted. */
  readonly name: string;
  /** The statement that gives it the identity that it has now. */
  readonly back: string;
  /** Why it cannot be identified by whole rows; null: it can. */
  readonly obstacle: string | null;
}

/**
 * Among the tables with these oids and their partitions. A publication's list of columns has to hold the whole identity, so
 * whole rows do not go with one; a condition on rows needs its columns in the identity, which whole rows always have.
 */
const publishedTables = `
  with recursive family (oid) as (
    select pg_catalog.unnest($1::pg_catalog.oid[])
    union
    select i.inhrelid from family as f
      join pg_catalog.pg_inherits as i on i.inhparent = f.oid
      join pg_catalog.pg_class as c on c.oid = i.inhrelid and c.relispartition
  ), published as (
    select c.oid, pg_catalog.bool_or(r.prqual is not null) as by_condition,
           pg_catalog.bool_or(r.prattrs is not null) as by_columns
      from family as f
      join pg_catalog.pg_class as c on c.oid = f.oid and c.relkind = 'r' and c.relpersistence = 'p'
      cross join lateral (
        select c.oid, c.relnamespace
        union
        select a.oid, a.relnamespace from pg_catalog.pg_partition_ancestors(c.oid) as up (oid)
          join pg_catalog.pg_class as a on a.oid = up.oid
      ) as above
      cross join pg_catalog.pg_publication as p
      left join pg_catalog.pg_publication_rel as r on r.prpubid = p.oid and r.prrelid = above.oid
     where (p.pubdelete or p.pubupdate) and (p.puballtables or r.oid is not null or exists (
       select from pg_catalog.pg_publication_namespace as n where n.pnpubid = p.oid and n.pnnspid = above.relnamespace
     ))
     group by c.oid
  )
  select t.name, case
           when not pg_catalog.pg_has_role(c.relowner, 'usage')
             then 'it belongs to ' || pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner))
           when p.by_columns then 'a publication sends some of its columns only'
         end as obstacle,
         'alter table only ' || t.name || ' replica identity ' || case c.relreplident
           when 'n' then 'nothing'
           when 'i' then coalesce('using index ' || (
             select pg_catalog.quote_ident(x.relname) from pg_catalog.pg_index as i
               join pg_catalog.pg_class as x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident
           ), 'nothing')
           else 'default'
         end as back
    from published as p
    join pg_catalog.pg_class as c on c.oid = p.oid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    cross join lateral (select pg_catalog.format('%I.%I', n.nspname, c.relname)) as t (name)
   where c.relreplident <> 'f' and (p.by_condition or not exists (
     select from pg_catalog.pg_index as i
      where i.indrelid = c.oid and i.indisvalid and i.indimmediate
        and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end
   ))
   order by t.name`;

async function readPublishedTables(connection: Connection, oids: readonly string[]): Promise<PublishedTable[]> {
  if (oids.length === 0) return [];
  const rows = await connection.query(publishedTables, [`{${oids.join(",")}}`]);
  return rows.map((row) => ({
    name: row["name"] ?? "",
    back: row["back"] ?? "",
    obstacle: row["obstacle"] ?? null,
  }));
}

function refuseObstacle(tables: readonly PublishedTable[]): void {
  const stuck = tables.find((table) => table.obstacle !== null);
  if (stuck === undefined) return;
  throw new HoldfastError(
    "definitions_stuck",
    `the server refuses to delete or change rows of ${stuck.name}: a publication sends that, it has no usable replica ` +
      `identity, and ${stuck.obstacle}`,
    {
      hint:
        "Give it a primary key, or a unique index with `alter table … replica identity using index …`, or take it " +
        "out of the publication until the restore is done.",
    },
  );
}

/** Beforehand, with no lock: could rows of these tables (oids) be deleted? Errors: `definitions_stuck`, with the ways out. */
export async function requireDeletable(connection: Connection, oids: readonly string[]): Promise<void> {
  refuseObstacle(await readPublishedTables(connection, oids));
}

/**
 * In the caller's transaction: rows of these tables (oids) can be deleted while `work` runs; afterwards their replica identity
 * is exactly what it was, as it is when the transaction fails. Nobody else reads such a table until its end. What triggers
 * that fire always have put off to the commit, fires before the identity is put back. Errors: `definitions_stuck`, those of
 * `work` and of the connection.
 */
export async function whileDeletable<T>(
  connection: Connection,
  oids: readonly string[],
  work: () => Promise<T>,
): Promise<T> {
  const tables = await readPublishedTables(connection, oids);
  refuseObstacle(tables);
  for (const { name } of tables) await connection.execute(`alter table only ${name} replica identity full`);
  const result = await work();
  if (tables.length > 0) await connection.execute("set constraints all immediate");
  for (const { back } of tables) await connection.execute(back);
  return result;
}
