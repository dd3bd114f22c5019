import { randomBytes } from "node:crypto";
import pg from "pg";
import { afterAll, beforeAll } from "vitest";
import { type Cluster, type ClusterOptions, type DatabaseOptions, startCluster } from "../../src/local/postgres.ts";

export type { Cluster } from "../../src/local/postgres.ts";

export type TestClusterOptions = Partial<Omit<ClusterOptions, "directory">>;

/** Time for hooks that start a cluster: seconds, but machines are shared. */
export const clusterMs = 180_000;

/**
 * A cluster for one test. Default: PostgreSQL 15 with the platform, without fsync. The caller destroys it; one that was
 * forgotten ends with this process, and its files go when the next cluster is made.
 */
export function startTestCluster(options: TestClusterOptions = {}): Promise<Cluster> {
  return startCluster({ version: 15, platform: true, durable: false, prepared: "sources", ...options });
}

/**
 * A cluster for the tests of a file or of a describe block: started before them, destroyed after them. Call it where
 * tests are declared; the function that it returns gives the cluster inside tests and hooks.
 */
export function useCluster(options: TestClusterOptions = {}): () => Cluster {
  let cluster: Cluster | undefined;
  beforeAll(async () => {
    cluster = await startTestCluster(options);
  }, clusterMs);
  afterAll(async () => {
    await cluster?.destroy();
  }, clusterMs);
  return () => {
    if (cluster === undefined) throw new Error("the cluster is there in tests and hooks only");
    return cluster;
  };
}

/** Runs `use` with a cluster that is destroyed afterwards, whatever happens. */
export async function withCluster<T>(options: TestClusterOptions, use: (cluster: Cluster) => Promise<T>): Promise<T> {
  const cluster = await startTestCluster(options);
  try {
    return await use(cluster);
  } finally {
    await cluster.destroy();
  }
}

/** A new database of the cluster under a name of its own; cheaper than a cluster, without pg_cron. Returns its name. */
export function freshDatabase(cluster: Cluster, options: DatabaseOptions = {}): Promise<string> {
  return cluster.createDatabase(`test_${randomBytes(6).toString("hex")}`, options);
}

/** Rows as `pg` parses them. One connection each call: for looking and setting up, not for what a test measures. */
export async function query(
  url: string,
  text: string,
  values: readonly unknown[] = [],
): Promise<Record<string, unknown>[]> {
  return await withClient(url, async (client) => {
    const result: unknown = values.length > 0 ? await client.query(text, [...values]) : await client.query(text);
    const last = Array.isArray(result) ? result.at(-1) : result;
    return (last as pg.QueryResult<Record<string, unknown>>).rows;
  });
}

/** One session as `pg` gives it, ended afterwards. */
export async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  // A server that is killed by a test ends the session; the statement under way reports it.
  client.on("error", () => {});
  await client.connect();
  try {
    return await use(client);
  } finally {
    await client.end();
  }
}
