/** Calls of the functions that keep record of erasures (migration erasures). */
import type { Connection } from "../postgres/connection.ts";

/** Errors: `erasure_held`, `last_administrator`, `user_erased`. */
export async function refuseErasure(connection: Connection, user: string): Promise<void> {
  await connection.query("select backup.refuse_erasure($1::uuid)", [user]);
}

/** For as long as the session lives. Errors: `run_state` where another erasure or a restore is at work. */
export async function lockErasures(connection: Connection): Promise<void> {
  await connection.query("select backup.lock_erasures()");
}

/** Its id. Errors: those of `refuseErasure`. */
export async function beginErasure(connection: Connection, user: string): Promise<string> {
  const [row] = await connection.query("select backup.begin_erasure($1::uuid) as id", [user]);
  return row?.["id"] ?? "";
}

/** An entry stands in the store of that label. */
export async function recordErasure(connection: Connection, id: string, entry: string, store: string): Promise<void> {
  await connection.query("select backup.record_erasure($1::uuid, $2, $3)", [id, entry, store]);
}

/** The number of the newest entry that the database knows to be in the store of that label; 0: none, or it keeps no record. */
export async function knownEntries(connection: Connection, store: string): Promise<number> {
  const [there] = await connection.query("select pg_catalog.to_regclass('backup.erasures') is not null as yes");
  if (there?.["yes"] !== "t") return 0;
  const [row] = await connection.query(
    `select pg_catalog.max(pg_catalog.split_part(n.name, '/', 3)::bigint) as newest
       from (
         select e.name from backup.erasures as o, pg_catalog.unnest(o.entries) as e (name) where o.store = $1
         union all
         select g.entry from backup.guardian_requests as g where g.store = $1
       ) as n`,
    [store],
  );
  return Number(row?.["newest"] ?? 0);
}

/** In the transaction that deletes the rows. */
export async function emptyErasure(
  connection: Connection,
  id: string,
  user: string,
  rows: ReadonlyMap<string, number>,
): Promise<void> {
  await connection.query("select backup.empty_erasure($1::uuid, $2::uuid, $3::jsonb)", [
    id,
    user,
    JSON.stringify(Object.fromEntries(rows)),
  ]);
}

/** `searched` while the second store lacks the ledger, else `done`. */
export async function endErasure(
  connection: Connection,
  id: string,
  user: string,
  found: { readonly files: number; readonly mentions: readonly Mention[] },
): Promise<string> {
  const [row] = await connection.query(
    "select backup.end_erasure($1::uuid, $2::uuid, $3::integer, $4::jsonb) as status",
    [
      id,
      user,
      String(found.files),
      JSON.stringify(found.mentions),
    ],
  );
  return row?.["status"] ?? "";
}

/** Where an id still stands. */
export interface Mention {
  readonly table: string;
  readonly rows: number;
}

/** Was an erasure of the user begun and not ended? */
export async function isUnfinished(connection: Connection, user: string): Promise<boolean> {
  const [row] = await connection.query(
    `select exists (
       select from backup.erasures as e where e.person = backup.person_hash($1) and e.status in ('begun', 'recorded', 'emptied')
     ) as yes`,
    [user],
  );
  return row?.["yes"] === "t";
}

export async function isDeparted(connection: Connection, user: string): Promise<boolean> {
  const [row] = await connection.query(
    "select exists (select from backup.departures as d where d.user_id = $1::uuid) as yes",
    [user],
  );
  return row?.["yes"] === "t";
}

/** Open requests of guardians for the erasure of the user: their ids. */
export async function readGuardians(connection: Connection, user: string): Promise<string[]> {
  const rows = await connection.query(
    `select g.id from backup.guardian_requests as g
      where g.child = backup.person_hash($1) and g.status = 'open' and 'erasure' = any (g.asks) order by g.recorded_at`,
    [user],
  );
  return rows.map((row) => row["id"] ?? "");
}

/** Names of side schemas that hold rows from before, with the id of their restore. */
export async function readSides(connection: Connection): Promise<{ readonly id: string; readonly schema: string }[]> {
  const rows = await connection.query(
    `select r.id, r.side_schema as schema from backup.restores as r
      where r.side_schema is not null and r.side_dropped_at is null and r.finished_at is not null
        and pg_catalog.to_regnamespace(r.side_schema) is not null order by r.started_at`,
  );
  return rows.map((row) => ({ id: row["id"] ?? "", schema: row["schema"] ?? "" }));
}

export async function dropSide(connection: Connection, id: string): Promise<void> {
  await connection.query("select backup.drop_side($1::uuid)", [id]);
}

/**
 * Backups of this database that may hold somebody who was there until now, and when the last of them goes by its tier; null:
 * there is none.
 */
export async function readRetained(
  connection: Connection,
): Promise<{ readonly backups: number; readonly held: number; readonly until: string | null }> {
  const [row] = await connection.query(
    `select pg_catalog.count(*) as backups, pg_catalog.count(*) filter (where r.held) as held,
            pg_catalog.to_char(pg_catalog.max(r.until) at time zone 'UTC', 'YYYY-MM-DD') as until
       from (
         select r.hold_until is not null as held, r.consistent_at + (
             select pg_catalog.max(p.keep) from backup.policies as p where p.tier = any (r.tiers)
           ) as until
           from backup.runs as r where r.kind = 'full' and r.status in ('succeeded', 'quarantined')
       ) as r`,
  );
  return { backups: Number(row?.["backups"]), held: Number(row?.["held"]), until: row?.["until"] ?? null };
}
