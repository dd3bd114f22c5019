/** How backups stand, as a document: one for `status`, for the function and for whoever asks it. */
import { readStanding, type Standing } from "../identity/identity_queries.ts";
import { type CopyLag, readCopyLag } from "../jobs/copy_queries.ts";
import { readStatus, type Status } from "../jobs/monitor_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { StorePair } from "../store/apart.ts";
import { readRemarks } from "./remarks.ts";

export interface StatusDocument extends Omit<Status, "stream"> {
  /** The open chain and its slot, with how many tables it does not hold all changes of; null: there is no chain. */
  readonly stream: (Status["stream"] & { readonly uncovered: number }) | null;
  readonly identity: Standing;
  /** What the second store lacks; null: there is none. */
  readonly secondStore: CopyLag | null;
}

/** Nothing is changed. Errors: those of `readRemarks`, `schema_missing`. */
export async function statusDocument(connection: Connection, stores: StorePair): Promise<StatusDocument> {
  const { remarks, uncovered } = await readRemarks(connection, stores);
  const { stream, ...status } = await readStatus(connection, remarks);
  return {
    ...status,
    stream: stream === null ? null : { ...stream, uncovered: uncovered.length },
    identity: await readStanding(connection),
    secondStore: await readCopyLag(connection),
  };
}
