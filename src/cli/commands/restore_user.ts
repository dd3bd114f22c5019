import { readFile } from "node:fs/promises";
import { HoldfastError } from "../../shared/errors.ts";
import { type BackupMap, emptyMap, readBackupMap } from "../../shared/rows/ownership/map_file.ts";
import { layUserBeside, type UserBeside } from "../../shared/rows/beside/user_beside.ts";
import { quoteQualified } from "../../shared/schema/quote.ts";
import { errno } from "../../shared/store/file_errors.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";
import { restoreRows } from "../restore_rows.ts";
import { rowsText } from "../rows_shown.ts";

/** The document: that of `restoreRows`. */
export async function run(context: Context): Promise<Outcome> {
  const { settings } = context;
  const [user = "", wanted] = context.words;
  const shared = settings.has("shared");
  if (shared && settings.get("apply") === "replace") {
    throw new HoldfastError("usage", "--shared and --apply replace do not go together", {
      hint: "Rows that are others' as well are not replaced; use merge or missing.",
    });
  }
  const choice = {
    user,
    as: settings.get("as") ?? null,
    credentials: settings.has("credentials"),
    shared,
    map: await readMap(context),
  };
  const found: { beside: UserBeside | null } = { beside: null };
  return await restoreRows(context, wanted, {
    scope: "user",
    subject: "the user's rows",
    userId: user,
    details: [choice],
    tables: null,
    lay: async (deps, comment) => found.beside = await layUserBeside(deps, choice, comment),
    warnings: () => found.beside === null ? [] : warningsOf(found.beside, shared),
  });
}

function warningsOf({ shared, notFollowed, suspects, unmatched, leftOut }: UserBeside, taken: boolean): string[] {
  return [
    ...shared.map(({ table, rows }) =>
      `${rowsText(rows)} of ${table} are other users' as well; ${
        taken ? "they are among the rows" : "they stay out (--shared takes them)"
      }`
    ),
    ...suspects.map(({ table, column }) =>
      `${
        quoteQualified(table.schema, table.name)
      }.${column} looks like a user's id and is no key; backup.map.json can say so`
    ),
    ...unmatched,
    ...leftOut.map(({ table, reason }) => `rows of ${table} stay out: ${reason}`),
    ...notFollowed.map(({ from, columns, to, reason }) =>
      `${quoteQualified(from.schema, from.name)} (${columns.join(", ")}) is not followed to ${
        quoteQualified(to.schema, to.name)
      }: ${reason}`
    ),
  ];
}

/** The file that is named, or backup.map.json where there is one. Errors: `usage`, `payload_invalid`. */
async function readMap({ settings }: Context): Promise<BackupMap> {
  const path = settings.need("map");
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (!settings.isFlag("map") && errno(cause) === "ENOENT") return emptyMap;
    throw new HoldfastError("usage", "the file of --map cannot be read", { cause, hint: `Check the path: ${path}` });
  }
  return readBackupMap(text);
}
