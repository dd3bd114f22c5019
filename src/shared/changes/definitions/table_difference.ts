/** What leads from one table to another: statements. Pure. */
import { HoldfastError } from "../../errors.ts";
import { splitOption, storageOptions } from "../../schema/options.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import type { DescribedColumn, DescribedTable, MissingValues, SequenceOptions } from "./definition_format.ts";

/** `create table` with all that the columns need; the rest is the difference to what the server then has. */
export function createDescribed(table: DescribedTable): string {
  const unlogged = table.persistence === "u" ? "unlogged " : "";
  const partitioned = table.partitionKey === null ? "" : ` partition by ${table.partitionKey}`;
  const options = storageOptions(table.options);
  const tail = partitioned + (options.length === 0 ? "" : ` with (${options.join(", ")})`);
  if (table.bound !== null) {
    return `create ${unlogged}table ${table.name} partition of ${table.parents[0] ?? ""} ${table.bound}${tail}`;
  }
  const columns = table.columns.filter((column) => column.isLocal).map(columnLine);
  const parents = table.parents.length === 0 ? "" : ` inherits (${table.parents.join(", ")})`;
  return `create ${unlogged}table ${table.name} (${columns.join(", ")})${parents}${tail}`;
}

export interface Hints {
  /** Columns that the same transaction dropped, as `schema.table.column`. */
  readonly dropped: ReadonlySet<string>;
  /** The new name of the one column whose name changed. */
  readonly renamed: string | null;
  /** What rows have in new columns that were there before them. */
  readonly missing?: MissingValues;
}

/** Columns that the same command dropped and added again: what hangs on them, and their values, go first. */
export function droppedAndBack(before: DescribedTable, after: DescribedTable, dropped: ReadonlySet<string>): string[] {
  const names = new Set(after.columns.map((column) => column.name));
  return before.columns.filter(({ name, isLocal }) =>
    isLocal && names.has(name) && dropped.has(`${after.name}.${quoteIdent(name)}`)
  ).map(({ name }) => `alter table ${after.name} drop column ${quoteIdent(name)} cascade`);
}

/**
 * Statements, in order. `ddl_not_replayable` where the difference does not say what was done: a column that is gone and was
 * neither dropped nor renamed, another kind of table, another expression of a generated column.
 */
