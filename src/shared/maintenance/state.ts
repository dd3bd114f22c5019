/** What maintenance mode is, has changed, and does not reach, as backup.maintenance_state() tells it. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";

/** `missing`: the table is there and its trigger is not; `absent`: there is no such table. */
const fence = z.enum(["fenced", "missing", "absent"]);

const stateFormat = z.object({
  closed: z.boolean(),
  /** Null while it is open, as are the five below. Times are ISO 8601 in UTC. */
  message: z.string().nullable(),
  /** Whom those are told to ask who are refused; also null where nobody is named. */
  contact: z.string().nullable(),
  until: z.string().nullable(),
  since: z.string().nullable(),
  by: z.string().nullable(),
  /** When writes were tried and refused; null: closed, but not proven. */
  provenAt: z.string().nullable(),
  preRequest: z.object({
    /** The setting as it is now. */
    present: z.string().nullable(),
    ours: z.boolean(),
    /** The project's own function, which ours calls first. */
    chained: z.string().nullable(),
  }),
  /** Functions that may leave a read-only transaction by RESET; none from PostgreSQL 16 on, which refuses it. */
  resetting: z.array(z.string()),
  /** Functions that change jobs of pg_cron, which asks no read-only transaction. */
  scheduling: z.array(z.string()),
  files: fence,
  accounts: fence,
  /** Whether there is pg_cron. */
  cron: z.boolean(),
  /** The user's jobs: paused by us, active now, and under way now. */
  jobs: z.object({ paused: z.array(z.string()), active: z.array(z.string()), running: z.array(z.string()) }),
  /** Logins with open sessions that no fence meets. */
  sessions: z.array(z.object({ role: z.string(), sessions: z.int() })),
  ownBuckets: z.array(z.string()),
});

export type MaintenanceState = z.infer<typeof stateFormat>;

const openedFormat = stateFormat.extend({
  /** It was closed before. */
  opened: z.boolean(),
  /** Jobs that run again. */
  restored: z.array(z.string()),
  /** What was not put back, and why. */
  left: z.array(z.string()),
});

export type OpenedState = z.infer<typeof openedFormat>;

export async function readMaintenance(session: Connection): Promise<MaintenanceState> {
  return await ask(session, stateFormat, "select backup.maintenance_state()::text as answer", []);
}

/** Errors: `payload_invalid`, `database_denied`, `server_unsupported`; nothing has changed then. */
export async function switchOn(
  session: Connection,
  window: {
    readonly message: string;
    readonly until: string | null;
    readonly by: string | null;
    readonly ownBuckets: readonly string[];
  },
): Promise<MaintenanceState> {
  const sql = `select backup.maintenance_on($1, $2::timestamptz, $3, array(
    select b.name from pg_catalog.jsonb_array_elements_text($4::jsonb) as b (name)))::text as answer`;
  const { message, until, by, ownBuckets } = window;
  return await ask(session, stateFormat, sql, [message, until, by, JSON.stringify(ownBuckets)]);
}

export async function switchOff(session: Connection): Promise<OpenedState> {
  return await ask(session, openedFormat, "select backup.maintenance_off()::text as answer", []);
}

/** Jobs that were made since it was closed are paused as well. Returns how many. */
export async function pauseJobs(session: Connection): Promise<number> {
  return await ask(session, z.int(), "select backup.pause_jobs()::text as answer", []);
}

/** Roles of the API whose every request would be refused while it is closed. */
export async function shutOutRoles(session: Connection): Promise<string[]> {
  const sql =
    "select coalesce(pg_catalog.jsonb_agg(r.name), '[]')::text as answer from backup.shut_out_roles() as r (name)";
  return await ask(session, z.array(z.string()), sql, []);
}

export async function recordProof(session: Connection, probes: readonly string[]): Promise<void> {
  await session.query(
    "select backup.record_maintenance_proof(array(select p.name from pg_catalog.jsonb_array_elements_text($1::jsonb) as p (name)))",
    [JSON.stringify(probes)],
  );
}

async function ask<S extends z.ZodType>(
  session: Connection,
  shape: S,
  sql: string,
  values: readonly (string | null)[],
): Promise<z.output<S>> {
  try {
    const [row] = await session.query(sql, values);
    return shape.parse(JSON.parse(row?.["answer"] ?? "null"));
  } catch (error) {
    if (["3F000", "42883"].includes(sqlstateOf(error) ?? "")) {
      throw new HoldfastError("schema_missing", "schema backup is not installed in this database, or an older one is", {
        cause: error,
      });
    }
    throw error;
  }
}
