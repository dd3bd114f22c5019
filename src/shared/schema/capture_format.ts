/**
 * What a schema capture is, as it is sealed into a backup.
 *
 * Order of use in a restore: for each section of `definitionSections`, the `statements` of its definitions in array order.
 * A definition's `ownership` follows its `statements` at once (or is left out); a schema's `privileges` do too, since owners need
 * them. All other `privileges` come after section `post-data` and before section `last`, whose statements (refreshing
 * materialised views, cron jobs, subscriptions) need them. Table data goes in between `pre-data` and `post-data`. Statements are written for a session with `applySettings` (apply_settings.ts); one
 * definition's statements belong on one session, since some change a session setting and set it back.
 */
import { z } from "zod";

export const captureFormatVersion = 1;

export const definitionSections = ["roles", "pre-data", "post-data", "last"] as const;

/** Why a definition comes back switched off; its `release` turns it on. */
export const heldKinds = ["cron", "webhook", "subscription", "login"] as const;

const section = z.enum(definitionSections);
const held = z.enum(heldKinds);

export const definitionFormat = z.strictObject({
  /** Unique in the capture, such as `table public.journal_entries` or `policy "own" on public.journal_entries`. */
  identity: z.string().min(1),
  /** `table`, `index`, `policy` …: the words of docs/coverage.md. */
  kind: z.string().min(1),
  section,
  schema: z.string().nullable(),
  name: z.string(),
  owner: z.string().nullable(),
  /** SQL, one statement each, without a closing semicolon; comments and security labels are among them. */
  statements: z.array(z.string()),
  ownership: z.array(z.string()),
  privileges: z.array(z.string()),
  /** Identities that must be there before; a definition never stands before what it depends on. */
  dependsOn: z.array(z.string()),
  /** The platform service that owns the object (`auth`, `storage` …); such objects exist already on a fresh project. */
  platform: z.string().nullable(),
  held: held.nullable(),
  /** Statements that switch a held object on. Empty when nothing is held, or when a person must supply a secret first. */
  release: z.array(z.string()),
  /** Identity of the table (or view) that the object hangs on. */
  table: z.string().nullable(),
});

export const columnShapeFormat = z.strictObject({
  name: z.string(),
  attnum: z.number().int(),
  /** `format_type` with its typmod, under an empty search_path. */
  type: z.string(),
  typeOid: z.string(),
  typmod: z.number().int(),
  /** Schema-qualified and quoted, null for the type's own. */
  collation: z.string().nullable(),
  notNull: z.boolean(),
  generated: z.boolean(),
  identity: z.enum(["", "a", "d"]),
});

export const tableShapeFormat = z.strictObject({
  /** The identity of the definition that creates it, or `table <schema>.<name>` for an extension's table. */
  identity: z.string(),
  schema: z.string(),
  name: z.string(),
  oid: z.string(),
  kind: z.enum(["table", "partition"]),
  persistence: z.enum(["p", "u"]),
  accessMethod: z.string(),
  /** `pg_class.relfilenode` as the caller's snapshot shows it. */
  relfilenode: z.string(),
  toastOid: z.string(),
  columns: z.array(columnShapeFormat),
  /** Non-generated columns in attnum order; empty for a table without columns. */
  copyColumns: z.array(z.string()),
  /** `user`, a platform service (`auth`, `storage`), or `extension <name>`. */
  dataOwner: z.string(),
  /** False for bookkeeping that belongs to the target, such as auth.schema_migrations. */
  restoreData: z.boolean(),
  /** Condition (without WHERE) that an extension puts on the rows that are the user's. */
  rowFilter: z.string().nullable(),
  rowSecurity: z.strictObject({ enabled: z.boolean(), forced: z.boolean() }),
});

export const sequenceShapeFormat = z.strictObject({
  identity: z.string(),
  schema: z.string(),
  name: z.string(),
  /** `schema.table.column`, each part quoted where needed; null for a free sequence. */
  ownedBy: z.string().nullable(),
  dataOwner: z.string(),
  restoreData: z.boolean(),
  lastValue: z.string(),
  isCalled: z.boolean(),
  /** Puts the captured value back. */
  setValueSql: z.string(),
});

export const notCapturedFormat = z.strictObject({
  /** The catalog that holds the row, such as `pg_largeobject_metadata`. */
  catalog: z.string(),
  identity: z.string(),
  reason: z.string(),
});

export const extensionShapeFormat = z.strictObject({
  name: z.string(),
  schema: z.string(),
  version: z.string(),
});

export const schemaCaptureFormat = z.strictObject({
  format: z.literal(captureFormatVersion),
  server: z.strictObject({
    versionNum: z.number().int(),
    encoding: z.string(),
    collate: z.string(),
    ctype: z.string(),
    /** `c` libc, `i` ICU, `b` builtin (17 and newer). */
    localeProvider: z.string(),
    icuLocale: z.string().nullable(),
    database: z.string(),
  }),
  definitions: z.array(definitionFormat),
  tables: z.array(tableShapeFormat),
  sequences: z.array(sequenceShapeFormat),
  extensions: z.array(extensionShapeFormat),
  notCaptured: z.array(notCapturedFormat),
  warnings: z.array(z.string()),
});

export type DefinitionSection = z.infer<typeof section>;
export type HeldKind = z.infer<typeof held>;
export type Definition = z.infer<typeof definitionFormat>;
export type ColumnShape = z.infer<typeof columnShapeFormat>;
export type TableShape = z.infer<typeof tableShapeFormat>;
export type SequenceShape = z.infer<typeof sequenceShapeFormat>;
export type ExtensionShape = z.infer<typeof extensionShapeFormat>;
export type NotCaptured = z.infer<typeof notCapturedFormat>;
export type SchemaCapture = z.infer<typeof schemaCaptureFormat>;

export interface CaptureOptions {
  /** Schemas to leave out altogether (`backup`, side schemas `restore_…`), by exact name. */
  readonly leaveOutSchemas: readonly string[];
}
