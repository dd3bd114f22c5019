/** Calls of the SQL functions of schema `backup`. */
import { HoldfastError } from "../errors.ts";
import type { Connection, Row } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";

/** `schema_missing` where the schema, or this function of it, was never installed. */
export async function call(connection: Connection, sql: string, values: readonly (string | null)[]): Promise<Row[]> {
  try {
    return await connection.query(sql, values);
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === "3F000" || sqlstate === "42883" || sqlstate === "42P01") {
      throw new HoldfastError("schema_missing", "schema backup is not installed in this database, or an older one is", {
        cause: error,
      });
    }
    throw error;
  }
}
