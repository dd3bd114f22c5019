/** Row changes of many transactions, gathered and then applied to a target at once. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { deleteByKey, deleteByRow, insertRows, replaceKept } from "./apply_statements.ts";
import {
  indexOn,
  readTargetTables,
  sqlNameOf,
  type TargetIndex,
  type TargetTable,
  totalIndex,
} from "./apply_target.ts";
import { emptyTables } from "./empty_tables.ts";
import { KeyedFold } from "./fold.ts";
import { withoutOwnRow } from "./own_rows.ts";
import { CountedFold } from "./fold_counted.ts";
import type { Relation, RowChange, StreamColumn, Truncate, Value } from "../decode/messages.ts";

/** Row changes as the stream has them, not what is left of them after folding. */
export interface Counts {
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
}

export type TruncateOptions = Pick<Truncate, "restartIdentity">;

/** What a target takes otherwise than the stream has it, by `sqlNameOf` its tables. */
export interface TargetRules {
  /** Columns whose values are left out. Never all of those by which rows are found again. */
  readonly columnsLost: ReadonlyMap<string, ReadonlySet<string>>;
  /** Emptied by DELETE: tables that the stream does not know may refer to them. */
  readonly notTruncated: ReadonlySet<string>;
  /** Of which the target has no rows of our own buckets: the column that says so. */
  readonly ownRows: ReadonlyMap<string, string>;
}

const asStreamed: TargetRules = { columnsLost: new Map(), notTruncated: new Set(), ownRows: new Map() };

/** What a change and a value cost beside their characters, in bytes, measured roughly on V8. */
const changeBytes = 100;
const valueBytes = 24;

/** How the rows of a table are told apart. */
type Gathered =
  | { readonly by: "key"; readonly fold: KeyedFold }
  /** All values; the target may have a better key, so that folding waits until it is asked. */
  | { readonly by: "row"; readonly changes: RowChange[] }
  /** Nothing: rows can only be added. */
  | { readonly by: "nothing"; readonly rows: (readonly Value[])[] };

interface GatheredTable {
  readonly relation: Relation;
  /** With the columns that the target takes. */
  readonly taken: Relation;
  /** Places of these columns in a streamed row; null: all of them. */
  readonly places: readonly number[] | null;
  /** See `TargetRules.ownRows`; null: the target has all rows of the table. */
  readonly bucket: string | null;
  gathered: Gathered;
}

/**
 * Whole transactions in commit order, between two changes of definitions. What they come to is applied table by table:
 * first everything that disappears from a table, then everything that appears in it.
 * The target's session has `session_replication_role = replica` and the pinned text settings of `openSession`, and nobody
 * else writes to the tables.
 */
