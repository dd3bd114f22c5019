/** Whether every row that refers to another one finds it: asked of the rows, since a constraint may only say so. */
import type { Connection, Row } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { quoteIdent, quoteQualified } from "../schema/quote.ts";
import type { Difference } from "./prove.ts";

export interface OrphanCheck {
  readonly checked: number;
  readonly differences: readonly Difference[];
  /** Foreign keys that this role may not look at. */
  readonly unread: readonly string[];
}

/**
 * Counts rows without their parent under every foreign key that the catalog calls valid. The session is in a transaction; row
 * level security is off. Errors: those of the connection.
 */
export async function checkForeignKeys(
  connection: Connection,
  leaveOutSchemas: readonly string[],
  onKey: () => void = () => {},
): Promise<OrphanCheck> {
  const keys = await connection.query(keysSql, [`{${leaveOutSchemas.map((name) => JSON.stringify(name)).join(",")}}`]);
  const differences: Difference[] = [];
  const unread: string[] = [];
  for (const key of keys) {
    const name = `constraint ${quoteIdent(key["name"] ?? "")} on ${sqlName(key, "from")}`;
    await connection.execute("savepoint holdfast_key");
    try {
      const [row] = await connection.query(orphansSql(key));
      const orphans = Number(row?.["orphans"]);
      if (orphans > 0) {
        const detail = `${orphans} rows refer to rows that ${sqlName(key, "to")} does not have`;
        differences.push({ kind: "foreign key", name, detail });
      }
      await connection.execute("release savepoint holdfast_key");
    } catch (error) {
      if (sqlstateOf(error) !== "42501") throw error;
      await connection.execute("rollback to savepoint holdfast_key");
      unread.push(name);
    }
    onKey();
  }
  return { checked: keys.length - unread.length, differences, unread };
}

function sqlName(key: Row, end: "from" | "to"): string {
  return quoteQualified(key[`${end}_schema`] ?? "", key[`${end}_name`] ?? "");
}

/** A key of a partitioned table holds for its partitions, one of an ordinary table not for those that inherit from it. */
function relation(key: Row, end: "from" | "to"): string {
  return key[`${end}_partitioned`] === "t" ? sqlName(key, end) : `only ${sqlName(key, end)}`;
}

/** Full match: all columns are null, or a row is found. Simple match: one column that is null is enough. */
function orphansSql(key: Row): string {
  const columns = JSON.parse(key["columns"] ?? "[]") as { child: string; parent: string; equals: string }[];
  const nulls = columns.map(({ child }) => `c.${quoteIdent(child)} is null`);
  const exempt = key["full_match"] === "t" ? nulls.join(" and ") : nulls.join(" or ");
  const same = columns.map(({ child, parent, equals }) => `p.${quoteIdent(parent)} ${equals} c.${quoteIdent(child)}`);
  return `select count(*) as orphans from ${relation(key, "from")} as c
    where not (${exempt}) and not exists (select from ${relation(key, "to")} as p where ${same.join(" and ")})`;
}

const keysSql = `
  select k.conname as name, fn.nspname as from_schema, f.relname as from_name, f.relkind = 'p' as from_partitioned,
         tn.nspname as to_schema, t.relname as to_name, t.relkind = 'p' as to_partitioned, k.confmatchtype = 'f' as full_match,
         (select pg_catalog.json_agg(pg_catalog.json_build_object(
                   'child', ca.attname, 'parent', pa.attname,
                   'equals', pg_catalog.format('operator(%I.%s)', opn.nspname, op.oprname)) order by u.at)
            from pg_catalog.generate_subscripts(k.conkey, 1) as u (at)
            join pg_catalog.pg_attribute as ca on ca.attrelid = k.conrelid and ca.attnum = k.conkey[u.at]
            join pg_catalog.pg_attribute as pa on pa.attrelid = k.confrelid and pa.attnum = k.confkey[u.at]
            join pg_catalog.pg_operator as op on op.oid = k.conpfeqop[u.at]
            join pg_catalog.pg_namespace as opn on opn.oid = op.oprnamespace)::text as columns
    from pg_catalog.pg_constraint as k
    join pg_catalog.pg_class as f on f.oid = k.conrelid
    join pg_catalog.pg_namespace as fn on fn.oid = f.relnamespace
    join pg_catalog.pg_class as t on t.oid = k.confrelid
    join pg_catalog.pg_namespace as tn on tn.oid = t.relnamespace
   where k.contype = 'f' and k.convalidated and k.conparentid = 0
     and fn.nspname <> all ($1::text[])
   order by 2, 3, 1`;
