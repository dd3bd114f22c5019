/** Maintenance mode off: everything put back, proven by real writes. */
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
  const session = await deps.database.connect("holdfast:maintenance");
  try {
    const state = await switchOff(session);
    deps.log.step("maintenance.opened");
    const hint = "Maintenance mode is off in the database; look at the project's API, and at pgrst.db_pre_request.";
    return { ...await prove({ ...deps, session }, "done", state, hint), state };
  } finally {
    await session.close();
  }
}
