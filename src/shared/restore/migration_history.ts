/**
 * The Supabase CLI's list of applied migrations. Holdfast's own schema is in no backup, so the records of its migrations
 * must not come back either: `holdfast init` and `supabase db push` would believe them.
 */

export const historyTable = "table supabase_migrations.schema_migrations";

/** A record of one of Holdfast's migrations, whose files are all called `<version>_holdfast_<domain>.sql`. */
export const isOwnMigration = String.raw`coalesce(name like 'holdfast\_%', false)`;

/** The column that the condition reads; older CLIs have none. */
export const historyColumn = "name";
