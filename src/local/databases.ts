import type pg from "pg";
import { becomeOwnInstall, runMigrations } from "./installed.ts";
import { installPlatform, withClient } from "./platform.ts";

/** What a new database holds: nothing, what a hosted project has, or Holdfast as well. */
export type DatabaseContent = "nothing" | "platform" | "holdfast";

/** The databases that others are copied from; each is made with the first copy, unless the cluster's template brought it. */
const sources = { platform: "holdfast_platform", holdfast: "holdfast_installed" } as const;

/** URL of a database of one cluster, for one of its roles. */
export type UrlOf = (role: string, database: string) => string;

/** A new database: with nothing in it owned by the cluster's superuser, else owned by `postgres`. */
export async function makeDatabase(
  urlOf: UrlOf,
  superuser: string,
  name: string,
  content: DatabaseContent,
): Promise<void> {
  await withClient(urlOf(superuser, "postgres"), async (client) => {
    if (content === "nothing") {
      await copyDatabase(client, "template0", name);
      return;
    }
    await makeSource(client, urlOf, content);
    await copyDatabase(client, sources[content], name);
    await giveToPostgres(client, name);
  });
  if (content === "holdfast") {
    await withClient(urlOf(superuser, name), async (client) => {
      await client.query(becomeOwnInstall);
    });
  }
}

/** Makes the sources of a platform cluster, so that its copies have them. */
export async function makeSources(urlOf: UrlOf): Promise<void> {
  await withClient(urlOf("supabase_admin", "postgres"), (client) => makeSource(client, urlOf, "holdfast"));
}

/** `client`: of `supabase_admin`, in no source. */
async function makeSource(client: pg.Client, urlOf: UrlOf, content: keyof typeof sources): Promise<void> {
  const source = sources[content];
  // Two callers at once would both make it.
  await client.query("select pg_advisory_lock(hashtext($1))", [source]);
  const { rowCount } = await client.query("select from pg_database where datname = $1 and datistemplate", [source]);
  if (rowCount === 0) {
    await client.query(`drop database if exists ${source}`);
    if (content === "platform") {
      await copyDatabase(client, "template0", source);
      await installPlatform(urlOf("supabase_admin", source));
    } else {
      await makeSource(client, urlOf, "platform");
      await copyDatabase(client, sources.platform, source);
      await giveToPostgres(client, source);
      await runMigrations(urlOf("postgres", source));
    }
    await client.query(`alter database ${source} is_template true`);
  }
  await client.query("select pg_advisory_unlock(hashtext($1))", [source]);
}

async function copyDatabase(client: pg.Client, source: string, name: string): Promise<void> {
  await client.query(`create database ${client.escapeIdentifier(name)} template ${source}`);
}

async function giveToPostgres(client: pg.Client, name: string): Promise<void> {
  await client.query(`alter database ${client.escapeIdentifier(name)} owner to postgres`);
  await client.query(`grant all on database ${client.escapeIdentifier(name)} to dashboard_user`);
}
