import { listBackups } from "../../shared/verify/find_backup.ts";
import type { Context } from "../context.ts";
import { isInstalled } from "../installed.ts";
import { sourceDatabase } from "../open.ts";
import { openStore } from "../open_store.ts";
import { type Check, failed, ok, warn } from "./check.ts";

/**
 * Does the store hold every backup that the database knows? One that was put back to an older state shows nothing of it by
 * itself: each of its objects is sound.
 */
export async function* checkBackups(context: Context): AsyncIterable<Check> {
  const { settings } = context;
  if (settings.get("store") === undefined || settings.get("db-url") === undefined) return;
  try {
    const session = await (await sourceDatabase(context)).connect("holdfast:doctor");
    try {
      if (!(await isInstalled(session))) return;
      // Asked for before the listing: one that is written meanwhile counts in neither.
      const known = await session.query(
        `select r.id::text, r.manifest_name as name from backup.runs as r
         where r.kind = 'full' and r.status in ('succeeded', 'quarantined') order by r.created_at desc`,
      );
      const store = await openStore(context);
      const there = new Set((await listBackups(store)).map(({ name }) => name));
      const gone = known.filter((run) => !there.has(run["name"] ?? ""));
      if (gone.length === 0) yield ok("backups", `${store.label} holds all ${known.length} that the database knows`);
      else {
        yield warn(
          "backups",
          `${gone.length} of ${known.length} that the database knows are not in ${store.label}, the newest is ${
            gone[0]?.["id"]
          }`,
          "They were removed, the store was put back to an older state, or they are in another store.",
        );
      }
    } finally {
      await session.close();
    }
  } catch (error) {
    yield failed("backups", error);
  }
}
