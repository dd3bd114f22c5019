/** The moment that an incremental backup ends at. */
import { parseLsn } from "../../changes/decode/lsn.ts";
import type { Point } from "../../changes/replay/replay.ts";
import type { Connection } from "../../postgres/connection.ts";

/**
 * The end of the last segment that the incremental of this id (in full) owns, which only the database knows. Null: it owns
 * none. The same data as a restore to `latest` gave when it was sealed.
 */
export async function pointOfIncremental(connection: Connection, run: string): Promise<Point | null> {
  const [row] = await connection.query(
    "select pg_catalog.max(s.end_lsn)::text as lsn from backup.segments as s where s.run_id = $1::uuid",
    [run],
  );
  const lsn = row?.["lsn"] ?? null;
  return lsn === null ? null : { by: "lsn", lsn: parseLsn(lsn) };
}
