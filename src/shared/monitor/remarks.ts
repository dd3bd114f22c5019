/** What the verdict stands on besides the database's own rows: which stores are set here, and what the stream does not hold. */
import type { Remark } from "../jobs/monitor_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { type StorePair, storeReasons } from "../store/apart.ts";
import { readUncoveredOfStream, uncoveredReasons, type UncoveredTable } from "./uncovered.ts";

export interface Remarks {
  readonly remarks: readonly Remark[];
  readonly uncovered: readonly UncoveredTable[];
}

/** Errors: `usage` for what is no address of a store, those of the connection. */
export async function readRemarks(connection: Connection, stores: StorePair): Promise<Remarks> {
  const uncovered = await readUncoveredOfStream(connection);
  const remarks = [...uncoveredReasons(uncovered), ...storeReasons(stores)]
    .map((message): Remark => ({ severity: "warning", message }));
  return { remarks, uncovered };
}
