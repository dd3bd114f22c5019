/** Which rows a backup has to give so that the SQL can tell owned rows from shared ones. Pure. */
import type { TableName } from "../../restore/project_rows.ts";
import { nameOf } from "../past/fold_partitions.ts";
import { type OwnedTable, ownedTables, type OwnershipPlan, usersTable } from "./ownership.ts";

/** Rows whose `columns` equal `fromColumns` of a row that was taken of `from`; `from` null: the user's id, one column. */
export interface StepCondition {
  readonly columns: readonly string[];
  readonly from: TableName | null;
  readonly fromColumns: readonly string[];
}

/** Rows of `table` that fit any of the conditions. A value that is null fits nothing. */
export interface OwnershipStep {
  readonly table: TableName;
  readonly conditions: readonly StepCondition[];
}

/** Steps one after the other; where they `repeat`, again until a round takes no new row. */
export interface StepGroup {
  readonly steps: readonly OwnershipStep[];
  readonly repeat: boolean;
}

export interface OwnershipSteps {
  /** All rows that reach the user, auth.users first. */
  readonly candidates: readonly StepGroup[];
  /**
   * Then the rows that those lead to, and that these lead to, children first; `from` stands for all rows taken so far of
   * that table. A table whose rows cannot be missing by then has no step.
   */
  readonly referred: readonly StepGroup[];
}

export function ownershipSteps(plan: OwnershipPlan): OwnershipSteps {
  const incomplete = new Set<string>();
  const referred = plan.groups.toReversed().flatMap((group): StepGroup[] => {
    const names = new Set(group.tables.map(nameOf));
    const steps = group.tables.flatMap((table): OwnershipStep[] => {
      const conditions = ownedTables(plan).filter((child) =>
        child.upward.length > 1 || incomplete.has(nameOf(child)) || names.has(nameOf(child))
      ).flatMap((child) =>
        child.upward.filter((link) => link.userColumn === null && nameOf(link.to) === nameOf(table))
          .map((link): StepCondition => ({ columns: link.toColumns, from: tableOf(child), fromColumns: link.columns }))
      );
      return conditions.length === 0 ? [] : [{ table: tableOf(table), conditions }];
    });
    for (const { table } of steps) incomplete.add(nameOf(table));
    return steps.length === 0 ? [] : [{ steps, repeat: group.cyclic }];
  });
  return {
    candidates: plan.groups.map((group) => ({ steps: group.tables.map(candidates), repeat: group.cyclic })),
    referred,
  };
}

function candidates(table: OwnedTable): OwnershipStep {
  const conditions = nameOf(table) === nameOf(usersTable)
    ? [{ columns: ["id"], from: null, fromColumns: [] }]
    : table.upward.map((link): StepCondition =>
      link.userColumn === null
        ? { columns: link.columns, from: link.to, fromColumns: link.toColumns }
        : { columns: [link.userColumn], from: null, fromColumns: [] }
    );
  return { table: tableOf(table), conditions };
}

const tableOf = ({ schema, name }: TableName): TableName => ({ schema, name });
