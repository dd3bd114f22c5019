/** The migrations of `supabase/migrations`, installed as `supabase db push` does it, on any PostgreSQL. */
import { readdir, readFile } from "node:fs/promises";
import { HoldfastError } from "../shared/errors.ts";
import type { Connection } from "../shared/postgres/connection.ts";

const folder = new URL("../../supabase/migrations/", import.meta.url);

export interface Migration {
  /** The digits before the first underscore; they order the migrations and name them in the database. */
  readonly version: string;
  readonly name: string;
  readonly sql: string;
}

/** In order. Errors: `internal` for two of the same version, which the Supabase CLI would skip in silence. */
export async function readMigrations(): Promise<Migration[]> {
  const migrations: Migration[] = [];
  for (const file of (await readdir(folder)).sort()) {
    const found = /^(\d{14})_([a-z0-9_]+)\.sql$/.exec(file);
    const [version, name] = [found?.[1], found?.[2]];
    if (version === undefined || name === undefined) continue;
    if (migrations.at(-1)?.version === version) throw new HoldfastError("internal", `two migrations of ${version}`);
    migrations.push({ version, name, sql: await readFile(new URL(file, folder), "utf8") });
  }
  return migrations;
}

export async function missingMigrations(session: Connection, migrations: readonly Migration[]): Promise<Migration[]> {
  const [there] = await session.query(
    "select pg_catalog.to_regclass('supabase_migrations.schema_migrations') is not null as there",
  );
  if (there?.["there"] !== "t") return [...migrations];
  const rows = await session.query("select version from supabase_migrations.schema_migrations");
  const applied = new Set(rows.map((row) => row["version"]));
  return migrations.filter(({ version }) => !applied.has(version));
}

/** The table as Supabase CLI 3 makes it; columns that a newer one adds are left alone. */
const historyTable = `
  create schema if not exists supabase_migrations;
  create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
  alter table supabase_migrations.schema_migrations
    add column if not exists statements text[], add column if not exists name text;
`;

/** Any number; held by the session, so that two installers wait for each other. */
const installLock = 4_127_030;

/**
 * Applies what is missing, each migration in one transaction with its record. Returns the names of those it applied.
 * A failed one leaves nothing behind; those before it stay.
 */
export async function applyMigrations(
  session: Connection,
  migrations: readonly Migration[],
  onApply: (migration: Migration) => void,
): Promise<string[]> {
  await session.query(`select pg_catalog.pg_advisory_lock(${installLock})`);
  try {
    const missing = await missingMigrations(session, migrations);
    if (missing.length > 0) await session.execute(`set client_min_messages = warning; ${historyTable}`);
    for (const migration of missing) {
      onApply(migration);
      await applyOne(session, migration);
    }
    return missing.map(({ version, name }) => `${version}_${name}`);
  } finally {
    await session.query(`select pg_catalog.pg_advisory_unlock(${installLock})`);
  }
}

async function applyOne(session: Connection, { version, name, sql }: Migration): Promise<void> {
  await session.execute("begin");
  try {
    await session.execute(sql);
    await session.query(
      "insert into supabase_migrations.schema_migrations (version, name, statements) values ($1, $2, array[$3])",
      [version, name, sql],
    );
    await session.execute("commit");
  } catch (error) {
    // A session that is gone has rolled back already; the first error is the one that tells.
    await session.execute("rollback").catch(() => {});
    throw error;
  }
}
