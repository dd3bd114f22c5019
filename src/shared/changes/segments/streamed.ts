/** Which schemas the stream carries. The SQL function backup.is_streamed_schema has the same list; a test compares. */

/** Our own, and the platform's whose rows no backup holds. */
const leftOut = new Set([
  "backup",
  "holdfast",
  "pg_catalog",
  "information_schema",
  "cron",
  "net",
  "vault",
  "pgsodium",
  "pgsodium_masks",
  "realtime",
  "_realtime",
  "_analytics",
  "_supavisor",
  "supabase_functions",
  "pgbouncer",
  "graphql",
  "graphql_public",
  "supabase_migrations",
]);

export function isStreamedSchema(schema: string): boolean {
  return !leftOut.has(schema) && !/^(restore_[0-9a-f]{8}$|pg_temp|pg_toast)/.test(schema);
}

/** The table whose rows are DDL; it travels although its schema does not. */
export const ddlLog = { schema: "backup", name: "ddl_log" } as const;
