/**
 * Triggers and rules that fire for a replica's changes too (ENABLE ALWAYS, ENABLE REPLICA): what they did on the source is
 * in the stream. A replay switches them off, and on again around each change of definitions and at its end, so that what
 * the source said of them is said to what it was said of.
 */
import type { Connection } from "../../postgres/connection.ts";
import { stateSchema } from "../../restore/target.ts";

/** What is off now, with the state that it had. Written in the transaction that switches. */
const quieted = `${stateSchema}.quieted`;

/** Of the transaction that begins a replay. */
export const createQuieted =
  `create table ${quieted} (is_rule boolean not null, oid oid not null, state text not null, primary key (is_rule, oid))`;

export const dropQuieted = `drop table ${quieted}`;

/** `only`: a partition's trigger has a state of its own. */
const named = `pg_catalog.format('alter %s only %I.%I', case c.relkind when 'f' then 'foreign table' else 'table' end,
  n.nspname, c.relname)`;

const all = `
  select false as is_rule, t.oid, t.tgname as name, t.tgrelid as relation, t.tgenabled::text as state
    from pg_catalog.pg_trigger as t where not t.tgisinternal
  union all
  select true, r.oid, r.rulename, r.ev_class, r.ev_enabled::text from pg_catalog.pg_rewrite as r`;

/** In the caller's transaction. */
export async function quietTriggers(connection: Connection): Promise<void> {
  const rows = await connection.query(
    `with loud as (
       select x.* from (${all}) as x join pg_catalog.pg_class as c on c.oid = x.relation
        where x.state in ('A', 'R') and c.relkind in ('r', 'p', 'f') and x.oid >= 16384
          and pg_catalog.pg_has_role(c.relowner, 'usage')
     ), kept as (
       insert into ${quieted} (is_rule, oid, state) select is_rule, oid, state from loud
     )
     select ${named} || pg_catalog.format(' disable %s %I', case when l.is_rule then 'rule' else 'trigger' end, l.name)
              as statement
       from loud as l join pg_catalog.pg_class as c on c.oid = l.relation
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace`,
  );
  for (const { statement } of rows) await connection.execute(statement ?? "");
}

/** In the caller's transaction. */
export async function wakeTriggers(connection: Connection): Promise<void> {
  const rows = await connection.query(
    `with woken as (delete from ${quieted} returning is_rule, oid, state)
     select ${named} || pg_catalog.format(' enable %s %s %I', case w.state when 'A' then 'always' else 'replica' end,
              case when w.is_rule then 'rule' else 'trigger' end, x.name) as statement
       from woken as w join (${all}) as x on x.is_rule = w.is_rule and x.oid = w.oid
       join pg_catalog.pg_class as c on c.oid = x.relation
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace`,
  );
  for (const { statement } of rows) await connection.execute(statement ?? "");
}
