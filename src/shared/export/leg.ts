/** One leg of an export in a function. */
import type { Budget } from "../backup/budget.ts";
import type { Clock } from "../clock.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import type { DownloadBucket } from "../download/bucket.ts";
import { asHoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import type { ReadFile } from "./copy_files.ts";
import {
  claimExport,
  type ExportLease,
  failExport,
  finishExport,
  launchExports,
  readExport,
  restExport,
} from "./export_queries.ts";
import { bucketTarget } from "./export_target.ts";
import { makeExport } from "./make_export.ts";
import { readKeptMap } from "./kept_map.ts";

export interface ExportLegDeps {
  readonly database: Database;
  /** Errors: those of keys. */
  readonly ring: () => KeyRing;
  /** Errors: `setting_missing`. */
  readonly bucket: () => DownloadBucket;
  /** Errors: `setting_missing`. */
  readonly readFile: () => ReadFile;
  readonly clock: Clock;
  readonly log: Log;
}

/** Longer than the platform lets a leg live. */
const leaseSeconds = 170;

/**
 * Nothing when another leg is at it. What ends it is written down with it, then thrown; what may heal is thrown alone: when its lease
 * is over the watchdog sends another leg, five times without a step in between.
 */
export async function runExportLeg(
  deps: ExportLegDeps,
  connection: Connection,
  id: string,
  { worker, budget }: { readonly worker: string; readonly budget: Budget },
): Promise<void> {
  const lease = await claimExport(connection, id, { worker, leaseSeconds });
  if (lease === null) return;
  try {
    const make = {
      connection,
      database: deps.database,
      ring: deps.ring(),
      target: bucketTarget(id, deps.bucket(), connection),
      readFile: deps.readFile(),
      clock: deps.clock,
      log: deps.log,
    };
    const map = await readKeptMap(connection);
    const end = await makeExport(make, lease, { map, files: true, budget, leaseSeconds });
    if (end === "rest") return await restExport(connection, lease);
    await finishExport(connection, lease, false);
    await launchExports(connection);
  } catch (error) {
    if (asHoldfastError(error).retry === "backoff") throw error;
    throw await failMaking(connection, lease, error);
  }
}

/** Writes the failure down, unless somebody else has the export now, and lets the next one begin. Returns the failure. */
export async function failMaking(connection: Connection, lease: ExportLease, error: unknown) {
  const failure = asHoldfastError(error);
  if (failure.code === "lease_lost") return failure;
  await failExport(connection, lease, failure);
  if ((await readExport(connection, lease.id)).byFunction) await launchExports(connection);
  return failure;
}
