import { HoldfastError } from "../../shared/errors.ts";
import type { Context } from "../context.ts";
import { withCopies } from "../copy_to_second.ts";
import { createBackup, goesThroughFunctions } from "../create_backup.ts";
import type { Outcome } from "../output.ts";

const tiers = ["daily", "weekly", "manual", "safety"] as const;
export type Tier = (typeof tiers)[number];

/**
 * The document: `{id, tier, status, rows, rawBytes, storedBytes, durationMs, joined, copies, …}`; `copies` as `withCopies` says,
 * without it through functions. Exit 3 when quarantined.
 */
export async function run(context: Context): Promise<Outcome> {
  const outcome = await createBackup(context, tierOf(context.settings.need("tier")), context.settings.has("wait"));
  return goesThroughFunctions(context) ? outcome : await withCopies(context, outcome, true);
}

function tierOf(text: string): Tier {
  const tier = tiers.find((each) => each === text);
  if (tier !== undefined) return tier;
  throw new HoldfastError("usage", `there is no tier ${JSON.stringify(text)}`, {
    hint: `Tiers are ${tiers.join(", ")}.`,
  });
}
