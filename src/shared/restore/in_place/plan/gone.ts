/** What came after the backup and goes: told, and made again afterwards where it only stood in the way. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import type { GoneDefinition } from "../change_format.ts";
import { effectiveStatements, standsAlone } from "../compare/compared.ts";
import { isAside } from "../texts/aside_types.ts";
import type { Planning } from "./planning.ts";
import { replacePolicy } from "./policy_changes.ts";
import { resetAccess } from "./reset_access.ts";

/** None for what the backup has, and for what a stopped restore has left. */
export function goneOf(planning: Planning, one: Definition, reason: string): GoneDefinition[] {
  const { changes, options } = planning;
  if (changes.wasBy.has(one.identity) || isAside(one.name)) return [];
  const again = !options.dropExtra && isAlone(planning, one);
  const made = one.kind === "policy" && again ? replacePolicy(one) : effectiveStatements(one);
  const reset = planning.resetsAccess ? resetAccess(one) : null;
  const statements = [...made, ...(reset === null ? [] : [reset]), ...one.ownership, ...one.privileges];
  return [{ identity: one.identity, kind: one.kind, reason, statements, again }];
}

/** It changes nothing that is in the backup: by itself, or on something that came after the backup too. */
function isAlone({ changes: { isBy, wasBy } }: Planning, one: Definition): boolean {
  // The table of a partition is the partition, which keeps its rows: it is the other table that would get them.
  if (one.kind === "partition") return !one.dependsOn.some((need) => wasBy.has(need) && need.startsWith("table "));
  if (one.table === null) return standsAlone(one);
  return isBy.has(one.table) && !wasBy.has(one.table);
}
