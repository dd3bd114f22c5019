/** How much of the log one transaction of a restore may write: what it writes, it holds back from the change stream until its end. */
import type { Connection } from "../postgres/connection.ts";

/** Where the slot has no limit of its own, or there is no stream. */
const withoutLimit = 1024 ** 3;
/** A transaction of a leg is over long before the platform ends the leg. */
const legBytes = 64 * 1024 ** 2;

/** A quarter of what the slot may hold back, in a leg at most 64 MiB. `installed`: Holdfast is, in the database that rows go into. */
export async function capBytesOf(connection: Connection, installed: boolean, isLeg: boolean): Promise<number> {
  const [slot] = installed ? await connection.query("select limit_bytes from backup.slot_state()") : [];
  const limit = Number(slot?.["limit_bytes"] ?? 0);
  return Math.min(isLeg ? legBytes : Infinity, limit > 0 ? limit / 4 : withoutLimit);
}
