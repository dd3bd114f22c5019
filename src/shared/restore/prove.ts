/** Whether a restored database is what its source is: both sides read again and compared. */
import { leftOutSchemas } from "../backup/tables.ts";
import type { Connection } from "../postgres/connection.ts";
import { captureSchema } from "../schema/capture.ts";
import { applySettings } from "../schema/apply_settings.ts";
import type { Definition, SchemaCapture, SequenceShape, TableShape } from "../schema/capture_format.ts";
import { quoteQualified } from "../schema/quote.ts";
import { stableJobs } from "../schema/unnamed_jobs.ts";
import { historyColumn, historyTable, isOwnMigration } from "./migration_history.ts";
import { platformMark } from "./judge_definition.ts";
import { hashRows, type RowHash } from "./row_hash.ts";
import type { TargetKind } from "./target.ts";

export const differenceKinds = [
  "missing",
  "extra",
  "definition",
  "owner",
  "privileges",
  "rows",
  "sequence",
  "foreign key",
] as const;

export interface Difference {
  readonly kind: (typeof differenceKinds)[number];
  readonly name: string;
  /** What differs, for people; never a row's value. */
  readonly detail: string;
}

/** What a restore said it would do differently; a `RestoreResult` is one. */
export interface ProveExpectations {
  readonly target: TargetKind;
  readonly skipped: readonly { readonly identity: string }[];
  /** The attributes of other roles are the target's own. */
  readonly rolesCreated: readonly string[];
  readonly ownersKept: readonly string[];
  readonly settingsLost: readonly string[];
  /** Rows were put back where they were taken: sequences of the user's went on meanwhile and are never behind. */
  readonly inPlace?: boolean;
}

/** Everything that is compared, of one side. */
export interface ProvenSide {
  readonly capture: SchemaCapture;
  /** By the table's identity. */
  readonly hashes: ReadonlyMap<string, RowHash>;
}

/**
 * Reads both databases, each in one snapshot, and returns every difference that the restore did not announce; an empty list
 * is the proof. Neither side is changed. Errors: those of the connections and of `captureSchema`.
 */
export async function proveCopy(
  source: Connection,
  target: Connection,
  expected: ProveExpectations,
): Promise<Difference[]> {
  const [from, to] = await Promise.all([
    beginSide(source, await leftOutSchemas(source)),
    beginSide(target, await leftOutSchemas(target)),
  ]);
  const tables = comparedTables(from, to, expected);
  const [fromHashes, toHashes] = await Promise.all([hashTables(source, tables), hashTables(target, tables)]);
  await Promise.all([source.execute("commit"), target.execute("commit")]);
  return differencesOf({ capture: from, hashes: fromHashes }, { capture: to, hashes: toHashes }, expected);
}

/** Begins a transaction that sees one snapshot and only reads, and gives the definitions in it. */
export async function beginSide(connection: Connection, leaveOutSchemas: readonly string[]): Promise<SchemaCapture> {
  await connection.execute(applySettings.join(";\n"));
  await connection.execute("begin isolation level repeatable read read only");
  const capture = await captureSchema(connection, { leaveOutSchemas });
  await connection.execute(applySettings.join(";\n"));
  return capture;
}

interface ComparedTable {
  readonly identity: string;
  readonly schema: string;
  readonly name: string;
  readonly columns: readonly string[];
  readonly rowFilter: string | null;
}

/** Tables with rows on both sides, with the columns whose values a restore carries over and those computed from them. */
function comparedTables(from: SchemaCapture, to: SchemaCapture, expected: ProveExpectations): ComparedTable[] {
  const there = new Map(to.tables.map((shape) => [shape.identity, shape]));
  return from.tables.filter((shape) => isCompared(shape, expected)).flatMap((shape) => {
    const other = there.get(shape.identity);
    if (other === undefined) return [];
    const names = new Set(other.columns.map((column) => column.name));
    const columns = shape.columns.map((column) => column.name).filter((name) => names.has(name));
    const { identity, schema, name } = shape;
    const forgotten = identity === historyTable && columns.includes(historyColumn);
    return [{ identity, schema, name, columns, rowFilter: forgotten ? `not ${isOwnMigration}` : shape.rowFilter }];
  });
}

function isCompared(shape: TableShape, expected: ProveExpectations): boolean {
  const { identity } = shape;
  if (!shape.restoreData) return false;
  if (expected.skipped.some((one) => one.identity === identity || one.identity.endsWith(` rows of ${identity}`))) {
    return false;
  }
  return !(expected.target === "project" && shape.schema === "storage" && shape.name !== "buckets" &&
    shape.dataOwner === "storage");
}

async function hashTables(connection: Connection, tables: readonly ComparedTable[]): Promise<Map<string, RowHash>> {
  const hashes = new Map<string, RowHash>();
  for (const table of tables) hashes.set(table.identity, await hashRows(connection, table));
  return hashes;
}

/** Pure: `differencesOf` of two equal sides is empty. */
export function differencesOf(source: ProvenSide, target: ProvenSide, expected: ProveExpectations): Difference[] {
  return [
    ...definitionDifferences(source.capture, target.capture, expected),
    ...rowDifferences(source, target),
    ...sequenceDifferences(source.capture, target.capture, expected),
  ];
}

