/** Calls of the functions that keep record of rewriting (migration rewriting). */
import { call } from "../../jobs/call.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { ErasureFacts } from "./plan_rewriting.ts";

/** For as long as the session lives. Errors: `run_state` where another one rewrites. */
export async function lockRewriting(connection: Connection): Promise<void> {
  await call(connection, "select backup.lock_rewriting()", []);
}

export async function unlockRewriting(connection: Connection): Promise<void> {
  await call(
    connection,
    "select pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended('holdfast:rewriting', 0))",
    [],
  );
}

/** Errors: `erasure_held`, `rewriting_waits`. */
export async function refuseRewriting(connection: Connection): Promise<void> {
  await call(connection, "select backup.refuse_rewriting()", []);
}

export interface KnownErasure extends ErasureFacts {
  readonly isRewritten: boolean;
}

export async function readErasures(connection: Connection): Promise<KnownErasure[]> {
  const rows = await call(
    connection,
    `select e.id, e.rewritten_at is not null as rewritten,
            pg_catalog.to_char(e.searched_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as searched
       from backup.erasures as e where e.status <> 'begun' order by e.begun_at`,
    [],
  );
  return rows.map((row) => ({
    id: text(row, "id"),
    searchedAt: row["searched"] == null ? null : new Date(row["searched"]),
    isRewritten: row["rewritten"] === "t",
  }));
}

/** Of manifests that the database knows: how far they were rewritten, and why they have to stay. */
export async function readKnownBackups(
  connection: Connection,
): Promise<Map<string, { readonly through: number; readonly hold: string | null }>> {
  const rows = await call(
    connection,
    `select r.manifest_name, r.rewritten_through, case when r.hold_until > backup.clock_now() then coalesce(r.hold_reason, '') end as hold
       from backup.runs as r where r.kind = 'full' and r.manifest_name is not null and r.status in ('succeeded', 'quarantined')`,
    [],
  );
  return new Map(rows.map((row) => [
    text(row, "manifest_name"),
    { through: Number(row["rewritten_through"]), hold: row["hold"] ?? null },
  ]));
}

/** Segments that the database knows: up to which entry they were looked through, and whether they begin behind every erasure. */
export async function readKnownSegments(
  connection: Connection,
): Promise<Map<string, { readonly through: number; readonly isBehind: boolean }>> {
  const rows = await call(
    connection,
    `select s.name, s.rewritten_through,
            s.start_lsn >= (select max(e.passed_lsn) from backup.erasures as e where e.searched_at is not null) as behind
       from backup.segments as s`,
    [],
  );
  return new Map(rows.map((row) => [
    text(row, "name"),
    { through: Number(row["rewritten_through"]), isBehind: row["behind"] === "t" },
  ]));
}

/** Lists of files beside segments that the database knows, in the same way; those on their way out of the stores are done with. */
export async function readKnownLists(
  connection: Connection,
): Promise<Map<string, { readonly through: number; readonly isBehind: boolean }>> {
  const rows = await call(
    connection,
    `select l.name, l.rewritten_through,
            l.lsn >= (select max(e.passed_lsn) from backup.erasures as e where e.searched_at is not null) as behind
       from backup.file_lists as l
     union all
     select m.name, 0, true from backup.removals as m where m.kind = 'segment'`,
    [],
  );
  return new Map(rows.map((row) => [
    text(row, "name"),
    { through: Number(row["rewritten_through"]), isBehind: row["behind"] === "t" },
  ]));
}

/** A chunk of a backup, as the database knows it. */
export interface KnownChunk {
  readonly key: string;
  readonly object: string;
}

/** By table and beginning of the range. */
export const rangeKey = (oid: number | string, block: number | string, item: number | string): string =>
  `${oid} ${block} ${item}`;

/** Of the backup's last attempt; and its lists of files in their order. Null: the database does not know it. */
export async function readKnownObjects(
  connection: Connection,
  manifest: string,
): Promise<{ readonly chunks: readonly KnownChunk[]; readonly lists: readonly string[] } | null> {
  const [run] = await call(
    connection,
    "select r.id, r.attempt from backup.runs as r where r.kind = 'full' and r.manifest_name = $1 and r.status in ('succeeded', 'quarantined')",
    [manifest],
  );
  if (run === undefined) return null;
  const chunks = await call(
    connection,
    `select c.table_oid, c.from_block, c.from_item, c.object from backup.chunks as c where c.run_id = $1::uuid and c.attempt = $2::integer`,
    [text(run, "id"), text(run, "attempt")],
  );
  const lists = await call(
    connection,
    `select t.result #>> '{list,object}' as object from backup.tasks as t
      where t.run_id = $1::uuid and t.attempt = $2::integer and t.kind = 'files' and t.status = 'done' order by t.detail ->> 'prefix'`,
    [text(run, "id"), text(run, "attempt")],
  );
  return {
    chunks: chunks.map((row) => ({
      key: rangeKey(text(row, "table_oid"), text(row, "from_block"), text(row, "from_item")),
      object: text(row, "object"),
    })),
    lists: lists.map((row) => text(row, "object")),
  };
}

export type Held = "held" | "gone" | "in use";

