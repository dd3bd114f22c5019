import { HoldfastError } from "../shared/errors.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Context } from "./context.ts";
import { sourceDatabase } from "./open.ts";

/** A session with the database of --db-url, where the schema `backup` must be. Errors: `schema_missing`, the session's. */
export async function installedSession(
  context: Pick<Context, "settings" | "note">,
  applicationName: string,
): Promise<Connection> {
  const database = await sourceDatabase(context);
  const session = await database.connect(applicationName);
  try {
    if (!(await isInstalled(session))) {
      throw new HoldfastError("schema_missing", `${database.label} has no schema backup`);
    }
    return session;
  } catch (error) {
    await session.close();
    throw error;
  }
}

export async function isInstalled(session: Connection): Promise<boolean> {
  const [row] = await session.query("select pg_catalog.to_regclass('backup.runs') is not null as installed");
  return row?.["installed"] === "t";
}