export function tableDifference(before: DescribedTable, after: DescribedTable, hints: Hints): string[] {
  const unclear = (what: string) =>
    new HoldfastError("ddl_not_replayable", `${after.name} was altered inside a function or script: ${what}`);
  if (before.kind !== after.kind || before.partitionKey !== after.partitionKey) throw unclear("it is another kind");
  const alter = `alter table ${after.name}`;
  const statements: string[] = [];
  const renames = renamedColumn(before, after, hints);
  if (renames !== null) {
    statements.push(`${alter} rename column ${quoteIdent(renames.from)} to ${quoteIdent(renames.to)}`);
  }
  const was = new Map(before.columns.map((column) => {
    const name = column.name === renames?.from ? renames.to : column.name;
    return [name, { ...column, name }];
  }));
  const texts = new Map(after.constraints.map((constraint) => [constraint.name, constraint.text]));
  // A column's new name is in the texts of its constraints.
  const known = new Set(
    before.constraints.filter(({ name, text }) => texts.get(name) === text || (renames !== null && texts.has(name)))
      .map(({ name }) => name),
  );
  for (const { name, inherited } of before.constraints) {
    if (!inherited && !known.has(name)) statements.push(`${alter} drop constraint if exists ${quoteIdent(name)}`);
  }
  const names = new Set(after.columns.map((column) => column.name));
  for (const [name, column] of was) {
    if (names.has(name)) continue;
    if (!hints.dropped.has(`${after.name}.${quoteIdent(name)}`)) throw unclear(`column ${name} is gone`);
    if (column.isLocal) statements.push(`${alter} drop column ${quoteIdent(name)} cascade`);
  }
  for (const column of after.columns) {
    const old = was.get(column.name);
    if (old !== undefined) statements.push(...columnDifference(alter, old, column, unclear));
    else if (column.isLocal) statements.push(...newColumn(alter, after.name, column, hints));
  }
  for (const column of after.columns) {
    const old = was.get(column.name);
    if (column.storage !== null && old?.storage !== column.storage) {
      statements.push(`${alter} alter column ${quoteIdent(column.name)} set storage ${storageWord(column.storage)}`);
    }
    if (column.compression !== null && old?.compression !== column.compression) {
      const method = column.compression === "l" ? "lz4" : "pglz";
      statements.push(`${alter} alter column ${quoteIdent(column.name)} set compression ${method}`);
    }
    if ((old?.statistics ?? null) !== column.statistics) {
      statements.push(`${alter} alter column ${quoteIdent(column.name)} set statistics ${column.statistics ?? -1}`);
    }
    if ((old?.comment ?? null) !== column.comment) {
      statements.push(`comment on column ${after.name}.${quoteIdent(column.name)} is ${textOrNull(column.comment)}`);
    }
  }
  if (before.comment !== after.comment) {
    statements.push(`comment on table ${after.name} is ${textOrNull(after.comment)}`);
  }
  statements.push(...optionsDifference(alter, before.options, after.options));
  statements.push(...familyDifference(alter, before, after));
  for (const { name, text, inherited } of after.constraints) {
    if (inherited || known.has(name)) continue;
    statements.push(`${alter} add constraint ${quoteIdent(name)} ${usingIndex(before, after, text) ?? text}`);
  }
  for (const what of ["trigger", "rule"] as const) {
    const [were, are] = what === "trigger" ? [before.triggers, after.triggers] : [before.rules, after.rules];
    for (const [name, state] of Object.entries(are)) {
      // One that the target does not have may be none of the backup's.
      if (were[name] === undefined || were[name] === state) continue;
      statements.push(`${alter} ${stateWords[state] ?? "enable"} ${what} ${quoteIdent(name)}`);
    }
  }
  if (before.clusterIndex !== after.clusterIndex) {
    statements.push(
      `${alter} ${after.clusterIndex === null ? "set without cluster" : `cluster on ${after.clusterIndex}`}`,
    );
  }
  if (before.persistence !== after.persistence) {
    statements.push(`${alter} set ${after.persistence === "u" ? "unlogged" : "logged"}`);
  }
  if (before.rowSecurity !== after.rowSecurity) {
    statements.push(`${alter} ${after.rowSecurity ? "enable" : "disable"} row level security`);
  }
  if (before.forceRowSecurity !== after.forceRowSecurity) {
    statements.push(`${alter} ${after.forceRowSecurity ? "" : "no "}force row level security`);
  }
  if (before.replicaIdentity !== after.replicaIdentity || before.replicaIndex !== after.replicaIndex) {
    statements.push(...replicaIdentity(alter, after));
  }
  if (before.owner !== after.owner) statements.push(`${alter} owner to ${quoteIdent(after.owner)}`);
  return statements;
}

const stateWords: Readonly<Record<string, string>> = {
  O: "enable",
  D: "disable",
  R: "enable replica",
  A: "enable always",
};

function textOrNull(text: string | null): string {
  return text === null ? "null" : quoteLiteral(text);
}

/** `primary key using index …`, where an index that was there before has become the constraint's; null: it is a new one. */
function usingIndex(before: DescribedTable, after: DescribedTable, text: string): string | null {
  const [, kind, key, options] =
    /^(PRIMARY KEY|UNIQUE) \((.*?)\)(?: INCLUDE \(.*?\))?((?: NOT)? DEFERRABLE.*)?$/.exec(text) ?? [];
  const left = new Set(after.uniqueIndexes.map(({ name }) => name));
  const index = before.uniqueIndexes.find((one) => one.key === key && !left.has(one.name));
  return index === undefined ? null : `${kind?.toLowerCase()} using index ${index.name}${options ?? ""}`;
}

