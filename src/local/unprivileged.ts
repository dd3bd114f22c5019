import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { chownSync, mkdirSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { HoldfastError } from "../shared/errors.ts";

/** The operating system's user under which PostgreSQL runs, since it refuses to run as root. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

let known: ServerUser | undefined;

/** The user `postgres` that Debian's package makes; when this process is not root, the user that runs it. */
export function serverUser(): ServerUser {
  return known ??= findServerUser();
}

function findServerUser(): ServerUser {
  const own = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  if (own.uid !== 0) return own;
  try {
    return { uid: idOfPostgres("-u"), gid: idOfPostgres("-g") };
  } catch (cause) {
    throw new HoldfastError("packages_missing", "the system has no user postgres", { cause });
  }
}

function idOfPostgres(flag: "-u" | "-g"): number {
  return Number(execFileSync("id", [flag, "postgres"], { encoding: "utf8" }).trim());
}

/**
 * The argument vector that runs `command` as the server's user. The process gets SIGQUIT from the kernel when the thread
 * that started it ends, so no server outlives this process, however that ends.
 */
export function asServerUser(command: readonly string[]): [string, ...string[]] {
  const user = serverUser();
  const identity = process.getuid?.() === 0 ? [`--reuid=${user.uid}`, `--regid=${user.gid}`, "--clear-groups"] : [];
  return ["setpriv", ...identity, "--pdeathsig", "QUIT", ...command];
}

/** Makes `directory` (and what is above it) and gives it to the server's user, closed to everybody else. */
export function makeServerDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const user = serverUser();
  chownSync(directory, user.uid, user.gid);
}

/**
 * Where the embedded stack keeps its files: `.holdfast` in the checkout, or, where the server's user cannot get there
 * (a checkout below /root), a directory of the same purpose below /var/tmp, one for each checkout.
 */
export function stackDirectory(): string {
  const checkout = fileURLToPath(new URL("../../", import.meta.url));
  const inside = `${checkout}.holdfast`;
  mkdirSync(inside, { recursive: true, mode: 0o755 });
  if (reachable(inside)) return inside;
  const outside = `/var/tmp/holdfast-${createHash("sha256").update(checkout).digest("hex").slice(0, 12)}`;
  mkdirSync(outside, { recursive: true, mode: 0o755 });
  return outside;
}

/** Can the server's user enter this directory? */
export function reachable(directory: string): boolean {
  const [command, ...rest] = asServerUser(["test", "-x", directory]);
  return spawnSync(command, rest).status === 0;
}
