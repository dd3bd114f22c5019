/** Maintenance mode on: closed, proven by real writes, or taken back. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import { unfencedOf } from "./plan.ts";
import { assertVerdict, probeFunctions } from "./probe.ts";
import type { ProjectApi } from "./project_api.ts";
import { defaultPatienceMs, type Proof, prove } from "./prove.ts";
import { settle } from "./settle.ts";
import { type MaintenanceState, readMaintenance, recordProof, switchOff, switchOn } from "./state.ts";

export interface MaintenanceDeps {
  /** As the role that installed schema `backup`. */
  readonly database: Database;
  /** Null: proven in the database alone, which the result says. */
  readonly project: ProjectApi | null;
  /** Buckets that stay writable: where the backups go. */
  readonly ownBuckets: readonly string[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /**
   * How long PostgREST is given to read its settings again (it takes milliseconds), and transactions that are under way to
   * end (the API's statements are ended after 8 s). Default 30,000.
   */
  readonly patienceMs?: number;
}

export interface MaintenanceWindow {
  /** One line for the users, 1 to 300 letters; it is in every refusal, and public. */
  readonly message: string;
  /** ISO 8601 with a zone; nothing ends by itself then, but the watchdog tells. */
  readonly until: string | null;
  /** Who asks, for the audit log; null: the database's role. A restore says `restore:` and its id. */
  readonly by: string | null;
  /** Sessions of the API's logins whose transactions are open still when patience is over are ended. Default: false. */
  readonly endsOpen?: boolean;
}

export interface Closed extends Proof {
  readonly state: MaintenanceState;
  /** Writes that go on, in sentences. */
  readonly unfenced: readonly string[];
  /** Transactions of the API that began before it was closed and were still open when patience was over. */
  readonly stillOpen: number;
  /** Of those, how many were ended. */
  readonly ended: number;
}

/**
 * Closes the project to writes and proves it. While it is closed already: changes message and end, mends what is missing,
 * and proves it again. A process that dies in here leaves it open, or closed and not proven (`provenAt` is null); calling it
 * again goes on from there.
 *
 * Errors: `payload_invalid`, `database_denied`, `server_unsupported`, `project_unreachable` before anything has changed;
 * `maintenance_unproven` after it was taken back (it stays closed where it had been closed and proven before).
 */
export async function enterMaintenance(deps: MaintenanceDeps, window: MaintenanceWindow): Promise<Closed> {
  const session = await deps.database.connect("holdfast:maintenance");
  try {
    const before = await readMaintenance(session);
    if (!before.closed && deps.project !== null) await assertProbeWorks(deps.project);
    const closed = await switchOn(session, { ...window, ownBuckets: deps.ownBuckets });
    deps.log.step("maintenance.closed");
    const proof = await provenOrTakenBack(deps, session, closed, before);
    await recordProof(session, proof.probed);
    const patienceMs = deps.patienceMs ?? defaultPatienceMs;
    const settled = await settle(session, deps.clock, patienceMs, window.endsOpen === true);
    const state = await readMaintenance(session);
    deps.log.step("maintenance.proven", { probes: proof.probed.join(",") });
    return { ...proof, state, unfenced: unfencedOf(state, session.serverVersion), ...settled };
  } finally {
    await session.close();
  }
}

/** An address or key that is wrong shows before anything is changed. */
async function assertProbeWorks(project: ProjectApi): Promise<void> {
  const hint =
    "Nothing was changed. Check --project-url and SUPABASE_SERVICE_ROLE_KEY, and that the API exposes public.";
  assertVerdict(await probeFunctions(project), "done", hint);
}

async function provenOrTakenBack(
  deps: MaintenanceDeps,
  session: Connection,
  closed: MaintenanceState,
  before: MaintenanceState,
): Promise<Proof> {
  const wasProven = before.closed && before.provenAt !== null;
  try {
    const hint = wasProven ? "It was on before and stays on; `maintenance off` ends it." : undefined;
    return await prove({ ...deps, session }, "refused", closed, hint);
  } catch (error) {
    if (!wasProven) {
      try {
        await switchOff(session);
      } catch (cause) {
        deps.log.error("maintenance.stuck", { message: "it could not be taken back" });
        throw new HoldfastError(
          "maintenance_unproven",
          "maintenance mode is on and unproven, and could not be taken back",
          {
            hint: "Run `maintenance off`.",
            cause,
          },
        );
      }
    }
    throw error;
  }
}
