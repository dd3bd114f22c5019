/** `latest` is not always the newest: a backup in quarantine is passed over, and people are told. */
import { listBackups } from "../shared/verify/find_backup.ts";
import type { Store } from "../shared/store/store.ts";
import type { Context } from "./context.ts";

/** `id` is the backup that was taken for what the command line names. Errors: those of the store. */
export async function noteWhatLatestPassedOver(context: Context, store: Store, id: string): Promise<void> {
  if (context.words[0] !== "latest") return;
  const listed = await listBackups(store);
  const newer = listed.slice(0, Math.max(0, listed.findIndex((backup) => backup.id === id))).map((backup) => backup.id);
  if (newer.length === 0) return;
  context.note(
    `notice: latest is ${id}; newer ones in quarantine are passed over, name one by its id: ${
      newer.slice(0, 3).join(", ")
    }`,
  );
}
