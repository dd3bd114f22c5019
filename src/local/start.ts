/**
 * `npm start`: the embedded stack, left running with its schedules. This process makes it in the background
 * (`serve.ts`), waits until it answers, and says where everything is.
 */
import { spawn } from "node:child_process";
import { closeSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { stripVTControlCharacters } from "node:util";
import { denoProgram, root } from "./child.ts";
import { readRunning, runningDirectory } from "./running.ts";

const before = readRunning();
if (before !== null) {
  console.error(`The stack is running already (process ${before.pid}).`);
  show(before);
  process.exit(0);
}
mkdirSync(runningDirectory(), { recursive: true });
const logFile = join(runningDirectory(), "stack.log");
const log = openSync(logFile, "a", 0o600);
const child = spawn(denoProgram(), ["run", "--quiet", "--allow-all", join(root, "src/local/serve.ts")], {
  cwd: root,
  detached: true,
  stdio: ["ignore", log, log],
});
closeSync(log);
child.unref();
let ended = false;
child.once("exit", () => (ended = true));

const deadline = Date.now() + 300_000;
for (;;) {
  const running = readRunning();
  if (running !== null) {
    show(running);
    process.exit(0);
  }
  if (ended || Date.now() > deadline) {
    console.error(`The stack did not start; ${logFile} says more. ${lastError()}`);
    process.exit(1);
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
}

/** The line of the log that names the failure; empty when there is none. */
function lastError(): string {
  const lines = stripVTControlCharacters(readFileSync(logFile, "utf8")).split("\n");
  return lines.findLast((line) => line.includes("Error: "))?.slice(0, 500) ?? "";
}

function show(
  running: { readonly gatewayUrl: string; readonly databaseLabel: string; readonly directory: string },
): void {
  console.error(`
  Holdfast's embedded stack
    API       ${running.gatewayUrl}
    database  ${running.databaseLabel}
    files     ${running.directory}

  npm run backup:create -- --local     takes a backup through the functions
  npm run backup:status -- --local     shows how things stand
  npm run stop                         ends the stack; its data stays
`);
}
