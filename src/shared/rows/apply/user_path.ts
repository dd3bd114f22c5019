/** Checks, defaults and triggers of the user's tables run as part of our statements, and were written under a search_path. */

/**
 * Condition, always true, of the outermost SELECT over a statement that changes rows: it is evaluated before the first row, and
 * gives what runs from then on the search_path that the role's own sessions have. The statement itself was read before: its
 * operators and functions are those of an empty one, whoever may create some in a schema of that path. To the end of the
 * transaction, so `ownPath` has to follow. Only what the server reads while it plans, such as the check of a domain that a
 * value is cast to, still sees the empty one.
 */
export const withUsersPath = `(
  select pg_catalog.set_config('search_path', s.reset_val, true) from pg_catalog.pg_settings as s where s.name = 'search_path'
) is not null`;

/** Ours again. */
export const ownPath = "set local search_path = ''";
