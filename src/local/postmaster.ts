import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { HoldfastError } from "../shared/errors.ts";
import type { PostgresBinaries } from "./packages.ts";
import { freePort } from "./ports.ts";
import { asServerUser } from "./unprivileged.ts";

export type StopMode = "smart" | "fast" | "immediate";

const signals = { smart: "SIGTERM", fast: "SIGINT", immediate: "SIGQUIT" } as const;
/** Recovery after a crash of a test's database takes seconds; a minute and a half means that something is wrong. */
const startMs = 90_000;
const stopMs = 60_000;
const pollMs = 15;
/** Between choosing a free port and binding it another process may take it. */
const portAttempts = 5;

/** The server process of one data directory: starts, stops, kills and knows whether it runs. */
export class Postmaster {
  readonly binaries: PostgresBinaries;
  readonly dataDirectory: string;
  readonly logFile: string;
  readonly #environment: Readonly<Record<string, string>>;
  #child: ChildProcess | undefined;

  /** `environment`: of the server's processes, on top of what they always have. */
  constructor(
    binaries: PostgresBinaries,
    dataDirectory: string,
    logFile: string,
    environment: Readonly<Record<string, string>> = {},
  ) {
    this.#environment = environment;
    this.binaries = binaries;
    this.dataDirectory = dataDirectory;
    this.logFile = logFile;
  }

  get running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The port it listens on. A taken port is an error when `exactly`, else another one is tried. */
  async start(port: number, exactly: boolean): Promise<number> {
    if (this.running) throw new HoldfastError("internal", `a server runs on ${this.dataDirectory} already`);
    await this.endLeftover();
    for (let attempt = 1;; attempt++) {
      const logFrom = existsSync(this.logFile) ? statSync(this.logFile).size : 0;
      this.#child = this.#spawn(port);
      if (await this.#becomesReady(this.#child)) return port;
      this.#child = undefined;
      const log = existsSync(this.logFile) ? readFrom(this.logFile, logFrom) : "";
      const taken = log.includes("could not bind") || log.includes("Address already in use");
      if (!taken || exactly || attempt === portAttempts) {
        const fatal = log.split("\n").filter((line) => /FATAL|PANIC|could not/.test(line)).at(-1) ??
          "no reason in the log";
        throw new HoldfastError("database_unreachable", `PostgreSQL did not start: ${fatal.trim()}`, {
          hint: `Look into ${this.logFile}.`,
        });
      }
      port = await freePort();
    }
  }

  #spawn(port: number): ChildProcess {
    const log = openSync(this.logFile, "a", 0o640);
    // Not of the program that changes the user: what it preloads would be the first user's.
    const more = Object.entries(this.#environment).map(([name, value]) => `${name}=${value}`);
    const [command, ...rest] = asServerUser([
      ...(more.length > 0 ? ["env", ...more] : []),
      join(this.binaries.bin, "postgres"),
      ...["-D", this.dataDirectory, "-p", String(port)],
    ]);
    const child = spawn(command, rest, { cwd: "/", stdio: ["ignore", log, log], env: serverEnvironment() });
    closeSync(log);
    child.unref();
    return child;
  }

  /** False when the server ended instead. */
  async #becomesReady(child: ChildProcess): Promise<boolean> {
    let failed = false;
    child.once("error", () => failed = true);
    const deadline = performance.now() + startMs;
    while (performance.now() < deadline) {
      if (failed || child.exitCode !== null || child.signalCode !== null) return false;
      const [pid, , , , , , , status] = this.#pidFile();
      if (pid === String(child.pid) && status?.trim() === "ready") return true;
      await pause(pollMs);
    }
    await this.kill();
    return false;
  }

  #pidFile(): string[] {
    try {
      return readFileSync(join(this.dataDirectory, "postmaster.pid"), "utf8").split("\n");
    } catch {
      return [];
    }
  }

  /** Nothing when it does not run. After a minute the server is killed. */
  async stop(mode: StopMode): Promise<void> {
    const child = this.#child;
    if (child?.pid === undefined || !this.running) return;
    process.kill(child.pid, signals[mode]);
    if (!await gone([child.pid], stopMs)) await this.kill();
    this.#child = undefined;
  }

  async kill(): Promise<void> {
    const pid = this.#child?.pid;
    this.#child = undefined;
    if (pid !== undefined) await killTree(pid);
  }

  /** Ends a server that an earlier process of ours left on this data directory, if there is one. */
  async endLeftover(): Promise<void> {
    const pid = Number(this.#pidFile()[0]);
    if (!Number.isInteger(pid) || pid <= 1) return;
    if (commandLine(pid).includes(this.dataDirectory)) await killTree(pid);
    rmSync(join(this.dataDirectory, "postmaster.pid"), { force: true });
  }
}

/** At most 64 KiB: the reason why a start failed is among its first lines. */
function readFrom(file: string, position: number): string {
  const bytes = new Uint8Array(65_536);
  const descriptor = openSync(file, "r");
  try {
    return new TextDecoder().decode(bytes.subarray(0, readSync(descriptor, bytes, 0, bytes.length, position)));
  } finally {
    closeSync(descriptor);
  }
}

/** Not ours as it is: PG* variables and locale would change what the server does. */
function serverEnvironment(): Record<string, string> {
  return { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LC_ALL: "C.UTF-8", TZ: "UTC" };
}

async function killTree(postmaster: number): Promise<void> {
  // Stopped first, so that it starts no further process while its children are being listed.
  signal(postmaster, "SIGSTOP");
  const all = [postmaster, ...childrenOf(postmaster)];
  for (const pid of all) signal(pid, "SIGKILL");
  if (!await gone(all, stopMs)) throw new HoldfastError("internal", `server process ${postmaster} cannot be killed`);
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function childrenOf(parent: number): number[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number)
    .filter((pid) => processState(pid)?.parent === parent);
}

/** Undefined once the process is gone; a zombie counts as gone, its parent only has not looked yet. */
function processState(pid: number): { readonly parent: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const [state, parent] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return state === "Z" || state === "X" ? undefined : { parent: Number(parent) };
  } catch {
    return undefined;
  }
}

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

async function gone(pids: readonly number[], withinMs: number): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  while (pids.some((pid) => processState(pid) !== undefined)) {
    if (performance.now() > deadline) return false;
    await pause(pollMs);
  }
  return true;
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
