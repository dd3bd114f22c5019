/** What npm took from its own command line, where the environment does not tell. */
import { closeSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import process from "node:process";

/** Between us and npm stand the launcher and a shell, each perhaps wrapped once. */
const ancestors = 8;
/** The command line stands in the first lines. */
const headBytes = 64 * 1024;

/**
 * The words that `npm run <script>` had before `--`, shorthands written out (`--local` is `--no-global`), from the log
 * that npm holds open: it is written before the script starts, and a process title of npm hides its flags. Empty where
 * they cannot be seen: npm without logs (`logs-max=0`, a cache that it may not write), a system without /proc.
 */
export function wordsNpmTook(script: string): readonly string[] {
  let pid = process.ppid;
  for (let step = 0; step < ancestors && pid > 1; step++) {
    try {
      const words = commandLine(pid);
      if (words !== null) return words.includes(script) ? words : [];
      pid = parentOf(pid);
    } catch {
      // Another user's process, or one that has ended: what cannot be seen is not there.
      return [];
    }
  }
  return [];
}

/** Of the npm that this process is; null when it is none, or holds no log. */
function commandLine(pid: number): string[] | null {
  for (const descriptor of readdirSync(`/proc/${pid}/fd`)) {
    const path = `/proc/${pid}/fd/${descriptor}`;
    if (!/-debug-\d+\.log( \(deleted\))?$/.test(readlinkSync(path))) continue;
    const words = /^\d+ verbose argv (.*)$/m.exec(head(path))?.[1]?.match(/"(?:[^"\\]|\\.)*"/g) ?? [];
    const all = words.map((word): string => JSON.parse(word));
    const own = all.indexOf("--");
    return own < 0 ? all : all.slice(0, own);
  }
  return null;
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s*(\d+)$/m.exec(head(`/proc/${pid}/status`))?.[1] ?? 0);
}

function head(path: string): string {
  const file = openSync(path, "r");
  try {
    const bytes = new Uint8Array(headBytes);
    return new TextDecoder().decode(bytes.subarray(0, readSync(file, bytes)));
  } finally {
    closeSync(file);
  }
}
