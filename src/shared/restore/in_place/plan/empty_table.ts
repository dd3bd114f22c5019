/** All rows of tables deleted, triggers and foreign keys put aside. Pure. */
import { quoteLiteral } from "../../../schema/quote.ts";

/**
 * Also where a publication refuses deletes, since rows have no replica identity: then each table is identified by whole rows
 * for the moment. `names`: `schema.name`, quoted; what inherits from them or is a partition of them is emptied only where it
 * is named itself.
 */
export function emptyTables(names: readonly string[]): string[] {
  const oids = names.map((name) => `${quoteLiteral(name)}::pg_catalog.regclass::pg_catalog.oid`).join(", ");
  return [
    "set local session_replication_role = replica",
    `do ${
      quoteLiteral(`declare t record; begin
${names.map((name) => `  delete from only ${name};`).join("\n")}
exception when object_not_in_prerequisite_state or invalid_column_reference then
  for t in
    select pg_catalog.format('%I.%I', n.nspname, c.relname) as name, case c.relreplident
        when 'f' then 'full' when 'n' then 'nothing' when 'd' then 'default' else coalesce('using index ' || (
          select pg_catalog.quote_ident(x.relname) from pg_catalog.pg_index as i
            join pg_catalog.pg_class as x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident
        ), 'nothing') end as identity
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where c.oid in (${oids}) and c.relkind = 'r'
  loop
    execute pg_catalog.format('alter table only %s replica identity full', t.name);
    execute pg_catalog.format('delete from only %s', t.name);
    execute pg_catalog.format('alter table only %s replica identity %s', t.name, t.identity);
  end loop;
end`)
    }`,
  ];
}
