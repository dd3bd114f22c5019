/** What Holdfast makes outside of its own schema for the change stream. It is part of the installation: no backup holds it. */

/**
 * Publications: inserts and truncates, updates and deletes. A table that is added to them changes no definition of the
 * user's.
 */
export const ownPublications = ["holdfast_inserts", "holdfast_changes"] as const;

const list = ownPublications.map((name) => `'${name}'`).join(", ");

/** For `pg_publication`, given the column of its name. */
export const notOwnPublication = (name: string): string => `${name} not in (${list})`;

/** For what hangs on a publication, given the column of its oid. */
export const notOfOwnPublication = (oid: string): string =>
  `not exists (select from pg_catalog.pg_publication own where own.oid = ${oid} and own.pubname in (${list}))`;

/** For `pg_event_trigger`, given the columns of its name and function. */
export const notOwnEventTrigger = (name: string, functionOid: string): string =>
  `not (${name} like '!holdfast\\_after\\_%' and exists (
    select from pg_catalog.pg_proc own join pg_catalog.pg_namespace n on n.oid = own.pronamespace
    where own.oid = ${functionOid} and n.nspname = 'backup'
  ))`;
