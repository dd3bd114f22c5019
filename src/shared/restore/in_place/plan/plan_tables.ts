/** Tables that are altered: columns before the rows, NOT NULL and checks after them. Pure. */
import type { Definition } from "../../../schema/capture_format.ts";
import { familyOf, parentOf } from "../compare/changes.ts";
import { relationName } from "../texts/identity_names.ts";
import type { TableStatement } from "../texts/table_changes.ts";
import { emptyTables } from "./empty_table.ts";
import { locksOf } from "./locks.ts";
import type { Planning } from "./planning.ts";

/** What uses objects that are made anew is taken off the tables first. */
export function planLoosening({ changes, steps }: Planning): void {
  for (const [identity, table] of changes.tables) {
    const one = changes.isBy.get(identity);
    if (one === undefined) continue;
    steps.add(one, {
      action: "alter",
      phase: "before",
      statements: table.loosen,
      reason: "defaults, checks or generated columns use what is made anew",
      locks: locksOf(one, false),
    });
  }
}

/** Those that came after the backup and use what is made anew. */
export function planExtraTables(planning: Planning): void {
  const { is, wasBy } = planning.changes;
  for (const one of is) if (!wasBy.has(one.identity)) planTable(planning, one);
}

/** Nothing for what is no table, or does not differ. */
export function planTable(planning: Planning, one: Definition): void {
  const changes = planning.changes.tables.get(one.identity)?.changes;
  if (changes === undefined) return;
  const { options, steps } = planning;
  const name = relationName(one.identity);
  const byParent = doneByParent(planning, one.identity);
  const own = (list: readonly TableStatement[]) =>
    list.filter((each) => each.recursive === null || !byParent.has(each.recursive)).map((each) => each.text);
  const gone = changes.dropped.size === 0
    ? ""
    : `; columns that came after the backup go with their values: ${[...changes.dropped].join(", ")}`;
  const comesBack = options.replacesRows && planning.changes.wasBy.has(one.identity);
  const empties = comesBack ? familyOf(planning.changes, one.identity).map(relationName) : [];
  const convert = own(changes.convert);
  steps.add(one, {
    action: "alter",
    phase: "before",
    statements: own(changes.before),
    reason: `its definition differs${gone}`,
    gone: [...changes.dropped].map((column) => ({
      identity: `column ${column} of ${name}`,
      kind: "column",
      reason: "it came after the backup, and went with its values",
      statements: [],
      again: false,
    })),
    locks: `${name}: against everybody, for a moment`,
  });
  steps.add(one, {
    action: "alter",
    phase: "before",
    statements: convert,
    otherwise: comesBack ? [...emptyTables(empties), ...convert] : [],
    empties,
    reason: `types of columns differ: ${[...changes.retyped].join(", ")}`,
    locks: `${name}: against everybody, while it is written anew`,
  });
  steps.add(one, {
    action: "alter",
    phase: "after",
    statements: own(changes.after),
    reason: "what only the rows of the backup satisfy",
    locks: `${name}: against everybody, while its rows are read`,
  });
  for (const kept of changes.keeps) steps.keep(one, kept);
}

/** Words of the statements that an ALTER of the parent does to its partitions as well. */
function doneByParent({ changes }: Planning, identity: string): ReadonlySet<string> {
  const parent = parentOf(changes, identity);
  const above = parent === null ? undefined : changes.tables.get(parent)?.changes;
  if (above === undefined) return new Set();
  return new Set([...above.before, ...above.convert, ...above.after].flatMap((each) => each.recursive ?? []));
}