/** `gone`: retention has taken it, or is about to; `in use`: somebody reads it. In the transaction that is open. */
export async function holdName(
  connection: Connection,
  kind: "manifest" | "segment" | "list",
  name: string,
): Promise<Held> {
  const [row] = await call(connection, `select backup.hold_${kind}($1) as held`, [name]);
  return row?.["held"] === "held" ? "held" : row?.["held"] === "in use" ? "in use" : "gone";
}

/** What stands in the place of another one. */
export interface RewrittenFacts {
  readonly name: string;
  readonly revision: number;
  readonly hash: string;
  readonly original: string;
  readonly through: number;
  readonly stored_bytes: number;
}

export async function recordRewritten(
  connection: Connection,
  kind: "backup" | "segment",
  facts: RewrittenFacts,
): Promise<void> {
  await call(connection, `select backup.record_rewritten_${kind}($1::jsonb)`, [JSON.stringify(facts)]);
}

/** What is left of a list of files beside segments, and stands for it from then on; none: nothing was left. */
export interface RewrittenList {
  readonly before: string;
  readonly chain_id: string;
  readonly lsn: string;
  readonly epoch: string;
  readonly through: number;
  readonly left: readonly {
    readonly name: string;
    readonly files: number;
    readonly stored_bytes: number;
    readonly stored_hash: string;
  }[];
}

/** The one before has to leave the stores from then on. */
export async function recordRewrittenList(connection: Connection, facts: RewrittenList): Promise<void> {
  await call(connection, "select backup.record_rewritten_list($1::jsonb)", [JSON.stringify(facts)]);
}

export async function noteClean(connection: Connection, names: readonly string[], through: number): Promise<void> {
  await call(
    connection,
    "select backup.note_clean(array(select pg_catalog.jsonb_array_elements_text($1::jsonb)), $2::integer)",
    [
      JSON.stringify(names),
      String(through),
    ],
  );
}

export interface Remain {
  readonly store: string;
  readonly name: string;
  readonly what: "object" | "earlier";
  readonly after: number;
  readonly through: number;
  /** ISO 8601; null: not locked, or the store does not tell. */
  readonly locked_until: string | null;
}

export async function noteRemains(connection: Connection, remains: readonly Remain[]): Promise<void> {
  await call(connection, "select backup.note_remains($1::jsonb)", [JSON.stringify(remains)]);
}

export interface LeftOver {
  readonly store: string;
  readonly name: string;
  readonly what: "object" | "earlier";
  /** What stands under the name in that store is what was put in its place. */
  readonly replaced: boolean;
  readonly lockedUntil: string | null;
  readonly why: string | null;
}

/** What has to go and is not known to be gone. */
export async function readRemains(connection: Connection): Promise<LeftOver[]> {
  const rows = await call(
    connection,
    `select distinct on (m.store, m.name, m.what) m.store, m.name, m.what, m.why,
            pg_catalog.to_char(m.locked_until at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as locked_until,
            (m.store is distinct from (select s.label from backup.second_store as s) or exists (
              select from backup.copies as c join backup.rewritten as w on w.name = c.name
              where c.store = m.store and c.name = m.name and c.status = 'stored' and c.first_hash = w.hash
            )) as replaced
       from backup.remains as m where m.gone_at is null order by m.store, m.name, m.what, m.locked_until desc nulls last`,
    [],
  );
  return rows.map((row) => ({
    store: text(row, "store"),
    name: text(row, "name"),
    what: row["what"] === "earlier" ? "earlier" : "object",
    replaced: row["replaced"] === "t",
    lockedUntil: row["locked_until"] ?? null,
    why: row["why"] ?? null,
  }));
}

export interface Looked {
  readonly store: string;
  readonly name: string;
  readonly what: "object" | "earlier";
  readonly gone: boolean;
  readonly locked_until: string | null;
  readonly why: string | null;
}

export async function settleRemains(connection: Connection, looked: readonly Looked[]): Promise<void> {
  await call(connection, "select backup.settle_remains($1::jsonb)", [JSON.stringify(looked)]);
}

/** Rewritten and not listed in the ledger yet. `copied`: every store has it. */
export async function readUnlisted(
  connection: Connection,
): Promise<{ readonly name: string; readonly revision: number; readonly hash: string; readonly copied: boolean }[]> {
  const rows = await call(
    connection,
    `select w.name, w.revision, w.hash, (not backup.has_second_store() or exists (
              select from backup.copies as c join backup.second_store as s on s.label = c.store
              where c.name = w.name and c.status = 'stored' and c.first_hash = w.hash
            )) as copied
       from backup.rewritten as w where w.listed_at is null order by w.name`,
    [],
  );
  return rows.map((row) => ({
    name: text(row, "name"),
    revision: Number(row["revision"]),
    hash: text(row, "hash"),
    copied: row["copied"] === "t",
  }));
}

export async function listRewritten(connection: Connection, names: readonly string[]): Promise<void> {
  await call(
    connection,
    "select backup.list_rewritten(array(select pg_catalog.jsonb_array_elements_text($1::jsonb)))",
    [
      JSON.stringify(names),
    ],
  );
}

/** `done`: ids of erasures of which nothing is left to be rewritten. How many are clean now that were not. */
export async function settleErasures(connection: Connection, done: readonly string[]): Promise<number> {
  const [row] = await call(
    connection,
    "select backup.settle_erasures(array(select pg_catalog.jsonb_array_elements_text($1::jsonb)::uuid)) as cleaned",
    [JSON.stringify(done)],
  );
  return Number(row?.["cleaned"]);
}
