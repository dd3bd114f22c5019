/** Which rows the ledger takes away, and in what order they are looked for: parents before children. Pure. */
import type { TableName } from "../restore/project_rows.ts";
import { quoteIdent } from "../schema/quote.ts";
import { groupsInOrder } from "../rows/ownership/link_groups.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { decisionOn, type Link, usersTable, type Way, waysOf } from "../rows/ownership/ways.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { Graph, GraphTable } from "../rows/past/graph.ts";
import type { Identity, LedgerEntry } from "./entry.ts";
import { isErasedSql } from "./hashes.ts";

/** What leads from a row to one that may have been erased. */
export interface RemovalWay {
  /** What tells the other row. */
  readonly to: Identity;
  /** Own columns, in the order of `to.columns`. */
  readonly columns: readonly string[];
  /** It leads to a user and to nothing else. */
  readonly isUser: boolean;
  readonly followed: boolean;
  /** Columns that are emptied so that the row can stay; none: it cannot. */
  readonly clear: readonly string[];
}

export interface RemovalTable extends TableName {
  readonly table: GraphTable;
  /** Its primary key, and whatever foreign keys refer to. */
  readonly identities: readonly Identity[];
  readonly ways: readonly RemovalWay[];
  /** As `OwnershipRule`; `never` is as `shared`: nothing of it is a user's. */
  readonly rule: "reach" | "owned" | "shared";
}

/** Tables that can lead to each other are looked at again until nothing more is found. */
export interface RemovalGroup {
  readonly tables: readonly RemovalTable[];
  readonly cyclic: boolean;
}

export const usersIdentity: Identity = { ...usersTable, columns: ["id"] };

export const identityKey = ({ schema, name, columns }: Identity): string => JSON.stringify([schema, name, columns]);

/** Of all entries; what a later one says of the same table or key holds. */
export function mapOf(entries: readonly LedgerEntry[]): BackupMap {
  const all = <T>(of: (map: BackupMap) => readonly T[]): T[] => {
    const seen = new Map<string, T>();
    for (const { map } of entries) {
      for (const one of of(map)) {
        const key = JSON.stringify(one);
        seen.delete(key);
        seen.set(key, one);
      }
    }
    return [...seen.values()];
  };
  return { version: 1, keys: all((map) => map.keys), users: all((map) => map.users), tables: all((map) => map.tables) };
}

/** Errors: none. */
export function planRemoval(graph: Graph, map: BackupMap): RemovalGroup[] {
  const ways = waysOf(graph, map);
  const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
  const removals = new Map(
    graph.tables.map((table) => [
      nameOf(table),
      {
        schema: table.schema,
        name: table.name,
        table,
        identities: identitiesOf(table, ways),
        ways: ways.filter(({ from }) => nameOf(from) === nameOf(table)).flatMap((way) => removalWay(way, table)),
        rule: ruleOf(table, map),
      } satisfies RemovalTable,
    ]),
  );
  const leadsTo = ({ ways: own }: RemovalTable) =>
    own.flatMap(({ to }) => {
      const target = tables.get(nameOf(to));
      return target === undefined ? [] : removals.get(nameOf(target)) ?? [];
    });
  return groupsInOrder([...removals.values()], leadsTo).map((group) => ({
    tables: group,
    cyclic: group.some((one) => leadsTo(one).some((other) => group.includes(other))),
  }));
}

/** By columns that are stored. */
export function identitiesOf(table: GraphTable, ways: readonly Way[]): Identity[] {
  const stored = new Set(table.columns.map(({ name }) => name));
  const { schema, name } = table;
  const sets = [
    ...(table.key === null ? [] : [table.key]),
    ...ways.filter(({ link }) => nameOf(link.to) === nameOf(table)).map(({ link }) => link.toColumns),
  ].filter((columns) => columns.length > 0 && columns.every((column) => stored.has(column)));
  const identities = sets.map((columns): Identity => ({ schema, name, columns: [...columns].sort() }));
  return [...new Map(identities.map((one) => [identityKey(one), one])).values()];
}

