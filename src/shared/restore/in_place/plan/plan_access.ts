/** Owners and grants. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { unquoteIdent } from "../../../schema/quote.ts";
import { mayActAs } from "../actor.ts";
import { isGrantsOnly } from "../compare/compared.ts";
import { locksOf } from "./locks.ts";
import { type Planning, stays } from "./planning.ts";
import { privilegeChanges } from "./privilege_changes.ts";

/** Before anything that wants the same owner, such as a sequence for a column. */
export function planOwner({ changes, options, steps }: Planning, one: Definition): void {
  const { is, isBy, drops } = changes;
  const other = isBy.get(one.identity);
  if (other === undefined || one.ownership.join() === other.ownership.join()) return;
  // A sequence of a column belongs to the owner of the table, and changes with it.
  const isOwned = is.some((each) =>
    one.kind === "sequence" && each.kind === "sequence ownership" && each.dependsOn.includes(one.identity) &&
    !drops.has(each.identity)
  );
  if (isOwned) return;
  const reason = `it belongs to ${other.owner} instead of ${one.owner}`;
  if (!mayActAs(options, one.owner) || !mayActAs(options, other.owner)) {
    return steps.keep(one, `${reason}; ${options.user} may not change that`);
  }
  steps.add(one, {
    action: "alter",
    phase: one.section === "last" ? "after" : "before",
    statements: one.ownership,
    reason,
    locks: locksOf(one, false),
  });
}

export function planGrants(planning: Planning): void {
  const { was, is, wasBy, isBy } = planning.changes;
  for (const one of was) {
    const other = stays(planning, one) ? isBy.get(one.identity) ?? null : null;
    if (one.privileges.length > 0 || (other?.privileges.length ?? 0) > 0 || isGrantsOnly(one)) {
      planGrantsOf(planning, one, other);
    }
  }
  for (const one of is) if (!wasBy.has(one.identity) && isGrantsOnly(one)) takeBack(planning, one);
}

/** `other`: as it is; null: it is made. */
function planGrantsOf(planning: Planning, one: Definition, other: Definition | null): void {
  const { options, steps } = planning;
  const texts = isGrantsOnly(one) ? privilegeChanges(one.statements, other?.statements ?? []) : [];
  // A new object has been given to its owner; grants of schemas that were there are compared.
  const grants = other === null ? one.privileges : privilegeChanges(one.privileges, other.privileges);
  if (texts === null || grants === null) {
    const missing = one.privileges.filter((text) => !other?.privileges.includes(text));
    const statements = grantable(planning, one, missing);
    steps.add(one, { action: "alter", phase: "after", statements, reason: "grants that are missing" });
    return steps.keep(one, "grants that came after the backup stay: they are in no form that can be compared");
  }
  if (texts.length + grants.length === 0) return;
  if (!mayActAs(options, one.owner)) return steps.keep(one, `its grants differ, but it belongs to ${one.owner}`);
  steps.add(one, {
    action: "alter",
    phase: "after",
    statements: grantable(planning, one, [...texts, ...grants]),
    reason: other === null ? "its grants" : "its grants differ",
  });
}

/** Default privileges and the like that came after the backup. */
function takeBack(planning: Planning, one: Definition): void {
  const { options, steps } = planning;
  if (!mayActAs(options, one.owner)) {
    return steps.keep(one, `grants that came after the backup, of ${one.owner}, whom ${options.user} may not act for`);
  }
  const [texts, grants] = [privilegeChanges([], one.statements), privilegeChanges([], one.privileges)];
  if (texts === null || grants === null) {
    return steps.keep(one, "grants that came after the backup and cannot be read");
  }
  const reason = "grants that came after the backup";
  const statements = grantable(planning, one, [...texts, ...grants]);
  steps.add(one, { action: "alter", phase: "after", statements, reason });
}

/** Without the grants of roles that may not be acted for, which stay and are told. */
function grantable({ options, steps }: Planning, one: Definition, statements: readonly string[]): string[] {
  const taken: string[] = [];
  const others = new Set<string>();
  let isTheirs = false;
  for (const text of statements) {
    const role = /^set role ([\s\S]+)$/.exec(text)?.[1];
    if (role !== undefined) {
      const grantor = unquoteIdent(role);
      isTheirs = !mayActAs(options, grantor);
      if (isTheirs) others.add(grantor);
    }
    if (!isTheirs) taken.push(text);
    if (text === "reset role") isTheirs = false;
  }
  if (others.size > 0) {
    const who = [...others].join(", ");
    steps.keep(one, `grants that ${who} made differ and stay: ${options.user} may not act for ${who}`);
  }
  return taken;
}
