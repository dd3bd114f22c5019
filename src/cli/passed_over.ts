/** `latest` is not always the newest: some backups are passed over, and people are told. */
import { listBackups } from "../shared/verify/find_backup.ts";
import type { Store } from "../shared/store/store.ts";
import type { Context } from "./context.ts";

/** `id` is the backup that was taken for `wanted`. Errors: those of the store. */
export async function noteWhatLatestPassedOver(
  context: Pick<Context, "note">,
  store: Store,
  { wanted, id }: { readonly wanted: string; readonly id: string },
): Promise<void> {
  if (wanted !== "latest") return;
  const listed = await listBackups(store);
  const newer = listed.slice(0, Math.max(0, listed.findIndex((backup) => backup.id === id)));
  const quarantined = newer.filter(({ tier }) => tier !== "safety").map((backup) => backup.id);
  const safety = newer.length - quarantined.length;
  if (safety > 0) {
    context.note(`notice: latest passes over ${safety} newer backups that restores took before they changed something`);
  }
  if (quarantined.length > 0) {
    context.note(
      `notice: latest is ${id}; newer ones in quarantine are passed over, name one by its id: ${
        quarantined.slice(0, 3).join(", ")
      }`,
    );
  }
}
