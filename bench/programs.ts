import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Cluster } from "../src/local/postgres.ts";
import type { Command } from "./measure.ts";

/** The programs that are timed, each as its own process with its password in the environment. */

const holdfast = fileURLToPath(new URL("../src/cli/holdfast.mjs", import.meta.url));

/** A folder below the system's temporary one; `remove` ends it with all it holds. */
export function temporaryFolder(name: string): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), `holdfast-bench-${name}-`));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

export interface Setting {
  readonly cluster: Cluster;
  readonly role: string;
  readonly keys: string;
}

/** The CLI, against `store` (a folder) and optionally a target. */
export function ours(setting: Setting, args: readonly string[], store: string, target?: string): Command {
  return {
    program: "node",
    args: [holdfast, ...args, "--json"],
    env: {
      BACKUP_DB_URL: setting.cluster.url(setting.role),
      BACKUP_STORE: `file://${store}`,
      BACKUP_KEYS: setting.keys,
      ...(target === undefined ? {} : { BACKUP_TARGET_DB_URL: target }),
    },
  };
}

export function pgDumpCustom(setting: Setting, file: string): Command {
  return dump(setting, ["-Fc", "-n", "bench", "-f", file]);
}

export function pgDumpDirectory(setting: Setting, folder: string): Command {
  return dump(setting, ["-Fd", "-j2", "-Z1", "-n", "bench", "-f", folder]);
}

function dump(setting: Setting, args: readonly string[]): Command {
  const { cluster } = setting;
  return { program: join(cluster.bin, "pg_dump"), args, env: cluster.environment(setting.role) };
}

export function pgRestore(cluster: Cluster, database: string, file: string): Command {
  return {
    program: join(cluster.bin, "pg_restore"),
    args: ["-j2", "--no-owner", "--no-privileges", "-d", database, file],
    env: cluster.environment(cluster.superuser, database),
  };
}

/** PostgreSQL's own load, in the tables that `fill` made; its default transaction, without the vacuum before. */
export function pgbench(cluster: Cluster, args: readonly string[], role = "postgres", database = "postgres"): Command {
  return { program: join(cluster.bin, "pgbench"), args: ["-n", ...args], env: cluster.environment(role, database) };
}

/** Two sessions that copy the same rows to nowhere: what no backup through COPY can beat. Each takes half of every table. */
export function plainCopy(
  setting: Setting,
  tables: readonly { readonly name: string; readonly pages: number }[],
): Command[] {
  const half = (which: 0 | 1) =>
    tables.map(({ name, pages }) => {
      const middle = `'(${Math.ceil(pages / 2)},0)'::tid`;
      return `copy (select * from only ${name} where ctid ${which === 0 ? "<" : ">="} ${middle}) to stdout;`;
    });
  return ([0, 1] as const).map((which) => ({
    program: join(setting.cluster.bin, "psql"),
    args: ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", half(which).join("\n")],
    env: setting.cluster.environment(setting.role),
    discard: true,
  }));
}
