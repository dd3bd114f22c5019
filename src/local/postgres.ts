import { randomBytes } from "node:crypto";
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { HoldfastError } from "../shared/errors.ts";
import { newDirectory } from "./directories.ts";
import { giveNewIdentity } from "./identity.ts";
import { personalise, settingsFile } from "./initdb.ts";
import { ensurePostgres15, postgres17 } from "./packages.ts";
import { makeDatabase } from "./databases.ts";
import { becomeOwnInstall, runMigrations } from "./installed.ts";
import { platformLogins, setPasswords, withClient } from "./platform.ts";
import { freePort } from "./ports.ts";
import { copyTemplate, superuserOf, templateFor } from "./template.ts";
import { Postmaster, type StopMode } from "./postmaster.ts";
import { reachable } from "./unprivileged.ts";

export interface ClusterOptions {
  /** 15 is Debian's, with pg_cron and psql; 17 is npm's, the server only. */
  readonly version: 15 | 17;
  /**
   * `true`: roles, schemas and guards of a hosted project, superuser `supabase_admin`.
   * `false`: plain PostgreSQL with the superuser `postgres` and nothing else.
   */
  readonly platform: boolean;
  /**
   * What a new platform cluster has from the start, so that many are made in less time. `sources`: the databases that
   * `createDatabase` copies from. `installed`: Holdfast in `postgres`, as `supabase db push` leaves it. Default: neither.
   */
  readonly prepared?: "sources" | "installed";
  /** Where the cluster lives. One that is there already is started as it is. Default: a new one (directories.ts). */
  readonly directory?: string;
  /** Default: a free one. */
  readonly port?: number;
  /** `false` turns fsync and JIT compilation off, for clusters that no test crashes. Default `true`. */
  readonly durable?: boolean;
  /** Server settings by name, on top of the stack's own. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Environment variables of the server's processes, on top of what they always have. */
  readonly environment?: Readonly<Record<string, string>>;
  /** One line for each step that takes long, such as installing packages. */
  readonly log?: (line: string) => void;
}

export interface DatabaseOptions {
  readonly platform?: boolean;
  readonly installed?: boolean;
}

/** What is kept beside the data, readable by the owner only; written last, so its presence says that the cluster is complete. */
const clusterFile = z.object({
  version: z.union([z.literal(15), z.literal(17)]),
  platform: z.boolean(),
  passwords: z.record(z.string(), z.string()),
});
type ClusterFile = z.infer<typeof clusterFile>;

/** Makes the cluster if it is not there yet, and starts it. The server ends when this process ends, however that happens. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  // Also for 17: the operating system's user postgres and openssl come with these packages.
  const debian = ensurePostgres15(options.log);
  const binaries = options.version === 15 ? debian : postgres17();
  const directory = options.directory ?? newDirectory("clusters", options.durable ?? true);
  const postmaster = new Postmaster(
    binaries,
    join(directory, "data"),
    join(directory, "server.log"),
    options.environment,
  );
  if (existsSync(join(directory, "cluster.json"))) {
    const known = readClusterFile(directory);
    if (known.version !== options.version || known.platform !== options.platform) {
      throw new HoldfastError("setting_missing", `another kind of cluster is in ${directory}`, {
        hint: "Name an empty directory.",
      });
    }
    const cluster = new Cluster(directory, postmaster, known);
    await cluster.start(options.port);
    return cluster;
  }
  try {
    return await create(directory, postmaster, options);
  } catch (error) {
    await postmaster.kill();
    if (options.directory === undefined) rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

async function create(directory: string, postmaster: Postmaster, options: ClusterOptions): Promise<Cluster> {
  const { version, platform } = options;
  await postmaster.endLeftover();
  mkdirSync(directory, { recursive: true });
  chmodSync(directory, 0o755);
  if (!reachable(directory)) {
    throw new HoldfastError("setting_missing", `the server's user cannot get to ${directory}`, {
      hint: "Name a directory that other users may enter.",
    });
  }
  rmSync(postmaster.dataDirectory, { recursive: true, force: true });
  const kind = platform ? options.prepared ?? "platform" : "plain";
  const template = await templateFor(postmaster.binaries, kind);
  copyTemplate(template, postmaster.dataDirectory);
  copyFileSync(template.caFile, join(directory, "ca.pem"));
  giveNewIdentity(postmaster.dataDirectory);
  personalise(
    postmaster.dataDirectory,
    settingsFile({
      cron: platform && version === 15,
      durable: options.durable ?? true,
      settings: options.settings ?? {},
    }),
  );
  const superuser = superuserOf(platform);
  const initial = new Cluster(directory, postmaster, {
    version,
    platform,
    passwords: { [superuser]: template.password },
  });
  await initial.start(options.port);
  const passwords = newPasswords(platform ? platformLogins : [superuser]);
  await setPasswords(initial.plainUrl(superuser), passwords);
  const known: ClusterFile = { version, platform, passwords };
  writeFileSync(join(directory, "cluster.json"), JSON.stringify(known), { mode: 0o600 });
  const cluster = new Cluster(directory, postmaster, known, initial.port);
  if (kind === "installed") {
    await withClient(cluster.plainUrl(superuser), async (client) => void await client.query(becomeOwnInstall));
  }
  return cluster;
}

/** A PostgreSQL server of our own on 127.0.0.1. */
export class Cluster {
  readonly host = "127.0.0.1";
  readonly directory: string;
  readonly version: 15 | 17;
  readonly platform: boolean;
  /** The role that made the cluster. */
  readonly superuser: "supabase_admin" | "postgres";
  /** Certificate of the authority that signed the server's own (PEM). */
  readonly caFile: string;
  readonly #postmaster: Postmaster;
  readonly #passwords: Readonly<Record<string, string>>;
  #port: number;

