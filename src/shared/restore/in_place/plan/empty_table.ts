/** All rows of a table deleted, triggers and foreign keys put aside. Pure. */
import { quoteLiteral } from "../../../schema/quote.ts";

/**
 * Also where a publication refuses deletes, since rows have no replica identity: then each table is identified by whole rows
 * for the moment. `name`: `schema.name`, quoted; what inherits from it is emptied too.
 */
export function emptyTable(name: string): string[] {
  return [
    "set local session_replication_role = replica",
    `do ${
      quoteLiteral(`declare t record; begin
  delete from ${name};
exception when object_not_in_prerequisite_state or invalid_column_reference then
  for t in
    with recursive family (oid) as (
      select ${quoteLiteral(name)}::pg_catalog.regclass::pg_catalog.oid
      union select i.inhrelid from family as f join pg_catalog.pg_inherits as i on i.inhparent = f.oid
    )
    select pg_catalog.format('%I.%I', n.nspname, c.relname) as name, case c.relreplident
        when 'f' then 'full' when 'n' then 'nothing' when 'd' then 'default' else coalesce('using index ' || (
          select pg_catalog.quote_ident(x.relname) from pg_catalog.pg_index as i
            join pg_catalog.pg_class as x on x.oid = i.indexrelid where i.indrelid = c.oid and i.indisreplident
        ), 'nothing') end as identity
      from family as f
      join pg_catalog.pg_class as c on c.oid = f.oid and c.relkind = 'r'
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  loop
    execute pg_catalog.format('alter table only %s replica identity full', t.name);
    execute pg_catalog.format('delete from only %s', t.name);
    execute pg_catalog.format('alter table only %s replica identity %s', t.name, t.identity);
  end loop;
end`)
    }`,
  ];
}
