import { knownEntries } from "../shared/erase/erase_queries.ts";
import { type Ledger, readLedger } from "../shared/erase/ledger.ts";
import { reapplyLedger } from "../shared/erase/reapply.ts";
import { asHoldfastError } from "../shared/errors.ts";
import type { BeforeCommit } from "../shared/restore/before_commit.ts";
import type { ReadDeps } from "../shared/verify/find_backup.ts";
import type { Context } from "./context.ts";
import { sourceDatabase } from "./open.ts";

/**
 * The ledger before the commit of a whole database: compared with what the database of --db-url has on record, where that
 * answers. It may be gone: that is what restores are for. Errors: `ledger_unreadable`, before anything is made.
 */
export async function ledgerHook(context: Context, read: ReadDeps): Promise<BeforeCommit> {
  const least = await known(context, read);
  await readLedger(read, least);
  return reapplyLedger(read, least);
}

/** The ledger, compared in the same way. Errors: `ledger_unreadable`, those of the store. */
export async function comparedLedger(context: Context, read: ReadDeps): Promise<Ledger> {
  return await readLedger(read, await known(context, read));
}

async function known(context: Context, { store }: ReadDeps): Promise<number> {
  if (context.settings.get("db-url") === undefined) return 0;
  try {
    const session = await (await sourceDatabase(context)).connect("holdfast:ledger");
    try {
      return await knownEntries(session, store.label);
    } finally {
      await session.close();
    }
  } catch (error) {
    const { code } = asHoldfastError(error);
    if (code !== "database_unreachable" && code !== "database_denied") throw error;
    context.note("notice: whether the erasure ledger is complete cannot be compared: the source does not answer");
    return 0;
  }
}
