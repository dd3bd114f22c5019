/** backup.map.json as the setting `backup_map` keeps it, for exports that nobody makes by hand. */
import { call } from "../jobs/call.ts";
import type { Connection } from "../postgres/connection.ts";
import { type BackupMap, emptyMap, readBackupMap } from "../rows/ownership/map_file.ts";

/** Errors: `payload_invalid`. */
export async function readKeptMap(connection: Connection): Promise<BackupMap> {
  const [row] = await call(connection, "select s.value from backup.settings as s where s.name = 'backup_map'", []);
  const text = row?.["value"] ?? "";
  return text === "" ? emptyMap : readBackupMap(text);
}
