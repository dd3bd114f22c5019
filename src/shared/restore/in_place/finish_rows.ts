/** What follows once the rows are back in place: sequences that no column owns, and views that hold rows. */
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import type { SchemaCapture } from "../../schema/capture_format.ts";
import { raiseSequence } from "../../rows/apply/raise_sequence.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import { quoteQualified } from "../../schema/quote.ts";

/** The user's sequences, at or ahead of what they were, never behind. Errors: those of the connection. */
export async function putSequencesAhead(connection: Connection, was: SchemaCapture): Promise<void> {
  for (const { schema, name, lastValue, isCalled, dataOwner, restoreData } of was.sequences) {
    if (dataOwner !== "user" || !restoreData) continue;
    const sequence = quoteQualified(schema, name);
    const [there] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [sequence]);
    if (there?.["yes"] !== "t") continue;
    // One that nobody drew from hands out its first value as it is.
    const [fresh] = isCalled ? [] : await connection.query(
      `select q.last_value = ${lastValue} and not q.is_called as yes from ${sequence} as q`,
    );
    if (fresh?.["yes"] === "t") continue;
    await inTransaction(connection, () => raiseSequence(connection, sequence, lastValue));
  }
}

export interface RefreshedViews {
  readonly views: readonly string[];
  /** Views that keep the rows that they had, with the reason; for people. */
  readonly failed: readonly string[];
}

/** In the order of what they read. One that fails keeps its rows. Errors: those of a connection that is lost, a cancelled statement. */
export async function refreshViews(connection: Connection): Promise<RefreshedViews> {
  const rows = await connection.query(
    `with recursive reads (view, source) as (
       select distinct r.ev_class, d.refobjid
         from pg_catalog.pg_rewrite as r
         join pg_catalog.pg_depend as d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
          and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> r.ev_class
     ), depth (view, level) as (
       select c.oid, 0 from pg_catalog.pg_class as c where c.relkind in ('v', 'm')
       union
       select r.view, p.level + 1 from depth as p join reads as r on r.source = p.view where p.level < 100
     )
     select c.oid::regclass::text as name
       from pg_catalog.pg_class as c
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
      where c.relkind = 'm' and c.relispopulated and c.oid >= 16384 and pg_catalog.pg_has_role(c.relowner, 'usage')
        and n.nspname !~ '^restore_[0-9a-f]{8}$'
      order by (select max(d.level) from depth as d where d.view = c.oid), 1`,
  );
  const views: string[] = [];
  const failed: string[] = [];
  for (const { name } of rows) {
    try {
      await connection.execute(`refresh materialized view ${name}`);
      views.push(name ?? "");
    } catch (error) {
      const sqlstate = sqlstateOf(error);
      if (sqlstate === null || /^(?:08|57)/.test(sqlstate)) throw error;
      failed.push(`materialized view ${name}: it could not be filled again (SQLSTATE ${sqlstate}) and keeps its rows`);
    }
  }
  return { views, failed };
}
