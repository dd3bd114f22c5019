import type { Tier } from "./commands/create.ts";
import type { Context } from "./context.ts";
import type { CreatedOutcome } from "./created.ts";
import { createDirectly } from "./create_directly.ts";
import { createThroughFunctions } from "./create_through_functions.ts";

/**
 * A full backup by the functions of a project where one is set, else by threads of this process. `wait`: until its end, which
 * a direct one always does. Errors: those of settings; the run's own, once it failed; `cancelled`.
 */
export async function createBackup(context: Context, tier: Tier, wait: boolean): Promise<CreatedOutcome> {
  return goesThroughFunctions(context)
    ? await createThroughFunctions(context, tier, wait)
    : await createDirectly(context, tier);
}

/** A flag is nearer than the environment; with both or neither of them, a project that is set is meant. */
export function goesThroughFunctions({ settings }: Context): boolean {
  const direct = settings.isFlag("db-url") && !settings.isFlag("project-url");
  return !direct && settings.get("project-url") !== undefined;
}
