/** What is kept of one person, where, until when, and who saw it. docs/reports.md. */
import { HoldfastError } from "../errors.ts";
import { OwnedRows } from "../erase/owned_rows.ts";
import { call } from "../jobs/call.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { ownedTables } from "../rows/ownership/ownership.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import { type Kept, keptFormat, type Live, type Report } from "./report_format.ts";

export interface ReportDeps {
  /** Whose acts the audit notes. */
  readonly connection: Connection;
  /** Of the same database, with pinned settings: rows are counted there. */
  readonly counting: () => Promise<Connection>;
  readonly map: BackupMap;
  /** For each statement that counts; 0: no bound. */
  readonly atMostMs: number;
}

/**
 * `user`: as `readUserId` gives it. In the audit before it is handed back. Errors: `user_not_found` for an id of which nothing is
 * known; those of the connections.
 */
export async function reportOn({ connection, ...deps }: ReportDeps, user: string): Promise<Report> {
  const kept = await readKept(connection, user);
  if (isUnknown(kept)) {
    throw new HoldfastError("user_not_found", "nothing is known of such a user: neither now nor in what was erased");
  }
  await call(connection, "select backup.made_report($1::uuid)", [user]);
  const counted = kept.standing === "there" || kept.standing === "erasing"
    ? await liveWithin(deps, user)
    : { live: null, notCounted: `the person is ${kept.standing}` };
  return { ...kept, ...counted, cannotTell: cannotTell(kept, counted.live) };
}

/** Read before it is audited that somebody did. */
async function readKept(connection: Connection, user: string): Promise<Kept> {
  const [row] = await call(connection, "select backup.person_report($1::uuid)::text as report", [user]);
  const parsed = keptFormat.safeParse(JSON.parse(row?.["report"] ?? "null"));
  if (parsed.success) return parsed.data;
  throw new HoldfastError("internal", "the database's report is not as this version reads it", { cause: parsed.error });
}

const isUnknown = ({ standing, erasure, seen, exports, imports, guardians, hold }: Kept): boolean =>
  standing === "unknown" && erasure === null && hold === null &&
  [seen, exports, imports, guardians].every((list) => list.length === 0);

async function liveWithin(
  { counting, map, atMostMs }: Omit<ReportDeps, "connection">,
  user: string,
): Promise<Pick<Report, "live" | "notCounted">> {
  const connection = await counting();
  try {
    await connection.execute(`begin isolation level repeatable read; set local statement_timeout = ${atMostMs}`);
    return { live: await countLive(connection, user, map), notCounted: null };
  } catch (error) {
    if (sqlstateOf(error) !== "57014" || atMostMs === 0) throw error;
    return { live: null, notCounted: "counting took too long here; `holdfast report` has the time for it" };
  } finally {
    await connection.execute("rollback").catch(() => {});
    await connection.close();
  }
}

/** In the transaction that is open. */
async function countLive(connection: Connection, user: string, map: BackupMap): Promise<Live> {
  const owned = await OwnedRows.collect(connection, user, map, false);
  const reaching = new Set(ownedTables(owned.plan).map(nameOf));
  return {
    tables: owned.counts.map(({ table, rows, shared }) => ({ table, rows, shared })),
    files: await countFiles(connection, user),
    withoutPath: owned.graph.tables.filter((table) =>
      table.schema !== "auth" && table.schema !== "storage" && !reaching.has(nameOf(table))
    ).map(nameOf),
    suspects: owned.plan.suspects.map(({ table, column }) => `${nameOf(table)}.${column}`),
  };
}

async function countFiles(connection: Connection, user: string): Promise<Live["files"]> {
  const [there] = await connection.query("select pg_catalog.to_regclass('storage.objects') is not null as yes");
  if (there?.["yes"] !== "t") return [];
  const rows = await connection.query(
    `select o.bucket_id as bucket, pg_catalog.count(*) as files,
            coalesce(pg_catalog.sum((o.metadata ->> 'size')::bigint), 0) as bytes
       from storage.objects as o where o.owner_id = $1 group by o.bucket_id order by o.bucket_id`,
    [user],
  );
  return rows.map((row) => ({
    bucket: row["bucket"] ?? "",
    files: Number(row["files"]),
    bytes: Number(row["bytes"]),
  }));
}

/** Said each time, so that nobody takes silence for an answer. Pure. */
export function cannotTell(kept: Kept, live: Live | null): string[] {
  return [
    "What an app, its logs, and other services keep is not looked at.",
    "Who read live rows through the app, the dashboard or a connection to the database stands in no audit of ours.",
    "Who followed a link to a download or an export, Storage tells nobody: what stands here is that the link was made.",
    "Downloads and exports that were saved elsewhere, and databases that were restored before, are not known.",
    ...(kept.mayHaveSeen.length === 0
      ? []
      : ["Whole backups and tables were restored or downloaded: the audit does not say whose rows were in them."]),
    ...(kept.seen.length < kept.most && kept.mayHaveSeen.length < kept.most
      ? []
      : [`Only the newest ${kept.most} acts are listed; \`holdfast audit export\` has all of them.`]),
    ...(kept.standing === "deleted" || (kept.standing === "erasing" && kept.since === null)
      ? ["Since when the person was there is not known any more: older backups may hold nothing of them."]
      : []),
    ...(kept.standing === "erased"
      ? [
        "Of whoever was erased, side schemas and downloads from before are gone; what is listed is what the ledger tells.",
      ]
      : []),
    ...(live === null || live.withoutPath.length + live.suspects.length === 0
      ? []
      : ["From some tables no way leads to a person, so whose rows they are cannot be said: they are named."]),
  ];
}
