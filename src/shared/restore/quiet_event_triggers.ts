/**
 * Event triggers of users in a target. They are there before a restore has ended: they would answer our own definitions, and
 * raise at them, and those that fire for a replica too (ENABLE ALWAYS) would do again what a replay brings anyhow.
 */
import { notOwnEventTrigger } from "../schema/own_objects.ts";
import { stateSchema } from "./target.ts";

/** Of the transaction: names and states of those that are off, as JSON. */
const setting = "holdfast.event_triggers";
const table = `${stateSchema}.event_triggers`;

/** Those that this role may switch off are off from here on. One of a session's transaction; nothing fires at it. */
export const quietEventTriggers = `do $quiet$
declare
  one record;
  states jsonb := '{}';
begin
  for one in
    select e.evtname as name, e.evtenabled::text as state from pg_catalog.pg_event_trigger as e
     where e.evtenabled <> 'D' and e.oid >= 16384 and pg_catalog.pg_has_role(e.evtowner, 'usage')
       and ${notOwnEventTrigger("e.evtname", "e.evtfoid")}
  loop
    execute pg_catalog.format('alter event trigger %I disable', one.name);
    states := states || pg_catalog.jsonb_build_object(one.name, one.state);
  end loop;
  perform pg_catalog.set_config('${setting}', states::text, true);
end $quiet$`;

/** In the same transaction: each has the state again that it had. */
export const wakeEventTriggers = `do $wake$
declare
  one record;
begin
  for one in
    select e.key as name, case e.value when 'A' then ' always' when 'R' then ' replica' else '' end as state
      from pg_catalog.jsonb_each_text(coalesce(nullif(pg_catalog.current_setting('${setting}', true), ''), '{}')::jsonb) as e
  loop
    execute pg_catalog.format('alter event trigger %I enable%s', one.name, one.state);
  end loop;
end $wake$`;

/** Instead of waking them: what is off stays off until `recallQuietEvents`, in the transaction that wakes them. */
export const keepQuietEvents = [
  `create table ${table} (states text not null)`,
  `insert into ${table} values (pg_catalog.current_setting('${setting}'))`,
];

export const recallQuietEvents = [
  `select pg_catalog.set_config('${setting}', k.states, true) from ${table} as k`,
  `drop table ${table}`,
];
