/** What Holdfast makes outside of its own schema. It is part of the installation: no backup holds it. */

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

/** Our buckets in Storage, by their usual names; backups in another one are told apart by nobody. */
export const ownBuckets = {
  backups: "holdfast-backups",
  downloads: "holdfast-downloads",
  exports: "data-exports",
} as const;

const bucketNames: ReadonlySet<string> = new Set(Object.values(ownBuckets));
/** Where Storage's tables say which bucket a row is of. */
const bucketColumns: ReadonlyMap<string, string> = new Map([
  ["buckets", "id"],
  ["objects", "bucket_id"],
  ["prefixes", "bucket_id"],
  ["s3_multipart_uploads", "bucket_id"],
  ["s3_multipart_uploads_parts", "bucket_id"],
]);

/** Of Storage's own table of that name the column that names the bucket; null: none does. */
export function bucketColumnOf({ schema, name }: { readonly schema: string; readonly name: string }): string | null {
  return schema === "storage" ? bucketColumns.get(name) ?? null : null;
}

export function isOwnBucket(name: string): boolean {
  return bucketNames.has(name);
}

/** Condition on rows of Storage's own tables, given the column of the bucket's name: files and buckets of the project. */
export const notOfOwnBuckets = (bucket: string): string =>
  `(${bucket} = any ('{${[...bucketNames].join(",")}}'::text[])) is not true`;
