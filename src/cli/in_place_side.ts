/** The side schema of a full restore in place, once that is done: rows and texts to look at, in nobody's way. */
import { asHoldfastError } from "../shared/errors.ts";
import { type EarlierTries, markTold } from "../shared/restore/in_place/earlier_tries.ts";
import { freeSideSchema } from "../shared/restore/in_place/plan/free_side_columns.ts";
import type { RowsWork } from "../shared/rows/work.ts";
import type { Context } from "./context.ts";

/** What went was told, and rows beside are no reason why a migration fails. The project is open by now. Never throws. */
export async function leaveSide(
  context: Context,
  { connection, schema, lease }: Pick<RowsWork, "connection" | "schema" | "lease">,
  { sideSchemas }: EarlierTries,
): Promise<void> {
  // Told twice is better than done and told as failed.
  if (lease === null) await markTold(connection, [schema, ...sideSchemas]).catch(() => {});
  await connection.execute(freeSideSchema(schema)).catch((error: unknown) => {
    context.note(`warning: rows in ${schema} still have types of the database: ${asHoldfastError(error).message}`);
  });
}
