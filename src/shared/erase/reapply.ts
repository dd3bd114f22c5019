/** Every restore of a whole database has the ledger's word before its commit. */
import type { BeforeCommit } from "../restore/before_commit.ts";
import type { ReadDeps } from "../verify/find_backup.ts";
import { readLedger } from "./ledger.ts";
import { removeFromDatabase } from "./remove_erased.ts";

/**
 * `known`: as `readLedger` has it. The ledger as the store of the backup has it when the restore ends. Errors of the hook: `ledger_unreadable`, which undoes the
 * restore's last transaction: nobody reads the rows before, and the same call goes on once the ledger can be read.
 */
export function reapplyLedger(read: ReadDeps, known = 0): BeforeCommit {
  return async (connection) => {
    await removeFromDatabase(connection, await readLedger(read, known));
  };
}

/** For a copy that is thrown away, and whose rows are compared with the backup, or filtered on their way out of it. */
export const keepErased: BeforeCommit = () => Promise.resolve();
