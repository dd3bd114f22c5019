/** Full restores in place that were broken off: what they found is what there was, and not what the next one finds. */
import type { Connection } from "../../postgres/connection.ts";
import { goneTable, toldTable } from "./gone_definitions.ts";

export interface EarlierTries {
  /**
   * Of the first that has one which is there still: from before anything was changed. Null: there is none, or the project was
   * opened since, so that what people wrote is in a later one alone.
   */
  readonly safetyRun: string | null;
  /** Null unless the project was opened since. `begun`: ISO 8601. */
  readonly olderSafety: { readonly run: string; readonly begun: string } | null;
  /** That are there still, oldest first. */
  readonly sideSchemas: readonly string[];
  /** What stood in side schemas that a person dropped: JSON lists of `GoneDefinition`. */
  readonly lists: readonly string[];
}

/**
 * Of those that changed something since the last one that came to its end, this restore's own earlier try among them. `id`: of
 * its record; null: Holdfast is not installed, and only side schemas tell. Errors: those of the connection.
 */
export async function readEarlierTries(
  connection: Connection,
  { id, schema }: { readonly id: string | null; readonly schema: string },
): Promise<EarlierTries> {
  if (id === null) {
    return { safetyRun: null, olderSafety: null, sideSchemas: await untoldSides(connection, schema), lists: [] };
  }
  const rows = await connection.query(
    `select case when r.side_dropped_at is null then r.side_schema end as side_schema, r.id = $1::uuid as ours,
            u.id as safety_run, case when r.side_dropped_at is not null then r.state ->> 'gone' end as gone,
            pg_catalog.to_char(r.started_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as begun,
            r.id = $1::uuid or exists (
              select from backup.maintenance as m where m.closed and m.since < r.heartbeat_at) as stayed_closed
       from backup.restores as r
       left join backup.runs as u on u.id = r.safety_run and u.status in ('succeeded', 'quarantined')
      where r.scope = 'full' and r.mode <> 'beside' and r.target_is_here and r.stage = 'applying'
        and r.side_schema is not null
        and (r.id = $1::uuid or (
          r.status in ('failed', 'cancelled') and r.side_expires_at > backup.clock_now()
          and not exists (
            select from backup.restores as d
             where d.scope = 'full' and d.mode = 'replace' and d.target_is_here and d.status = 'succeeded'
               and d.finished_at > r.started_at
          )
        ))
      order by r.started_at`,
    [id],
  );
  const first = rows.find((row) => row["safety_run"] !== null && row["stayed_closed"] === "t");
  const older = rows.find((row) => row["safety_run"] !== null && row["stayed_closed"] !== "t");
  return {
    safetyRun: first?.["safety_run"] ?? null,
    olderSafety: older === undefined ? null : { run: older["safety_run"] ?? "", begun: older["begun"] ?? "" },
    sideSchemas: rows.flatMap((row) => row["ours"] === "t" ? [] : row["side_schema"] ?? []),
    lists: rows.flatMap((row) => row["gone"] ?? []),
  };
}

/** Made by this role, as what stands there will be run. */
async function untoldSides(connection: Connection, schema: string): Promise<string[]> {
  const rows = await connection.query(
    `select n.nspname as name
       from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
      where c.relname = $1 and c.relkind = 'r' and n.nspname ~ '^restore_[0-9a-f]{8}$' and n.nspname <> $2
        and pg_catalog.pg_get_userbyid(c.relowner) = current_user
        and pg_catalog.pg_get_userbyid(n.nspowner) = current_user
      order by c.oid`,
    [goneTable, schema],
  );
  return rows.map(({ name }) => name ?? "");
}

/** For a database without records: a restore has told what went, and a later one has no business with it. */
export async function markTold(connection: Connection, schemas: readonly string[]): Promise<void> {
  for (const schema of schemas) {
    await connection.execute(`alter table if exists ${schema}."${goneTable}" rename to "${toldTable}"`);
  }
}
