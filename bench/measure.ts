import process from "node:process";
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";

/** One timed run of a whole process with its children. */
export interface Measure {
  readonly wallMs: number;
  /** Largest sum of resident memory of the process and its descendants, in bytes, sampled every 50 ms. */
  readonly peakBytes: number;
  readonly stdout: string;
}

export interface Command {
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Standard output is thrown away instead of kept. */
  readonly discard?: boolean;
  /** It may end with an exit code other than 0, as a verdict does. */
  readonly mayFail?: boolean;
}

/** Runs the commands side by side until all have ended. Fails when one of them does. */
export async function measure(...commands: readonly Command[]): Promise<Measure> {
  const began = performance.now();
  const pids: number[] = [];
  let peakBytes = 0;
  const sampler = setInterval(() => {
    peakBytes = Math.max(peakBytes, residentBytes(pids));
  }, 50);
  try {
    const outputs = await Promise.all(commands.map((command) => run(command, pids)));
    return { wallMs: performance.now() - began, peakBytes, stdout: outputs.join("") };
  } finally {
    clearInterval(sampler);
  }
}

function run(command: Command, pids: number[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(command.program, [...command.args], {
      stdio: ["ignore", command.discard === true ? "ignore" : "pipe", "pipe"],
      env: { ...process.env, ...command.env },
    });
    if (child.pid !== undefined) pids.push(child.pid);
    let stdout = "";
    let stderr = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (stderr = (stderr + text).slice(-4000)));
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0 || command.mayFail === true) resolve(stdout);
      else reject(new Error(`${command.program} ${command.args[0] ?? ""} ended with ${code}: ${stderr}${stdout}`));
    });
  });
}

/** A program that runs beside what is measured. */
export interface Running {
  readonly pid: number;
  /** Asks it to end and waits, at most 20 s; then it is killed. Fails when it had ended by itself with an error before. */
  stop(): Promise<void>;
}

export function start({ program, args, env }: Command): Running {
  const child = spawn(program, [...args], { stdio: ["ignore", "ignore", "pipe"], env: { ...process.env, ...env } });
  let stderr = "";
  let isAsked = false;
  let failure: Error | null = null;
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr = (stderr + text).slice(-4000)));
  const ended = new Promise<void>((resolve) => {
    child.once("error", (error) => {
      failure = error;
      resolve();
    });
    child.once("close", (code) => {
      if (!isAsked && code !== 0) failure = new Error(`${program} ${args[0] ?? ""} ended with ${code}: ${stderr}`);
      resolve();
    });
  });
  return {
    pid: child.pid ?? 0,
    async stop() {
      isAsked = true;
      child.kill("SIGTERM");
      const patience = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await ended;
      clearTimeout(patience);
      if (failure !== null) throw failure;
    },
  };
}

/** Of the kernel's clock in /proc: 100 a second on every Linux of today. */
const ticksPerSecond = 100;

/** Seconds of CPU that a process, its descendants, and those of them that have ended and were waited for, have used. */
export function cpuSeconds(root: number): number {
  const parents = new Map<number, number>();
  const ticks = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, "utf8");
      // Behind the name, which may hold spaces: state, parent, …; user, system, and both of ended children from the 12th on.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number);
      parents.set(Number(name), fields[1] ?? 0);
      ticks.set(Number(name), fields.slice(11, 15).reduce((sum, one) => sum + one, 0));
    } catch {
      // The process ended between the listing and the look.
    }
  }
  let sum = 0;
  for (const [pid, used] of ticks) if (descendsFrom([root], pid, parents)) sum += used;
  return sum / ticksPerSecond;
}

function descendsFrom(roots: readonly number[], pid: number, parents: ReadonlyMap<number, number>): boolean {
  for (let at: number | undefined = pid; at !== undefined && at > 1; at = parents.get(at)) {
    if (roots.includes(at)) return true;
  }
  return false;
}

/** Resident memory of the processes and all their descendants, in bytes. */
function residentBytes(roots: readonly number[]): number {
  const parents = new Map<number, number>();
  const sizes = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const status = readFileSync(`/proc/${name}/status`, "utf8");
      parents.set(Number(name), Number(/^PPid:\s+(\d+)/m.exec(status)?.[1] ?? 0));
      sizes.set(Number(name), 1024 * Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? 0));
    } catch {
      // The process ended between the listing and the look.
    }
  }
  let sum = 0;
  for (const [pid, size] of sizes) if (descendsFrom(roots, pid, parents)) sum += size;
  return sum;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? NaN)) / 2;
}
