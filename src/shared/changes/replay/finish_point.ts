/** The end of a restore to a moment: what no change of the stream says. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { BeforeCommit } from "../../restore/before_commit.ts";
import { refreshViews } from "../../restore/refresh_views.ts";
import { type HeldObject, readHeld, replayTable } from "../../restore/state.ts";
import { recallQuietEvents, wakeEventTriggers } from "../../restore/quiet_event_triggers.ts";
import { stateSchema } from "../../restore/target.ts";
import { quoteLiteral, quoteQualified } from "../../schema/quote.ts";
import { holdWebhooks } from "./hold_webhooks.ts";
import { dropQuieted, wakeTriggers } from "./quiet_triggers.ts";
import { readReplay, type ReplayMarker } from "./replay_marker.ts";
import type { Survey } from "../plan/survey.ts";
import { readTableName } from "../plan/table_name.ts";

export interface FinishedPoint {
  /** As it was in the end. */
  readonly marker: ReplayMarker;
  readonly held: readonly HeldObject[];
}

/**
 * Tables that were to be left out are emptied, `beforeCommit` has its say, triggers fire again, sequences stand at or ahead, views are made anew; then the state and the
 * restore's memberships go, in one transaction.
 */
export async function finishPoint(
  connection: Connection,
  { survey, withoutTables, beforeCommit }: {
    readonly survey: Survey;
    readonly withoutTables: readonly string[];
    readonly beforeCommit: BeforeCommit;
  },
): Promise<FinishedPoint> {
  await connection.execute("begin");
  try {
    const marker = await readReplay(connection);
    if (marker === null) throw new HoldfastError("internal", "the replay has lost its place");
    for (const table of withoutTables) await emptyTable(connection, table);
    await beforeCommit(connection);
    await wakeTriggers(connection);
    if (survey.ddl > 0) await holdWebhooks(connection);
    const held = await readHeld(connection);
    await setSequences(connection, survey.sequences);
    await passRows(connection);
    await refreshViews(connection);
    await connection.execute([...recallQuietEvents, `drop table ${replayTable}`, dropQuieted].join(";\n"));
    if (held.length === 0) await connection.execute(`drop schema ${stateSchema} cascade`);
    await connection.execute(
      [wakeEventTriggers, ...marker.leaving, "set local synchronous_commit = on", "commit"].join(";\n"),
    );
    return { marker, held };
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
}

/** One that was dropped before the point is not there. */
async function emptyTable(connection: Connection, table: string): Promise<void> {
  const { schema, name } = readTableName(table);
  const sqlName = quoteQualified(schema, name);
  const [row] = await connection.query("select pg_catalog.to_regclass($1) is not null as is_there", [sqlName]);
  if (row?.["is_there"] === "t") await connection.execute(`delete from only ${sqlName}`);
}

async function setSequences(connection: Connection, sequences: Survey["sequences"]): Promise<void> {
  for (const { schema, name, lastValue, isCalled } of sequences) {
    // One that the target does not have was made later, or dropped before; one that is ahead stays ahead.
    await connection.query(
      `select pg_catalog.setval(c.oid::regclass, $2::bigint, $3::boolean)
         from pg_catalog.pg_class as c join pg_catalog.pg_sequence as s on s.seqrelid = c.oid
        where c.oid = pg_catalog.to_regclass($1) and c.relkind = 'S'
          and case
            when c.relkind <> 'S' or not pg_catalog.has_sequence_privilege(c.oid, 'update') then false
            when not pg_catalog.has_sequence_privilege(c.oid, 'select, usage') then false
            when $2::bigint not between s.seqmin and s.seqmax then false
            when pg_catalog.pg_sequence_last_value(c.oid) is null then true
            when s.seqincrement > 0 then pg_catalog.pg_sequence_last_value(c.oid) <= $2::bigint
            else pg_catalog.pg_sequence_last_value(c.oid) >= $2::bigint
          end`,
      [quoteQualified(schema, name), lastValue, String(isCalled)],
    );
  }
}

/**
 * A sequence of a column gives no value that a row of its table has: where it was restarted or dropped between the point
 * and the end of the point's segment, no segment says how far it had come. A service's own may be out of our reach.
 */
async function passRows(connection: Connection): Promise<void> {
  const owned = await connection.query(
    `select pg_catalog.format('%I.%I', sn.nspname, sc.relname) as sequence,
            pg_catalog.format('%I.%I', tn.nspname, tc.relname) as owner, pg_catalog.quote_ident(a.attname) as column,
            case when s.seqincrement > 0 then 'max' else 'min' end as furthest, s.seqmin as least, s.seqmax as greatest
       from pg_catalog.pg_sequence as s
       join pg_catalog.pg_class as sc on sc.oid = s.seqrelid
       join pg_catalog.pg_namespace as sn on sn.oid = sc.relnamespace
       join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = sc.oid
         and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
       join pg_catalog.pg_class as tc on tc.oid = d.refobjid and tc.relkind in ('r', 'p')
       join pg_catalog.pg_namespace as tn on tn.oid = tc.relnamespace
       join pg_catalog.pg_attribute as a on a.attrelid = tc.oid and a.attnum = d.refobjsubid
      where sc.oid >= 16384 and a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype)
        and pg_catalog.has_schema_privilege(sn.oid, 'usage') and pg_catalog.has_schema_privilege(tn.oid, 'usage')
        and pg_catalog.has_table_privilege(tc.oid, 'select')
        and case when sc.relkind = 'S' then pg_catalog.has_sequence_privilege(sc.oid, 'update')
          and pg_catalog.has_sequence_privilege(sc.oid, 'select, usage') else false end`,
  );
  for (const { sequence, owner, column, furthest, least, greatest } of owned) {
    const isBehind = furthest === "max" ? "<" : ">";
    await connection.execute(
      `select pg_catalog.setval(${quoteLiteral(sequence ?? "")}::pg_catalog.regclass, t.value)
         from (select pg_catalog.${furthest}(${column})::bigint as value from ${owner}) as t
        where t.value between ${least} and ${greatest}
          and coalesce(pg_catalog.pg_sequence_last_value(${quoteLiteral(sequence ?? "")}::pg_catalog.regclass)
            ${isBehind} t.value, true)`,
    );
  }
}
