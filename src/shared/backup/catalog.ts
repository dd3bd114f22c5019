import type { Connection } from "../postgres/connection.ts";
import { catalogFingerprint } from "../schema/fingerprint.ts";
import { leftOutSchemas } from "./tables.ts";

/** A digest of all definitions as they are now. Equal at a run's start and end: no definition changed meanwhile. */
export async function definitionsNow(connection: Connection): Promise<string> {
  return await catalogFingerprint(connection, { leaveOutSchemas: await leftOutSchemas(connection) });
}