const ruleOf = (table: TableName, map: BackupMap): RemovalTable["rule"] => {
  const rows = decisionOn(table, map)?.rows;
  return rows === "owned" ? "owned" : rows === undefined ? "reach" : "shared";
};

function removalWay({ link, reason }: Way, table: GraphTable): RemovalWay[] {
  const stored = new Set(table.columns.map(({ name }) => name));
  if (!link.columns.every((column) => stored.has(column))) return [];
  return [{
    ...targetOf(link),
    isUser: link.userColumn !== null,
    followed: reason === null,
    clear: clearable(link, table),
  }];
}

function targetOf({ columns, to, toColumns, userColumn }: Link): Pick<RemovalWay, "to" | "columns"> {
  if (userColumn !== null) return { to: usersIdentity, columns: [userColumn] };
  const pairs = columns.map((column, at) => ({ column, other: toColumns[at] ?? "" }))
    .sort((a, b) => a.other < b.other ? -1 : a.other > b.other ? 1 : 0);
  return {
    to: { schema: to.schema, name: to.name, columns: pairs.map(({ other }) => other) },
    columns: pairs.map(({ column }) => column),
  };
}

/** Columns of the key that may be empty, and that the row is not told by. */
export function clearable({ columns }: Pick<Link, "columns">, { columns: all, key }: GraphTable): string[] {
  return columns.filter((column) =>
    key?.includes(column) !== true && all.some(({ name, notNull }) => name === column && !notNull)
  );
}

/** Conditions on rows `t` of a relation that has the columns of the table. */
export interface RemovalConditions {
  /** Rows that go; null: none can. */
  readonly remove: string | null;
  /** Rows that stay and lose a reference. */
  readonly clear: readonly { readonly columns: readonly string[]; readonly where: string }[];
}

/**
 * What `known` identities tell. A row goes that is in the ledger itself; that leads to an erased one and to no other user (of a
 * table that the map gives to whoever its rows reach: to whomever else); and one that cannot stay without what it refers to.
 */
export function removalConditions(
  { identities, ways, rule }: RemovalTable,
  relation: string,
  known: ReadonlySet<string>,
): RemovalConditions {
  const own = identities.filter((one) => known.has(identityKey(one)))
    .map((one) => isErasedSql(one, one.columns.map((column) => `t.${quoteIdent(column)}::text`)));
  const telling = ways.filter(({ to }) => known.has(identityKey(to)))
    .map((way) => ({ way, isErased: leadsToErased(way, relation) }));
  const followed = telling.filter(({ way }) => way.followed);
  const others = followed.filter(({ way }) => way.isUser)
    .map(({ way, isErased }) => `(t.${quoteIdent(way.columns[0] ?? "")} is not null and not ${isErased})`);
  const reaching = followed.map(({ isErased }) => isErased);
  const theirs = rule === "shared" || reaching.length === 0
    ? []
    : rule === "owned" || others.length === 0
    ? reaching
    : [`((${reaching.join(" or ")}) and not (${others.join(" or ")}))`];
  const stuck = telling.filter(({ way }) => way.clear.length === 0).map(({ isErased }) => isErased);
  const remove = [...new Set([...own, ...theirs, ...stuck])];
  return {
    remove: remove.length === 0 ? null : remove.join("\n or "),
    clear: telling.filter(({ way }) => way.clear.length > 0)
      .map(({ way, isErased }) => ({ columns: way.clear, where: isErased })),
  };
}

/** Each value that occurs is hashed once. As texts, which every type has. */
function leadsToErased({ to, columns }: RemovalWay, relation: string): string {
  const texts = columns.map((column) => `t.${quoteIdent(column)}::text`);
  const fields = columns.map((_, at) => `v.x${at}`);
  return `coalesce((${texts.join(", ")}) in (select ${fields.join(", ")} from (select distinct ${
    texts.map((text, at) => `${text} as x${at}`).join(", ")
  } from ${relation} as t) as v where ${isErasedSql(to, fields)}), false)`;
}
