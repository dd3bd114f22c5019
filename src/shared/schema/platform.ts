/**
 * What belongs to the platform of a hosted project: it exists on a fresh project before anything is restored.
 *
 * An object is the platform's when its schema is one of these and its owner one of the platform's roles; a user's own objects in such
 * a schema (a trigger on auth.users, a policy on storage.objects) stay the user's.
 */

/** Roles that a fresh hosted project has. `postgres` is there too, but what it owns is the user's. */
const platformRoles = new Set([
  "anon",
  "authenticated",
  "authenticator",
  "cli_login_postgres",
  "dashboard_user",
  "pgbouncer",
  "pgsodium_keyholder",
  "pgsodium_keyiduser",
  "pgsodium_keymaker",
  "postgres",
  "service_role",
  "supabase_admin",
  "supabase_auth_admin",
  "supabase_etl_admin",
  "supabase_functions_admin",
  "supabase_privileged_role",
  "supabase_read_only_user",
  "supabase_realtime_admin",
  "supabase_replication_admin",
  "supabase_storage_admin",
]);

type DataRule = "capture" | { readonly leftOut: string };

interface PlatformSchema {
  readonly data: DataRule;
  /** Tables whose rows belong to the target, not to the backup. */
  readonly bookkeeping: readonly string[];
}

const transient = { leftOut: "holds only what is under way on the platform" } as const;

/** Service schemas of a hosted project. */
const platformSchemas: Readonly<Record<string, PlatformSchema>> = {
  auth: { data: "capture", bookkeeping: ["schema_migrations"] },
  storage: { data: "capture", bookkeeping: ["migrations"] },
  realtime: { data: transient, bookkeeping: [] },
  _realtime: { data: transient, bookkeeping: [] },
  _analytics: { data: transient, bookkeeping: [] },
  _supavisor: { data: transient, bookkeeping: [] },
  supabase_functions: { data: transient, bookkeeping: [] },
  net: { data: transient, bookkeeping: [] },
  vault: { data: { leftOut: "secrets are sealed with a key that stays with the project" }, bookkeeping: [] },
  pgsodium: { data: { leftOut: "keys that stay with the project" }, bookkeeping: [] },
  pgsodium_masks: { data: transient, bookkeeping: [] },
  pgbouncer: { data: transient, bookkeeping: [] },
  graphql: { data: transient, bookkeeping: [] },
  graphql_public: { data: transient, bookkeeping: [] },
  extensions: { data: "capture", bookkeeping: [] },
  cron: { data: { leftOut: "jobs come back as definitions; their history stays behind" }, bookkeeping: [] },
};

/** The service of a role, null for a user's own; with `builtIn`, predefined roles (pg_…) count as the platform's. */
export function platformOfRole(name: string, builtIn = false): string | null {
  return platformRoles.has(name) || (builtIn && name.startsWith("pg_")) ? "supabase" : null;
}

export interface PlatformQuestion {
  readonly catalog: string;
  readonly schema: string | null;
  readonly name: string;
  readonly owner: string | null;
}

/** The service that owns an object, by its schema and owner. */
export function platformOf({ catalog, schema, name, owner }: PlatformQuestion): string | null {
  const byPlatform = owner !== null && owner !== "postgres" && platformRoles.has(owner);
  if (catalog === "pg_publication") return name.startsWith("supabase_realtime") ? "realtime" : null;
  if (catalog === "pg_extension") return null;
  if (catalog === "pg_event_trigger") return byPlatform ? "supabase" : null;
  if (schema === null || !(schema in platformSchemas)) return null;
  return byPlatform ? schema : null;
}

export interface DataDecision {
  /** `user` or the service. */
  readonly dataOwner: string;
  readonly captured: DataRule;
  readonly restoreData: boolean;
}

/** What becomes of a table's (or sequence's) rows. */
export function dataOf(schema: string, name: string, owner: string | null): DataDecision {
  const service = platformOf({ catalog: "pg_class", schema, name, owner });
  const rule = service === null ? undefined : platformSchemas[service];
  if (service === null || rule === undefined) return { dataOwner: "user", captured: "capture", restoreData: true };
  return { dataOwner: service, captured: rule.data, restoreData: !rule.bookkeeping.includes(name) };
}
