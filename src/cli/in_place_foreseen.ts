/** What a full restore in place is known to fail at, before the project is closed. */
import { HoldfastError } from "../shared/errors.ts";
import type { DefinitionPlan } from "../shared/restore/in_place/change_format.ts";
import { relationName } from "../shared/restore/in_place/texts/identity_names.ts";
import { liveName, type RestoreMode } from "../shared/rows/apply/difference.ts";
import { refuseForeseen } from "../shared/rows/apply/foreseen.ts";
import type { RowsPlan } from "../shared/rows/apply/plan_rows.ts";
import type { DatabaseBeside } from "../shared/rows/beside/database_beside.ts";
import { quoteIdent, quoteQualified } from "../shared/schema/quote.ts";

export interface InPlacePlan {
  readonly definitions: DefinitionPlan;
  readonly rows: RowsPlan;
  readonly beside: DatabaseBeside;
}

/**
 * Of a `replace`, what its definitions and its own rows will settle is no obstacle. Errors: `rows_conflict`,
 * `triggers_would_fire`.
 */
export function refuseForeseenInPlace(plan: InPlacePlan, mode: RestoreMode, fireTriggers: boolean): void {
  const { rows, beside } = plan;
  const settled = settledTables(plan);
  const goes = new Set(
    plan.definitions.steps.filter(({ action }) => action === "drop").map(({ identity }) => identity),
  );
  const isOpen = (other: string | null) => mode !== "replace" || (other !== null && !settled.has(other));
  const tables = rows.tables.map((table) => ({
    ...table,
    alwaysTriggers: table.alwaysTriggers.filter((name) =>
      mode !== "replace" || !goes.has(`trigger ${quoteIdent(name)} on ${table.table}`)
    ),
    conflicts: table.conflicts.filter(({ what, other }) => isOpen(what === "still referred to" ? other : null)),
  }));
  refuseForeseen({ ...rows, tables }, fireTriggers);
  if (mode !== "replace") refuseUnfilled(rows, beside);
}

/** Quoted names of tables that get their rows from the backup, or go before. */
function settledTables({ definitions, beside: { laid, pairs } }: InPlacePlan): ReadonlySet<string> {
  const dropped = definitions.steps.filter(({ action, kind }) => action === "drop" && kind === "table");
  return new Set([
    ...laid.map(({ side: { past } }) => quoteQualified(past.schema, past.name)),
    ...pairs.map(liveName),
    ...dropped.map(({ identity }) => relationName(identity)),
  ]);
}

/** Definitions stay, and rows of then have no value for a column that must have one. */
function refuseUnfilled({ tables }: RowsPlan, { pairs }: DatabaseBeside): void {
  const growing = new Set(tables.filter(({ insert }) => insert > 0).map(({ table }) => table));
  const unfilled = pairs.filter((pair) => growing.has(liveName(pair))).flatMap((pair) => {
    const added = new Set(pair.fit.added);
    return pair.fit.live.columns.filter((one) => added.has(one.name) && one.notNull && !one.filled)
      .map((one) =>
        `${liveName(pair)}: column ${one.name} must have a value, has no default, and came after the backup`
      );
  });
  if (unfilled.length === 0) return;
  throw new HoldfastError("rows_conflict", unfilled.join("; "), {
    hint: "Give the column a default for the time of the restore, or restore with --apply replace.",
  });
}

/** Oids of the tables that rows are taken out of. */
export function losingRows(plan: RowsPlan, beside: DatabaseBeside): string[] {
  return oidsOf(plan.tables.filter((one) => one.update + one.delete > 0), beside);
}

/** Oids of the tables that rows are written to. */
export function changingRows(plan: RowsPlan, beside: DatabaseBeside): string[] {
  return oidsOf(plan.tables.filter((one) => one.insert + one.update + one.delete > 0), beside);
}

/** With those whose rows are compared later. */
function oidsOf(tables: RowsPlan["tables"], beside: DatabaseBeside): string[] {
  const names = new Set(tables.map((one) => one.table));
  const found = beside.pairs.filter((pair) => names.has(liveName(pair))).map(({ fit }) => fit.live.oid);
  return [...found, ...beside.waiting.map(({ oid }) => oid)];
}
