/** What a plan says beforehand, and what a restore's record says afterwards. Pure. */
import { HoldfastError } from "../../errors.ts";
import type { RestoreTable } from "../../jobs/restore_row.ts";
import { quoteQualified } from "../../schema/quote.ts";
import type { Beside } from "../beside/beside.ts";
import type { RowsPlan } from "./plan_rows.ts";
import type { PutBackResult } from "./put_back.ts";

/** What is known to fail is told before a safety backup is taken for it. Errors: `rows_conflict`, `triggers_would_fire`. */
export function refuseForeseen(plan: RowsPlan, fireTriggers: boolean): void {
  const conflicts = plan.tables.flatMap((table) =>
    table.conflicts.map((one) =>
      `${table.table}: ${one.rows} ${one.rows === 1 ? "row" : "rows"}, ${one.what} (${one.name}${
        one.other === null ? "" : `, ${one.other}`
      })`
    )
  );
  if (conflicts.length > 0) throw new HoldfastError("rows_conflict", conflicts.join("; "));
  const firing = plan.tables.filter((table) => table.alwaysTriggers.length > 0);
  if (firing.length > 0 && !fireTriggers) {
    throw new HoldfastError(
      "triggers_would_fire",
      firing.map(({ table, alwaysTriggers }) => `${table}: ${alwaysTriggers.join(", ")}`).join("; "),
    );
  }
}

export function isNothing(plan: RowsPlan): boolean {
  return plan.tables.every((table) => table.insert + table.update + table.delete === 0);
}

/** For the restore's record. */
export function recordOf(beside: Beside, result: Pick<PutBackResult, "tables">): RestoreTable[] {
  return beside.pairs.map(({ fit }) => {
    const name = quoteQualified(fit.live.schema, fit.live.name);
    const counts = result.tables.find(({ table }) => table === name);
    const { inserted = 0, updated = 0, deleted = 0 } = counts ?? {};
    return { schema: fit.live.schema, name: fit.live.name, inserted, updated, deleted };
  });
}
