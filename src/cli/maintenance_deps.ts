/** What maintenance mode works with, from the settings. */
import { HoldfastError } from "../shared/errors.ts";
import { pageVariables } from "../shared/incidents/page_variables.ts";
import type { ProjectApi } from "../shared/maintenance/project_api.ts";
import type { MaintenanceDeps } from "../shared/maintenance/switch_on.ts";
import type { Database } from "../shared/postgres/connection.ts";
import { ownBuckets } from "../shared/schema/own_objects.ts";
import { ownBucketOf } from "../shared/store/open_store.ts";
import type { Context } from "./context.ts";
import { sourceDatabase } from "./open.ts";
import { storeAddress, storeCredentials } from "./open_store.ts";

/**
 * Of the database of --db-url, or of the one that is named: of that the project's API is not known, as --project-url is the
 * source's. Errors: those of the settings.
 */
export async function maintenanceDeps(context: Context, other: Database | null = null): Promise<MaintenanceDeps> {
  const { settings, clock, random, log } = context;
  const page = settings.variable(pageVariables.address);
  const buckets = [
    settings.get("store") === undefined ? null : ownBucketOf(storeAddress(settings)),
    page === undefined ? null : ownBucketOf(page),
  ].filter((bucket) => bucket !== null);
  return {
    database: other ?? await sourceDatabase(context),
    project: other === null ? projectOf(context) : null,
    ownBuckets: [...new Set([...Object.values(ownBuckets), ...buckets])],
    clock,
    random,
    log,
  };
}

/** --until, as ISO 8601 in UTC; null: not set. Errors: `usage`. */
export function untilOf({ settings }: Pick<Context, "settings">): string | null {
  const until = settings.get("until");
  if (until === undefined) return null;
  // A day or a time without a zone would mean something else on each machine.
  if (!/T.*(Z|[+-]\d\d:\d\d)$/.test(until) || Number.isNaN(Date.parse(until))) {
    throw new HoldfastError("usage", "--until is a moment with a zone, such as 2024-01-09T12:00:00Z");
  }
  return new Date(until).toISOString();
}

/** Errors: `setting_missing` where a URL is set and no key: a proof that was asked for is not left out. */
function projectOf({ settings }: Context): ProjectApi | null {
  const url = settings.get("project-url");
  if (url === undefined) return null;
  const serviceKey = storeCredentials(settings).supabaseServiceKey;
  if (serviceKey === undefined) {
    throw new HoldfastError("setting_missing", "SUPABASE_SERVICE_ROLE_KEY is not set", {
      hint: "Set it in the environment or in .env; without --project-url the proof goes through the database alone.",
    });
  }
  return { url, serviceKey, fetch: (input, init) => fetch(input, init) };
}
