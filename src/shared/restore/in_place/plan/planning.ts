/** What every part of a plan is made from, and where its steps go. */
import type { Definition } from "../../../schema/capture_format.ts";
import { quoteIdent } from "../../../schema/quote.ts";
import { mayActAs } from "../actor.ts";
import type { InPlaceOptions } from "../change_format.ts";
import type { Changes } from "../compare/changes.ts";
import type { StepList } from "./step_list.ts";

export interface Planning {
  readonly changes: Changes;
  readonly options: InPlaceOptions;
  /** Identities of extensions that are not there. */
  readonly missingExtensions: ReadonlySet<string>;
  /** New objects would get grants from default privileges, which are taken back at once. */
  readonly resetsAccess: boolean;
  readonly steps: StepList;
}

/** Is it there already, and does it stay? */
export function stays({ changes }: Planning, one: Definition): boolean {
  return changes.isBy.has(one.identity) && !changes.drops.has(one.identity);
}

/** True, and refused, where what is to be made or dropped hangs on a table that stays and belongs to somebody else. */
export function refusesForOwner({ changes, options, steps }: Planning, one: Definition, reason: string): boolean {
  const table = changes.isBy.get(one.table ?? "");
  if (table === undefined || changes.drops.has(table.identity) || mayActAs(options, table.owner)) return false;
  const said = `${reason}, but ${table.identity} belongs to ${table.owner}, whom ${options.user} may not act for`;
  steps.refuse(one, said);
  return true;
}

/** Why an object is made, and whether in the place of one that went before. */
export function whyMade({ changes }: Planning, one: Definition): { action: "create" | "replace"; reason: string } {
  return changes.isBy.has(one.identity)
    ? { action: "replace", reason: changes.drops.get(one.identity) ?? "" }
    : { action: "create", reason: "it is missing" };
}

/** Could objects that this role makes get grants that nobody gave them? */
export function hasDefaultPrivileges({ is }: Changes, { user }: InPlaceOptions): boolean {
  const own = `for role ${quoteIdent(user)} `;
  return is.some((one) => one.statements.some((text) => text.includes(own)));
}
