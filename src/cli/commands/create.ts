import { HoldfastError } from "../../shared/errors.ts";
import type { Context } from "../context.ts";
import { createDirectly } from "../create_directly.ts";
import { createThroughFunctions } from "../create_through_functions.ts";
import type { Outcome } from "../output.ts";

const tiers = ["daily", "weekly", "manual", "safety"] as const;
export type Tier = (typeof tiers)[number];

/** The document: `{id, tier, status, rows, rawBytes, storedBytes, durationMs, joined, …}`. Exit 3 when quarantined. */
export async function run(context: Context): Promise<Outcome> {
  const tier = tierOf(context.settings.need("tier"));
  const { settings } = context;
  // A flag is nearer than the environment; with both or neither of them, a project that is set is meant.
  const direct = settings.isFlag("db-url") && !settings.isFlag("project-url");
  return !direct && settings.get("project-url") !== undefined
    ? await createThroughFunctions(context, tier)
    : await createDirectly(context, tier);
}

function tierOf(text: string): Tier {
  const tier = tiers.find((each) => each === text);
  if (tier !== undefined) return tier;
  throw new HoldfastError("usage", `there is no tier ${JSON.stringify(text)}`, {
    hint: `Tiers are ${tiers.join(", ")}.`,
  });
}
