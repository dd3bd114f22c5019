/** The cluster that SQL tests share: a hosted-like PostgreSQL with Holdfast installed by `supabase db push`. */
import { spawnSync } from "node:child_process";
import process from "node:process";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { type Cluster, startCluster } from "../../src/local/postgres.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const supabase = `${root}node_modules/.bin/supabase`;
/** A push takes some 5 s of CPU; the machine may be busy. */
const cliMs = 150_000;

export interface CliResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the Supabase CLI on our folder and the cluster's database, without any account, terminal or password in sight. */
export function cli(cluster: Cluster, args: readonly string[]): CliResult {
  const remote = `--remote=postgresql://postgres@${cluster.host}:${cluster.port}/postgres?sslmode=disable`;
  const result = spawnSync(supabase, [...args, remote, "--workdir", root, "--agent", "no"], {
    encoding: "utf8",
    timeout: cliMs,
    env: { ...process.env, PGPASSWORD: cluster.password("postgres"), SUPABASE_TELEMETRY_DISABLED: "1" },
    stdio: ["ignore", "pipe", "pipe"],
  });
  return { status: result.status, stdout: result.stdout, stderr: result.stderr };
}

const shared = Symbol.for("holdfast.tests.sql.cluster");
export type Version = 15 | 17;
type Shared = { [shared]?: Map<Version, Promise<Cluster>> };

/** Started once for all files that run in this process, as a copy of an installed one; the server ends with it. */
export function installedCluster(version: Version = 15): Promise<Cluster> {
  const place: Shared = globalThis as Shared;
  const clusters = place[shared] ??= new Map();
  // 17 is without pg_cron.
  const cluster = clusters.get(version) ??
    startCluster({ version, platform: true, prepared: "installed", durable: false });
  clusters.set(version, cluster);
  return cluster;
}

/** A session as `role`, which logs in itself. */
export async function session(cluster: Cluster, role = "postgres", database = "postgres"): Promise<pg.Client> {
  const client = new pg.Client({
    connectionString: cluster.plainUrl(role, database),
    types: { getTypeParser: () => String },
  });
  await client.connect();
  return client;
}

/** Runs `work` in a transaction that is always rolled back, so that files do not see each other's rows and jobs. */
export async function rolledBack<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query("begin");
  try {
    return await work();
  } finally {
    await client.query("rollback");
  }
}

/** Holds the clock of schema `backup` at a moment, for the rest of the transaction. */
export async function setClock(client: pg.Client, moment: string): Promise<void> {
  await client.query(`
    create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = ''
    as $$ select timestamptz ${pg.escapeLiteral(moment)} $$`);
}

/** Address and secret in Vault as an installed project has them, for the rest of the transaction. */
export async function fillVault(client: pg.Client, secret = workerSecret): Promise<void> {
  await client.query("delete from vault.secrets where name in ('holdfast_project_url', 'holdfast_worker_secret')");
  await client.query("select vault.create_secret('http://127.0.0.1:9', 'holdfast_project_url')");
  await client.query("select vault.create_secret($1, 'holdfast_worker_secret')", [secret]);
}

export const workerSecret = "a-worker-secret-for-tests-of-40-letters!";

/** The one value of the one row. */
export async function scalar(client: pg.Client, text: string, values: readonly unknown[] = []): Promise<string | null> {
  const { rows } = await client.query({ text, values: [...values], rowMode: "array" });
  if (rows.length !== 1) throw new Error(`${rows.length} rows, not one: ${text}`);
  const [value] = rows[0] as [string | null];
  return value;
}

/** SQLSTATE of the error that `work` ends with, or "none". The transaction goes on. */
export async function sqlstate(client: pg.Client, text: string, values: readonly unknown[] = []): Promise<string> {
  await client.query("savepoint attempt");
  try {
    await client.query(text, [...values]);
    await client.query("release savepoint attempt");
    return "none";
  } catch (error) {
    await client.query("rollback to savepoint attempt");
    return error instanceof pg.DatabaseError ? error.code ?? "unknown" : Promise.reject(error);
  }
}
