import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { endProgram, root, startProgram } from "./child.ts";
import { endClient, openClient } from "./client.ts";
import { newDirectory } from "./directories.ts";
import type { IsolateLimits } from "./gateway/limits.ts";
import type { GatewayReady, GatewaySettingsInput } from "./gateway/settings.ts";
import { startNetWorker } from "./pg_net_worker.ts";
import { type Cluster, startCluster } from "./postgres.ts";
import { pushMigrations } from "./push.ts";

export interface StackOptions {
  /** Where the stack lives; one that is there already goes on with its data. Default: a new one (directories.ts). */
  readonly directory?: string;
  /** `false` turns fsync and JIT compilation off. Default `true`. */
  readonly durable?: boolean;
  /** Limits of the functions other than the hosted ones. */
  readonly limits?: Partial<IsolateLimits>;
  /** Requests that an isolate of a function serves at a time, and isolates that there are at most. Default: the gateway's. */
  readonly isolates?: { readonly concurrency: number; readonly atMost: number };
  /** Twenty lower-case letters; the functions find it in their environment. Default: the gateway's. */
  readonly projectRef?: string;
  /** Function secrets beside the stack's own. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Lets a test end isolates at named moments. */
  readonly testing?: boolean;
  /** The database is a copy of one in which the migrations were installed, not a new one in which they are. Default `false`. */
  readonly prepared?: boolean;
  /** `false`: no drain, full backup, prune, verification, drill or look of the monitor begins by itself, at midnight either. Default `true`. */
  readonly stream?: boolean;
  readonly settings?: Readonly<Record<string, string>>;
  readonly log?: (line: string) => void;
}

/** Kept beside the data, readable by the owner only, so that a stack can be started again with the same secrets. */
interface StackFile {
  readonly keys: string;
  readonly workerSecret: string;
}

/** A whole Supabase project on loopback: database with pg_cron, pg_net and Vault, gateway, functions. */
export interface Stack {
  readonly directory: string;
  readonly cluster: Cluster;
  readonly gateway: GatewayReady;
  /** Value of BACKUP_KEYS of the functions. */
  readonly keys: string;
  readonly workerSecret: string;
  /** Output of the functions and figures of their isolates, JSON lines. */
  readonly journalFile: string;
  /** Ends everything; the data stays. */
  stop(): Promise<void>;
  /** Ends everything and removes it. */
  destroy(): Promise<void>;
}

/** The bucket that backups go to; made by the stack as `holdfast init` makes it on a hosted project. */
export const backupBucket = "holdfast-backups";

/** Starts the stack, installs the migrations with the Supabase CLI and gives the project its secrets. */
export async function startStack(options: StackOptions = {}): Promise<Stack> {
  const log = options.log ?? (() => {});
  const directory = options.directory ?? newDirectory("stacks", options.durable ?? true);
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const secrets = secretsOf(directory);
  const journalFile = join(directory, "functions.jsonl");

  log("starting PostgreSQL 15 with pg_cron");
  const cluster = await startCluster({
    version: 15,
    platform: true,
    directory: join(directory, "cluster"),
    durable: options.durable ?? true,
    settings: options.settings ?? {},
    ...(options.prepared === true ? { prepared: "installed" as const } : {}),
    log,
  });
  const ends: (() => Promise<void>)[] = [() => cluster.stop("fast")];
  try {
    if (options.prepared !== true) {
      log("installing the migrations with supabase db push");
      await pushMigrations(cluster);
    }
    if (options.stream === false) await stopStream(cluster);
    log("starting the gateway");
    const { child, gateway } = await startGateway(directory, journalFile, cluster, secrets, options);
    ends.unshift(() => endProgram(child));
    await giveSecrets(cluster, gateway, secrets);
    await makeBucket(gateway);
    const worker = await startNetWorker({ databaseUrl: cluster.url("supabase_admin"), caFile: cluster.caFile });
    ends.unshift(() => worker.stop());
    const stop = async () => {
      for (const end of ends.splice(0)) await end();
    };
    return {
      directory,
      cluster,
      gateway,
      ...secrets,
      journalFile,
      stop,
      async destroy() {
        await stop();
        rmSync(directory, { recursive: true, force: true });
      },
    };
  } catch (error) {
    for (const end of ends) await end();
    throw error;
  }
}

