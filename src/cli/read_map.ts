import { readFile } from "node:fs/promises";
import { HoldfastError } from "../shared/errors.ts";
import { type BackupMap, emptyMap, readBackupMap } from "../shared/rows/ownership/map_file.ts";
import { errno } from "../shared/store/file_errors.ts";
import type { Context } from "./context.ts";

/** The file that is named, or backup.map.json where there is one. Errors: `usage`, `payload_invalid`. */
export async function readMap({ settings }: Pick<Context, "settings">): Promise<BackupMap> {
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
