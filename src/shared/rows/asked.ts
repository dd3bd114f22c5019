/** What a restore of rows is asked for, and the way from there to rows beside the live ones. */
import type { TableName } from "../restore/project_rows.ts";
import { quoteQualified } from "../schema/quote.ts";
import type { Beside, PairDeps } from "./beside/beside.ts";
import type { Condition } from "./beside/conditions.ts";
import type { Laid } from "./beside/laid.ts";
import { findPastTable, type LayDeps } from "./beside/lay.ts";
import { layRecords, layTable, pairRecords, pairTable, tableWarnings } from "./beside/lay_table.ts";
import { layUser, type UserChoice } from "./beside/lay_user.ts";
import { pairUser } from "./beside/user_pair.ts";
import { userWarnings } from "./beside/user_warnings.ts";

export type RowsAsked =
  | { readonly scope: "table"; readonly table: TableName }
  | { readonly scope: "record"; readonly table: TableName; readonly where: readonly Condition[] }
  | { readonly scope: "user"; readonly choice: UserChoice };

/** For people, without a value. */
export function subjectOf(asked: RowsAsked): string {
  if (asked.scope === "user") return "the user's rows";
  const table = quoteQualified(asked.table.schema, asked.table.name);
  return asked.scope === "table" ? table : `rows of ${table}`;
}

/** Rows of then into the side schema; called again it goes on where it was. Errors: those of the scope, `LegOver`. */
export async function layAsked(deps: LayDeps, asked: RowsAsked, comment: string): Promise<Laid> {
  switch (asked.scope) {
    case "table":
      return await layTable(deps, findPastTable(deps.source, asked.table), comment);
    case "record":
      return await layRecords(deps, findPastTable(deps.source, asked.table), asked.where, comment);
    case "user":
      return await layUser(deps, asked.choice, comment);
  }
}

/** Next to the live tables as they are now; needs no backup. Errors: those of `pairUp`. */
export async function pairAsked(deps: PairDeps, asked: RowsAsked, laid: Laid): Promise<Beside> {
  switch (asked.scope) {
    case "table":
      return await pairTable(deps, laid);
    case "record":
      return await pairRecords(deps, laid, asked.where);
    case "user":
      return await pairUser(deps, laid, asked.choice);
  }
}

/** What people have to know of the rows themselves. */
export function warningsOf(asked: RowsAsked, laid: Laid): string[] {
  if (asked.scope !== "user") return tableWarnings(laid);
  return laid.user === null ? [] : userWarnings(laid.user, asked.choice.shared);
}
