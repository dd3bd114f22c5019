/** One object in both captures: equal, altered, made anew, kept or refused. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { typeName } from "../texts/identity_names.ts";
import { isRemark, remarkChanges } from "../texts/remark_changes.ts";
import { type TextChange, textChange, valuesLost } from "../texts/text_changes.ts";
import { alterTable } from "./alter_table.ts";
import { comparedStatements, isGrantsOnly, isType } from "./compared.ts";
import type { Findings } from "./findings.ts";
import { replaceView } from "./replace_views.ts";

const differs = "its definition differs";

export function compareDefinition(findings: Findings, was: Definition, is: Definition): void {
  if (was.kind !== is.kind) return judgeOtherKind(findings, was, is);
  const [wanted, present] = [comparedStatements(was), comparedStatements(is)];
  if (wanted.join(";\n") === present.join(";\n") || isGrantsOnly(is)) return;
  if (is.identity.startsWith("body of ")) {
    const view = findings.isBy.get(is.table ?? "");
    if (view !== undefined && !replaceView(findings, was, view)) findings.drop(view, differs);
    return;
  }
  // A shell that waits for its body, which replaces it.
  const body = `body of ${is.identity}`;
  if (findings.wasBy.has(body) && !findings.isBy.has(body)) return;
  if (is.kind === "table") alterTable(findings, is.identity);
  else if (findings.isSwapped(is)) findings.swaps.set(is.identity, differs);
  else if (mainText(wanted) === mainText(present)) {
    applyChange(findings, was, is, { kind: "alter", before: [], after: [] });
  } else if (is.kind === "view" && replaceView(findings, was, is)) return;
  else applyChange(findings, was, is, changeOf(findings, was, is));
}

const mainText = (texts: readonly string[]) => texts.filter((text) => !isRemark(text)).join(";\n");

function changeOf(findings: Findings, was: Definition, is: Definition): TextChange {
  const { dropExtra } = findings.options;
  const change = textChange(was, is, { dropExtra, isSameType: findings.isSameType(is.identity) });
  const lost = valuesLost(was, is);
  if (!dropExtra && lost.length > 0 && (is.kind === "composite type" || change.kind === "remake")) {
    const kept = keptTableOf(findings, is.identity);
    if (kept !== null) {
      const reason = `${kept} came after the backup and has columns of it, where values of ${
        lost.join(", ")
      } would be lost`;
      return { kind: "refuse", reason };
    }
  }
  // The server does not look for values in there, and so takes no new constraint.
  const isRefused = is.kind === "domain" && change.kind === "alter" && change.after.length > 0 &&
    isInside(findings, is.identity);
  return isRefused ? { kind: "remake" } : change;
}

/** A table that came after the backup, with columns of this type or of one that is made from it. */
function keptTableOf(findings: Findings, type: string, seen = new Set<string>()): string | null {
  for (const user of findings.usersOf(type)) {
    if (seen.has(user.identity)) continue;
    seen.add(user.identity);
    if (user.kind === "table" && !findings.wasBy.has(user.identity)) return user.identity;
    const inner = isType(user) ? keptTableOf(findings, user.identity, seen) : null;
    if (inner !== null) return inner;
  }
  return null;
}

/** Are there columns of arrays, rows or ranges of this domain, or of a domain over it? */
function isInside(findings: Findings, domain: string): boolean {
  const array = `${typeName(domain)}[]`;
  return findings.usersOf(domain).some((user) =>
    user.kind === "composite type" || user.kind === "range" ||
    (user.kind === "domain" ? isInside(findings, user.identity) : user.statements.some((text) => text.includes(array)))
  );
}

function judgeOtherKind(findings: Findings, was: Definition, is: Definition): void {
  const reason = `it was a ${was.kind} and is a ${is.kind}`;
  if (was.kind === "table" || is.kind === "table") return findings.note(is, "refuse", reason);
  // The column's default lets go of it first.
  if (is.kind === "sequence") findings.lateDrops.add(is.identity);
  findings.drop(is, reason);
}

function applyChange(findings: Findings, was: Definition, is: Definition, change: TextChange): void {
  if (change.kind === "remake") {
    if (is.kind !== "row security") findings.drop(is, differs);
    return;
  }
  if (change.kind !== "alter") return findings.note(is, change.kind, change.reason);
  if (!findings.mayActAs(is.owner) && !findings.hangsOnPlatform(is)) {
    return findings.refuseForOwner(is, "it differs, but");
  }
  const remarks = remarkChanges(was.statements, is.statements);
  const otherwise = change.otherwise ?? [];
  findings.alterations.set(is.identity, {
    before: [...change.before, ...remarks],
    after: change.after,
    otherwise: otherwise.length > 0 ? [...otherwise, ...remarks] : [],
  });
}
