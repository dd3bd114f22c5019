/** Whether the keys that are set open everything that is stored. */
import { tellKeys } from "../shared/audit/tell_keys.ts";
import { listRecipients, openEpoch } from "../shared/crypto/epochs.ts";
import type { KeyRing } from "../shared/crypto/key_ring.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { readRepository } from "../shared/format/repository.ts";
import { loadZstd } from "../shared/format/zstd.ts";
import type { Store } from "../shared/store/store.ts";
import { openBackup } from "../shared/verify/find_backup.ts";
import { readObject } from "../shared/verify/read_object.ts";
import type { Context } from "./context.ts";
import { installedSession } from "./installed.ts";
import { keyRing } from "./open.ts";
import { openStore } from "./open_store.ts";

export interface CheckedKeys {
  readonly ok: boolean;
  /** That was opened; null: no key opened it. */
  readonly backup: string | null;
  readonly keys: readonly { readonly id: string; readonly opens: boolean; readonly why: string | null }[];
}

/** Every epoch and the newest backup, with each key by itself; what came out is audited. Errors: those of settings and store. */
export async function checkKeys(context: Context): Promise<CheckedKeys> {
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
  await auditKeys(context, ring, "key.checked", { keys: keys.map(({ id, opens }) => ({ id, opens })) });
  return { ok: keys.every(({ opens }) => opens), backup, keys };
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

export async function repositoryOf(store: Store): Promise<string> {
  const repository = await readRepository(store);
  if (repository === null) throw new HoldfastError("backup_not_found", `${store.label} holds no backups yet`);
  return repository.id;
}

/** Where a database is given. The keys themselves are in no row. */
export async function auditKeys(context: Context, ring: KeyRing, action: string, detail: unknown): Promise<void> {
  if (context.settings.get("db-url") === undefined) return;
  const session = await installedSession(context, "holdfast:keys");
  try {
    await session.query("select backup.audit($1, 'keys', $2::jsonb)", [action, JSON.stringify(detail)]);
    await tellKeys(session, ring);
  } finally {
    await session.close();
  }
}
