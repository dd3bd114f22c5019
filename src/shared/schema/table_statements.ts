/** CREATE TABLE and what belongs to it, as text. Pure. */
import type { Check, Column, Relation } from "./relations.ts";
import { foreignOptions, storageOptions } from "./options.ts";
import { quoteIdent, quoteQualified } from "./quote.ts";

export interface TableFacts {
  readonly relation: Relation;
  readonly columns: readonly Column[];
  readonly checks: readonly Check[];
  /** Parents by INHERITS, in order, with their columns; empty for a partition. */
  readonly parents: readonly { relation: Relation; columns: readonly Column[] }[];
}

export interface TablePlan {
  /**
   * `inherits`: made with INHERITS. `joins`: made whole, then told to inherit, since INHERITS would reorder its columns; its
   * inherited columns then count as its own. `alone`: no parents, or a partition that is attached later.
   */
  readonly mode: "alone" | "inherits" | "joins";
  readonly columns: readonly Column[];
  readonly checks: readonly Check[];
  readonly warnings: readonly string[];
}

export function planTable(facts: TableFacts): TablePlan {
  const { relation, columns, parents } = facts;
  const inlineChecks = facts.checks.filter((check) => check.validated && !isPostponed(check));
  if (parents.length === 0) return { mode: "alone", columns, checks: inlineChecks, warnings: [] };

  const expected = new Set(parents.flatMap((parent) => parent.columns.map((column) => column.name)));
  for (const column of columns) expected.add(column.name);
  const keepsOrder = [...expected].join("\n") === columns.map((column) => column.name).join("\n");
  if (!keepsOrder) {
    const name = quoteQualified(relation.schema, relation.name);
    return {
      mode: "joins",
      columns,
      checks: inlineChecks,
      warnings: columns.every((column) => column.isLocal) ? [] : [
        `table ${name} keeps its column order; its inherited columns become its own, so that dropping one from the parent leaves it`,
      ],
    };
  }
  return {
    mode: "inherits",
    columns: columns.filter((column) => column.isLocal || conflicts(column, parents)),
    checks: inlineChecks.filter((check) => check.isLocal),
    warnings: [],
  };
}

/** A check that calls a user's function may look at other tables: it is added once the data is there. */
export function isPostponed(check: Check): boolean {
  return check.callsUserFunction;
}

function conflicts(column: Column, parents: TableFacts["parents"]): boolean {
  const texts = new Set(parentColumns(column, parents).map((parent) => parent.defaultText));
  return texts.size > 1 || (column.generated !== "" && !texts.has(column.defaultText));
}

function parentColumns(column: Column, parents: TableFacts["parents"]): Column[] {
  return parents.flatMap((parent) => parent.columns.filter((other) => other.name === column.name));
}

export const defaultKey = (column: Column): string => `pg_attrdef:${column.defaultOid ?? "none"}`;

/** Statements that make the table, without the defaults and checks named in `apart`. */
export function createTable(facts: TableFacts, plan: TablePlan, apart: ReadonlySet<string>): string[] {
  const { relation } = facts;
  const foreign = relation.relkind === "f";
  const name = quoteQualified(relation.schema, relation.name);
  const lines = relation.ofType === null
    ? plan.columns.map((column) => columnLine(column, apart))
    : plan.columns.flatMap((column) => typedColumnLine(column, apart));
  for (const check of plan.checks) {
    if (!apart.has(`pg_constraint:${check.oid}`)) {
      lines.push(`constraint ${quoteIdent(check.name)} ${check.definition}`);
    }
  }
  const body = lines.length > 0 ? ` (\n    ${lines.join(",\n    ")}\n)` : relation.ofType === null ? " ()" : "";
  const parents = facts.parents.map((parent) => quoteQualified(parent.relation.schema, parent.relation.name));
  const options = [...storageOptions(relation.options), ...storageOptions(relation.toastOptions, "toast.")];
  const statements = [
    "create " + (relation.persistence === "u" ? "unlogged " : "") + (foreign ? "foreign " : "") + `table ${name}` +
    (relation.ofType === null ? "" : ` of ${relation.ofType}`) + body +
    (plan.mode === "inherits" ? ` inherits (${parents.join(", ")})` : "") +
    (relation.partitionKey === null ? "" : ` partition by ${relation.partitionKey}`) +
    (relation.accessMethod === null || relation.accessMethod === "heap"
      ? ""
      : ` using ${quoteIdent(relation.accessMethod)}`) +
    (options.length > 0 ? ` with (${options.join(", ")})` : "") +
    (foreign ? ` server ${quoteIdent(relation.server ?? "")}${foreignOptions(relation.foreignOptions)}` : ""),
  ];
  if (plan.mode === "joins") { for (const parent of parents) statements.push(`alter table ${name} inherit ${parent}`); }

  const alter = `alter ${foreign ? "foreign table" : "table"} only ${name}`;
  const printed = new Set(plan.columns);
  for (const column of facts.columns) {
    const target = `${alter} alter column ${quoteIdent(column.name)}`;
    if (!printed.has(column)) statements.push(...inheritedColumn(column, facts.parents, target, apart));
    statements.push(...columnSettings(column, target));
  }
  if (relation.replicaIdentity === "f") statements.push(`${alter} replica identity full`);
  if (relation.replicaIdentity === "n" && !foreign) statements.push(`${alter} replica identity nothing`);
  return statements;
}

/** SET STORAGE, COMPRESSION, STATISTICS and attribute options that differ from the type's. */
export function columnSettings(column: Column, target: string): string[] {
  const statements: string[] = [];
  if (column.storage !== null) statements.push(`${target} set storage ${column.storage}`);
  if (column.compression !== null) statements.push(`${target} set compression ${column.compression}`);
  if (column.statistics !== null) statements.push(`${target} set statistics ${column.statistics}`);
  if (column.options !== null && column.options.length > 0) {
    statements.push(`${target} set (${storageOptions(column.options).join(", ")})`);
  }
  return statements;
}

function columnLine(column: Column, apart: ReadonlySet<string>): string {
  return `${quoteIdent(column.name)} ${column.type}` + foreignOptions(column.foreignOptions) +
    (column.collation === null ? "" : ` collate ${column.collation}`) + constraintText(column, apart);
}

function typedColumnLine(column: Column, apart: ReadonlySet<string>): string[] {
  const text = constraintText(column, apart);
  return text === "" ? [] : [`${quoteIdent(column.name)} with options${text}`];
}

function constraintText(column: Column, apart: ReadonlySet<string>): string {
  let text = "";
  if (column.defaultText !== null) {
    if (column.generated === "s") text += ` generated always as (${column.defaultText}) stored`;
    else if (column.generated !== "") text += ` generated always as (${column.defaultText})`;
    else if (!apart.has(defaultKey(column))) text += ` default ${column.defaultText}`;
  }
  return column.notNull ? `${text} not null` : text;
}

function inheritedColumn(
  column: Column,
  parents: TableFacts["parents"],
  target: string,
  apart: ReadonlySet<string>,
): string[] {
  const above = parentColumns(column, parents);
  const statements: string[] = [];
  if (column.generated === "" && above.some((parent) => parent.defaultText !== column.defaultText)) {
    if (column.defaultText === null) statements.push(`${target} drop default`);
    else if (!apart.has(defaultKey(column))) statements.push(`${target} set default ${column.defaultText}`);
  }
  if (column.notNull && above.every((parent) => !parent.notNull)) statements.push(`${target} set not null`);
  if (!column.notNull && above.some((parent) => parent.notNull)) statements.push(`${target} drop not null`);
  return statements;
}
