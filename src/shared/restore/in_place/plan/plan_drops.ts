/** What goes: users first, never CASCADE. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { mayActAs } from "../actor.ts";
import { isType } from "../compare/compared.ts";
import { asideName, asideType } from "../texts/aside_types.ts";
import { typeName } from "../texts/identity_names.ts";
import { dropStatements } from "./drop_statement.ts";
import { freeSideColumns } from "./free_side_columns.ts";
import { goneOf } from "./gone.ts";
import { locksOf } from "./locks.ts";
import type { Planning } from "./planning.ts";
import { loosenPolicy } from "./policy_changes.ts";

/** Before names change: what has the name of a table of the backup. Refused where it is another's. */
export function planFirstDrops(planning: Planning, first: readonly Definition[]): void {
  const { options, steps } = planning;
  const reason = "it has the name of a table that is called otherwise now";
  for (const one of first) {
    if (mayActAs(options, one.owner)) drop(planning, one, reason);
    else steps.refuse(one, `${reason}, but belongs to ${one.owner}, whom ${options.user} may not act for`);
  }
}

/** Before anything is made. */
export function planDrops(planning: Planning): void {
  const { is, drops, attached, asideTypes } = planning.changes;
  const going = is.filter((one) => drops.has(one.identity)).reverse();
  // Detached first, what is on a partition is its own; on one that stays attached it goes with the parent's.
  // A foreign key that a partition has from its table would stay with it.
  const rank = ({ kind, identity }: Definition) =>
    kind === "foreign key" ? 0 : kind === "partition" ? 1 : attached.has(identity) ? 3 : 2;
  for (const wanted of [0, 1, 2, 3]) {
    for (const one of going.filter((each) => rank(each) === wanted)) {
      if (asideTypes.has(one.identity)) stepAside(planning, one);
      else if (!isLate(planning, one)) drop(planning, one, drops.get(one.identity) ?? "");
    }
  }
}

/** Until then tables use it, or what they use is in it. */
function isLate({ changes }: Planning, one: Definition): boolean {
  return changes.lateDrops.has(one.identity) || one.kind === "schema";
}

/** Once tables have let go of them. */
export function planLateDrops(planning: Planning): void {
  const { is, asideTypes, drops } = planning.changes;
  for (const one of [...is].reverse()) {
    if (isLate(planning, one) && drops.has(one.identity)) drop(planning, one, drops.get(one.identity) ?? "");
    if (!asideTypes.has(one.identity)) continue;
    const aside = asideType(typeName(one.identity));
    planning.steps.add(one, {
      action: "drop",
      phase: "before",
      statements: [freeSideColumns(aside), `drop ${typeWord(one)} ${aside}`],
      reason: "no column is of it any more",
    });
  }
}

function drop(planning: Planning, one: Definition, reason: string): void {
  const { changes, steps } = planning;
  const comes = changes.wasBy.has(one.identity);
  const gone = goneOf(planning, one, reason);
  const isAgain = gone.some(({ again }) => again);
  const statements = one.kind === "policy" && (comes || isAgain) ? loosenPolicy(one) : dropStatements(one);
  const frees = isType(one) ? [freeSideColumns(typeName(one.identity))] : [];
  if (statements === null) return steps.refuse(one, `${reason}, and it is not known how to take a ${one.kind} back`);
  steps.add(one, {
    action: "drop",
    phase: "before",
    statements: statements.length === 0 ? [] : [...frees, ...statements],
    reason: comes ? `${reason}; it comes back` : isAgain ? `${reason}; it is made again if it still can` : reason,
    // What a view holds goes with the view, and has to be made again besides.
    gone: statements.length > 0 || isOfView(one) ? gone : [],
    locks: locksOf(one, true),
  });
}

const isOfView = (one: Definition): boolean =>
  one.kind === "materialized view data" || one.identity.startsWith("body of ");

function stepAside({ changes, steps }: Planning, one: Definition): void {
  const name = typeName(one.identity);
  steps.add(one, {
    action: "alter",
    phase: "before",
    statements: [`alter ${typeWord(one)} ${name} rename to ${asideName(name)}`],
    reason: `${changes.drops.get(one.identity)}; the columns of it are converted to the one that was`,
  });
}

const typeWord = (one: Definition): string => one.kind === "domain" ? "domain" : "type";
