import { readFile } from "node:fs/promises";
import { HoldfastError } from "../../shared/errors.ts";
import { type BackupMap, emptyMap, readBackupMap } from "../../shared/rows/ownership/map_file.ts";
import { errno } from "../../shared/store/file_errors.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";
import { restoreRows } from "../restore_rows.ts";

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
    replaces: settings.get("apply") === "replace",
  };
  return await restoreRows(context, wanted, { asked: { scope: "user", choice } });
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
