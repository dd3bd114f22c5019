import { HoldfastError } from "../../shared/errors.ts";
import { givenTo, ownersOf } from "../../shared/files/bring_files.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import type { Context } from "../context.ts";
import { filesOfState } from "../files_of_state.ts";
import { keyRing, sourceDatabase, targetDatabase } from "../open.ts";
import { namedState } from "../open_past.ts";
import { openStore } from "../open_store.ts";
import type { Outcome } from "../output.ts";
import { readMap } from "../read_map.ts";
import { restoreRows } from "../restore_rows.ts";
import { type FilesToBring, withFiles } from "../with_files.ts";

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
  const rows = () => restoreRows(context, wanted, { asked: { scope: "user", choice } });
  return settings.get("apply") === undefined
    ? await rows()
    : await withFiles(context, () => filesOfUser(context, wanted, user, choice.as), rows);
}

/** Those whose rows name the person; under `as` they become the new account's. */
async function filesOfUser(
  context: Context,
  wanted: string | undefined,
  user: string,
  as: string | null,
): Promise<FilesToBring> {
  const { settings } = context;
  const read = { store: await openStore(context), ring: await keyRing(settings), compressor: await loadZstd() };
  const state = await filesOfState(context, read, namedState(settings, wanted));
  const other = await targetDatabase(context);
  const id = user.toLowerCase();
  return {
    read,
    backup: state.backup,
    label: state.label,
    files: async () => {
      const theirs = await state.read(({ row }) => ownersOf(row).includes(id));
      return as === null ? theirs : theirs.map((file) => givenTo(file, as.toLowerCase()));
    },
    mode: settings.get("apply") === "missing" ? "missing" : "merge",
    wholeBuckets: false,
    database: other ?? await sourceDatabase(context),
    isOther: other !== null,
  };
}