export class RowGroup {
  readonly #rules: TargetRules;
  readonly #tables = new Map<number, GatheredTable>();
  readonly #truncates: {
    readonly relations: readonly Relation[];
    readonly restartIdentity: boolean;
    readonly isWhole: boolean;
  }[] = [];
  #counts = { inserted: 0, updated: 0, deleted: 0 };
  #changes = 0;
  #bytes = 0;

  constructor(rules: TargetRules = asStreamed) {
    this.#rules = rules;
  }

  /** Row changes and truncates since `clear`. */
  get changes(): number {
    return this.#changes;
  }

  /** Memory that the gathered changes take at most, roughly; `apply` takes about as much again for one table at a time. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * `relation` is the one that the change names. The change's values are kept, not copied.
   * Errors: `counts_differ` when the change contradicts an earlier one; `internal` when the relation has other columns
   * than before, or the message lacks what it should have. The group is of no use after an error.
   */
  add(relation: Relation, streamed: RowChange): void {
    const { gathered, places, taken, bucket } = this.#table(relation);
    const told = places === null ? streamed : atPlaces(streamed, places);
    const change = bucket === null ? told : withoutOwnRow(taken, bucket, told);
    if (change === null) return;
    if ("gone" in change) {
      if (gathered.by !== "key") throw new HoldfastError("internal", `${sqlNameOf(relation)} names a row by nothing`);
      gathered.fold.drop(change.gone);
      return this.#grow(change.gone);
    }
    if (gathered.by === "key") gathered.fold.add(change);
    else if (gathered.by === "row") gathered.changes.push(change);
    else if (change.kind === "insert") gathered.rows.push(change.row);
    else throw new HoldfastError("internal", `${sqlNameOf(relation)} has no identity, yet a row of it changes`);
    this.#grow(change.kind !== "insert" && change.old !== null ? change.old.values : []);
    if (change.kind !== "delete") this.#bytes += bytesOf(change.row);
    if (change.kind === "insert") this.#counts.inserted++;
    else if (change.kind === "update") this.#counts.updated++;
    else this.#counts.deleted++;
  }

  /**
   * Empties the tables at this place in the stream; what was gathered of them does not matter any more. `isWhole`: these
   * are all that the command emptied, those included that it reached by CASCADE.
   */
  truncate(relations: readonly Relation[], { restartIdentity }: TruncateOptions, isWhole = true): void {
    for (const relation of relations) {
      const table = this.#table(relation);
      table.gathered = nothingYet(table.taken);
    }
    this.#truncates.push({ relations, restartIdentity, isWhole });
    this.#changes++;
    this.#bytes += changeBytes;
  }

  /**
   * Writes everything, in the caller's transaction, which must be rolled back after an error. The group stays as it is.
   * Errors: `counts_differ` when the target does not have exactly the rows that change (named: table and numbers);
   * `target_differs` for a table, a column or an index that the target lacks; those of the connection.
   * `onTable` is called after each table.
   */
  async apply(connection: Connection, onTable: (name: string) => void = () => {}): Promise<Counts> {
    const tables = [...this.#tables.values()];
    if (tables.length > 0) {
      const targets = await readTargetTables(connection, tables.map(({ taken }) => taken));
      const targetOf = (relation: Relation): TargetTable => {
        const target = targets.get(sqlNameOf(relation));
        if (target === undefined) throw new HoldfastError("internal", "a table of the group was not looked up");
        return target;
      };
      for (const { relations, restartIdentity, isWhole } of this.#truncates) {
        const emptied = relations.map(targetOf);
        const mayTruncate = isWhole && !emptied.some(({ sqlName }) => this.#rules.notTruncated.has(sqlName));
        await emptyTables(connection, emptied, { restartIdentity, mayTruncate });
      }
      for (const table of tables) {
        const target = targetOf(table.relation);
        await applyTable(connection, table, target);
        onTable(target.sqlName);
      }
    }
    return { ...this.#counts };
  }

  clear(): void {
    this.#tables.clear();
    this.#truncates.length = 0;
    this.#counts = { inserted: 0, updated: 0, deleted: 0 };
    this.#changes = 0;
    this.#bytes = 0;
  }

  #grow(values: readonly Value[]): void {
    this.#changes++;
    this.#bytes += changeBytes + bytesOf(values);
  }

  #table(relation: Relation): GatheredTable {
    const table = this.#tables.get(relation.oid);
    if (table === undefined) {
      const taken = takenOf(relation, this.#rules);
      const places = taken === relation ? null : taken.columns.map((column) => relation.columns.indexOf(column));
      const bucket = this.#rules.ownRows.get(sqlNameOf(relation)) ?? null;
      const added = { relation, taken, places, bucket, gathered: nothingYet(taken) };
      this.#tables.set(relation.oid, added);
      return added;
    }
    if (table.relation !== relation && !sameRelation(table.relation, relation)) {
      throw new HoldfastError("internal", `${sqlNameOf(relation)} changed its columns within a group`);
    }
    return table;
  }
}

/** The relation as a target takes it; the same object where it takes all of it. */
export function takenOf(relation: Relation, { columnsLost }: Pick<TargetRules, "columnsLost">): Relation {
  const lost = columnsLost.get(sqlNameOf(relation));
  if (lost === undefined || !relation.columns.some(({ name }) => lost.has(name))) return relation;
  return { ...relation, columns: relation.columns.filter(({ name }) => !lost.has(name)) };
}

function atPlaces(change: RowChange, places: readonly number[]): RowChange {
  const pick = (values: readonly Value[]) => places.map((at) => values[at] ?? null);
  const pickOld = <Old extends { readonly values: readonly Value[] }>(old: Old) => ({
    ...old,
    values: pick(old.values),
  });
  switch (change.kind) {
    case "insert":
      return { ...change, row: pick(change.row) };
    case "update":
      return { ...change, row: pick(change.row), old: change.old === null ? null : pickOld(change.old) };
    case "delete":
      return { ...change, old: pickOld(change.old) };
  }
}

function nothingYet(relation: Relation): Gathered {
  if (relation.identity === "full") return { by: "row", changes: [] };
  const keyAt = relation.columns.flatMap((column, at) => column.isKey ? [at] : []);
  if (keyAt.length === 0) return { by: "nothing", rows: [] };
  return { by: "key", fold: new KeyedFold(sqlNameOf(relation), keyAt) };
}

async function applyTable(connection: Connection, table: GatheredTable, target: TargetTable): Promise<void> {
  const { taken: { columns }, gathered } = table;
  const mayMiss = table.bucket !== null;
  if (gathered.by === "nothing") return await insertRows(connection, target, columns, gathered.rows);
  if (gathered.by === "key") {
    const keys = columns.filter(({ isKey }) => isKey).map(({ name }) => name);
    return await applyKeyed(connection, target, columns, keys, gathered.fold, mayMiss);
  }
  const index = totalIndex(target, table.taken);
  if (index !== undefined) {
    const isKey = columns.map(({ name }) => index.columns.some((column) => column.name === name));
    const fold = new KeyedFold(target.sqlName, isKey.flatMap((is, at) => is ? [at] : []));
    for (const change of gathered.changes) fold.add(change);
    const keys = columns.filter((_, at) => isKey[at]).map(({ name }) => name);
    return await applyKeyed(connection, target, columns, keys, fold, mayMiss);
  }
  const fold = new CountedFold(target.sqlName);
  for (const change of gathered.changes) fold.add(change);
  const { deleted, inserted } = fold.effect();
  await deleteByRow(connection, target, columns, deleted);
  await insertRows(connection, target, columns, inserted);
}

async function applyKeyed(
  connection: Connection,
  target: TargetTable,
  columns: readonly StreamColumn[],
  keys: readonly string[],
  fold: KeyedFold,
  mayMiss: boolean,
): Promise<void> {
  const { deleted, kept, inserted } = fold.effect();
  if (deleted.length + kept.length > 0) {
    const index = inOrderOf(keys, indexOn(target, keys));
    await deleteByKey(connection, target, index, deleted, mayMiss);
    await replaceKept(connection, target, index, columns, kept);
  }
  await insertRows(connection, target, columns, inserted);
}

/** An index lists its columns in an order of its own; keys have that of the stream. */
function inOrderOf(keys: readonly string[], index: TargetIndex): TargetIndex {
  const columns = [...index.columns].sort((a, b) => keys.indexOf(a.name) - keys.indexOf(b.name));
  return { ...index, columns };
}

function sameRelation(a: Relation, b: Relation): boolean {
  return a.schema === b.schema && a.name === b.name && a.identity === b.identity &&
    a.columns.length === b.columns.length && a.columns.every((column, at) => {
      const other = b.columns[at];
      return other !== undefined && column.name === other.name && column.typeOid === other.typeOid &&
        column.typeModifier === other.typeModifier && column.isKey === other.isKey;
    });
}

function bytesOf(values: readonly Value[]): number {
  let bytes = values.length * valueBytes;
  for (const value of values) if (typeof value === "string") bytes += value.length;
  return bytes;
}
