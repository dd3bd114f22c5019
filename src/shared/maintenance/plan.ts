/** What turning maintenance mode on will do, and what it does not reach. Pure. */
import type { MaintenanceState } from "./state.ts";

export interface MaintenancePlan {
  /** Sentences for people. */
  readonly changes: readonly string[];
  /** Writes that go on. */
  readonly unfenced: readonly string[];
}

/** `serverVersion` is `server_version_num`. */
export function planMaintenance(state: MaintenanceState, serverVersion: number): MaintenancePlan {
  return { changes: changesOf(state), unfenced: unfencedOf(state, serverVersion) };
}

function changesOf({ preRequest, files, accounts, jobs, closed }: MaintenanceState): string[] {
  const own = preRequest.ours ? preRequest.chained : preRequest.present;
  const changes = [
    "API: every write through /rest/v1 is refused, for service_role too; reads go on" +
    (own === null || own === "" ? "" : `; ${own} is called first, as now`),
  ];
  if (files !== "absent") changes.push("Storage: uploads, changes and removals are refused; downloads go on");
  if (accounts !== "absent") changes.push("accounts: none is made or deleted; signing in goes on");
  if (jobs.active.length > 0) changes.push(`cron jobs are paused: ${jobs.active.join(", ")}`);
  if (closed) changes.unshift("it is on already: message and end are changed, and it is proven again");
  return changes;
}

/** Writes that go on under maintenance mode, with what is known of them now. */
export function unfencedOf(state: MaintenanceState, serverVersion: number): string[] {
  const { files, accounts, jobs, sessions, preRequest } = state;
  const logins = sessions.map(({ role, sessions }) => `${role} (${sessions})`).join(", ");
  const chained = preRequest.ours ? preRequest.chained : preRequest.present;
  return [
    "logins other than the API's: postgres, roles of your own, functions that use the database's URL" +
    (logins === "" ? "" : `; open now: ${logins}`),
    "what users change of their own account, and what triggers of the app write when somebody signs in",
    "Realtime: broadcast and presence",
    "making buckets, changing them, deleting empty ones",
    ...(serverVersion < 160_000 ? postgres15(state) : []),
    ...(state.cron ? [schedules(state)] : []),
    ...(chained === null || chained === "" ? [] : [`what ${chained} writes before a function under /rpc is called`]),
    ...(jobs.running.length === 0 ? [] : [`cron jobs that run at this moment: ${jobs.running.join(", ")}`]),
    ...(state.closed && jobs.active.length > 0 ? [`cron jobs that are active: ${jobs.active.join(", ")}`] : []),
    ...(files === "missing" ? ["Storage: the trigger on storage.objects could not be made"] : []),
    ...(accounts === "missing" ? ["accounts: the trigger on auth.users could not be made"] : []),
  ];
}

function schedules({ scheduling }: MaintenanceState): string {
  const named = scheduling.length === 0 ? "" : `: ${scheduling.join(", ")}`;
  return `functions that take away or change jobs of pg_cron, which writes to its own table all the same${named}`;
}

/** What PostgreSQL 15 does not count among the writes of a read-only transaction, and 16 does. */
function postgres15({ resetting }: MaintenanceState): string[] {
  const named = resetting.length === 0 ? "" : `: ${resetting.join(", ")}`;
  return [
    "large objects, on PostgreSQL 15",
    `functions that reset transaction_read_only, or run any SQL they are given, on PostgreSQL 15${named}`,
  ];
}
