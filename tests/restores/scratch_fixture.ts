/** What scratch databases are made after, and where. */
import { inDatabase } from "../../src/shared/restore/new_database.ts";
import type { Manifest } from "../../src/shared/format/manifest.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { ScratchServer } from "../../src/shared/rows/past/moment_scratch.ts";

export const like: Manifest["server"] = { versionNum: 150020, encoding: "UTF8", collate: "C", ctype: "C" };

/** `wrap`: what is opened in a scratch database. */
export function serverAt(url: string, wrap: (database: Database) => Database = (database) => database): ScratchServer {
  return {
    database: openDatabase({ url }),
    inDatabase: (name) => wrap(openDatabase(inDatabase({ url }, name))),
  };
}
