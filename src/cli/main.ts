/** Entry of the CLI: arguments → settings → command → exit code. Started by holdfast.mjs. */
import { writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline/promises";
import { holdfastVersion } from "../shared/backup/deps.ts";
import { systemClock } from "../shared/clock.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { readRunning } from "../local/running.ts";
import { createLog, jsonLine, type LogLine } from "../shared/log.ts";
import { webCryptoRandom } from "../shared/random.ts";
import { errno } from "../shared/store/file_errors.ts";
import { type Arguments, parseArguments } from "./arguments.ts";
import type { CommandName } from "./command_table.ts";
import type { Command, Context } from "./context.ts";
import { localSettings } from "./local_settings.ts";
import { adviceForNpm, localAdvice, refuseSwallowedFlags } from "./npm_guard.ts";
import { wordsNpmTook } from "./npm_log.ts";
import { type Printer, printFailure, printOutcome } from "./output.ts";
import { Progress } from "./progress.ts";
import { readSettings } from "./settings.ts";
import { commandHelp, generalHelp } from "./usage.ts";

const load: Readonly<Record<CommandName, () => Promise<{ readonly run: Command }>>> = {
  "init": () => import("./commands/init.ts"),
  "keygen": () => import("./commands/keygen.ts"),
  "create": () => import("./commands/create.ts"),
  "list": () => import("./commands/list.ts"),
  "status": () => import("./commands/status.ts"),
  "metrics": () => import("./commands/metrics.ts"),
  "schedules": () => import("./commands/schedules.ts"),
  "verify": () => import("./commands/verify.ts"),
  "retention": () => import("./commands/retention.ts"),
  "prune": () => import("./commands/prune.ts"),
  "checks": () => import("./commands/checks.ts"),
  "validate": () => import("./commands/validate.ts"),
  "restore-full": () => import("./commands/restore_full.ts"),
  "restore-point": () => import("./commands/restore_point.ts"),
  "restore": () => import("./commands/restore.ts"),
  "restore-table": () => import("./commands/restore_table.ts"),
  "restore-record": () => import("./commands/restore_record.ts"),
  "restore-file": () => import("./commands/restore_file.ts"),
  "restore-user": () => import("./commands/restore_user.ts"),
  "erase": () => import("./commands/erase.ts"),
  "download": () => import("./commands/download.ts"),
  "export": () => import("./commands/export.ts"),
  "import-export": () => import("./commands/import_export.ts"),
  "incremental": () => import("./commands/incremental.ts"),
  "follow": () => import("./commands/follow.ts"),
  "timeline": () => import("./commands/timeline.ts"),
  "release": () => import("./commands/release.ts"),
  "accept": () => import("./commands/accept.ts"),
  "maintenance": () => import("./commands/maintenance.ts"),
  "alerts": () => import("./commands/alerts.ts"),
  "settings": () => import("./commands/settings.ts"),
  "incident": () => import("./commands/incident.ts"),
  "doctor": () => import("./commands/doctor.ts"),
  "keys": () => import("./commands/keys.ts"),
  "adopt": () => import("./commands/adopt.ts"),
  "admins": () => import("./commands/admins.ts"),
  "report": () => import("./commands/report.ts"),
  "guardians": () => import("./commands/guardians.ts"),
  "audit": () => import("./commands/audit.ts"),
  "replicate": () => import("./commands/replicate.ts"),
  "test-recovery": () => import("./commands/test_recovery.ts"),
  "drills": () => import("./commands/drills.ts"),
  "runbooks": () => import("./commands/runbooks.ts"),
  "log": () => import("./commands/log.ts"),
};

const printer: Printer = { stdout: (text) => writeAll(1, text), stderr: (text) => writeAll(2, text) };

const exitCode = await main(process.argv.slice(2));
// Not only the exit code: a session over TLS may keep its socket, and the process, for a while after its end.
process.exit(exitCode);

async function main(argv: readonly string[]): Promise<number> {
  let json = argv.includes("--json");
  if (argv.length === 1 && argv[0] === "--version") {
    printer.stdout(`${holdfastVersion}\n`);
    return 0;
  }
  try {
    const parsed = parseOrAdvise(argv);
    if ("help" in parsed) {
      printer.stdout(`${parsed.help === null ? generalHelp() : commandHelp(parsed.help)}\n`);
      return argv.length === 0 ? 2 : 0;
    }
    json = parsed.flags.has("json");
    return await runCommand(parsed, json);
  } catch (error) {
    if (process.env["HOLDFAST_DEBUG"] === "1") printer.stderr(`${trace(error)}\n`);
    return printFailure(error, json, printer);
  }
}

function parseOrAdvise(argv: readonly string[]): ReturnType<typeof parseArguments> {
  const [command = "", ...rest] = argv;
  if (command in load) refuseSwallowedFlags(command as CommandName, rest, process.env, wordsNpmTook);
  try {
    return parseArguments(argv);
  } catch (error) {
    const ours = asHoldfastError(error);
    throw new HoldfastError(ours.code, ours.message, { hint: ours.hint + adviceForNpm(process.env), cause: error });
  }
}

async function runCommand(parsed: Arguments, json: boolean): Promise<number> {
  const isLocal = parsed.flags.has("local");
  const advice = isLocal || parsed.command === "keygen"
    ? null
    : localAdvice(parsed, process.env, readRunning() !== null);
  if (advice !== null) printer.stderr(`${advice}\n`);
  const settings = isLocal ? localSettings(parsed) : await readSettings(parsed, process.env);
  const progress = new Progress(
    { isTerminal: process.stderr.isTTY === true, columns: process.stderr.columns ?? 80, write: printer.stderr },
    systemClock,
  );
  const cancel = new AbortController();
  const onSignal = () => {
    if (!cancel.signal.aborted) progress.note("cancelling; what is half-done is ended cleanly");
    cancel.abort(new HoldfastError("cancelled", `${parsed.command} was cancelled`));
  };
  for (const name of ["SIGINT", "SIGTERM"] as const) process.on(name, onSignal);
  const logLevel = process.env["HOLDFAST_DEBUG"] === "1" ? "debug" : "warn";
  const context: Context = {
    settings,
    words: parsed.words,
    clock: systemClock,
    random: webCryptoRandom,
    log: createLog((line) => progress.note(logLevel === "debug" ? jsonLine(line) : lineForPeople(line)), logLevel),
    logLevel,
    progress,
    columns: process.stdout.columns ?? 80,
    signal: cancel.signal,
    note: (text) => progress.note(text),
    ask,
    confirm,
  };
  try {
    const { run } = await load[parsed.command]();
    const outcome = await run(context);
    progress.clear();
    return printOutcome(outcome, json, printer);
  } finally {
    progress.clear();
    for (const name of ["SIGINT", "SIGTERM"] as const) process.off(name, onSignal);
  }
}

async function ask(question: string): Promise<string | null> {
  if (process.stdin.isTTY !== true || process.stderr.isTTY !== true) return null;
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return (await terminal.question(`${question} `)).trim();
  } finally {
    terminal.close();
  }
}

