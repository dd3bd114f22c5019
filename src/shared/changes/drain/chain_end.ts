/** A chain that a drain finds unable to go on: it is ended, and the next drain begins another. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { type Chain, endChain, streamError } from "./stream_queries.ts";

/** Ends the chain: what the slot still has cannot follow what is stored. Returns what to throw, `stream_busy`. */
export async function chainOver(connection: Connection, chain: Chain, reason: string): Promise<HoldfastError> {
  await endChain(connection, chain.id, reason);
  return new HoldfastError("stream_busy", `the chain ended: ${reason}`, { hint: "The next drain begins another." });
}

/** What to throw when the slot could not be read. A publication that was not there at some change fails it for ever. */
export async function unreadable(connection: Connection, chain: Chain, error: unknown): Promise<unknown> {
  return sqlstateOf(error) === "42704"
    ? await chainOver(connection, chain, "a publication was dropped and made again")
    : streamError(error);
}
