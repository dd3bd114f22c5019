/** The role that restores, and for whom it may act. */
import type { Connection } from "../../postgres/connection.ts";
import type { InPlaceOptions } from "./change_format.ts";

type Actor = Pick<InPlaceOptions, "user" | "superuser" | "reachable">;

/** Of the session. Errors: those of the connection. */
export async function readActor(connection: Connection): Promise<Actor> {
  const can = connection.serverVersion >= 160000 ? "SET" : "MEMBER";
  const rows = await connection.query(
    `select r.rolname as name, r.rolname = current_user as is_me, r.rolsuper as is_superuser
       from pg_catalog.pg_roles r where pg_catalog.pg_has_role(current_user, r.oid, '${can}')`,
  );
  const me = rows.find((row) => row["is_me"] === "t");
  return {
    user: me?.["name"] ?? "",
    superuser: me?.["is_superuser"] === "t",
    reachable: new Set(rows.map((row) => row["name"] ?? "")),
  };
}

/** Null: what has no owner is anybody's. */
export function mayActAs(actor: Actor, role: string | null): boolean {
  return role === null || actor.superuser || actor.reachable.has(role);
}
