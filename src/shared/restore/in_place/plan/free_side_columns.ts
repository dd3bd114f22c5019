/** Rows that a restore has put beside do not hold a type that goes. Pure. */
import { quoteLiteral } from "../../../schema/quote.ts";

/** Columns of the type (`schema.name`, quoted) or of arrays of it in side schemas become text: what they show stays. */
export function freeSideColumns(type: string): string {
  return `do ${
    quoteLiteral(`declare c record; begin
  for c in
    select a.attrelid::pg_catalog.regclass as side, a.attname as name
      from pg_catalog.pg_attribute as a
      join pg_catalog.pg_class as r on r.oid = a.attrelid and r.relkind = 'r'
      join pg_catalog.pg_namespace as n on n.oid = r.relnamespace and n.nspname ~ '^restore_[0-9a-f]{8}$'
     where a.attnum > 0 and not a.attisdropped and a.atttypid in (
       select u.x from pg_catalog.pg_type as t cross join lateral (values (t.oid), (t.typarray)) as u (x)
        where t.oid = pg_catalog.to_regtype(${quoteLiteral(type)}) and u.x <> 0)
  loop
    execute pg_catalog.format('alter table %s alter column %I type text using %I::text', c.side, c.name, c.name);
  end loop;
end`)
  }`;
}

/**
 * Every column of that side schema of a type that somebody may want to change, or to drop, becomes text: its rows are looked at
 * and no more worked with.
 */
export function freeSideSchema(schema: string): string {
  return `do ${
    quoteLiteral(`declare c record; begin
  for c in
    select a.attrelid::pg_catalog.regclass as side,
           pg_catalog.string_agg(pg_catalog.format('alter %1$I type text using %1$I::text', a.attname), ', ') as changes
      from pg_catalog.pg_attribute as a
      join pg_catalog.pg_class as r on r.oid = a.attrelid and r.relkind = 'r'
      join pg_catalog.pg_type as t on t.oid = a.atttypid
     where r.relnamespace = pg_catalog.to_regnamespace(${quoteLiteral(schema)}) and a.attnum > 0 and not a.attisdropped
       and t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace
     group by a.attrelid
  loop
    execute pg_catalog.format('alter table %s %s', c.side, c.changes);
  end loop;
end`)
  }`;
}
