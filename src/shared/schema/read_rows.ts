/** Catalog queries with checked rows. */
import type { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";

/**
 * Runs `sql` and checks every row against `shape`. Rows travel as JSON made by the server: booleans, smallint and integer come as
 * such, arrays as arrays, oid and regclass as strings; cast bigint and numeric to text.
 *
 * Errors: `catalog_changed` when a row lacks what another session dropped meanwhile; `internal` when it is not as declared.
 */
export async function readRows<S extends z.ZodType>(
  connection: Connection,
  what: string,
  shape: S,
  sql: string,
  values: readonly (string | null)[] = [],
): Promise<z.output<S>[]> {
  const rows = await connection.query(`select pg_catalog.row_to_json(q)::text as row from (${sql}) q`, values);
  return rows.map((row) => {
    const value: unknown = JSON.parse(row["row"] ?? "null");
    const parsed = shape.safeParse(value);
    if (!parsed.success) {
      const where = parsed.error.issues.map((issue) => issue.path.join(".")).join(", ");
      if (parsed.error.issues.every((issue) => valueAt(value, issue.path) === null)) {
        throw new HoldfastError("catalog_changed", `the catalog's ${what} changed while they were read: ${where}`);
      }
      throw new HoldfastError("internal", `the catalog's ${what} are not as expected: ${where}`, {
        cause: parsed.error,
      });
    }
    return parsed.data;
  });
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value;
  for (const key of path) at = typeof at === "object" && at !== null ? Reflect.get(at, key) : undefined;
  return at;
}
