/** Is a full backup's chain still that of its database? */
import { parseSegmentName, prefixes } from "../format/layout.ts";
import type { RunRow } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import type { BackupDeps } from "./deps.ts";

/**
 * False where the store has more of the run's chain than this database has recorded, and no drain has looked at that since
 * the server was started: the database may have been put back, and what the store has would be replayed onto a backup of
 * another life. The run is then on no chain.
 */
export async function knowsChain(deps: BackupDeps, connection: Connection, run: RunRow): Promise<boolean> {
  if (run.chainId === null) return true;
  const [look] = await connection.query(
    "select d.looked_while = pg_catalog.pg_postmaster_start_time() as done from backup.drain as d",
  );
  if (look?.["done"] === "t") return true;
  const stored: { readonly name: string; readonly start: string }[] = [];
  for await (const { name } of deps.store.list(`${prefixes.changes}${run.chainId}/`)) {
    const segment = parseSegmentName(name);
    if (segment !== null) stored.push({ name, start: String(segment.startLsn) });
  }
  const [unknown] = await connection.query(
    `select s.name
       from pg_catalog.jsonb_to_recordset($1::jsonb) as s (name text, start numeric)
       join backup.chains as c on c.id = $2
       left join lateral (
         select case when g.ends_in_transaction then g.start_lsn else g.end_lsn end as lsn
         from backup.segments as g where g.chain_id = c.id order by g.end_lsn desc, g.part desc limit 1
       ) as reached on true
      where '0/0'::pg_lsn + s.start >= coalesce(reached.lsn, c.start_lsn)
        and not exists (select from backup.segments as g where g.name = s.name)
      limit 1`,
    [JSON.stringify(stored), run.chainId],
  );
  if (unknown === undefined) return true;
  await connection.query("select backup.leave_chain($1::uuid)", [run.id]);
  deps.log.warn("chain.unknown", { run: run.id, chain: run.chainId, segment: unknown["name"] ?? "" });
  return false;
}
