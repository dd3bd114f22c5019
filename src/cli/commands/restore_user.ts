import { HoldfastError } from "../../shared/errors.ts";
import type { Context } from "../context.ts";
import type { Outcome } from "../output.ts";
import { readMap } from "../read_map.ts";
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
