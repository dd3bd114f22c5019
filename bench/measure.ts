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
      if (code === 0) resolve(stdout);
      else reject(new Error(`${command.program} ${command.args[0] ?? ""} ended with ${code}: ${stderr}${stdout}`));
    });
  });
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
  const belongs = (pid: number): boolean => {
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = parents.get(at)) {
      if (roots.includes(at)) return true;
    }
    return false;
  };
  let sum = 0;
  for (const [pid, size] of sizes) if (belongs(pid)) sum += size;
  return sum;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const high = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? high : (high + (sorted[middle - 1] ?? NaN)) / 2;
}
