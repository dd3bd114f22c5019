/** The database that a restore makes for itself when no target is named. */
import type { Manifest } from "../format/manifest.ts";
import { utcStamp } from "../format/layout.ts";
import type { Connection } from "../postgres/connection.ts";
import type { DatabaseOptions } from "../postgres/pg_connection.ts";

/** Names of databases are cut at 63 bytes. */
const maxNameBytes = 63;

/**
 * `<name>_at_<moment that the backup shows>`: the same backup gives the same name, so that a restore that was broken off
 * goes on in the database that it had made.
 */
export function newDatabaseName(manifest: Pick<Manifest, "project" | "consistentAt">): string {
  const suffix = `_at_${utcStamp(new Date(manifest.consistentAt)).toLowerCase()}`;
  let name = manifest.project.database;
  while (new TextEncoder().encode(name + suffix).byteLength > maxNameBytes) name = [...name].slice(0, -1).join("");
  return name + suffix;
}

/** The same server and user, another database. */
export function inDatabase(options: DatabaseOptions, name: string): DatabaseOptions {
  return { ...options, url: options.url.replace(/^(\w+:\/\/[^/?#]*)(?:\/[^?#]*)?/, `$1/${encodeURIComponent(name)}`) };
}

/** False for one that `createDatabase` left half made. */
export async function databaseExists(session: Connection, name: string): Promise<boolean> {
  const found = await session.query("select from pg_catalog.pg_database where datname = $1 and datallowconn", [name]);
  return found.length > 0;
}
