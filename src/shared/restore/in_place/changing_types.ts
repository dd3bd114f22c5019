/** Types whose values are going to be read otherwise. Pure. */
import type { SchemaCapture } from "../../schema/capture_format.ts";
import type { DefinitionPlan } from "./change_format.ts";
import { isType } from "./compare/compared.ts";
import { typeName } from "./texts/identity_names.ts";

/** `schema.name`, quoted, of the types of `was` that the plan changes or makes, and of those that are made from them. */
export function changingTypes(plan: DefinitionPlan, was: SchemaCapture): ReadonlySet<string> {
  const changing = new Set(plan.steps.map((step) => step.identity));
  const names = new Set<string>();
  // What a type is made from stands before it.
  for (const one of was.definitions) {
    if (!isType(one)) continue;
    if (!changing.has(one.identity) && !one.dependsOn.some((need) => changing.has(need) && isTypeIdentity(need))) {
      continue;
    }
    changing.add(one.identity);
    names.add(typeName(one.identity));
  }
  return names;
}

const isTypeIdentity = (identity: string) => /^(?:type|domain|composite type) /.test(identity);