async function confirm(question: string, word: string): Promise<boolean> {
  const typed = await ask(`${question} Type ${word} to go on:`);
  if (typed === null || typed === "") return false;
  if (typed === word) return true;
  throw new HoldfastError("confirmation_wrong", "another word was typed, and nothing was done", {
    hint: `The word is ${word}.`,
  });
}

/** Synchronous, so that nothing is lost at exit. A reader that went away is no failure of ours. */
function writeAll(descriptor: number, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += writeSync(descriptor, bytes, at);
  } catch (error) {
    if (errno(error) !== "EPIPE") throw error;
  }
}

/** `warning: task.failed: plan: key_wrong: epoch … needs the key …`. */
function lineForPeople({ level, event, fields }: LogLine): string {
  const { kind, code, message } = fields;
  const what = [kind, code, message].filter((field) => field !== undefined && field !== null);
  return [level === "warn" ? "warning" : level, event, ...(what.length > 0 ? what : [JSON.stringify(fields)])].join(
    ": ",
  );
}

/** For HOLDFAST_DEBUG=1 only: where an error came from. Foreign messages may name tables. */
function trace(error: unknown): string {
  const lines: string[] = [];
  let at: unknown = error;
  for (let depth = 0; at instanceof Error && depth < 5; depth++) {
    lines.push(at.stack ?? at.message);
    at = at.cause;
  }
  return lines.join("\ncaused by ");
}
