/** Maintenance mode off: everything put back, proven by real writes. */
import type { Connection } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import { type Proof, prove } from "./prove.ts";
import { type OpenedState, switchOff } from "./state.ts";
import type { MaintenanceDeps } from "./switch_on.ts";

/** How maintenance mode says that a restore turned it on; what else it says is a person, or a role. */
export const ofRestore = "restore:";

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

/** Not proven. Errors: those of the session. */
export async function openProject({ database, log }: Pick<MaintenanceDeps, "database" | "log">): Promise<OpenedState> {
  const session = await database.connect("holdfast:maintenance");
  try {
    const state = await switchOff(session);
    log.step("maintenance.opened");
    return state;
  } finally {
    await session.close();
  }
}

/**
 * The end of a restore: opens the project and does what is `within`, in one transaction. Where a person has closed it, or made
 * it theirs meanwhile, it stays closed, and who that is is returned. Errors: those of `within` and of the session.
 */
export async function openAfterRestore(
  { database, log }: Pick<MaintenanceDeps, "database" | "log">,
  within: (session: Connection) => Promise<unknown>,
): Promise<OpenedState | { readonly keptFor: string }> {
  const session = await database.connect("holdfast:maintenance");
  try {
    return await inTransaction(session, async () => {
      const [row] = await session.query("select closed, closed_by from backup.maintenance for update");
      const by = row?.["closed"] === "t" ? row["closed_by"] ?? null : null;
      const state = by === null || by.startsWith(ofRestore) ? await switchOff(session) : { keptFor: by };
      await within(session);
      if (!("keptFor" in state)) log.step("maintenance.opened");
      return state;
    });
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
