/** What compares the columns of keys: the operators of types that an empty search_path does not find. */
import type { Connection } from "../../postgres/connection.ts";
import { arrayText } from "../../schema/quote.ts";
import type { GraphTable } from "../past/graph.ts";

/**
 * The operator between values of two types, each as `GraphColumn.type`: that of the default B-tree class, which a unique key
 * has and with it every foreign key that leads there; `=` for types of the server and for two that do not have the same.
 */
export type Equalities = (own: string, theirs: string) => string;

/**
 * As `operator(schema.=)` for types of extensions and of users, looked at through their domains: bare, `=` of citext would be
 * that of text, and ltree would have none. In the database that the statement will run in, also for tables that are only in a
 * backup; a type that is not there has `=`. Errors: those of the connection.
 */
export async function readEqualities(
  connection: Connection,
  tables: readonly Pick<GraphTable, "columns">[],
): Promise<Equalities> {
  const names = new Set(tables.flatMap(({ columns }) => columns.map(({ type }) => type)));
  const rows = await connection.query(
    `with recursive base (name, oid) as (
       select t.name, pg_catalog.to_regtype(t.name)::oid from pg_catalog.unnest($1::text[]) as t (name)
       union all
       select b.name, y.typbasetype from base as b join pg_catalog.pg_type as y on y.oid = b.oid and y.typtype = 'd'
     )
     select b.name, b.oid, pg_catalog.format('operator(%I.%s)', n.nspname, o.oprname) as equals
       from base as b
       join pg_catalog.pg_opclass as f on f.opcintype = b.oid and f.opcdefault
       join pg_catalog.pg_am as a on a.oid = f.opcmethod and a.amname = 'btree'
       join pg_catalog.pg_amop as m on m.amopfamily = f.opcfamily and m.amoplefttype = b.oid and m.amoprighttype = b.oid
        and m.amopstrategy = 3
       join pg_catalog.pg_operator as o on o.oid = m.amopopr
       join pg_catalog.pg_namespace as n on n.oid = o.oprnamespace
      where n.nspname <> 'pg_catalog'`,
    [arrayText([...names])],
  );
  const known = new Map(rows.map((row) => [row["name"] ?? "", { oid: row["oid"], equals: row["equals"] ?? "=" }]));
  return (own, theirs) => {
    const [one, other] = [known.get(own), known.get(theirs)];
    return one !== undefined && one.oid === other?.oid ? one.equals : "=";
  };
}
