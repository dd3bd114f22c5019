import { spawnSync } from "node:child_process";
import { chownSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { HoldfastError } from "../shared/errors.ts";
import type { ServerCertificate } from "./certificates.ts";
import type { PostgresBinaries } from "./packages.ts";
import { asServerUser, makeServerDirectory, serverUser } from "./unprivileged.ts";

export interface Initialisation {
  readonly binaries: PostgresBinaries;
  /** Made here; must not exist. */
  readonly dataDirectory: string;
  readonly superuser: string;
  readonly password: string;
  readonly certificate: ServerCertificate;
  /** Content of postgresql.conf. */
  readonly settings: string;
}

/** Makes a data directory that speaks TLS and lets nobody in without a password (SCRAM), and only from 127.0.0.1. */
export function initialise(plan: Initialisation): void {
  makeServerDirectory(plan.dataDirectory);
  const passwordFile = join(dirname(plan.dataDirectory), "initdb.password");
  writeForServer(passwordFile, `${plan.password}\n`);
  try {
    const [command, ...rest] = asServerUser([
      join(plan.binaries.bin, "initdb"),
      ...["-D", plan.dataDirectory, "-U", plan.superuser, `--pwfile=${passwordFile}`, "--auth=scram-sha-256"],
      ...["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"],
    ]);
    const done = spawnSync(command, rest, { cwd: "/", encoding: "utf8", timeout: 120_000 });
    if (done.status !== 0) {
      throw new HoldfastError("internal", `initdb failed: ${(done.stderr ?? "").trim().split("\n").at(-1)}`);
    }
  } finally {
    rmSync(passwordFile, { force: true });
  }
  const at = (file: string) => join(plan.dataDirectory, file);
  writeForServer(at("server.pem"), plan.certificate.certificate);
  writeForServer(at("server.key"), plan.certificate.key);
  personalise(plan.dataDirectory, plan.settings);
}

/** What each cluster has of its own: its settings, who may come in and how, and the root key of its Vault. */
export function personalise(dataDirectory: string, settings: string): void {
  writeForServer(join(dataDirectory, "postgresql.conf"), settings);
  const access = (what: string) => `host ${what} all 127.0.0.1/32 scram-sha-256\n`;
  writeForServer(join(dataDirectory, "pg_hba.conf"), access("all") + access("replication"));
  writeForServer(join(dataDirectory, "vault.key"), crypto.getRandomValues(new Uint8Array(32)));
}

function writeForServer(file: string, content: string | Uint8Array): void {
  writeFileSync(file, content, { mode: 0o600 });
  const user = serverUser();
  chownSync(file, user.uid, user.gid);
}

export interface SettingsPlan {
  readonly cron: boolean;
  readonly durable: boolean;
  readonly settings: Readonly<Record<string, string>>;
}

/** postgresql.conf as on a small hosted project, where it matters for backups; the port comes with each start. */
export function settingsFile(plan: SettingsPlan): string {
  const settings: Record<string, string> = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: "",
    ssl: "on",
    ssl_cert_file: "server.pem",
    ssl_key_file: "server.key",
    password_encryption: "scram-sha-256",
    max_connections: "100",
    max_worker_processes: "24",
    wal_level: "logical",
    max_replication_slots: "5",
    max_wal_senders: "5",
    max_slot_wal_keep_size: "1GB",
    shared_preload_libraries: plan.cron ? "pg_stat_statements,pg_cron" : "pg_stat_statements",
    timezone: "UTC",
    log_timezone: "UTC",
    log_line_prefix: "%m [%p] %q%u@%d ",
    ...(plan.cron
      // Workers instead of connections: a connection of pg_cron's would need a password file.
      ? { "cron.database_name": "postgres", "cron.use_background_workers": "on" }
      : {}),
    // What nobody keeps need not survive a crash; and compiling a query of the catalog takes longer than running it.
    ...(plan.durable ? {} : { fsync: "off", full_page_writes: "off", jit: "off" }),
    ...plan.settings,
  };
  const line = ([name, value]: [string, string]) => `${name} = '${value.replaceAll("'", "''")}'\n`;
  return Object.entries(settings).map(line).join("");
}
