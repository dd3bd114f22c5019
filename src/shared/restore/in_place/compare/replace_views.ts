/** Views that are replaced where they stand, so that grants, rules and what stands on them stay. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { isRemark, remarkChanges } from "../texts/remark_changes.ts";
import { mentions } from "../texts/sql_text.ts";
import type { Findings } from "./findings.ts";

/**
 * `was`: the view's definition in the backup, or its body's. False: its columns do not allow it, so it has to be dropped. One
 * that stands on a primary key (GROUP BY) is replaced once that is back.
 */
export function replaceView(findings: Findings, was: Definition, view: Definition): boolean {
  if (!findings.replaceableViews.has(view.identity)) return false;
  if (!findings.mayActAs(view.owner)) {
    findings.refuseForOwner(view, "it differs, but");
    return true;
  }
  const is = findings.isBy.get(was.identity) ?? view;
  const statements = was.statements.filter((text) => !isRemark(text));
  const remarks = remarkChanges(was.statements, is.statements);
  const waits = was.section === "post-data";
  findings.alterations.set(was.identity, {
    before: waits ? remarks : [...statements, ...remarks],
    after: waits ? statements : [],
    otherwise: [],
  });
  return true;
}

/**
 * Views that were to be replaced, but use what is made anew or goes: their columns may come out otherwise, or what they use
 * now stands in the way. They are dropped after all.
 */
export function dropUnreplaceable(findings: Findings): void {
  for (const identity of findings.replaceableViews) {
    const view = findings.isBy.get(identity);
    if (view === undefined || findings.isDropped(identity)) continue;
    const body = `body of ${identity}`;
    const replaced = [identity, body].find((one) => findings.alterations.has(one));
    if (replaced === undefined) continue;
    const both = [findings.wasBy.get(replaced), findings.isBy.get(replaced)].flatMap((one) => one ?? []);
    const reason = both.map((one) => obstacle(findings, one)).find((one) => one !== null) ?? null;
    if (reason !== null) findings.drop(view, `its definition differs, and ${reason}`);
  }
}

function obstacle(findings: Findings, view: Definition): string | null {
  for (const need of view.dependsOn) {
    if (findings.isDropped(need)) return `it uses ${need}, which is made anew or goes`;
    const changes = findings.tables.get(need)?.changes;
    if (changes === undefined) continue;
    const moved = [...changes.remade, ...changes.retyped, ...changes.dropped];
    const column = moved.find((name) => view.statements.some((text) => mentions(text, name)));
    if (column !== undefined) return `it uses column ${column} of ${need}, which changes`;
  }
  return null;
}
