/** Real writes that show whether the project is closed: through SQL as PostgREST does it, and through the project's API. */
import { toHex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import type { Random } from "../random.ts";
import { type Answer, callProject, type ProjectApi } from "./project_api.ts";
import { shutOutRoles } from "./state.ts";

export type Verdict = "refused" | "done";

export interface Probe {
  /** `sql`, `tables`, `functions`, `files`, `accounts`. */
  readonly name: string;
  /** Null: neither; `told` says what came instead. */
  readonly verdict: Verdict | null;
  /** For people; no value, no key. */
  readonly told: string;
}

/** Made for the probe of Storage and removed after it; no bucket of the app is touched. */
export const probeBucket = "holdfast-probe";

/**
 * As PostgREST does it, in a transaction that is rolled back: the settings of a request of service_role, the function that
 * the setting names, then a write. Shows what the database refuses, not that PostgREST has read its settings.
 */
export async function probeSql(session: Connection): Promise<Probe> {
  const tables = await attempt(session, "PATCH", "/backup_announcements");
  const functions = await attempt(session, "POST", "/rpc/backup_probe");
  const verdict = tables === "PT503" && functions === "25006"
    ? "refused"
    : tables === null && functions === null
    ? "done"
    : null;
  return { name: "sql", verdict, told: `table ${tables ?? "written"}, function ${functions ?? "written"}` };
}

/**
 * A read, as people who are not signed in make it: through the function that PostgREST calls first. Errors:
 * `maintenance_unproven` where a role of the API could not call that function, or is refused by it.
 */
export async function assertReads(session: Connection): Promise<void> {
  const shutOut = await shutOutRoles(session);
  if (shutOut.length > 0) {
    throw new HoldfastError("maintenance_unproven", `reads would be refused as well, for ${shutOut.join(", ")}`, {
      hint: "These roles need usage on schema public, and execute on public.backup_before_request().",
    });
  }
  const [anon] = await session.query("select pg_catalog.to_regrole('anon') is not null as there");
  if (anon?.["there"] !== "t") return;
  const refused = await attempt(session, "GET", "/backup_announcements", "anon");
  if (refused === null) return;
  throw new HoldfastError("maintenance_unproven", `a read was refused (${refused})`);
}

const refusals = ["PT503", "25006"];
const gateCall = "select public.backup_before_request()";
/** Without the project's own function, for one that takes no request like this. As the installer, who may name it. */
const gateAlone = "select backup.before_request(g.closed, g.message) from backup.gate() as g";

/** SQLSTATE of the refusal, or null. `anon` only asks whether it may go on, `service_role` writes. */
async function attempt(
  session: Connection,
  method: string,
  path: string,
  role: "anon" | "service_role" = "service_role",
): Promise<string | null> {
  const asRole = `set local role ${role}`;
  const last = role === "anon" ? [] : ["select public.backup_probe()"];
  try {
    return await attemptThrough(session, method, path, role, [asRole, gateCall, ...last]);
  } catch (error) {
    if (sqlstateOf(error) === null) throw error;
    return await attemptThrough(session, method, path, role, [gateAlone, asRole, ...last]);
  }
}

async function attemptThrough(
  session: Connection,
  method: string,
  path: string,
  role: string,
  steps: readonly string[],
): Promise<string | null> {
  await session.execute("begin");
  try {
    await session.query(
      `select pg_catalog.set_config('request.method', $1, true), pg_catalog.set_config('request.path', $2, true),
         pg_catalog.set_config('request.headers', '{}', true), pg_catalog.set_config('request.cookies', '{}', true),
         pg_catalog.set_config('request.jwt.claims', $3, true)`,
      [method, path, JSON.stringify({ role })],
    );
    for (const step of steps) await session.query(step);
    return null;
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === null || !refusals.includes(sqlstate)) throw error;
    return sqlstate;
  } finally {
    await session.execute("rollback");
  }
}

/** A write by a table's path. Nobody may change this view, so a project that is open refuses it as well, in another way. */
export async function probeTables(api: ProjectApi): Promise<Probe> {
  const answer = await callProject(api, "PATCH", "/rest/v1/backup_announcements?id=eq.0", { message: "probe" });
  const verdict = answer.status === 503 && answer.code === "PT503"
    ? "refused"
    : answer.code === "42501"
    ? "done"
    : null;
  return { name: "tables", verdict, told: toldOf(answer) };
}

/** A write by a definer function: the hardest kind to refuse. It leaves the time of the probe in schema backup. */
export async function probeFunctions(api: ProjectApi): Promise<Probe> {
  const answer = await callProject(api, "POST", "/rest/v1/rpc/backup_probe", {});
  const verdict = answer.code === "25006" ? "refused" : isDone(answer) ? "done" : null;
  return { name: "functions", verdict, told: toldOf(answer) };
}

/** An upload into a bucket of its own, which goes with what is in it. */
export async function probeFiles(api: ProjectApi): Promise<Probe> {
  const object = `/storage/v1/object/${probeBucket}/probe`;
  await callProject(api, "POST", "/storage/v1/bucket", { id: probeBucket, name: probeBucket, public: false });
  const answer = await callProject(api, "POST", object, {});
  // one that an interrupted probe left behind shows as much: the name is taken, not refused
  const isTaken = answer.code === "409" || answer.code === "Duplicate";
  const verdict = answer.status === 503 ? "refused" : isDone(answer) || isTaken ? "done" : null;
  await callProject(api, "DELETE", object, null);
  await callProject(api, "DELETE", `/storage/v1/bucket/${probeBucket}`, null);
  return { name: "files", verdict, told: toldOf(answer) };
}

/** Only for a project that is to be closed: one that is not would get an account, which is deleted at once. */
export async function probeAccounts(api: ProjectApi, random: Random): Promise<Probe> {
  const answer = await callProject(api, "POST", "/auth/v1/admin/users", {
    email: `holdfast-probe-${toHex(random(8))}@example.invalid`,
    password: toHex(random(16)),
    email_confirm: true,
  });
  if (isDone(answer) && answer.id !== "") {
    await callProject(api, "DELETE", `/auth/v1/admin/users/${answer.id}`, null);
  }
  const verdict = answer.status >= 500 ? "refused" : isDone(answer) ? "done" : null;
  return { name: "accounts", verdict, told: toldOf(answer) };
}

/** Errors: `maintenance_unproven` unless the probe came out as `expected`. */
export function assertVerdict({ name, verdict, told }: Probe, expected: Verdict, hint?: string): void {
  if (verdict === expected) return;
  const what = expected === "refused"
    ? verdict === "done" ? "a write was not refused" : "a write was not refused as it should be"
    : "a write was refused";
  throw new HoldfastError("maintenance_unproven", `${what} (${name}: ${told})`, hint === undefined ? {} : { hint });
}

function isDone({ status }: Answer): boolean {
  return status >= 200 && status < 300;
}

function toldOf({ status, code }: Answer): string {
  return code === "" ? `HTTP ${status}` : `HTTP ${status}, ${code}`;
}
