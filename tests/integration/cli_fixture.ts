/** The CLI as people run it: a process with its own environment, its two streams and its exit code. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { cliArguments, denoPath } from "../../src/local/setup.mjs";
import { root } from "../unit/project_files.ts";

export interface CliResult {
  readonly exit: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** stdout as the one JSON document that it has to be with --json. */
  readonly document: unknown;
}

export interface CliRun {
  readonly result: Promise<CliResult>;
  /** To the launcher, as a terminal's Ctrl-C or a supervisor sends it. */
  signal(name: "SIGINT" | "SIGTERM"): void;
}

/** By the launcher, as people start it. Nothing of the environment but the way to programs; `settings` is all that it knows. */
export function startCli(args: readonly string[], settings: Readonly<Record<string, string>>): CliRun {
  return start(process.execPath, [join(root, "src/cli/holdfast.mjs")], args, settings);
}

/** Without the launcher, which takes as long as many a command: npm_run.test.ts and runbooks.test.ts go through it. */
export async function cli(args: readonly string[], settings: Readonly<Record<string, string>>): Promise<CliResult> {
  return await start(denoPath(), cliArguments, args, { DENO_NO_UPDATE_CHECK: "1", ...settings }).result;
}

function start(
  program: string,
  before: readonly string[],
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
): CliRun {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(program, [...before, ...args], {
    cwd: "/",
    env: { PATH, HOME, ...settings },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const result = new Promise<CliResult>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exit) => {
      const document = args.includes("--json") ? parse(stdout) : undefined;
      resolve({ exit, stdout, stderr, document });
    });
  });
  return { result, signal: (name) => void child.kill(name) };
}

/** At a terminal that shows both streams, where a person types `answer` once they are asked to type something. */
export async function cliAtTerminal(
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
  answer: string,
): Promise<{ readonly exit: number | null; readonly shown: string }> {
  const { PATH = "", HOME = "" } = process.env;
  const command = [process.execPath, join(root, "src/cli/holdfast.mjs"), ...args].map((word) => `'${word}'`).join(" ");
  const child = spawn("script", ["--quiet", "--return", "--command", command, "/dev/null"], {
    cwd: "/",
    env: { PATH, HOME, ...settings },
    stdio: ["pipe", "pipe", "inherit"],
  });
  let shown = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    const wasAsked = shown.includes("to go on:");
    shown += text;
    if (!wasAsked && shown.includes("to go on:")) child.stdin.write(`${answer}\r`);
  });
  return await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exit) => resolve({ exit, shown }));
  });
}

/** By the system, as soon as it has told of the step; it may have failed behind it by then. True where it told. */
export async function cliKilledAt(
  step: string,
  args: readonly string[],
  settings: Readonly<Record<string, string>>,
): Promise<boolean> {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(denoPath(), [...cliArguments, ...args], {
    cwd: "/",
    env: { PATH, HOME, DENO_NO_UPDATE_CHECK: "1", HOLDFAST_DEBUG: "1", ...settings },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let seen = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    seen += text;
    if (seen.includes(`"step:${step}"`)) child.kill("SIGKILL");
  });
  const exit = await new Promise<number | null>((resolve) => child.once("close", resolve));
  return exit !== 0 && seen.includes(`"step:${step}"`);
}

/** Undefined when it is no JSON, so that the test that wanted a document fails with both streams at hand. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
