/** Maintenance mode off: everything put back, proven by real writes. */
import type { Connection } from "../postgres/connection.ts";
import { type Proof, prove } from "./prove.ts";
import { type OpenedState, switchOff } from "./state.ts";
import type { MaintenanceDeps } from "./switch_on.ts";

export interface Opened extends Proof {
  readonly state: OpenedState;
}

/**
 * Opens the project. Harmless while it is open, and then also puts back what a crash left. Errors: `maintenance_unproven` or
 * `project_unreachable`: it is off, but writes were not seen to go through.
 */
export async function leaveMaintenance(deps: MaintenanceDeps): Promise<Opened> {
  const state = await openProject(deps);
  return { ...await proveOpen(deps, state), state };
}

/** Not proven. `within`: what is to be written in the same transaction. Errors: those of `within` and of the session. */
export async function openProject(
  { database, log }: Pick<MaintenanceDeps, "database" | "log">,
  within?: (session: Connection) => Promise<unknown>,
): Promise<OpenedState> {
  const session = await database.connect("holdfast:maintenance");
  try {
    await session.execute("begin");
    const state = await switchOff(session);
    await within?.(session);
    await session.execute("commit");
    log.step("maintenance.opened");
    return state;
  } finally {
    await session.close();
  }
}

/** Errors: `maintenance_unproven`, `project_unreachable`. */
export async function proveOpen(deps: MaintenanceDeps, state: OpenedState): Promise<Proof> {
  const session = await deps.database.connect("holdfast:maintenance");
  try {
    const hint = "Maintenance mode is off in the database; look at the project's API, and at pgrst.db_pre_request.";
    return await prove({ ...deps, session }, "done", state, hint);
  } finally {
    await session.close();
  }
}
