/** Buckets that came after a backup and hold files: their files stay, so they do too. */
import { nameOf } from "../shared/rows/past/fold_partitions.ts";
import type { LayDeps } from "../shared/rows/beside/lay.ts";
import { type DatabaseBeside, pairAgain } from "../shared/rows/beside/database_beside.ts";

/** The same, without those buckets among the rows that `replace` may delete. Errors: those of the connection. */
export async function keepFilledBuckets(deps: LayDeps, beside: DatabaseBeside): Promise<DatabaseBeside> {
  const buckets = beside.laid.find(({ side }) => nameOf(side.past) === "storage.buckets");
  const [there] = await deps.connection.query(
    `select pg_catalog.to_regclass('storage.objects') is not null and pg_catalog.to_regclass('storage.buckets') is not null as yes`,
  );
  if (buckets === undefined || there?.["yes"] !== "t") return beside;
  const scope = "not exists (select from storage.objects as f where f.bucket_id = l.id)";
  const kept = { ...beside, laid: beside.laid.map((one) => one === buckets ? { ...one, scope } : one) };
  const [counted] = await deps.connection.query(
    `select count(*) as n from storage.buckets as l
      where not (${scope}) and not exists (select from ${buckets.side.sql} as b where b.id = l.id)`,
  );
  const rows = Number(counted?.["n"]);
  if (rows === 0) return kept;
  const reason = "these buckets came after the backup, and stay with the files in them";
  const leftOut = [...kept.leftOut, { table: nameOf(buckets.side.past), reason, rows }];
  return await pairAgain(deps, { ...kept, leftOut });
}
