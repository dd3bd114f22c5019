/** Files that were brought back or saved, in the audit of the database that is at hand. */
import type { Connection } from "../shared/postgres/connection.ts";

/** Before anything is written: who had which files stands there whatever comes of it. Another project's database need not have Holdfast. */
export async function auditFiles(
  session: Connection,
  action: "files.restored" | "files.saved",
  backup: string,
  detail: Readonly<Record<string, unknown>>,
): Promise<void> {
  const [row] = await session.query(
    "select pg_catalog.to_regprocedure('backup.audit(text, text, jsonb)') is not null as installed",
  );
  if (row?.["installed"] !== "t") return;
  await session.query("select backup.audit($1, $2, $3::jsonb)", [action, `backup:${backup}`, JSON.stringify(detail)]);
}
