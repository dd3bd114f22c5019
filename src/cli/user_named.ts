/** A user as people name them. */
import { HoldfastError } from "../shared/errors.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import { readUserId } from "../shared/rows/beside/user_now.ts";

/** By id, or by address. Errors: `usage`, `user_not_found`. */
export async function userNamed(session: Connection, who: string): Promise<string> {
  if (!who.includes("@")) return await readUserId(session, who);
  const [there] = await session.query("select pg_catalog.to_regclass('auth.users') is not null as yes");
  const [row] = there?.["yes"] === "t"
    ? await session.query("select u.id::text as id from auth.users as u where lower(u.email) = lower($1) limit 1", [
      who,
    ])
    : [];
  if (row?.["id"] !== undefined && row["id"] !== null) return row["id"];
  throw new HoldfastError("user_not_found", "no user has this address");
}
