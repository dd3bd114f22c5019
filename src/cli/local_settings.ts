/** Settings of the embedded stack that `npm start` runs. */
import { readRunning } from "../local/running.ts";
import { HoldfastError } from "../shared/errors.ts";
import type { Arguments } from "./arguments.ts";
import { Settings } from "./settings.ts";

/** Flags and the stack's own settings; the environment and .env are left out on purpose. Errors: `setting_missing`. */
export function localSettings(parsed: Arguments): Settings {
  const running = readRunning();
  if (running === null) {
    throw new HoldfastError("setting_missing", "the embedded stack is not running", {
      hint: "Start it with `npm start`, or leave --local out.",
    });
  }
  const variables = new Map([
    ["BACKUP_DB_URL", running.databaseUrl],
    ["BACKUP_DB_CA", running.caFile],
    ["BACKUP_TARGET_DB_CA", running.caFile],
    ["PGPASSWORD", decodeURIComponent(new URL(running.databaseUrl).password)],
    ["BACKUP_STORE", running.store],
    ["BACKUP_KEYS", running.keys],
    ["BACKUP_PROJECT_URL", running.gatewayUrl],
    ["BACKUP_WORKER_SECRET", running.workerSecret],
    ["SUPABASE_URL", running.gatewayUrl],
    ["SUPABASE_SERVICE_ROLE_KEY", running.serviceRoleKey],
  ]);
  return new Settings(parsed.flags, (name) => variables.get(name));
}
