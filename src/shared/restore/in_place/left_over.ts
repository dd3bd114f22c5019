/** What a full restore in place has left otherwise than the backup has it: looked for anew, not taken from what was done. */
import type { PutBackResult } from "../../rows/apply/put_back.ts";
import type { DatabaseBeside } from "../../rows/beside/database_beside.ts";
import { nameOf } from "../../rows/past/fold_partitions.ts";
import type { RowsWork } from "../../rows/work.ts";
import { planNow, type SettleContext } from "./settle_definitions.ts";

/** For people, beyond what the plan keeps; of mode `replace`. Errors: those of the connection. */
export async function findLeftOver(
  settling: SettleContext,
  work: RowsWork,
  beside: DatabaseBeside,
  result: PutBackResult,
): Promise<string[]> {
  const left = await planNow(settling);
  const found = left.steps.map((step) => `${step.identity}: ${step.reason}`);
  for (const { fit: { past }, side } of beside.pairs) {
    const [row] = await work.connection.query(`select count(*) as n from ${side.sql}`);
    const came = Number(row?.["n"]);
    // Of accounts, some rows never come back in place.
    const wanted = past.rows - (beside.erased.get(nameOf(past)) ?? 0);
    if (came !== wanted && past.schema !== "auth") {
      found.push(`${past.schema}.${past.name}: ${came} rows came beside, ${wanted} are in the backup`);
    }
  }
  const again = await work.plan(beside, "replace");
  for (const table of again.tables) {
    if (table.insert + table.update + table.delete > 0) found.push(`${table.table}: rows changed since`);
  }
  if (result.tables.length !== beside.pairs.length) found.push("a table was passed over");
  return found;
}
