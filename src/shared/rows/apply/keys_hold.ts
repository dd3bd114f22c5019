/** Whether keys hold: foretold for a plan, verified before a commit. Replica role checks no foreign key. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent } from "../../schema/quote.ts";
import { fitted, keyOfDelta, liveRelation, type Pair, type Part, sideKeyOfDelta, sideValue } from "./difference.ts";
import type { ForeignKey, KeyEnd } from "./keys.ts";
import { verifyDeferrable } from "./deferrable_keys.ts";

/** Rows that a key is in the way of. */
export interface KeyTrouble {
  readonly what: "a parent is missing" | "still referred to";
  readonly constraint: string;
  /** Quoted name of the other table. */
  readonly other: string;
  readonly rows: number;
}

/** A table that rows go into, at one end of a key. */
export interface End {
  readonly pair: Pair;
  /** What stands behind FROM for those of its rows that the key is about. */
  readonly rows: string;
  /** They are rows of one of its partitions. */
  readonly below: boolean;
}

export interface Ends {
  readonly key: ForeignKey;
  readonly children: readonly End[];
  readonly parents: readonly End[];
}

export function endsOf(keys: readonly ForeignKey[], pairs: readonly Pair[]): Ends[] {
  const byOid = new Map(pairs.map((pair) => [pair.fit.live.oid, pair]));
  const at = (ends: readonly KeyEnd[], keyRows: string): End[] =>
    ends.flatMap(({ oid, below }) => {
      const pair = byOid.get(oid);
      return pair === undefined ? [] : [{ pair, rows: below ? keyRows : liveRelation(pair), below }];
    });
  return keys.map((key) => ({
    key,
    children: at(key.children, key.childRows),
    parents: at(key.parents, key.parentRows),
  }));
}

/** What the keys of these pairs will be in the way of, were the difference applied. Nothing is locked. */
export async function foretellKeys(
  connection: Connection,
  keys: readonly ForeignKey[],
  pairs: readonly Pair[],
): Promise<Map<Pair, KeyTrouble[]>> {
  const found = new Map<Pair, KeyTrouble[]>();
  const note = async ({ pair }: End, sql: string | null, trouble: Omit<KeyTrouble, "rows">) => {
    const rows = sql === null ? 0 : await countOf(connection, sql);
    if (rows > 0) found.set(pair, [...found.get(pair) ?? [], { ...trouble, rows }]);
  };
  for (const { key, children, parents } of endsOf(keys, pairs)) {
    for (const child of children) {
      const what = "a parent is missing";
      await note(child, parentless(key, child, parents), { what, constraint: key.name, other: key.parent });
    }
    for (const parent of parents) {
      const what = "still referred to";
      await note(parent, referred(key, parent, children), { what, constraint: key.name, other: key.child });
    }
  }
  return found;
}

function parentless(key: ForeignKey, child: End, parents: readonly End[]): string | null {
  const condition = child.pair.fit.key === null ? null : lacksParent(key, child, parents);
  const { side, delta } = child.pair;
  return condition === null
    ? null
    : `select count(*) as n from ${side.sql} as s join ${delta} as d on ${sideKeyOfDelta(child.pair)}
        where d."action" <> 'delete' and not d."done" and ${condition}`;
}

/**
 * Condition on rows of then (`s`) that their parent is neither there nor among the rows of then. Null: a column of the key is
 * not theirs, or it cannot be told which of them will be under the key.
 */
export function lacksParent(key: ForeignKey, { pair: child, below }: End, parents: readonly End[]): string | null {
  const has = (name: string) => child.fit.columns.some((column) => column.live === name);
  if (below || !key.pairs.every((pair) => has(pair.child))) return null;
  const value = (name: string) => sideValue(child, fitted(child, name));
  const live = key.pairs.map((pair) => `p.${quoteIdent(pair.parent)} ${pair.equals} ${value(pair.child)}`).join(
    " and ",
  );
  const stays = parents.filter(({ pair }) => pair.fit.key !== null).map(({ pair }) =>
    ` and not exists (select from ${pair.delta} as d where ${keyOfDelta(pair, "p")} and d."action" = 'delete')`
  ).join("");
  const back = parents.map(({ pair }) => parentAmongPast(key, pair, value)).join("");
  return `${filled(key.pairs.map((pair) => value(pair.child)))}
    and not exists (select from ${key.parentRows} as p where ${live}${stays})${back}`;
}

/** Every row of then is there afterwards. */
function parentAmongPast(key: ForeignKey, parent: Pair, value: (name: string) => string): string {
  const columns = key.pairs.map((pair) => parent.fit.columns.find((column) => column.live === pair.parent));
  if (columns.some((column) => column === undefined)) return "";
  const same = key.pairs.map((pair, at) => {
    const column = columns[at];
    return column === undefined ? "false" : `${sideValue(parent, column, "o")} ${pair.equals} ${value(pair.child)}`;
  });
  return ` and not exists (select from ${parent.side.sql} as o where ${same.join(" and ")})`;
}

