/** The definitions of a live database made those of a backup: what is done, in which order, and why. Pure. */
import type { Definition, SchemaCapture } from "../../../schema/capture_format.ts";
import type { DefinitionPlan, InPlaceOptions } from "../change_format.ts";
import { extensionNotes, missingExtensions, platformAccessNotes, platformNotes } from "../compare/compared_only.ts";
import { findChanges } from "../compare/find_changes.ts";
import { planRenames, type Rename } from "../compare/renames.ts";
import { locksOf } from "./locks.ts";
import { planGrants, planOwner } from "./plan_access.ts";
import { planCreation, planLastSection, roundOf } from "./plan_creations.ts";
import { planDrops, planFirstDrops, planLateDrops } from "./plan_drops.ts";
import { hasDefaultPrivileges, type Planning, stays } from "./planning.ts";
import { planRowSecurity, planSwaps } from "./plan_row_security.ts";
import { planExtraTables, planLoosening, planTable } from "./plan_tables.ts";
import { StepList } from "./step_list.ts";

/**
 * The steps from `is` (the live database's capture) to `was` (the backup's). Two equal captures give no step. Once all are
 * applied, a plan from a new capture has only what was kept; what it has besides is to be applied as well, since texts alone
 * do not tell what a rename does to every expression. `replaceableViews`: identities of those that CREATE OR REPLACE would
 * make what they were (`findReplaceableViews`); others that differ are dropped and made again.
 */
export function planDefinitionChanges(
  was: SchemaCapture,
  is: SchemaCapture,
  options: InPlaceOptions,
  replaceableViews: ReadonlySet<string> = new Set(),
): DefinitionPlan {
  const renamed = options.sameDatabase ? planRenames(was, is) : { drops: [], renames: [], is };
  const changes = findChanges(was, renamed.is, options, replaceableViews);
  const steps = new StepList([
    ...extensionNotes(was, is),
    ...platformNotes(was, is),
    ...platformAccessNotes(was, is),
    ...changes.notes,
  ]);
  const planning: Planning = {
    changes,
    options,
    missingExtensions: missingExtensions(was, is),
    resetsAccess: hasDefaultPrivileges(changes, options),
    steps,
  };
  const [roles, others] = [changes.was.filter(isOfRoles), changes.was.filter((one) => !isOfRoles(one))];

  for (const one of roles) {
    planAlterations(planning, one);
    planCreation(planning, one);
  }
  planFirstDrops(planning, renamed.drops);
  planNames(planning, renamed.renames);
  planLoosening(planning);
  planDrops(planning);
  for (const one of others) {
    planAlterations(planning, one);
    if (roundOf(one) === 0) planCreation(planning, one);
  }
  for (const round of [1, 2]) {
    for (const one of others) if (roundOf(one) === round) planCreation(planning, one);
  }
  planExtraTables(planning);
  planLateDrops(planning);
  planGrants(planning);
  planLastSection(planning);
  planSwaps(planning);
  planRowSecurity(planning);
  return steps.plan();
}

const isOfRoles = (one: Definition): boolean => one.section === "roles";

/** What is in the way of a name steps aside; what has another name now gets the one that it had. */
function planNames({ changes, steps }: Planning, renames: readonly Rename[]): void {
  // Of tables that came since alone, which no rename touches.
  for (const { one, statements, reason } of changes.asides) {
    steps.add(one, { action: "alter", phase: "before", statements, reason, locks: locksOf(one, true) });
  }
  for (const { identity, statements, reason, table } of renames) {
    const locks = `${table}: against everybody, for a moment`;
    steps.add({ identity, kind: "table" }, { action: "alter", phase: "before", statements, reason, locks });
  }
}

/** Of an object that is there and stays: its owner, and what ALTER makes what it was. */
function planAlterations(planning: Planning, one: Definition): void {
  if (!stays(planning, one)) return;
  const { changes, steps } = planning;
  planOwner(planning, one);
  const alteration = changes.alterations.get(one.identity);
  if (alteration !== undefined) {
    const { before, after, otherwise } = alteration;
    const reason = "its definition differs";
    const locks = locksOf(one, false);
    const early = one.section === "last" ? "after" : "before";
    steps.add(one, { action: "alter", phase: early, statements: before, otherwise, reason, locks });
    steps.add(one, { action: "alter", phase: "after", statements: after, reason, locks });
  }
  planTable(planning, one);
}
