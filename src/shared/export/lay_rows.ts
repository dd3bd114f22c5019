/** Reads a person's rows in one snapshot, as JSON that Postgres makes, into `backup.export_pieces`. docs/decisions/0037-exports.md. */
import { HoldfastError } from "../errors.ts";
import { call } from "../jobs/call.ts";
import { numberOrNull, text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { readEqualities } from "../rows/ownership/equalities.ts";
import { liveGraph } from "../rows/ownership/live_graph.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { ownedTables, planOwnership } from "../rows/ownership/ownership.ts";
import { liveRelation, ownershipOfAllSql } from "../rows/ownership/ownership_sql.ts";
import { checkShares, type TableShare, totalSql } from "../rows/ownership/share_limit.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { Graph } from "../rows/past/graph.ts";
import { notOfOwnBuckets } from "../schema/own_objects.ts";
import { arrayText, quoteIdent, quoteLiteral } from "../schema/quote.ts";
import { describeTables } from "./describe_tables.ts";
import { type ExportedTable, type ExportPlan, planExport } from "./export_plan.ts";
import type { ExportLease } from "./export_queries.ts";
import { documentEnd, documentHead, type LeftOut, leftOutOf, tableEnd, tableHead } from "./document_text.ts";
import { rowSql } from "./row_sql.ts";

export interface LayRequest {
  /** As `readUserId` gives it. */
  readonly user: string;
  readonly map: BackupMap;
  /** False: their files are named, and left where they are. */
  readonly files: boolean;
}

/** For whoever makes it by hand. */
export interface LaidFacts {
  readonly leftOut: LeftOut;
  /** Entries of the map that fit nothing, as sentences. */
  readonly unmatched: readonly string[];
}

/** Bytes of JSON that are one piece; a single row may have more. A leg reads them in slices. */
const pieceBytes = 256 * 1024;
/** Definitions that change while they are read: begin again, at most so often. */
const maxStarts = 3;
/** What a table that was dropped, renamed or rewritten meanwhile answers. */
const changedStates = new Set(["42P01", "42703", "3F000", "42704", "42883"]);

/**
 * One transaction of `session` (`openSession`), which alone tells of its end: whatever ends it before leaves nothing. Its last
 * statement holds all that is written, so the server completes it even where this process has ended.
 * Errors: `ownership_unclear`, `catalog_changed`, `run_state` where another lays the same export, `lease_lost`, those of the session.
 */
export async function layRows(session: Connection, lease: ExportLease, request: LayRequest): Promise<LaidFacts> {
  for (let start = 1;; start++) {
    await session.execute("begin isolation level repeatable read");
    try {
      return await laidIn(session, lease, request);
    } catch (error) {
      await session.execute("rollback").catch(() => {});
      const state = sqlstateOf(error);
      const changed = state !== null && changedStates.has(state) ||
        error instanceof HoldfastError && error.code === "catalog_changed";
      if (!changed) throw error;
      if (start === maxStarts) {
        throw new HoldfastError("catalog_changed", "definitions kept changing while a person's rows were read", {
          cause: error,
        });
      }
    }
  }
}

async function laidIn(
  session: Connection,
  lease: ExportLease,
  { user, map, files }: LayRequest,
): Promise<LaidFacts> {
  const [begun] = await call(
    session,
    `select pg_catalog.pg_try_advisory_xact_lock(backup.export_lock($1::uuid)) as ours,
            pg_catalog.to_char(pg_catalog.clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as moment,
            i.install_id as install, i.project_ref as project from backup.identity as i`,
    [lease.id],
  );
  if (begun === undefined || begun["ours"] !== "t") {
    throw new HoldfastError("run_state", `the rows of export ${lease.id} are being read by somebody else`);
  }
  await call(session, "select backup.empty_export($1::uuid, $2::bigint)", [lease.id, lease.token]);
  const graph = await liveGraph(session);
  const ownership = planOwnership(graph, map);
  const literal = quoteLiteral(user);
  const plan = planExport(graph, ownership, map, await describeTables(session), literal);
  await findRows(session, lease.id, graph, plan, literal);
  await requireUnchanged(session, plan);
  const counts = await countRows(session, lease.id);
  await checkLimits(session, graph, plan, counts);

  const tables = plan.tables.filter(({ place }) => (counts.get(place)?.owned ?? 0) > 0);
  const head = documentHead({
    id: lease.id,
    install: text(begun, "install"),
    project: begun["project"] ?? null,
    user,
    consistentAt: text(begun, "moment"),
  });
  const leftOut = leftOutOf(plan, (place) => counts.get(place) ?? { owned: 0, shared: 0 });
  const rows = tables.reduce((sum, { place }) => sum + (counts.get(place)?.owned ?? 0), 0);
  const facts = { tables: tables.length, rows, consistent_at: text(begun, "moment") };
  await session.execute([
    pieceSql(lease.id, -1, 0, head),
    ...tables.flatMap((table, at) => tableSql(lease.id, table, at, counts.get(table.place)?.owned ?? 0, literal)),
    pieceSql(lease.id, tables.length, 0, documentEnd(leftOut)),
    ...(plan.filesPlace === null ? [] : [filesSql(lease.id, plan.filesPlace, files)]),
    `select backup.record_laid(${quoteLiteral(lease.id)}, ${Number(lease.token)}, ${
      quoteLiteral(JSON.stringify(facts))
    }::pg_catalog.jsonb)`,
    "commit",
  ].join(";\n"));
  return { leftOut, unmatched: ownership.unmatched };
}

/** Into `backup.export_rows`. Every table that is read stays locked against being rewritten until the transaction ends. */
async function findRows(session: Connection, id: string, graph: Graph, plan: ExportPlan, user: string): Promise<void> {
  const relations = new Map(graph.tables.map((table) => [nameOf(table), liveRelation(table)]));
  const equals = await readEqualities(session, graph.tables);
  if (plan.ownership.groups.length > 0) {
    const all = ownershipOfAllSql(plan.ownership, (table) => relations.get(nameOf(table)) ?? null, user, equals);
    await session.execute(
      `insert into backup.export_rows (export_id, place, relation, row_at, shared)
       select ${quoteLiteral(id)}, a.place, a.relation, a.row_at, a.shared from (${all}) as a`,
    );
  }
  for (const { place, relation, condition } of plan.tables) {
    if (condition === null) continue;
    await session.execute(
      `insert into backup.export_rows (export_id, place, relation, row_at, shared)
       select ${quoteLiteral(id)}, ${place}, t.tableoid, t.ctid, false from ${relation} as t where ${condition}`,
    );
  }
  await session.execute("analyze backup.export_rows");
}

/** A table that was emptied or rewritten between the snapshot and our first look at it shows no row, and no error. */
async function requireUnchanged(session: Connection, { ownership, tables }: ExportPlan): Promise<void> {
  const names = [...ownedTables(ownership), ...tables].map(nameOf);
  const [row] = await session.query(
    `with recursive read (oid) as (
       select pg_catalog.to_regclass(n.name)::oid from pg_catalog.unnest($1::text[]) as n (name)
       union
       select h.inhrelid from read as r join pg_catalog.pg_inherits as h on h.inhparent = r.oid
     )
     select c.oid::regclass as changed from read as r join pg_catalog.pg_class as c on c.oid = r.oid
     where c.relkind = 'r' and c.relfilenode <> coalesce(pg_catalog.pg_relation_filenode(c.oid), 0) limit 1`,
    [arrayText(names)],
  );
  if (row === undefined) return;
  throw new HoldfastError("catalog_changed", `${row["changed"]} was rewritten while a person's rows were read`);
}

interface Counts {
  readonly owned: number;
  readonly shared: number;
}

/** By place. */
async function countRows(session: Connection, id: string): Promise<Map<number, Counts>> {
  const rows = await session.query(
    `select r.place, count(*) filter (where not r.shared) as owned, count(*) filter (where r.shared) as shared
     from backup.export_rows as r where r.export_id = $1::uuid group by r.place`,
    [id],
  );
  return new Map(
    rows.map((row) => [Number(row["place"]), { owned: Number(row["owned"]), shared: Number(row["shared"]) }]),
  );
}

/** A person who would have a larger part of a table than the map allows has more likely got others' rows. */
async function checkLimits(
  session: Connection,
  graph: Graph,
  { ownership }: ExportPlan,
  counts: ReadonlyMap<number, Counts>,
): Promise<void> {
  const relations = new Map(graph.tables.map((table) => [nameOf(table), liveRelation(table)]));
  const shares: TableShare[] = [];
  for (const [place, table] of ownedTables(ownership).entries()) {
    const found = counts.get(place);
    if (found === undefined) continue;
    const reached = found.owned + found.shared;
    const [row] = await session.query(totalSql(table, reached, relations.get(nameOf(table)) ?? nameOf(table)));
    shares.push({ schema: table.schema, name: table.name, reached, total: numberOrNull(row ?? {}, "total") ?? 0 });
  }
  checkShares(ownership, shares);
}

function pieceSql(id: string, place: number, piece: number, body: string): string {
  return `insert into backup.export_pieces (export_id, place, piece, body)
    values (${quoteLiteral(id)}, ${place}, ${piece}, pg_catalog.convert_to(${quoteLiteral(body)}, 'UTF8'))`;
}

/** The largest number of a piece: behind all of its table. */
const lastPiece = "9223372036854775807";

function tableSql(id: string, table: ExportedTable, at: number, rows: number, user: string): string[] {
  const order = (table.key ?? ["tableoid", "ctid"]).map((column) => `t.${quoteIdent(column)}`).join(", ");
  return [
    pieceSql(id, at, -1, `${at === 0 ? "" : ",\n"}${tableHead(table, rows)}`),
    `insert into backup.export_pieces (export_id, place, piece, body)
     select ${quoteLiteral(id)}, ${at}, p.piece, pg_catalog.convert_to(
       case when p.piece > 0 then E',\\n' else '' end || pg_catalog.string_agg(p.line, E',\\n' order by p.n), 'UTF8')
     from (
       select q.n, q.line, coalesce(pg_catalog.sum(pg_catalog.octet_length(q.line)) over (
           order by q.n rows between unbounded preceding and 1 preceding
         ), 0) / ${pieceBytes} as piece
       from (
         select pg_catalog.row_number() over (order by ${order}) as n, ${rowSql(table, user)} as line
         from backup.export_rows as m join ${table.relation} as t on t.tableoid = m.relation and t.ctid = m.row_at
         where m.export_id = ${quoteLiteral(id)} and m.place = ${table.place} and not m.shared
       ) as q
     ) as p
     group by p.piece`,
    `insert into backup.export_pieces (export_id, place, piece, body)
     values (${quoteLiteral(id)}, ${at}, ${lastPiece}, pg_catalog.convert_to(${quoteLiteral(tableEnd)}, 'UTF8'))`,
  ];
}

/** Columns that some versions of Storage lack are read by name. */
function filesSql(id: string, place: number, wanted: boolean): string {
  return `insert into backup.export_files
      (export_id, number, bucket_id, name, path, version, bytes, content_type, created_at, updated_at, metadata, state, why)
    select ${quoteLiteral(id)}, f.number, f.bucket_id, f.name,
      'files/' || pg_catalog.lpad(f.number::text, 6, '0') || '-' ||
        pg_catalog."right"(pg_catalog.regexp_replace(f.name, '^.*/|[^A-Za-z0-9._-]', '', 'g'), 100),
      f.about ->> 'version', coalesce((f.about -> 'metadata' ->> 'size')::bigint, 0), f.about -> 'metadata' ->> 'mimetype',
      (f.about ->> 'created_at')::timestamptz, (f.about ->> 'updated_at')::timestamptz,
      pg_catalog.jsonb_build_object(
        'cacheControl', f.about -> 'metadata' -> 'cacheControl', 'metadata', f.about -> 'user_metadata'
      ),
      ${wanted ? "'open', null" : "'missing', 'it was left out by whoever made the export'"}
    from (
      select pg_catalog.row_number() over (order by o.bucket_id, o.name) as number, o.bucket_id, o.name, pg_catalog.to_jsonb(o) as about
      from backup.export_rows as m join only storage.objects as o on o.tableoid = m.relation and o.ctid = m.row_at
      where m.export_id = ${quoteLiteral(id)} and m.place = ${place} and not m.shared and ${
    notOfOwnBuckets("o.bucket_id")
  }
        and o.bucket_id is not null and o.name is not null
    ) as f`;
}
