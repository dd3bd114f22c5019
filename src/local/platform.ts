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

/** A session for `use`, ended afterwards. */
export async function withClient(url: string, use: (client: pg.Client) => Promise<void>): Promise<void> {
  const client = new pg.Client({ connectionString: url, application_name: "holdfast:platform" });
  await client.connect();
  try {
    await use(client);
  } finally {
    await client.end();
  }
}
