import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The checkout's root. */
export const root = fileURLToPath(new URL("../../", import.meta.url));

/** The Deno that npm installed, started directly: the package's own wrapper does not pass signals on. */
export function denoProgram(): string {
  const folder = `${root}node_modules/@deno`;
  const name = readdirSync(folder).find((entry) => entry.startsWith(`${process.platform}-${process.arch}`));
  if (name === undefined) throw new Error(`no Deno for ${process.platform}-${process.arch} in node_modules`);
  return `${folder}/${name}/deno`;
}

/**
 * Starts a Deno program that reads its settings as one line of JSON on stdin and answers with one line of JSON on
 * stdout. Its stdin stays open: the program ends when it closes, so it never outlives this process.
 */
export async function startProgram(
  script: string,
  settings: unknown,
): Promise<{ readonly child: ChildProcess; readonly ready: unknown }> {
  const child = spawn(denoProgram(), ["run", "--quiet", "--allow-all", script], {
    stdio: ["pipe", "pipe", "inherit"],
    cwd: root,
  });
  child.stdin.write(`${JSON.stringify(settings)}\n`);
  return { child, ready: JSON.parse(await firstLine(child, script)) };
}

/** The same for a TypeScript program that needs Node; it gets no settings. */
export async function startNodeProgram(
  script: string,
): Promise<{ readonly child: ChildProcess; readonly ready: unknown }> {
  const child = spawn("node", [`${root}node_modules/vite-node/vite-node.mjs`, script], {
    stdio: ["pipe", "pipe", "inherit"],
    cwd: root,
  });
  return { child, ready: JSON.parse(await firstLine(child, script)) };
}

/** The first line that the program writes; an error when it ends before. */
function firstLine(child: ChildProcess, script: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const decoder = new TextDecoder();
    child.stdout?.on("data", (bytes: Uint8Array) => {
      text += decoder.decode(bytes, { stream: true });
      const end = text.indexOf("\n");
      if (end >= 0) resolve(text.slice(0, end));
    });
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${script} ended with ${code} before it was ready`)));
  });
}

/** Asks the program to end and waits, at most 5 s; then it is killed. */
export async function endProgram(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
  await ended;
  clearTimeout(timer);
}

/** Runs a program to its end and gives its stdout. Throws with the end of what it said when it fails. */
export function runProgram(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, [...args], {
      stdio: ["ignore", "pipe", "pipe"],
      cwd: root,
      env: { ...process.env, ...env },
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
    child.once("error", reject);
    child.once("close", (code) => {
      if (code === 0) resolve(stdout);
      else reject(new Error(`${program} ended with ${code}: ${(stderr + stdout).slice(-2000)}`));
    });
  });
}