/**
 * Live rows that refer to rows which are to be deleted, and stay as they are. What others come to refer to is theirs to tell.
 * Null: it cannot be told which rows are meant, since the parent has no key, or rows of a child without one go as well.
 */
function referred(key: ForeignKey, { pair: parent, rows }: End, children: readonly End[]): string | null {
  if (parent.fit.key === null || children.some(({ pair }) => pair.fit.key === null)) return null;
  const same = key.pairs.map((pair) => `l.${quoteIdent(pair.parent)} ${pair.equals} c.${quoteIdent(pair.child)}`);
  const stays = children.map(({ pair }) =>
    ` and not exists (select from ${pair.delta} as x where ${keyOfDelta(pair, "c", "x")} and x."action" <> 'insert')`
  ).join("");
  const back = parentAmongPast(key, parent, (name) => `c.${quoteIdent(name)}`);
  return `select count(*) as n from ${rows} as l join ${parent.delta} as d on ${keyOfDelta(parent, "l")}
      join ${key.childRows} as c on ${same.join(" and ")}
    where d."action" = 'delete' and not d."done"${stays}${back}`;
}

/** A composite value with a null in it is a value: `is not null` would say that it is none. */
function filled(columns: readonly string[]): string {
  return columns.map((column) => `${column} is distinct from null`).join(" and ");
}

/**
 * After the rows are in, before the commit: locks the parents of what came back, so that nobody deletes one meanwhile, and
 * counts rows that refer to nothing, on both ends of every key; deferrable unique keys and exclusions too (see
 * `verifyDeferrable`). Errors: `rows_conflict` naming the constraint.
 */
export async function verifyKeys(
  connection: Connection,
  keys: readonly ForeignKey[],
  pairs: readonly Pair[],
  part: Part,
): Promise<void> {
  await verifyDeferrable(connection, pairs, part);
  for (const { key, children, parents } of endsOf(keys, pairs)) {
    for (const child of children) await verifyChild(connection, key, child, part);
    for (const parent of parents) await verifyParent(connection, key, parent);
  }
}

async function verifyChild(connection: Connection, key: ForeignKey, { pair, rows }: End, part: Part): Promise<void> {
  const touched = pair.fit.key === null
    ? `${rows} as c`
    : `${rows} as c join ${pair.delta} as d on ${keyOfDelta(pair, "c")} and d."action" <> 'delete' and ${part("d")}`;
  const columns = key.pairs.map(({ child }) => `c.${quoteIdent(child)}`);
  if (key.whole && columns.length > 1) {
    const empty = columns.map((column) => `(${column} is not distinct from null)::int`).join(" + ");
    const mixed = await countOf(
      connection,
      `select count(*) as n from ${touched} where ${empty} between 1 and ${columns.length - 1}`,
    );
    if (mixed > 0) throw broken(key, `rows of ${key.child} would have a value in some of its columns only`);
  }
  // A key may name a column twice.
  const wanted = `select distinct ${
    columns.map((column, at) => `${column} as c${at}`).join(", ")
  } from ${touched} where ${filled(columns)}`;
  const same = key.pairs.map(({ parent, equals }, at) => `p.${quoteIdent(parent)} ${equals} w.c${at}`);
  await connection.query(
    `select count(*) from (
       select from (${wanted}) as w join ${key.parentRows} as p on ${same.join(" and ")} for key share of p
     ) as locked`,
  );
  const orphans = await countOf(
    connection,
    `select count(*) as n from (${wanted}) as w
      where not exists (select from ${key.parentRows} as p where ${same.join(" and ")})`,
  );
  if (orphans > 0) throw broken(key, `rows of ${key.child} would refer to rows of ${key.parent} that are not there`);
}

async function verifyParent(connection: Connection, key: ForeignKey, { pair }: End): Promise<void> {
  const old = key.pairs.map(({ parent, child, equals }) => `b.${quoteIdent(parent)} ${equals} c.${quoteIdent(child)}`);
  const now = key.pairs.map(({ parent, child, equals }) => `p.${quoteIdent(parent)} ${equals} c.${quoteIdent(child)}`);
  const left = await countOf(
    connection,
    `select count(*) as n from ${pair.before} as b join ${key.childRows} as c on ${old.join(" and ")}
      where not exists (select from ${key.parentRows} as p where ${now.join(" and ")})`,
  );
  if (left > 0) throw broken(key, `rows of ${key.child} refer to rows of ${key.parent} that would be gone`);
}

function broken(key: ForeignKey, why: string): HoldfastError {
  return new HoldfastError("rows_conflict", `foreign key ${key.name}: ${why}`, {
    hint:
      "The last transaction was undone. Restore the other table as well, or restore beside and take the rows by hand.",
  });
}

async function countOf(connection: Connection, sql: string): Promise<number> {
  const [row] = await connection.query(sql);
  return Number(row?.["n"] ?? 0);
}
