/** The last steps: policies, the user's triggers on the platform's tables, row security. One short transaction each. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { effectiveStatements } from "../compare/compared.ts";
import { dropStatements } from "./drop_statement.ts";
import { locksOf } from "./locks.ts";
import { goneOf } from "./gone.ts";
import { type Planning, refusesForOwner } from "./planning.ts";
import { replacePolicy } from "./policy_changes.ts";

export function planSwaps(planning: Planning): void {
  const { was, is, wasBy, swaps, drops } = planning.changes;
  for (const one of is) {
    const reason = swaps.get(one.identity);
    if (reason === undefined || wasBy.has(one.identity) || drops.has(one.identity)) continue;
    if (refusesForOwner(planning, one, reason)) continue;
    const statements = dropStatements(one) ?? [];
    const gone = goneOf(planning, one, reason);
    planning.steps.add(one, { action: "drop", phase: "last", statements, reason, gone, locks: locksOf(one, true) });
  }
  for (const one of was) planSwap(planning, one);
}

/** Every policy that is missing or went comes back here; of triggers those that are swapped. */
function planSwap(planning: Planning, one: Definition): void {
  const { changes, steps } = planning;
  const { isBy, drops, swaps } = changes;
  const differs = swaps.get(one.identity);
  const gone = drops.get(one.identity);
  const isThere = isBy.has(one.identity);
  const isOpen = one.kind === "policy"
    ? !isThere || gone !== undefined || differs !== undefined
    : differs !== undefined;
  if (!isOpen || refusesForOwner(planning, one, isThere ? gone ?? differs ?? "" : "it is missing")) return;
  const statements = one.kind === "policy"
    ? replacePolicy(one)
    : [...(gone === undefined ? [`drop ${one.identity}`] : []), ...effectiveStatements(one)];
  steps.add(one, {
    action: isThere ? "replace" : "create",
    phase: "last",
    statements,
    reason: isThere ? gone ?? differs ?? "" : "it is missing",
    locks: locksOf(one, true),
  });
}

/** Switched on with what comes after the rows, switched off at the very end. */
export function planRowSecurity(planning: Planning): void {
  const { changes, steps } = planning;
  const { was, is, wasBy, isBy, drops } = changes;
  const all = [...was, ...is.filter((one) => !wasBy.has(one.identity))];
  for (const one of all.filter(({ kind }) => kind === "row security")) {
    const present = isBy.get(one.identity);
    if (present === undefined || drops.has(present.identity)) continue;
    if (one.table !== null && !wasBy.has(one.table)) continue;
    const wanted = wasBy.get(one.identity)?.statements ?? [];
    const on = wanted.filter((text) => !present.statements.includes(text));
    const off = present.statements.filter((text) => !wanted.includes(text));
    const reason = "row security differs";
    if (on.length + off.length > 0 && refusesForOwner(planning, one, reason)) continue;
    const locks = locksOf(one, false);
    steps.add(one, { action: "alter", phase: "after", statements: on, reason, locks });
    const statements = dropStatements({ ...present, statements: off }) ?? [];
    steps.add(one, { action: "alter", phase: "last", statements, reason, locks });
  }
}
