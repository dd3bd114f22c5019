/** The settings of schema `backup`: read and set. Every change is audited, and told, by the table's own triggers. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { call } from "./call.ts";
import { text } from "./run_row.ts";

export interface Setting {
  readonly name: string;
  readonly kind: "integer" | "text";
  readonly value: string;
  /** Of integers; null for texts. */
  readonly minimum: number | null;
  readonly maximum: number | null;
  readonly note: string;
}

export async function listSettings(connection: Connection): Promise<readonly Setting[]> {
  const rows = await call(
    connection,
    "select name, kind, value, minimum, maximum, note from backup.settings order by name",
    [],
  );
  return rows.map((row) => ({
    name: text(row, "name"),
    kind: row["kind"] === "integer" ? "integer" : "text",
    value: text(row, "value"),
    minimum: row["minimum"] == null ? null : Number(row["minimum"]),
    maximum: row["maximum"] == null ? null : Number(row["maximum"]),
    note: text(row, "note"),
  }));
}

/** Errors: `not_found`; `payload_invalid` for a value that does not fit. */
export async function setSetting(connection: Connection, name: string, value: string): Promise<void> {
  try {
    const [row] = await call(
      connection,
      "update backup.settings set value = $2, changed_at = backup.clock_now() where name = $1 returning name",
      [name, value],
    );
    if (row === undefined) throw new HoldfastError("not_found", `there is no setting ${JSON.stringify(name)}`);
  } catch (error) {
    if (sqlstateOf(error) !== "23514") throw error;
    throw new HoldfastError("payload_invalid", `the value does not fit the setting ${name}`, {
      hint: "`holdfast settings` shows the bounds of each; nothing was changed.",
      cause: error,
    });
  }
}

/** In one line; '' where nothing is set. */
export async function emergencyContact(connection: Connection): Promise<string> {
  const [row] = await call(connection, "select backup.emergency_contact() as contact", []);
  return text(row ?? {}, "contact");
}
