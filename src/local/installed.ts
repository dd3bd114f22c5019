import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import pg from "pg";

const folder = fileURLToPath(new URL("../../supabase/migrations/", import.meta.url));

/** The files of `supabase/migrations/` in the order in which they run. */
export function migrationFiles(): { readonly name: string; readonly sql: string }[] {
  return readdirSync(folder).filter((name) => name.endsWith(".sql")).sort()
    .map((name) => ({ name, sql: readFileSync(`${folder}${name}`, "utf8") }));
}

/** Runs every migration, each in a transaction, without the CLI and without its record of them. `url`: of the role that installs. */
export async function runMigrations(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, application_name: "holdfast:installed" });
  await client.connect();
  try {
    for (const file of migrationFiles()) await client.query(file.sql);
  } finally {
    await client.end();
  }
}

/**
 * For the superuser, in a database that was copied with Holdfast in it: makes the copy an install of its own, made now, in
 * this server and this database. It holds all that the migrations draw, note of where they run, or count time from;
 * `tests/integration/installed.test.ts` compares with an install that was not copied.
 */
export const becomeOwnInstall = `
  begin;
  update backup.identity set
    install_id = gen_random_uuid(),
    system_identifier = (select c.system_identifier::text from pg_catalog.pg_control_system() as c),
    database_name = current_database(),
    installed_at = backup.clock_now();
  update backup.audit_key set
    key = sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
  update backup.schedules set enabled_since = backup.clock_now();
  update backup.drill_calendar set since = backup.clock_now();
  commit;
`;
