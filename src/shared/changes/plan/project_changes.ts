/** What a project takes of the changes to the tables of its services. Pure. */
import { HoldfastError } from "../../errors.ts";
import type { BackupContents } from "../../restore/contents.ts";
import type { SkippedObject } from "../../restore/plan_definitions.ts";
import {
  filesWarning,
  isFiles,
  isOfPlatform,
  lostColumnsWarning,
  rowsIntoProject,
  serviceOf,
} from "../../restore/project_rows.ts";
import type { TargetFacts } from "../../restore/target.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import type { TargetRules } from "../replay/apply_rows.ts";
import type { SeenTable } from "./seen_tables.ts";

export interface ProjectChanges extends Omit<TargetRules, "ownRows"> {
  /** Tables of which no change goes into the project. */
  readonly leftOut: ReadonlySet<string>;
  /** The other ones. */
  readonly taken: readonly SeenTable[];
  /** Rows of storage.objects at the point. */
  readonly filesNotRestored: number;
  readonly skipped: readonly SkippedObject[];
  readonly warnings: readonly string[];
}

export interface TableChoices {
  readonly withoutTables: readonly string[];
  readonly atFull: readonly string[];
}

/** Errors: `target_differs` where the project lacks a column by which rows are found again. */
export function planProjectChanges(
  seen: readonly SeenTable[],
  contents: BackupContents,
  facts: TargetFacts,
  choices: TableChoices,
): ProjectChanges {
  const leftOut = new Set<string>();
  const taken: SeenTable[] = [];
  const columnsLost = new Map<string, ReadonlySet<string>>();
  const skipped: SkippedObject[] = [];
  const warnings: string[] = [];
  const shapes = new Map(contents.capture.tables.map((shape) => [quoteQualified(shape.schema, shape.name), shape]));
  const chosen = new Set([...choices.withoutTables, ...choices.atFull]);
  for (const table of facts.kind === "project" ? seen : []) {
    const name = quoteQualified(table.schema, table.name);
    const shape = shapes.get(name);
    if (chosen.has(name) || (shape !== undefined && !isOfPlatform(shape.dataOwner))) continue;
    const isBookkeeping = (shape ?? serviceOf(table))?.restoreData === false;
    if (isFiles(table) || isBookkeeping) {
      leftOut.add(name);
      continue;
    }
    const columns = [...new Set(table.relations.flatMap((relation) => relation.columns.map((column) => column.name)))];
    const verdict = rowsIntoProject(table, columns, facts);
    if ("reason" in verdict) {
      leftOut.add(name);
      skipped.push({ identity: `changes of table ${name}`, reason: verdict.reason });
      continue;
    }
    taken.push(table);
    const kept = new Set(verdict.keep.map((at) => columns[at]));
    const notTaken = new Set(columns.filter((column) => !kept.has(column)));
    if (notTaken.size === 0) continue;
    checkKeys(table, name, notTaken);
    columnsLost.set(name, notTaken);
    // The full backup's own are named with its rows.
    const known = new Set(shape?.copyColumns);
    const lost = verdict.lost.filter((column) => !known.has(column));
    if (lost.length > 0) warnings.push(lostColumnsWarning(`table ${name}`, lost));
  }
  const files = facts.kind === "project" ? filesAtPoint(seen, contents, choices) : 0;
  return {
    leftOut,
    taken,
    columnsLost,
    notTruncated: new Set(taken.map((table) => quoteQualified(table.schema, table.name))),
    filesNotRestored: files,
    skipped,
    warnings: [
      ...skipped.map((one) => `not restored: ${one.identity}: ${one.reason}`),
      ...warnings,
      ...filesWarning(files),
    ],
  };
}

function checkKeys(table: SeenTable, name: string, notTaken: ReadonlySet<string>): void {
  if (!table.rowsChange) return;
  const key = table.relations.filter((relation) => relation.identity !== "full")
    .flatMap((relation) => relation.columns).find((column) => column.isKey && notTaken.has(column.name));
  if (key === undefined) return;
  throw new HoldfastError(
    "target_differs",
    `the project's ${name} does not take column ${quoteIdent(key.name)}, by which the change stream finds its rows`,
    { hint: "Take the table as of the full backup with --at-full, or leave it out with --without-table." },
  );
}

const files = "storage.objects";

function filesAtPoint(seen: readonly SeenTable[], contents: BackupContents, choices: TableChoices): number {
  if (choices.withoutTables.includes(files)) return 0;
  const shape = contents.capture.tables.find(isFiles);
  const atFull = contents.tables.find((table) => table.identity === shape?.identity)?.rows ?? 0;
  const changes = seen.find(isFiles);
  if (changes === undefined || choices.atFull.includes(files)) return atFull;
  // The stream does not tell whose a file was that is removed: one of ours from before the full backup counts as well.
  return Math.max(0, (changes.emptied ? 0 : atFull) + changes.addedRows);
}
