import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll } from "vitest";
import { endProgram, root, startProgram } from "../../src/local/child.ts";
import type { GatewayReady, GatewaySettingsInput } from "../../src/local/gateway/settings.ts";
import { type Cluster, clusterMs, startTestCluster, type TestClusterOptions } from "../support/cluster.ts";

// supabase-js wants a WebSocket class on Node 20 even where Realtime is never used, as here.
if (!("WebSocket" in globalThis)) Reflect.set(globalThis, "WebSocket", class {});

/** For `createClient` in tests. */
export const noSession = { auth: { persistSession: false, autoRefreshToken: false } };

export interface TestGateway extends GatewayReady {
  readonly dataFolder: string;
  readonly journalFile: string;
  stop(): Promise<void>;
}

/** A gateway process with the functions of tests/support, on a cluster or (for tests of functions only) on none. */
export async function startTestGateway(
  cluster: Cluster | null,
  functions: GatewaySettingsInput["functions"] = {},
  database = "postgres",
): Promise<TestGateway> {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-gateway-"));
  const journalFile = join(folder, "journal.jsonl");
  const settings: GatewaySettingsInput = {
    dataFolder: join(folder, "data"),
    journalFile,
    testing: true,
    database: {
      host: "127.0.0.1",
      name: database,
      port: cluster?.port ?? 1,
      authority: cluster === null ? "" : readFileSync(cluster.caFile, "utf8"),
      passwords: {
        authenticator: cluster?.password("authenticator") ?? "",
        supabase_auth_admin: cluster?.password("supabase_auth_admin") ?? "",
        supabase_storage_admin: cluster?.password("supabase_storage_admin") ?? "",
      },
    },
    functions: { folder: join(root, "tests/support/functions"), ...functions },
    storage: { durable: false },
  };
  const { child, ready } = await startProgram(join(root, "src/local/gateway/main.ts"), settings);
  return {
    ...ready as GatewayReady,
    dataFolder: settings.dataFolder,
    journalFile,
    async stop() {
      await endProgram(child);
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** A cluster with a gateway in front of it, for the tests of a file. */
export function useGateway(
  options: TestClusterOptions = {},
): () => { readonly gateway: TestGateway; readonly cluster: Cluster } {
  let cluster: Cluster | undefined;
  let gateway: TestGateway | undefined;
  beforeAll(async () => {
    cluster = await startTestCluster(options);
    gateway = await startTestGateway(cluster);
  }, clusterMs);
  afterAll(async () => {
    await gateway?.stop();
    await cluster?.destroy();
  }, clusterMs);
  return () => {
    if (gateway === undefined || cluster === undefined) throw new Error("there in tests and hooks only");
    return { gateway, cluster };
  };
}

/** Asks again until `done` holds; throws with the last answer after `ms`. */
export async function until<T>(ask: () => Promise<T> | T, done: (answer: T) => boolean, ms = 20_000): Promise<T> {
  const end = performance.now() + ms;
  while (true) {
    const answer = await ask();
    if (done(answer)) return answer;
    if (performance.now() > end) throw new Error(`still not: ${JSON.stringify(answer)?.slice(0, 500)}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
