/** The process behind `npm start`: holds the stack until it is told to end. */
import { renameSync, rmSync, writeFileSync } from "node:fs";
import process from "node:process";
import { type Running, runningDirectory, runningFile } from "./running.ts";
import { backupBucket, startStack } from "./stack.ts";

rmSync(runningFile(), { force: true });
const stack = await startStack({ directory: runningDirectory(), log: (line) => console.error(line) });
const running: Running = {
  pid: process.pid,
  directory: stack.directory,
  gatewayUrl: stack.gateway.url,
  databaseLabel: `postgresql://postgres@${stack.cluster.host}:${stack.cluster.port}/postgres`,
  databaseUrl: stack.cluster.url("postgres"),
  caFile: stack.cluster.caFile,
  keys: stack.keys,
  workerSecret: stack.workerSecret,
  serviceRoleKey: stack.gateway.serviceRoleKey,
  store: `supabase://${backupBucket}`,
};
writeFileSync(`${runningFile()}.new`, JSON.stringify(running), { mode: 0o600 });
renameSync(`${runningFile()}.new`, runningFile());

let ending = false;
async function end(): Promise<void> {
  if (ending) return;
  ending = true;
  rmSync(runningFile(), { force: true });
  await stack.stop();
  process.exit(0);
}
for (const signal of ["SIGTERM", "SIGINT"] as const) Deno.addSignalListener(signal, end);