function definitionDifferences(
  source: SchemaCapture,
  target: SchemaCapture,
  expected: ProveExpectations,
): Difference[] {
  const skipped = new Set(expected.skipped.map((one) => one.identity));
  const isExpected = (one: Definition) => skipped.has(one.identity) || isTargetsOwn(one, expected);
  const byIdentity = ({ definitions }: SchemaCapture) =>
    new Map(stableJobs(definitions).filter((one) => !isExpected(one)).map((one) => [one.identity, one]));
  const [wanted, found] = [byIdentity(source), byIdentity(target)];
  const differences: Difference[] = [];
  for (const [identity, one] of wanted) {
    const other = found.get(identity);
    if (other === undefined) {
      differences.push({ kind: "missing", name: identity, detail: "the target does not have it" });
    } else differences.push(...compare(one, other, expected));
  }
  for (const identity of found.keys()) {
    if (!wanted.has(identity)) {
      differences.push({ kind: "extra", name: identity, detail: "the source does not have it" });
    }
  }
  return differences;
}

/** Roles that were there before, held logins, and on a project all that the platform makes itself. */
function isTargetsOwn(one: Definition, expected: ProveExpectations): boolean {
  if (one.kind === "login" || expected.settingsLost.includes(one.identity)) return true;
  // Settings belong to the server, and its first superuser has grants on all of them.
  if (one.kind === "parameter") return true;
  if (one.kind === "role") return !expected.rolesCreated.includes(one.name);
  if (expected.target === "project" && one.platform !== null) return true;
  if (one.kind === "membership" || one.kind === "settings") {
    return one.platform !== null && !expected.rolesCreated.some((role) => one.dependsOn.includes(`role ${role}`));
  }
  return false;
}

function compare(one: Definition, other: Definition, expected: ProveExpectations): Difference[] {
  const differences: Difference[] = [];
  const name = one.identity;
  const [mine, theirs] = [one, other].map((side) => statementsOf(side).join(";\n"));
  if (mine !== theirs) {
    differences.push({ kind: "definition", name, detail: `source: ${shorten(mine)} | target: ${shorten(theirs)}` });
  }
  if (one.ownership.join() !== other.ownership.join() && !expected.ownersKept.includes(name)) {
    differences.push({ kind: "owner", name, detail: `source: ${one.owner} | target: ${other.owner}` });
  }
  // The order of grants is the order in which they were made, and means nothing.
  const [given, got] = [one, other].map((side) => [...side.privileges].sort().join("; "));
  if (given !== got) {
    differences.push({ kind: "privileges", name, detail: `source: ${shorten(given)} | target: ${shorten(got)}` });
  }
  return differences;
}

/** Without the comments of the platform's schemas and roles, which carry the restore's mark on a bare PostgreSQL. */
function statementsOf(one: Definition): readonly string[] {
  const marked = one.kind === "role" ||
    (one.kind === "schema" && one.statements.some((text) => text.includes(platformMark)));
  return marked || (one.kind === "schema" && one.platform !== null)
    ? one.statements.filter((text) => !/^comment on (schema|role) /i.test(text))
    : one.statements;
}

function rowDifferences(source: ProvenSide, target: ProvenSide): Difference[] {
  return [...source.hashes].flatMap(([name, hash]) => {
    const other = target.hashes.get(name);
    if (other !== undefined && other.rows === hash.rows && other.sum === hash.sum && other.xor === hash.xor) return [];
    const detail = other === undefined
      ? "not compared"
      : other.rows === hash.rows
      ? `${hash.rows} rows, with other contents`
      : `source: ${hash.rows} rows | target: ${other.rows}`;
    return [{ kind: "rows" as const, name, detail }];
  });
}

function isAhead(one: SequenceShape, other: SequenceShape, descends: boolean): boolean {
  const [then, now] = [BigInt(one.lastValue), BigInt(other.lastValue)];
  return then === now ? other.isCalled : descends ? now < then : now > then;
}

/** A project's own sequences may be ahead, and in place all; others are as captured. */
function sequenceDifferences(
  source: SchemaCapture,
  target: SchemaCapture,
  expected: ProveExpectations,
): Difference[] {
  const there = new Map(target.sequences.map((one) => [one.identity, one]));
  const descending = new Set(
    target.definitions.filter(({ statements }) => statements.some((text) => / increment by -/.test(text)))
      .map(({ schema, name }) => `sequence ${quoteQualified(schema ?? "", name)}`),
  );
  return source.sequences.filter((one) =>
    one.restoreData && !expected.skipped.some((skipped) => skipped.identity === `value of ${one.identity}`)
  )
    .flatMap((one) => {
      const other = there.get(one.identity);
      const mayBeAhead = expected.inPlace === true || (expected.target === "project" && one.dataOwner !== "user");
      const ahead = mayBeAhead && other !== undefined && isAhead(one, other, descending.has(one.identity));
      if (ahead || (other?.lastValue === one.lastValue && other.isCalled === one.isCalled)) return [];
      const value = other === undefined ? "missing" : `${other.lastValue}, called ${other.isCalled}`;
      return [{
        kind: "sequence" as const,
        name: one.identity,
        detail: `source: ${one.lastValue}, called ${one.isCalled} | target: ${value}`,
      }];
    });
}

/** Definitions of any length, shown up to where people stop reading. */
function shorten(text: string | undefined): string {
  const one = (text ?? "").replace(/\s+/g, " ");
  return one.length > 400 ? `${one.slice(0, 400)} …` : one;
}
