import { readFileSync } from "node:fs";
import pg from "pg";
import type { Cluster } from "./postgres.ts";

/** How to reach a cluster with the driver, over TLS with the certificate checked. */
export function clientConfig(cluster: Cluster, role: string, database = "postgres"): pg.ClientConfig {
  return {
    host: cluster.host,
    port: cluster.port,
    user: role,
    password: cluster.password(role),
    database,
    ssl: { ca: readFileSync(cluster.caFile, "utf8"), servername: "localhost" },
  };
}

/** A session for the stack's own questions. One that is lost because its server ended is no error. */
export async function openClient(cluster: Cluster, role: string, database?: string): Promise<pg.Client> {
  const client = new pg.Client(clientConfig(cluster, role, database));
  client.on("error", () => {});
  await client.connect();
  return client;
}

/** Ends a session. On Deno 2.1.4 the driver's `end()` never resolves over TLS, so it is waited for 200 ms at most. */
export async function endClient(client: pg.Client): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const patience = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, 200);
  });
  await Promise.race([client.end(), patience]);
  clearTimeout(timer);
}
