/** Which rows and sequence values go where. Pure. */
import type { SequenceShape, TableShape } from "../schema/capture_format.ts";
import { quoteLiteral, quoteQualified } from "../schema/quote.ts";
import type { SqlStep } from "./apply.ts";
import type { BackupContents, ContentTable } from "./contents.ts";
import type { TableLoad } from "./load.ts";
import type { SkippedObject } from "./plan_definitions.ts";
import { isFiles, isOfPlatform, lostColumnsWarning, rowsIntoProject } from "./project_rows.ts";
import { ownSchema, stateSchema, type TargetFacts } from "./target.ts";

export interface DataChoice {
  /** Largest first. */
  readonly loads: readonly TableLoad[];
  readonly sequences: readonly SqlStep[];
  readonly skipped: readonly SkippedObject[];
  /** Rows of storage.objects, which come back with their bytes only. */
  readonly filesNotRestored: number;
  readonly warnings: readonly string[];
}

/** Tables and sequences that the target does not have. */
export interface AbsentObjects {
  has(object: { readonly schema: string; readonly name: string }): boolean;
}

/** Jobs come back as definitions, switched off; their rows would run. */
const jobsOwner = "extension pg_cron";

export function chooseData(
  contents: BackupContents,
  facts: TargetFacts,
  absent: AbsentObjects,
): DataChoice {
  const shapes = new Map(contents.capture.tables.map((shape) => [shape.identity, shape]));
  const loads: TableLoad[] = [];
  const skipped: SkippedObject[] = [];
  const warnings: string[] = [];
  let filesNotRestored = 0;

  for (const table of contents.tables) {
    const shape = shapes.get(table.identity);
    if (shape === undefined) {
      skipped.push({ identity: `rows of ${table.identity}`, reason: "the capture does not describe the table" });
      continue;
    }
    if (isLeftOut(shape, facts)) continue;
    const reason = absent.has(shape) ? "the target does not have the table" : null;
    if (facts.kind === "project" && isOfPlatform(shape.dataOwner)) {
      if (isFiles(shape)) {
        filesNotRestored = table.rows;
        continue;
      }
      const verdict = reason === null ? intoPlatform(table, shape, facts) : reason;
      if (typeof verdict !== "string") {
        loads.push(verdict.load);
        warnings.push(...verdict.warnings);
      } else if (table.rows > 0) skipped.push({ identity: rowsOf(table), reason: verdict });
      continue;
    }
    if (reason === null) loads.push(asCaptured(table, shape));
    else if (table.rows > 0) skipped.push({ identity: rowsOf(table), reason });
  }

  const values = contents.capture.sequences.filter((sequence) => !isLeftOut(sequence, facts));
  const sequences: SqlStep[] = [];
  for (const sequence of values) {
    const verdict = sequenceStep(sequence, facts, absent);
    if (typeof verdict === "string") skipped.push({ identity: `value of ${sequence.identity}`, reason: verdict });
    else sequences.push(verdict);
  }
  loads.sort((a, b) => b.rawBytes - a.rawBytes);
  return { loads, sequences, skipped, filesNotRestored, warnings };
}

/** Bookkeeping of the platform's services belongs to the project; on a bare PostgreSQL nobody else keeps it. */
function isLeftOut(shape: TableShape | SequenceShape, facts: TargetFacts): boolean {
  return shape.schema === ownSchema || shape.schema === stateSchema || shape.dataOwner === jobsOwner ||
    (!shape.restoreData && facts.kind === "project");
}

const rowsOf = (table: ContentTable): string => `${table.rows} rows of ${table.identity}`;

function asCaptured(table: ContentTable, shape: TableShape): TableLoad {
  return {
    identity: table.identity,
    schema: shape.schema,
    name: shape.name,
    columns: table.columns,
    keep: table.columns.map((_, index) => index),
    rowFilter: shape.rowFilter,
    rows: table.rows,
    rawBytes: table.rawBytes,
    chunks: table.chunks,
  };
}

/** Column by column by name: what the target computes itself is left out, what it no longer has is named. */
function intoPlatform(
  table: ContentTable,
  shape: TableShape,
  facts: TargetFacts,
): { readonly load: TableLoad; readonly warnings: readonly string[] } | string {
  const verdict = rowsIntoProject(shape, table.columns, facts);
  if ("reason" in verdict) return verdict.reason;
  const { keep, lost } = verdict;
  return {
    load: { ...asCaptured(table, shape), keep },
    warnings: lost.length === 0 ? [] : [lostColumnsWarning(table.identity, lost)],
  };
}

/** A sequence of the platform's own goes forward only; all others get the captured value. */
function sequenceStep(
  sequence: SequenceShape,
  facts: TargetFacts,
  absent: AbsentObjects,
): SqlStep | string {
  if (absent.has(sequence)) return "the target does not have the sequence";
  if (facts.kind !== "project" || !isOfPlatform(sequence.dataOwner)) {
    return { title: `value of ${sequence.identity}`, statements: [sequence.setValueSql] };
  }
  const target = facts.sequences.find((one) => one.schema === sequence.schema && one.name === sequence.name);
  if (target === undefined) return "the project does not have the sequence";
  if (!target.writable) return `${facts.user} may not set it`;
  const name = quoteQualified(sequence.schema, sequence.name);
  return {
    title: `value of ${sequence.identity}`,
    statements: [
      `select pg_catalog.setval(${quoteLiteral(name)}, ${sequence.lastValue}, ${sequence.isCalled}) from ${name}` +
      ` where last_value < ${sequence.lastValue} or (last_value = ${sequence.lastValue} and not is_called)`,
    ],
  };
}