  constructor(directory: string, postmaster: Postmaster, file: ClusterFile, port: number = 0) {
    this.directory = directory;
    this.version = file.version;
    this.platform = file.platform;
    this.superuser = superuserOf(file.platform);
    this.caFile = join(directory, "ca.pem");
    this.#postmaster = postmaster;
    this.#passwords = file.passwords;
    this.#port = port;
  }

  /** Of the last start. */
  get port(): number {
    return this.#port;
  }

  get dataDirectory(): string {
    return this.#postmaster.dataDirectory;
  }

  /** Grows over all starts. */
  get logFile(): string {
    return this.#postmaster.logFile;
  }

  /** Directory of `postgres`, for 15 also of `psql` and `pg_dump`. */
  get bin(): string {
    return this.#postmaster.binaries.bin;
  }

  get running(): boolean {
    return this.#postmaster.running;
  }

  /** Roles that can log in with a password known here. */
  get logins(): string[] {
    return Object.keys(this.#passwords);
  }

  /** URL with password, over TLS with the certificate checked. Not for argument vectors: others can read those. */
  url(role: string = "postgres", database: string = "postgres"): string {
    return `${this.plainUrl(role, database)}?sslmode=verify-full&sslrootcert=${encodeURIComponent(this.caFile)}`;
  }

  /** The same without TLS parameters. */
  plainUrl(role: string = "postgres", database: string = "postgres"): string {
    const password = encodeURIComponent(this.password(role));
    return `postgresql://${encodeURIComponent(role)}:${password}@${this.host}:${this.#port}/${
      encodeURIComponent(database)
    }`;
  }

  password(role: string): string {
    const password = this.#passwords[role];
    if (password === undefined) throw new Error(`role ${role} has no password here`);
    return password;
  }

  /** Environment for `psql`, `pg_dump` and other programs of libpq, so that no password is in an argument. */
  environment(role: string = "postgres", database: string = "postgres"): Record<string, string> {
    return {
      PGHOST: this.host,
      PGPORT: String(this.#port),
      PGUSER: role,
      PGPASSWORD: this.password(role),
      PGDATABASE: database,
      PGSSLMODE: "verify-full",
      PGSSLROOTCERT: this.caFile,
    };
  }

  /** The same data again. A port that is named must be free; without one the last port is used while it is free, else a new one. */
  async start(port?: number): Promise<void> {
    const wanted = port ?? (this.#port || await freePort());
    this.#port = await this.#postmaster.start(wanted, port !== undefined);
  }

  /** `fast` ends sessions and writes a checkpoint; `smart` waits for sessions; `immediate` is a crash with recovery at the next start. */
  async stop(mode: StopMode = "fast"): Promise<void> {
    await this.#postmaster.stop(mode);
  }

  /**
   * Another database of this cluster, owned by `postgres`, and its name. With `platform` (default: as the cluster) it has
   * what a hosted project has, pg_cron excepted, which lives in the database `postgres` only; with `installed` Holdfast
   * as well.
   */
  async createDatabase(name: string, options: DatabaseOptions = {}): Promise<string> {
    const platform = options.platform ?? this.platform;
    if (platform && !this.platform) throw new Error("only a platform cluster has platform databases");
    const installed = options.installed ?? false;
    const content = !platform ? "nothing" : installed ? "holdfast" : "platform";
    await makeDatabase((role, database) => this.plainUrl(role, database), this.superuser, name, content);
    if (installed && !platform) await runMigrations(this.plainUrl(this.superuser, name));
    return name;
  }

  /** SIGKILL to the postmaster and every server process, as when a machine loses power. */
  async kill(): Promise<void> {
    await this.#postmaster.kill();
  }

  /** Stops the server and removes all its files. */
  async destroy(): Promise<void> {
    await this.#postmaster.stop("immediate");
    rmSync(this.directory, { recursive: true, force: true });
  }
}

function readClusterFile(directory: string): ClusterFile {
  return clusterFile.parse(JSON.parse(readFileSync(join(directory, "cluster.json"), "utf8")));
}

function newPasswords(roles: readonly string[]): Record<string, string> {
  return Object.fromEntries(roles.map((role) => [role, randomBytes(24).toString("base64url")]));
}
