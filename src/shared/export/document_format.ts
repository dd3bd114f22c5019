/** The document of an export. docs/export.schema.json is made of these schemas, and docs/exports.md says what they mean. */
import { z } from "zod";
import { valueForms } from "./describe_tables.ts";
import { marks } from "./row_sql.ts";

export const documentFormat = "holdfast-export";
export const documentVersion = 1;
/** Of a part of the document, and of the blocks that its signature names. Below the 50 MB of a free project; memory holds it twice. */
export const blockBytes = 8 * 1024 * 1024;

export const purpose =
  "This is a copy of your data for your own access. It is no backup: the system is not restored from it, and it cannot be read back in without the staff.";

const hex = z.string().regex(/^[0-9a-f]{64}$/).describe("SHA-256, in hexadecimal");
const moment = z.string().describe("ISO 8601");
const count = z.int().nonnegative();
const table = { schema: z.string(), table: z.string() };

export const exportedRow = z.strictObject({
  row: z.record(z.string(), z.unknown()).describe(
    "values by column; how each stands there is said by the column's `form`",
  ),
  marks: z.record(z.string(), z.enum(marks)).optional().describe(
    "by column, what JSON does not say: `json null` is JSON's null and not SQL's; `text` is what the server writes of an array whose subscripts do not begin at 1; `redacted` was taken out, since it is of others",
  ),
});

export const exportedTable = z.strictObject({
  ...table,
  description: z.string().nullable().describe("the comment on the table"),
  why: z.string().describe("why these rows are the person's"),
  key: z.array(z.string()).nullable().describe("columns of the primary key"),
  columns: z.array(z.strictObject({
    name: z.string(),
    type: z.string().describe("as PostgreSQL writes it"),
    form: z.enum(valueForms).describe(
      "`scalar`: number or boolean, with every digit, or text for what is no JSON number (NaN, Infinity); `moment`: ISO 8601; `json`: as it is; `array`: of such values; `text`: as PostgreSQL writes it",
    ),
    description: z.string().nullable().describe("the comment on the column"),
  })),
  withheld: z.array(z.strictObject({ column: z.string(), why: z.string() })).describe("columns that no export holds"),
  rowCount: count,
  rows: z.array(exportedRow),
});

export const exportedFile = z.strictObject({
  number: count,
  bucket: z.string(),
  name: z.string().describe("as it is called in the bucket"),
  path: z.string().describe("where it lies beside this document"),
  state: z.enum(["copied", "missing"]),
  why: z.string().nullable().describe("why it is missing"),
  bytes: count,
  contentType: z.string().nullable(),
  cacheControl: z.string().nullable(),
  metadata: z.unknown().describe("what the app has noted of it"),
  createdAt: moment.nullable(),
  updatedAt: moment.nullable(),
  parts: z.array(z.strictObject({ bytes: count, sha256: hex })).describe("one after the other they are the file"),
});

export const signatureFormat = z.strictObject({
  algorithm: z.literal("Ed25519"),
  keyId: z.string().describe("the key of BACKUP_KEYS that the signing key is derived from"),
  publicKey: z.string().describe("base64url"),
  signedBytes: count.describe('the document\'s bytes up to `,"signature":`'),
  blockBytes: count.describe("those bytes are hashed in blocks of this length"),
  root: hex.describe("of the blocks' hashes in hexadecimal, each with a newline behind it"),
  value: z.string().describe(
    "base64url; of the lines `holdfast-export 1`, id, signedBytes, blockBytes, root, each with a newline behind it",
  ),
});

export const exportDocument = z.strictObject({
  format: z.literal(documentFormat),
  version: z.literal(documentVersion),
  purpose: z.string(),
  id: z.uuid(),
  install: z.uuid().describe("of the Holdfast that made it"),
  project: z.string().nullable(),
  user: z.guid().describe("id in auth.users"),
  consistentAt: moment.describe("all rows are as they stood at this moment"),
  timeZone: z.literal("UTC"),
  tables: z.array(exportedTable),
  leftOut: z.strictObject({
    shared: z.array(z.strictObject({ ...table, rowCount: count })).describe("rows that are others' as well"),
    withheld: z.array(z.strictObject({ ...table, rowCount: count, why: z.string() })).describe(
      "rows that no export holds",
    ),
    noPath: z.array(z.strictObject(table)).describe("tables from whose rows no way leads to a person"),
    notFollowed: z.array(z.strictObject({ ...table, columns: z.array(z.string()), to: z.string(), why: z.string() }))
      .describe("ways to a person that are not gone"),
    suspects: z.array(z.strictObject({ ...table, column: z.string() }))
      .describe("columns that look like a person's id and are no key"),
  }),
  files: z.array(exportedFile),
  signature: signatureFormat,
});
export type ExportDocument = z.output<typeof exportDocument>;

/** For docs/export.schema.json. */
export function exportSchema(): unknown {
  return {
    ...z.toJSONSchema(exportDocument),
    $id: "urn:holdfast:export:1",
    title: "Export of a person's own data, version 1",
    description: purpose,
  };
}