/** Is it the table that the log describes? Texts of expressions are left out: two versions of the server write them differently. */
export function isSameTable(one: DescribedTable, other: DescribedTable): boolean {
  const statesOf = (have: DescribedTable, of: DescribedTable) =>
    [[have.triggers, of.triggers], [have.rules, of.rules]].map(([own = {}, others = {}]) =>
      Object.keys(own).filter((name) => others[name] !== undefined).sort().map((name) => [name, own[name]])
    );
  return shapeOf(one) === shapeOf(other) &&
    JSON.stringify(statesOf(one, other)) === JSON.stringify(statesOf(other, one));
}

/** The same defaults and constraints? Of two versions of the server only what both write in the same way is compared. */
export function hasSameTexts(one: DescribedTable, other: DescribedTable): boolean {
  const textsOf = (table: DescribedTable) =>
    JSON.stringify([
      one.major === other.major ? table.columns.map((column) => column.default) : [],
      one.major === other.major ? table.bound : null,
      table.constraints.filter(({ text }) => one.major === other.major || text.startsWith("FOREIGN KEY"))
        .map(({ name, text }) => [name, text]).sort(),
    ]);
  return textsOf(one) === textsOf(other);
}

function shapeOf(table: DescribedTable): string {
  return JSON.stringify([
    table.name,
    table.kind,
    table.persistence,
    table.bound === null,
    table.parents,
    [...namesOf(table.partitions)].sort(),
    [...table.options].sort(),
    table.rowSecurity,
    table.forceRowSecurity,
    table.columns.map((column) => [
      column.name,
      column.type,
      column.collation,
      column.notNull,
      column.generated,
      column.default === null,
      column.identity?.always,
      column.identity === null ? null : sequenceText(column.identity),
    ]),
    table.constraints.map((constraint) => constraint.name).sort(),
  ]);
}

function familyDifference(alter: string, before: DescribedTable, after: DescribedTable): string[] {
  const [had, has] = [namesOf(before.partitions), namesOf(after.partitions)];
  const gone = [...had].filter((name) => !has.has(name)).map((name) => `${alter} detach partition ${name}`);
  const come = (after.partitions ?? []).filter(({ name }) => !had.has(name)).map(({ name, bound }) =>
    `${alter} attach partition ${name} ${bound}`
  );
  if (after.bound !== null) return [...gone, ...come];
  const left = before.parents.filter((parent) => !after.parents.includes(parent));
  const joined = after.parents.filter((parent) => !before.parents.includes(parent));
  return [
    ...gone,
    ...come,
    ...left.map((parent) => `${alter} no inherit ${parent}`),
    ...joined.map((parent) => `${alter} inherit ${parent}`),
  ];
}

function namesOf(partitions: DescribedTable["partitions"]): Set<string> {
  return new Set((partitions ?? []).map(({ name }) => name));
}

function renamedColumn(before: DescribedTable, after: DescribedTable, hints: Hints) {
  if (hints.renamed === null || before.columns.some((column) => column.name === hints.renamed)) return null;
  const names = new Set(after.columns.map((column) => column.name));
  const gone = before.columns.filter((column) => !names.has(column.name));
  const [only] = gone;
  return only === undefined || gone.length > 1 ? null : { from: only.name, to: hints.renamed };
}

/** One without nulls and without a default got the value of its rows from a default that the same command took away. */
function newColumn(alter: string, table: string, column: DescribedColumn, { missing = [] }: Hints): string[] {
  const value = missing.find((one) => one.table === table && one.column === column.name)?.value ?? null;
  if (!column.notNull || column.default !== null || value === null) {
    return [`${alter} add column ${columnLine(column)}`];
  }
  const filled = { ...column, default: `${quoteLiteral(value)}::${column.type}` };
  return [
    `${alter} add column ${columnLine(filled)}`,
    `${alter} alter column ${quoteIdent(column.name)} drop default`,
  ];
}