function secretsOf(directory: string): StackFile {
  const file = join(directory, "stack.json");
  if (existsSync(file)) return JSON.parse(readFileSync(file, "utf8")) as StackFile;
  const secrets: StackFile = {
    keys: `local:${randomBytes(32).toString("base64url")}`,
    workerSecret: randomBytes(36).toString("base64url"),
  };
  writeFileSync(file, JSON.stringify(secrets), { mode: 0o600 });
  return secrets;
}

async function startGateway(
  directory: string,
  journalFile: string,
  cluster: Cluster,
  secrets: StackFile,
  options: StackOptions,
): Promise<{ readonly child: ChildProcess; readonly gateway: GatewayReady }> {
  const settings: GatewaySettingsInput = {
    dataFolder: join(directory, "gateway"),
    journalFile,
    database: {
      host: cluster.host,
      port: cluster.port,
      authority: readFileSync(cluster.caFile, "utf8"),
      passwords: {
        authenticator: cluster.password("authenticator"),
        supabase_auth_admin: cluster.password("supabase_auth_admin"),
        supabase_storage_admin: cluster.password("supabase_storage_admin"),
      },
    },
    functions: {
      folder: join(root, "supabase/functions"),
      environment: {
        SUPABASE_DB_URL: cluster.url("postgres"),
        BACKUP_DB_CA: readFileSync(cluster.caFile, "utf8"),
        BACKUP_KEYS: secrets.keys,
        BACKUP_WORKER_SECRET: secrets.workerSecret,
        BACKUP_STORE: `supabase://${backupBucket}`,
        ...options.environment,
      },
      readable: [join(root, "src"), join(root, "supabase"), join(root, "node_modules"), cluster.caFile],
      limits: { ...options.limits },
      ...options.isolates,
    },
    ...(options.projectRef === undefined ? {} : { projectRef: options.projectRef }),
    storage: { durable: options.durable ?? true },
    testing: options.testing ?? false,
  };
  mkdirSync(settings.dataFolder, { recursive: true, mode: 0o700 });
  const { child, ready } = await startProgram(join(root, "src/local/gateway/main.ts"), settings);
  return { child, gateway: ready as GatewayReady };
}

async function stopStream(cluster: Cluster): Promise<void> {
  const client = await openClient(cluster, "postgres");
  try {
    await client.query(
      "update backup.schedules set enabled = false where name in " +
        "('changes', 'daily', 'weekly', 'retention', 'daily_checks', 'weekly_checks', 'drills', 'alerts', 'monitor')",
    );
    await client.query("select backup.apply_schedules()");
    // The stack changed them, and nobody has to look at it.
    await client.query("delete from backup.alerts where kind = 'settings_changed'");
  } finally {
    await endClient(client);
  }
}

/** What a person sets once at the dashboard: address and worker secret in Vault. */
async function giveSecrets(cluster: Cluster, gateway: GatewayReady, secrets: StackFile): Promise<void> {
  const client = await openClient(cluster, "postgres");
  try {
    for (
      const [name, value] of [["holdfast_project_url", gateway.url], ["holdfast_worker_secret", secrets.workerSecret]]
    ) {
      await client.query(
        `select case
           when s.id is null then vault.create_secret($2, $1)::text
           else vault.update_secret(s.id, $2)::text
         end
         from (select $1::text as name) as wanted left join vault.secrets as s on s.name = wanted.name`,
        [name, value],
      );
    }
  } finally {
    await endClient(client);
  }
}

/** Makes the private bucket of the backups unless it is there. */
async function makeBucket(gateway: GatewayReady): Promise<void> {
  const headers = {
    apikey: gateway.serviceRoleKey,
    authorization: `Bearer ${gateway.serviceRoleKey}`,
    "content-type": "application/json",
  };
  const there = await fetch(`${gateway.url}/storage/v1/bucket/${backupBucket}`, { headers });
  await there.body?.cancel();
  if (there.ok) return;
  const made = await fetch(`${gateway.url}/storage/v1/bucket`, {
    method: "POST",
    headers,
    body: JSON.stringify({ id: backupBucket, name: backupBucket, public: false }),
  });
  const answer = await made.text();
  if (!made.ok) throw new Error(`the bucket ${backupBucket} was not made: ${made.status} ${answer.slice(0, 200)}`);
}
