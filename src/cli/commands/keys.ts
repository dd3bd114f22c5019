import { tellKeys } from "../../shared/audit/tell_keys.ts";
import { listRecipients, openEpoch } from "../../shared/crypto/epochs.ts";
import type { KeyRing } from "../../shared/crypto/key_ring.ts";
import { generateRecoveryKey } from "../../shared/crypto/recovery_key.ts";
import { asHoldfastError, HoldfastError } from "../../shared/errors.ts";
import { readRepository } from "../../shared/format/repository.ts";
import { loadZstd } from "../../shared/format/zstd.ts";
import type { Store } from "../../shared/store/store.ts";
import { openBackup } from "../../shared/verify/find_backup.ts";
import { readObject } from "../../shared/verify/read_object.ts";
import type { Context } from "../context.ts";
import { installedSession } from "../installed.ts";
import { keyRing } from "../open.ts";
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
        await audit(context, ring, action, { keys: ring.ids, epochs });
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
  const store = await openStore(context);
  const ring = await keyRing(context.settings);
  const repository = await repositoryOf(store);
  const keys = [];
  let backup: string | null = null;
  for (const id of ring.opening) {
    try {
      backup = await opensAll(store, ring.alone(id), repository);
      keys.push({ id, opens: true, why: null });
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      if (!["key_wrong", "key_malformed", "object_damaged", "manifest_damaged"].includes(code)) throw error;
      keys.push({ id, opens: false, why: message });
    }
  }
  const ok = keys.every(({ opens }) => opens);
  await audit(context, ring, "key.checked", { keys: keys.map(({ id, opens }) => ({ id, opens })) });
  const lines = keys.map(({ id, opens, why }) =>
    opens ? `${id} opens every epoch and the backup ${backup ?? ""}` : `${id} DOES NOT: ${why ?? ""}`
  );
  return { exit: ok ? 0 : 3, document: { ok, backup, keys }, lines };
}

/** Every epoch, and of the newest backup the manifest and its definitions. Its id. */
async function opensAll(store: Store, ring: KeyRing, repository: string): Promise<string> {
  for (const { epochId } of await listRecipients(store)) await openEpoch(store, ring, repository, epochId);
  const compressor = await loadZstd();
  const { manifest, epochOf } = await openBackup({ store, ring, compressor }, "latest");
  const { name, rawBytes, hash } = manifest.schemaObject;
  await readObject({ store, compressor, epochOf }, { kind: "schema", name, rawBytes, hash });
  return manifest.id;
}

async function repositoryOf(store: Store): Promise<string> {
  const repository = await readRepository(store);
  if (repository === null) throw new HoldfastError("backup_not_found", `${store.label} holds no backups yet`);
  return repository.id;
}

/** Where a database is given. The keys themselves are in no row. */
async function audit(context: Context, ring: KeyRing, action: string, detail: unknown): Promise<void> {
  if (context.settings.get("db-url") === undefined) return;
  const session = await installedSession(context, "holdfast:keys");
  try {
    await session.query("select backup.audit($1, 'keys', $2::jsonb)", [action, JSON.stringify(detail)]);
    await tellKeys(session, ring);
  } finally {
    await session.close();
  }
}
