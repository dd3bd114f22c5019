/** What differs between two captures, and what must make way for it. Pure. */
import type { SchemaCapture } from "../../../schema/capture_format.ts";
import type { InPlaceOptions } from "../change_format.ts";
import type { Changes } from "./changes.ts";
import { clearNames } from "./clear_names.ts";
import { compareDefinition } from "./compare_definition.ts";
import { Findings } from "./findings.ts";
import { judgeExtra } from "./judge_extra.ts";
import { makeWay } from "./make_way.ts";

/** What the backup has and `is` has not, is in `was` alone: it only has to be made. */
export function findChanges(
  was: SchemaCapture,
  is: SchemaCapture,
  options: InPlaceOptions,
  replaceableViews: ReadonlySet<string>,
): Changes {
  const findings = new Findings(was, is, options, replaceableViews);
  for (const one of findings.is) {
    const former = findings.wasBy.get(one.identity);
    if (former === undefined) judgeExtra(findings, one);
    else compareDefinition(findings, former, one);
  }
  clearNames(findings);
  makeWay(findings);
  return findings.changes();
}
