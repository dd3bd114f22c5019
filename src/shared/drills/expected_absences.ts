/**
 * What a second database on a server cannot have, although the first one has it: on a hosted project, and where the restoring role is
 * no superuser. Anything else that a restore leaves out is a difference: the backup would not give it back either.
 */

interface ExpectedAbsence {
  /** Of the object; null: of any. */
  readonly identity: RegExp | null;
  readonly reason: RegExp;
  readonly because: string;
}

export const expectedAbsences: readonly ExpectedAbsence[] = [
  { identity: null, reason: /^needs extension pg_cron$/, because: "pg_cron runs in one database of a server" },
  { identity: /^extension pg_cron$/, reason: /./, because: "pg_cron runs in one database of a server" },
  {
    identity: /^extension (pg_stat_statements|pg_graphql|pgsodium|supabase_vault|pg_net)$/,
    reason: /^permission denied to create extension /,
    because: "the platform installs it",
  },
  {
    identity: /^privileges of /,
    reason: /^its owner could not be kept$/,
    because: "the platform's owners stay the platform's",
  },
  {
    identity: /^privileges of database$/,
    reason: /^the database is closed /,
    because: "nobody else is to read what was restored",
  },
  {
    identity: null,
    reason: /^(the object|the target's own) (belongs|does not belong) to /,
    because: "the platform's owners are not this role's to act for",
  },
  { identity: null, reason: /^it does the platform's work, on a project only$/, because: "it is the platform's" },
  { identity: null, reason: /^only a superuser may make it, /, because: "nobody on a hosted project is one" },
  {
    identity: null,
    reason:
      / may not (grant server settings|set default privileges for |schedule for another role|publish all tables|create event triggers )/,
    because: "the server does not let this role",
  },
  // Of one that is in this list, else its definition is not.
  {
    identity: /^(rows of|value of) /,
    reason: /^the target does not have /,
    because: "its definition is told by itself",
  },
  // Said about what was compared, not left out.
  { identity: /^(rows|contents) of table /, reason: /^it changed since/, because: "the change stream says so" },
  { identity: null, reason: /^its definition changed since$/, because: "the log of definitions says so" },
  { identity: null, reason: /^its triggers are switched off, of which no backup says$/, because: "so they were" },
];

/** Those of `notCompared` that nobody expected. */
export function unexpected(
  notCompared: readonly { readonly identity: string; readonly reason: string }[],
): { readonly identity: string; readonly reason: string }[] {
  return notCompared.filter(({ identity, reason }) =>
    !expectedAbsences.some((one) => (one.identity === null || one.identity.test(identity)) && one.reason.test(reason))
  );
}
