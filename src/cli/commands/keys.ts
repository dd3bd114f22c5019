import { listRecipients } from "../../shared/crypto/epochs.ts";
import { generateRecoveryKey } from "../../shared/crypto/recovery_key.ts";
import { HoldfastError } from "../../shared/errors.ts";
import { auditKeys, checkKeys, repositoryOf } from "../check_keys.ts";
import type { Context } from "../context.ts";
import { openStore } from "../open_store.ts";
import { columns, type Outcome } from "../output.ts";
import { rotate } from "../rotate_keys.ts";
import { shred } from "../shred_epoch.ts";

/**
 * The document of `list`: `[{epoch, wrappedFor[]}]`; of `recovery`: `{id, publicKey, privateKey}`; of `check`: `{ok, backup,
 * keys[{id, opens, why}]}`, with exit 3 where one does not; of `rotate` and `shred`: as `rotate_keys.ts` and `shred_epoch.ts` say.
 */
export async function run(context: Context): Promise<Outcome> {
  switch (context.words[0]) {
    case "list":
      return await list(context);
    case "rotate":
      return await rotate(context, repositoryOf, async (ring, action, epochs) => {
        await auditKeys(context, ring, action, { keys: ring.ids, epochs });
      });
    case "recovery":
      return await recovery(context);
    case "check":
      return await check(context);
    case "shred":
      return await shred(context, context.words[1]);
    default:
      throw new HoldfastError("usage", "keys takes `list`, `rotate`, `recovery`, `check` or `shred`");
  }
}

async function list(context: Context): Promise<Outcome> {
  const epochs = await listRecipients(await openStore(context));
  const document = epochs.map(({ epochId, wrappedFor }) => ({ epoch: epochId, wrappedFor }));
  const lines = document.map(({ epoch, wrappedFor }) => [epoch, wrappedFor.join(", ")]);
  return { exit: 0, document, lines: lines.length === 0 ? ["The store has no epoch yet."] : columns(lines) };
}

async function recovery({ random, note }: Context): Promise<Outcome> {
  const { id, publicEntry, privateEntry } = await generateRecoveryKey(random);
  note(
    "The private half opens every backup: print it, keep it offline, and nowhere else. Add the public half to BACKUP_KEYS of the functions and the CLI, run `keys rotate`, then `keys check` with the private half.",
  );
  return {
    exit: 0,
    document: { id, publicKey: publicEntry, privateKey: privateEntry },
    lines: [`public, behind a comma into BACKUP_KEYS: ${publicEntry}`, `private, for paper: ${privateEntry}`],
  };
}

async function check(context: Context): Promise<Outcome> {
  const { ok, backup, keys } = await checkKeys(context);
  const lines = keys.map(({ id, opens, why }) =>
    opens ? `${id} opens every epoch and the backup ${backup ?? ""}` : `${id} DOES NOT: ${why ?? ""}`
  );
  return { exit: ok ? 0 : 3, document: { ok, backup, keys }, lines };
}
