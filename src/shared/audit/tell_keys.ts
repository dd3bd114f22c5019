/** Which keys are in use, by their ids, for the security audit: it counts their age from the first time on. */
import type { KeyRing } from "../crypto/key_ring.ts";
import type { Connection } from "../postgres/connection.ts";

/** Errors: those of the connection. */
export async function tellKeys(connection: Connection, ring: Pick<KeyRing, "ids">): Promise<void> {
  await connection.query("select backup.tell_keys(array(select pg_catalog.json_array_elements_text($1::json)))", [
    JSON.stringify(ring.ids),
  ]);
}