function columnLine(column: DescribedColumn): string {
  const collation = column.collation === null ? "" : ` collate ${column.collation}`;
  let tail = "";
  if (column.identity !== null) tail = ` ${identityText(column.identity)}`;
  else if (column.default !== null) {
    tail = column.generated === "" ? ` default ${column.default}` : ` generated always as (${column.default}) stored`;
  }
  return `${quoteIdent(column.name)} ${column.type}${collation}${tail}${column.notNull ? " not null" : ""}`;
}

function identityText(identity: NonNullable<DescribedColumn["identity"]>): string {
  return `generated ${identity.always ? "always" : "by default"} as identity (sequence name ${identity.sequence} ${
    sequenceText(identity)
  })`;
}

export function sequenceText(options: SequenceOptions): string {
  return `start with ${options.start} increment by ${options.increment} minvalue ${options.min}` +
    ` maxvalue ${options.max} cache ${options.cache} ${options.cycle ? "cycle" : "no cycle"}`;
}

function columnDifference(
  alter: string,
  before: DescribedColumn,
  after: DescribedColumn,
  unclear: (what: string) => HoldfastError,
): string[] {
  const target = `${alter} alter column ${quoteIdent(after.name)}`;
  const statements: string[] = [];
  const isRetyped = before.type !== after.type || before.collation !== after.collation;
  if (before.generated !== after.generated) {
    if (after.generated !== "") throw unclear(`column ${after.name} became a generated one`);
    statements.push(`${target} drop expression`);
  } else if (after.generated !== "" && before.default !== after.default && !isRetyped) {
    throw unclear(`the expression of ${after.name} changed`);
  }
  if (before.identity !== null && after.identity === null) statements.push(`${target} drop identity`);
  if (isRetyped) {
    // A default that does not fit the new type stands in the way; it is set again below.
    if (before.default !== null && before.generated === "") statements.push(`${target} drop default`);
    const collation = after.collation === null ? "" : ` collate ${after.collation}`;
    statements.push(`${target} type ${after.type}${collation}`);
  }
  if (after.generated === "" && after.identity === null) {
    if (after.default === null && before.default !== null && before.generated === "") {
      if (!isRetyped) statements.push(`${target} drop default`);
    } else if (after.default !== null && (isRetyped || before.default !== after.default)) {
      statements.push(`${target} set default ${after.default}`);
    }
  }
  if (before.notNull !== after.notNull) statements.push(`${target} ${after.notNull ? "set" : "drop"} not null`);
  if (after.identity !== null) {
    if (before.identity === null) statements.push(`${target} add ${identityText(after.identity)}`);
    else {
      if (before.identity.always !== after.identity.always) {
        statements.push(`${target} set generated ${after.identity.always ? "always" : "by default"}`);
      }
      if (sequenceText(before.identity) !== sequenceText(after.identity)) {
        statements.push(`alter sequence ${before.identity.sequence} ${sequenceText(after.identity)}`);
      }
    }
  }
  return statements;
}

function storageWord(storage: string): string {
  return storage === "p" ? "plain" : storage === "e" ? "external" : storage === "m" ? "main" : "extended";
}

function optionsDifference(alter: string, before: readonly string[], after: readonly string[]): string[] {
  const names = new Set(after.map((option) => splitOption(option).name));
  const gone = before.map((option) => splitOption(option).name).filter((name) => !names.has(name));
  const set = after.filter((option) => !before.includes(option));
  return [
    ...(gone.length === 0 ? [] : [`${alter} reset (${gone.map(quoteIdent).join(", ")})`]),
    ...(set.length === 0 ? [] : [`${alter} set (${storageOptions(set).join(", ")})`]),
  ];
}

function replicaIdentity(alter: string, table: DescribedTable): string[] {
  switch (table.replicaIdentity) {
    case "f":
      return [`${alter} replica identity full`];
    case "n":
      return [`${alter} replica identity nothing`];
    case "i":
      return table.replicaIndex === null ? [] : [`${alter} replica identity using index ${table.replicaIndex}`];
    default:
      return [`${alter} replica identity default`];
  }
}
