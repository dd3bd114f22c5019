/** What an object is after a command, as `backup.describe_object` writes it to the DDL log. */
import { z } from "zod";

const sequenceOptions = z.object({
  start: z.string(),
  increment: z.string(),
  min: z.string(),
  max: z.string(),
  cache: z.string(),
  cycle: z.boolean(),
});
export type SequenceOptions = z.infer<typeof sequenceOptions>;

const column = z.object({
  name: z.string(),
  type: z.string(),
  collation: z.string().nullable(),
  notNull: z.boolean(),
  /** `s` stored, else empty. */
  generated: z.string(),
  default: z.string().nullable(),
  isLocal: z.boolean(),
  /** As in `pg_attribute.attstorage`; null: the type's own. */
  storage: z.string().nullable(),
  compression: z.string().nullable(),
  /** Null: the server's default. */
  statistics: z.int().nullable().default(null),
  comment: z.string().nullable().default(null),
  identity: sequenceOptions.extend({ always: z.boolean(), sequence: z.string() }).nullable(),
});
export type DescribedColumn = z.infer<typeof column>;

/** By name: `O` on, `D` off, `R` as a replica, `A` always. */
const states = z.record(z.string(), z.string()).default({});

export const describedTable = z.object({
  /** Of the server that wrote it: two write the texts of expressions differently. */
  major: z.int().default(0),
  /** Qualified and quoted, as all names here that are not of one part. */
  name: z.string(),
  schema: z.string(),
  bareName: z.string(),
  kind: z.enum(["r", "p"]),
  persistence: z.string(),
  owner: z.string(),
  partitionKey: z.string().nullable(),
  bound: z.string().nullable(),
  parents: z.array(z.string()),
  /** Of a partitioned table. */
  partitions: z.array(z.object({ name: z.string(), bound: z.string() })).nullable(),
  options: z.array(z.string()),
  rowSecurity: z.boolean(),
  forceRowSecurity: z.boolean(),
  replicaIdentity: z.string(),
  replicaIndex: z.string().nullable(),
  columns: z.array(column),
  constraints: z.array(z.object({ name: z.string(), text: z.string(), inherited: z.boolean() })),
  /** Of columns, of all rows, and of no constraint. */
  uniqueIndexes: z.array(z.object({ name: z.string(), key: z.string() })).default([]),
  clusterIndex: z.string().nullable().default(null),
  triggers: states,
  rules: states,
  comment: z.string().nullable().default(null),
});
export type DescribedTable = z.infer<typeof describedTable>;

const sequence = sequenceOptions.extend({
  type: z.string(),
  persistence: z.string(),
  ownedBy: z.string().nullable(),
});
export type DescribedSequence = z.infer<typeof sequence>;

const grant = z.object({
  grantor: z.string(),
  /** Null: everybody. */
  grantee: z.string().nullable(),
  privilege: z.string(),
  grantable: z.boolean(),
});

/** A line of `backup.access_lists`. */
export const describedAccess = z.object({
  /** As GRANT names it: `table app.notes`. */
  subject: z.string(),
  column_name: z.string().nullable(),
  owner: z.string(),
  acl: z.array(grant),
});
export type DescribedAccess = z.infer<typeof describedAccess>;

const owner = z.string().optional();

export const description = z.union([
  /** `renamed`: the new name of the one column whose name changed. */
  z.strictObject({ table: describedTable, renamed: z.string().optional() }),
  z.strictObject({ owner, sequence }),
  /** Of an enum, in their order. */
  z.strictObject({ owner, labels: z.array(z.string()) }),
  z.strictObject({ access: z.array(describedAccess) }),
  /** What an extension was given, as ALTER EXTENSION names it. */
  z.strictObject({ extension: z.string(), members: z.array(z.string()) }),
  /** Statements in full; of a materialised view one that makes it empty. `version`: of an extension. */
  z.strictObject({ owner, sql: z.string(), populated: z.boolean().optional(), version: z.string().optional() }),
  /** It is another role's now; nothing else has changed. */
  z.strictObject({ given: z.string() }),
  /** Comes with another object. */
  z.strictObject({ part: z.literal(true) }),
]);
export type Description = z.infer<typeof description>;

/** Values of rows that were there before their column. `table` is qualified and quoted, `column` is not. */
export const missingValues = z.array(z.object({ table: z.string(), column: z.string(), value: z.string().nullable() }));
export type MissingValues = z.infer<typeof missingValues>;
