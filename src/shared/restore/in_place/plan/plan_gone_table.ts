/** A table that was dropped, made again as it was with all that hung on it, and nothing else. Pure. */
import { HoldfastError } from "../../../errors.ts";
import type { Definition, SchemaCapture } from "../../../schema/capture_format.ts";
import { quoteQualified } from "../../../schema/quote.ts";
import type { DefinitionStep, InPlaceOptions } from "../change_format.ts";
import { planDefinitionChanges } from "./plan_definition_changes.ts";

export interface GoneTablePlan {
  /** Identities of what is made, the table's among them. */
  readonly makes: readonly string[];
  /** Statements in their order: before the rows, and behind them. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  /** What does not come back as it was, in sentences. */
  readonly notes: readonly string[];
}

/**
 * Its columns, defaults, own sequences, checks, indexes, keys, triggers, row security, policies, grants and owner; its partitions, and
 * the foreign keys of other tables that pointed to it. All of it in one transaction of the caller's. `was`: the definitions of then;
 * `is`: those of now. Errors: `table_not_found` where the definitions of then do not have it; `definitions_stuck` where its name is
 * taken, where something that it needs is gone too, and for what `planDefinitionChanges` refuses.
 */
export function planGoneTable(
  was: SchemaCapture,
  is: SchemaCapture,
  table: { readonly schema: string; readonly name: string },
  options: Pick<InPlaceOptions, "user" | "superuser" | "reachable">,
): GoneTablePlan {
  const name = quoteQualified(table.schema, table.name);
  const root = was.definitions.find((one) =>
    one.kind === "table" && one.schema === table.schema && one.name === table.name
  );
  if (root === undefined) throw new HoldfastError("table_not_found", `there was no table ${name}`);
  const there = new Map(is.definitions.map((one) => [one.identity, one]));
  const lost = was.definitions.filter(({ identity }) => !there.has(identity));
  const makes = hangingOn(root, lost, there);
  refuseMissing(was, there, makes);
  const made = was.definitions.filter(({ identity }) => makes.has(identity));
  const wanted: SchemaCapture = {
    ...is,
    definitions: [...is.definitions, ...made],
    tables: [...is.tables, ...was.tables.filter(({ identity }) => makes.has(identity))],
  };
  const plan = planDefinitionChanges(wanted, is, {
    ...options,
    sameDatabase: false,
    dropExtra: false,
    replacesRows: false,
  });
  const [refused] = plan.refused;
  if (refused !== undefined) throw new HoldfastError("definitions_stuck", `${refused.identity}: ${refused.reason}`);
  const other = plan.steps.find(({ identity }) => !makes.has(identity));
  if (other !== undefined) {
    throw new HoldfastError("definitions_stuck", `${other.identity} would have to be changed: ${other.reason}`);
  }
  const statements = (phases: readonly DefinitionStep["phase"][]) =>
    phases.flatMap((phase) => plan.steps.filter((step) => step.phase === phase).flatMap((step) => step.statements));
  return {
    makes: [...makes],
    before: statements(["before"]),
    after: [...valuesOf(was, makes), ...statements(["after", "last"])],
    notes: [
      ...plan.kept.filter(({ identity }) => makes.has(identity)).map((one) => `${one.identity}: ${one.reason}`),
      ...lost.filter((one) => !makes.has(one.identity) && one.dependsOn.some((need) => makes.has(need)))
        .map(({ identity }) => `${identity} used it, is gone too, and does not come back with it`),
    ],
  };
}

/** The table, what is part of it or hangs on it, and what ties other tables that are there to it. */
function hangingOn(
  root: Definition,
  lost: readonly Definition[],
  there: ReadonlyMap<string, Definition>,
): Set<string> {
  if (there.has(root.identity)) throw new HoldfastError("definitions_stuck", `${root.identity} is there`);
  const makes = new Set([root.identity]);
  const isTied = ({ kind, table, dependsOn }: Definition) =>
    kind === "foreign key" && there.has(table ?? "") && dependsOn.some((need) => makes.has(need));
  for (let before = 0; before < makes.size;) {
    before = makes.size;
    for (const one of lost) {
      if ((one.table !== null && makes.has(one.table)) || isTied(one)) makes.add(one.identity);
      // Its own sequences went with it; partitions go with the table that they are of.
      if (one.kind === "sequence ownership" && makes.has(one.identity)) {
        for (const need of one.dependsOn) if (!there.has(need)) makes.add(need);
      }
      if (one.kind === "partition" && one.table !== null && !there.has(one.table)) {
        if (one.dependsOn.some((need) => makes.has(need))) makes.add(one.table);
      }
    }
  }
  return makes;
}

function refuseMissing(
  was: SchemaCapture,
  there: ReadonlyMap<string, Definition>,
  makes: ReadonlySet<string>,
): void {
  const known = new Set(was.definitions.map(({ identity }) => identity));
  for (const { identity, dependsOn } of was.definitions) {
    if (!makes.has(identity)) continue;
    const missing = dependsOn.find((need) => known.has(need) && !there.has(need) && !makes.has(need));
    if (missing === undefined) continue;
    throw new HoldfastError("definitions_stuck", `${identity} needs ${missing}, which is gone too`, {
      hint: "Bring that back first; `restore-point` makes a copy of the whole database, with both in it.",
    });
  }
}

/** Its sequences go on where they were. */
function valuesOf({ sequences, definitions }: SchemaCapture, makes: ReadonlySet<string>): string[] {
  const names = definitions.filter(({ identity, kind }) => kind === "table" && makes.has(identity))
    .map((one) => quoteQualified(one.schema ?? "", one.name));
  const isOwn = (ownedBy: string | null) => names.some((name) => ownedBy?.startsWith(`${name}.`) === true);
  return sequences.filter(({ identity, ownedBy }) => makes.has(identity) || isOwn(ownedBy)).map((one) =>
    one.setValueSql
  );
}
