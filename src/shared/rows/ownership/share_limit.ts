/** A closure that takes a large part of a table is more likely a key followed too far than one person's rows. */
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { nameOf } from "../past/fold_partitions.ts";
import { mapFileName } from "./map_file.ts";
import { type OwnedTable, ownedTables, type OwnershipPlan } from "./ownership.ts";

/** Tables of no more rows than these are never refused. */
const shareFloor = 100;

export interface TableShare extends TableName {
  /** Rows that reach the user, owned and shared. */
  readonly reached: number;
  /** Rows of the table; any number above `rowsThatMatter` stands for itself. */
  readonly total: number;
}

/** As many rows as it takes to know that `reached` is within the table's share. */
export function rowsThatMatter(table: OwnedTable, reached: number): number {
  return Math.max(shareFloor + 1, Math.ceil(reached / table.share));
}

/** Counts no further than what matters: one row, column `total`. `relation` as `RelationOf` gives it. */
export function totalSql(table: OwnedTable, reached: number, relation: string): string {
  return `select count(*) as total from (select from ${relation} limit ${rowsThatMatter(table, reached)}) t`;
}

/** Sentences for the tables of which the user would have a larger part than the plan allows. */
export function sharesTooLarge(plan: OwnershipPlan, shares: readonly TableShare[]): string[] {
  const tables = new Map(ownedTables(plan).map((table) => [nameOf(table), table]));
  return shares.flatMap((one) => {
    const table = tables.get(nameOf(one));
    if (table === undefined || one.total <= shareFloor || one.reached <= one.total * table.share) return [];
    const percent = (part: number) => `${Math.round(part * 1000) / 10} %`;
    return [`${nameOf(one)}: ${percent(one.reached / one.total)} of the rows, more than ${percent(table.share)}`];
  });
}

/** Errors: `ownership_unclear`, naming the tables. */
export function checkShares(plan: OwnershipPlan, shares: readonly TableShare[]): void {
  const problems = sharesTooLarge(plan, shares);
  if (problems.length === 0) return;
  throw new HoldfastError("ownership_unclear", `too much would be one user's: ${problems.join("; ")}`, {
    hint: `Look at the keys that lead there, and decide in ${mapFileName} which are followed, or allow a larger share.`,
  });
}
