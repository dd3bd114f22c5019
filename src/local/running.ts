import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { stackDirectory } from "./unprivileged.ts";

/** What `npm start` leaves for `npm run stop` and for `--local`: readable by its owner only, since it holds secrets. */
export interface Running {
  readonly pid: number;
  readonly directory: string;
  readonly gatewayUrl: string;
  /** Without a password. */
  readonly databaseLabel: string;
  /** As role postgres, with password. */
  readonly databaseUrl: string;
  readonly caFile: string;
  readonly keys: string;
  readonly workerSecret: string;
  readonly serviceRoleKey: string;
  /** Address of the store as `--store` takes it. */
  readonly store: string;
}

/** The one stack of this checkout that `npm start` starts. */
export function runningDirectory(): string {
  return join(stackDirectory(), "local");
}

export function runningFile(): string {
  return join(runningDirectory(), "running.json");
}

/** The stack that runs, or null. A file left over by a stack that was killed counts as none. */
export function readRunning(): Running | null {
  if (!existsSync(runningFile())) return null;
  const running = JSON.parse(readFileSync(runningFile(), "utf8")) as Running;
  try {
    process.kill(running.pid, 0);
    return running;
  } catch {
    return null;
  }
}
