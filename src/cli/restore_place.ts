/** The database that a restore fills: the target that is named, or a new one beside the source. */
import { HoldfastError } from "../shared/errors.ts";
import type { Manifest } from "../shared/format/manifest.ts";
import type { Database } from "../shared/postgres/connection.ts";
import { openDatabase } from "../shared/postgres/pg_connection.ts";
import { createDatabase } from "../shared/restore/create_database.ts";
import { requireRoom } from "../shared/restore/room.ts";
import { restoreFailure } from "../shared/restore/sessions.ts";
import type { Context } from "./context.ts";
import { databaseExists, inDatabase, newDatabaseName } from "../shared/restore/new_database.ts";
import { isInstalled } from "./installed.ts";
import { sourceDatabase, sourceOptions, targetDatabase } from "./open.ts";
import type { Settings } from "./settings.ts";

/** Where the backup goes. `make` creates what is not there yet; before it, nothing has changed. */
export interface Place {
  readonly database: Database;
  readonly isNew: boolean;
  make(): Promise<void>;
}

/** Errors: `setting_missing` when there is neither a target nor a server for a new one. */
export function requirePlace(settings: Settings): void {
  if (settings.get("target-db-url") !== undefined || settings.get("db-url") !== undefined) return;
  throw new HoldfastError("setting_missing", "neither --target-db-url nor --db-url is set", {
    hint: "Name the target with --target-db-url, or the server for a new database with --db-url.",
  });
}

/**
 * `consistentAt` is the moment that the restored database shows; a new database is named after it. Errors: those of the
 * sessions, and `space_missing` where the source tells the size of its disk and a new database would not fit.
 */
export async function placeOf(
  context: Context,
  { project, server, consistentAt, totals }: Pick<Manifest, "project" | "server" | "consistentAt" | "totals">,
): Promise<Place> {
  requirePlace(context.settings);
  const named = await targetDatabase(context);
  if (named !== null) return { database: named, isNew: false, make: () => Promise.resolve() };
  const name = newDatabaseName({ project, consistentAt });
  const database = openDatabase(inDatabase(await sourceOptions(context), name));
  const source = await sourceDatabase(context);
  const session = await source.connect("holdfast:restore");
  try {
    if (await databaseExists(session, name)) return { database, isNew: false, make: () => Promise.resolve() };
    if (await isInstalled(session)) await requireRoom(session, totals.rawBytes);
  } finally {
    await session.close();
  }
  return {
    database,
    isNew: true,
    async make() {
      const maker = await source.connect("holdfast:restore");
      try {
        await createDatabase(maker, name, server).catch((error: unknown) => {
          throw restoreFailure(error, `database ${name}`, context.signal);
        });
        context.note(`database ${name} was made`);
      } finally {
        await maker.close();
      }
    },
  };
}

/** The same error, with the name of the database: nobody has typed it where it follows from the backup. */
export function inTheWay(error: unknown, { database }: Place): unknown {
  if (!(error instanceof HoldfastError) || error.code !== "target_not_empty") return error;
  return new HoldfastError("target_not_empty", error.message, {
    hint: `${error.hint} ${database.label} is left as it is; --target-db-url names another one.`,
    cause: error,
  });
}
