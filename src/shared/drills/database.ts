/** The databases of drills: made for one, told by their names, dropped when it is over, also by whoever comes later. */
import type { Clock } from "../clock.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { utcStamp } from "../format/layout.ts";
import type { Manifest } from "../format/manifest.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import { createDatabase } from "../restore/create_database.ts";
import { dropDatabase } from "../restore/drop_database.ts";
import { databaseExists } from "../restore/new_database.ts";
import { requireRoom } from "../restore/room.ts";
import { restoreFailure } from "../restore/sessions.ts";
import { activeDatabases, databaseDropped, leftDatabases } from "./drill_queries.ts";
import type { DrillServer } from "./deps.ts";

const prefix = "holdfast_drill_";
const tries = 3;

/** Whose drill it is stands in it: several projects may use one server. */
export function drillDatabaseName(install: string, drill: string, now: Date): string {
  return `${prefix}${install.slice(0, 8)}_${utcStamp(now).toLowerCase()}_${drill.slice(0, 8)}`;
}

/**
 * Errors: `drill_database_exists`; on the own server `setting_missing` where nobody said how large its disk is, and `space_missing`.
 * `connection`: to the database with Holdfast installed.
 */
export async function requirePlace(
  connection: Connection,
  server: DrillServer,
  name: string,
  bytes: number,
): Promise<void> {
  const session = await server.database.connect("holdfast:drill");
  try {
    if (await databaseExists(session, name)) {
      throw new HoldfastError("drill_database_exists", `there is a database ${name} already`);
    }
  } finally {
    await session.close();
  }
  if (!server.isOwn) return;
  const [row] = await connection.query("select backup.setting_integer('disk_mb') > 0 as known");
  if (row?.["known"] !== "t") {
    throw new HoldfastError(
      "setting_missing",
      "nobody said how large the disk of this server is, and no other server is named",
      {
        hint: "Set disk_mb in backup.settings, or name a server for drills in BACKUP_DRILL_DB_URL.",
      },
    );
  }
  await requireRoom(connection, bytes);
}

/** Closed to everybody but its owner before anybody can connect. Errors: `database_denied`, those of the connection. */
export async function makeDrillDatabase(server: DrillServer, name: string, like: Manifest["server"]): Promise<void> {
  const session = await server.database.connect("holdfast:drill");
  try {
    await createDatabase(session, name, like).catch((error: unknown) => {
      throw restoreFailure(error, `database ${name}`, undefined);
    });
  } finally {
    await session.close();
  }
}

/** False where it could not be dropped: it is left for the next sweep. Never throws. */
export async function dropDrillDatabase(
  { clock, log, server }: { readonly clock: Clock; readonly log: Log; readonly server: DrillServer },
  name: string,
): Promise<boolean> {
  // It comes out of a row of the database: whatever is written there, nothing else is dropped.
  if (!name.startsWith(prefix)) {
    log.warn("drill.database_strange", {});
    return false;
  }
  for (let left = tries; left > 0; left--) {
    try {
      await dropDatabase(clock, server.database, name, { force: true });
      return true;
    } catch (error) {
      log.warn("drill.database_left", { database: name, code: asHoldfastError(error).code, triesLeft: left - 1 });
    }
  }
  return false;
}

/**
 * Databases that drills of this installation left on the server, none of a drill that is under way. A copy of the project has the same
 * installation's name, and does not know what the original is at: it drops what it knows of. Their names, once they are gone. Never
 * throws: what stays is for the next one.
 */
export async function sweepDrillDatabases(
  deps: { readonly clock: Clock; readonly log: Log; readonly server: DrillServer; readonly connection: Connection },
  install: string,
): Promise<string[]> {
  const { connection, server, log } = deps;
  const swept: string[] = [];
  try {
    const session = await server.database.connect("holdfast:drill");
    let there: string[];
    try {
      const rows = await session.query(
        `select d.datname as name from pg_catalog.pg_database as d
          where d.datname ~ ('^' || $1 || '[0-9]{8}t[0-9]{6}z_[0-9a-f]{8}$') and pg_catalog.pg_has_role(d.datdba, 'usage')
          order by 1`,
        [`${prefix}${install.slice(0, 8)}_`],
      );
      there = rows.map((row) => row["name"] ?? "");
    } finally {
      await session.close();
    }
    // Read after the list: one that was made since is not in it, and one in it that is under way is known by now.
    const active = await activeDatabases(connection);
    const left = await leftDatabases(connection);
    const [is] = await connection.query("select backup.is_original() as original");
    const isOurs = (name: string) => is?.["original"] === "t" || left.some(({ database }) => database === name);
    const stayed = new Set<string>();
    for (const name of there.filter((one) => !active.has(one) && isOurs(one))) {
      if (await dropDrillDatabase(deps, name)) {
        log.info("drill.database_swept", { database: name });
        swept.push(name);
      } else stayed.add(name);
    }
    for (const { drill, database } of left) {
      if (!stayed.has(database)) await databaseDropped(connection, drill);
    }
  } catch (error) {
    log.warn("drill.not_swept", { code: asHoldfastError(error).code });
  }
  return swept;
}
