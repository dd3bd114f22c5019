/** `backup.map.json`: what a team decides where the keys do not say whose rows they are. docs/backup-map.md describes it. */
import { z } from "zod";
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { splitQualified, unquoteIdent } from "../../schema/quote.ts";

export const mapFileName = "backup.map.json";

const tableText = z.string().transform((text, context): TableName => {
  const parts = splitQualified(text);
  if (parts !== null && parts.every((part) => part.startsWith('"') || part === part.toLowerCase())) {
    return { schema: unquoteIdent(parts[0]), name: unquoteIdent(parts[1]) };
  }
  context.addIssue({
    code: "custom",
    message: "write it as schema.table; names with capitals or signs stand in double quotes",
  });
  return z.NEVER;
});

const share = z.number().gt(0).max(1);

const mapFormat = z.strictObject({
  version: z.literal(1),
  share: share.optional(),
  keys: z.array(z.strictObject({
    table: tableText,
    columns: z.array(z.string().min(1)).min(1),
    to: tableText.optional(),
    follow: z.boolean(),
  })).default([]),
  users: z.array(z.strictObject({ table: tableText, column: z.string().min(1) })).default([]),
  tables: z.array(z.strictObject({
    table: tableText,
    rows: z.enum(["owned", "shared", "never"]).optional(),
    share: share.optional(),
    redact: z.array(z.string().min(1)).optional(),
  })).default([]),
});

/**
 * `keys`: foreign keys by their columns (and the table they lead to, where two have the same columns) that are followed or
 * not, whatever the rules say. `users`: columns that hold a user's id (uuid or text) and are no foreign key to auth.users.
 * `tables`: `rows` as `OwnershipRule` says, or `never`: the table is left out and nothing is reached through it; `share`
 * for this table; `redact`: columns that hold what is of others, which an export leaves out. `share`: for all other tables. Every list in the order of the file.
 */
export type BackupMap = z.output<typeof mapFormat>;

export const emptyMap: BackupMap = { version: 1, keys: [], users: [], tables: [] };

/** From the file's text. Errors: `payload_invalid`, naming the place in the file and never a value of it. */
export function readBackupMap(text: string): BackupMap {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw invalid("it is no JSON", cause);
  }
  const parsed = mapFormat.safeParse(document);
  if (parsed.success) return parsed.data;
  throw invalid(parsed.error.issues.map((issue) => `${placeOf(issue.path)}: ${issue.message}`).join("; "));
}

function placeOf(path: readonly PropertyKey[]): string {
  const place = path.map((part) => typeof part === "number" ? `[${part}]` : `.${String(part)}`).join("");
  return place === "" ? "the document" : place.replace(/^\./, "");
}

function invalid(what: string, cause?: unknown): HoldfastError {
  return new HoldfastError("payload_invalid", `${mapFileName}: ${what}`, {
    hint: "docs/backup-map.md describes the file.",
    ...(cause === undefined ? {} : { cause }),
  });
}
