/** Both stores below where the database writes, with what opens what lies there: for commands that read or prune all of it. */
import { HoldfastError } from "../shared/errors.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import { readIdentity } from "../shared/identity/identity_queries.ts";
import { placeIn } from "../shared/identity/settle_place.ts";
import { readCopyLag } from "../shared/jobs/copy_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { PruneDeps } from "../shared/retention/deps.ts";
import type { Context } from "./context.ts";
import { keyRing } from "./open.ts";
import { openPlace, openSecond, placeToWrite } from "./open_store.ts";

/** Errors: `setting_missing`, also where the second store that the database knows is not set here: it would be left out in silence. */
export async function bothStores(context: Context, session: Connection): Promise<PruneDeps> {
  const { settings, clock, random, log } = context;
  const unplaced = await openPlace(context, placeToWrite(settings));
  const there = openSecond(context);
  const { prefix } = await readIdentity(session);
  const second = there === null ? null : placeIn(there.store, prefix);
  const known = (await readCopyLag(session))?.store ?? null;
  if (known !== null && known !== second?.label) {
    throw new HoldfastError("setting_missing", `the second store, ${known}, is not set here`, {
      hint: "Set BACKUP_SECONDARY as the functions have it.",
    });
  }
  return {
    connection: session,
    first: placeIn(unplaced, prefix),
    second,
    unplaced,
    ring: await keyRing(settings),
    compressor: await loadZstd(),
    clock,
    random,
    log,
  };
}
