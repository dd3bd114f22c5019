/** Makes an export, or goes on with one: rows, files, document, and a look at what lies there. */
import type { Budget } from "../backup/budget.ts";
import { openSession } from "../backup/session.ts";
import type { Clock } from "../clock.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { readIdentity } from "../identity/identity_queries.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { copyFiles, type ReadFile } from "./copy_files.ts";
import { signingKey } from "./export_key.ts";
import { closeDocument, type ExportLease, holdExport, readExport, redoExport } from "./export_queries.ts";
import type { ExportTarget } from "./export_target.ts";
import { type LaidFacts, layRows } from "./lay_rows.ts";
import { putDocument } from "./put_document.ts";
import { yieldingToWaiters } from "./yield_to_waiters.ts";

export interface MakeDeps {
  /** Of whoever works on it. */
  readonly connection: Connection;
  /** For the session that reads the rows. */
  readonly database: Database;
  readonly ring: KeyRing;
  readonly target: ExportTarget;
  readonly readFile: ReadFile;
  readonly clock: Clock;
  readonly log: Log;
}

export interface MakeOptions {
  readonly map: BackupMap;
  /** False: files are named, and left where they are. */
  readonly files: boolean;
  readonly budget: Budget;
  readonly leaseSeconds: number;
  readonly signal?: AbortSignal;
  readonly onLaid?: (facts: LaidFacts) => void;
}

/** Calls that reading the rows of one person takes about. */
const layCalls = 40;
/** A crash of the server empties unlogged tables. */
const lost = { stage: "rows", files: [], why: "what was read is not there any more" } as const;

/**
 * `rest`: the budget is spent and work is left. `whole`: all of it lies there, and the caller says so. Errors: `lease_lost`,
 * `lock_timeout` where it gave way to somebody, `user_not_found` once the person is gone, `export_undone`, `ownership_unclear`, `key_missing`, those of the database, of Storage and
 * of the target.
 */
export async function makeExport(deps: MakeDeps, lease: ExportLease, options: MakeOptions): Promise<"whole" | "rest"> {
  const { connection, target, log } = deps;
  const { budget, leaseSeconds } = options;
  const { install } = await readIdentity(connection);
  const key = await signingKey(deps.ring, install);
  for (;;) {
    await holdExport(connection, lease, leaseSeconds);
    const row = await readExport(connection, lease.id);
    switch (row.stage) {
      case "rows": {
        const session = await openSession(deps.database, "holdfast:export");
        try {
          const request = { user: row.user, map: options.map, files: options.files };
          const facts = await yieldingToWaiters(deps, session, () => layRows(session, lease, request));
          options.onLaid?.(facts);
        } finally {
          await session.close();
        }
        log.step("export.laid", { export: lease.id });
        budget.spendCalls(layCalls);
        break;
      }
      case "files": {
        await target.prepare();
        if (await copyFiles(deps, lease, options) === "rest") return "rest";
        log.step("export.copied", { export: lease.id });
        if (!await closeDocument(connection, lease)) await redoExport(connection, lease, lost);
        break;
      }
      case "document": {
        await target.prepare();
        const end = await putDocument({ connection, target, key }, lease, row, options);
        if (end === "rest") return "rest";
        if (end === "lost") {
          await redoExport(connection, lease, lost);
          break;
        }
        log.step("export.put", { export: lease.id });
        const missing = await target.missing();
        if (!missing.document && missing.files.length === 0) return "whole";
        await redoExport(connection, lease, {
          stage: "files",
          files: missing.files,
          why: "objects of it are not in the bucket any more",
        });
      }
    }
    if (budget.spent()) return "rest";
  }
}
