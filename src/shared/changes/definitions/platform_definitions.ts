/** Changes of definitions that a project's services made to what is theirs: another project has its own. Pure. */
import { serviceOf } from "../../restore/project_rows.ts";
import { platformOfRole } from "../../schema/platform.ts";
import { type DdlObject, type DdlRow, schemaOf } from "./ddl_replay.ts";

/** A service's migration, such as a new column of auth.users. What a user hangs on a service's table is the user's. */
export function isDoneByPlatform(row: DdlRow): boolean {
  // One without objects says that something could not be logged.
  if (row.objects.length === 0) return false;
  // The drain does not know who gave what away.
  const isUsers = row.role === "postgres" || platformOfRole(row.role) === null;
  if (isUsers && row.settings["caller"] !== "drain") return false;
  return row.objects.every(isOfService);
}

function isOfService(one: DdlObject): boolean {
  // Of a GRANT the server tells neither name nor schema.
  if (one.identity === null) return true;
  const schema = one.type === "schema" ? one.identity : schemaOf(one);
  return schema !== null && serviceOf({ schema, name: "" }) !== null;
}
