import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import pg from "pg";

/** Roles of the platform that can log in. Each gets a random password of its own. */
export const platformLogins = [
  "supabase_admin",
  "postgres",
  "authenticator",
  "supabase_auth_admin",
  "supabase_storage_admin",
  "supabase_replication_admin",
  "supabase_read_only_user",
  "pgbouncer",
] as const;

const folder = new URL("./platform/", import.meta.url);

/** The files of `platform/` in the order in which they run. */
export function platformFiles(): { readonly name: string; readonly sql: string }[] {
  return readdirSync(fileURLToPath(folder)).filter((name) => name.endsWith(".sql")).sort()
    .map((name) => ({ name, sql: readFileSync(fileURLToPath(new URL(name, folder)), "utf8") }));
}

/**
 * Gives the database of `superuserUrl` (role `supabase_admin`) what a hosted project has. Roles that are there already
 * stay as they are, so a second database of the same cluster can have it too; pg_cron only where the server is set up
 * for it.
 */
export async function installPlatform(superuserUrl: string): Promise<void> {
  await withClient(superuserUrl, async (client) => {
    for (const file of platformFiles()) {
      try {
        await client.query(file.sql);
      } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new Error(`src/local/platform/${file.name}: ${why}`, { cause });
      }
    }
  });
}

/** Kept out of the server's log, also when a statement fails, and out of pg_stat_statements, which `postgres` may read. */
export async function setPasswords(superuserUrl: string, passwords: Readonly<Record<string, string>>): Promise<void> {
  await withClient(superuserUrl, async (client) => {
    await client.query(
      "set log_min_error_statement = panic; set log_statement = none; set log_min_duration_statement = -1; " +
        "set pg_stat_statements.track = none",
    );
    for (const [role, password] of Object.entries(passwords)) {
      await client.query(`alter role ${client.escapeIdentifier(role)} password ${client.escapeLiteral(password)}`);
    }
  });
}

/** The database that platform databases are copied from, made with the first of them. */
const source = "holdfast_platform";

/**
 * A new database: plain and owned by the superuser, or with the platform and owned by `postgres`. `urlOf` gives the
 * superuser's URL of a database.
 */
export async function makeDatabase(
  urlOf: (database: string) => string,
  name: string,
  platform: boolean,
): Promise<void> {
  await withClient(urlOf("postgres"), async (client) => {
    const create = (database: string, from: string) =>
      client.query(`create database ${client.escapeIdentifier(database)} template ${from}`);
    if (!platform) {
      await create(name, "template0");
      return;
    }
    // Two callers at once would both make the source.
    await client.query("select pg_advisory_lock(hashtext($1))", [source]);
    const { rowCount } = await client.query("select from pg_database where datname = $1 and datistemplate", [source]);
    if (rowCount === 0) {
      await client.query(`drop database if exists ${source}`);
      await create(source, "template0");
      await installPlatform(urlOf(source));
      await client.query(`alter database ${source} is_template true`);
    }
    await create(name, source);
    await client.query(`alter database ${client.escapeIdentifier(name)} owner to postgres`);
    await client.query(`grant all on database ${client.escapeIdentifier(name)} to dashboard_user`);
  });
}

async function withClient(url: string, use: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: url, application_name: "holdfast:platform" });
  await client.connect();
  try {
    await use(client);
  } finally {
    await client.end();
  }
}
