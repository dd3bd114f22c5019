/** Whose rows are they? From auth.users down the foreign keys. Pure. */
import type { TableName } from "../../restore/project_rows.ts";
import { type Treatment, treatmentOf, type UserColumn } from "./auth_map.ts";
import { byName, nameOf } from "../past/fold_partitions.ts";
import type { Graph, GraphTable } from "../past/graph.ts";
import { groupsInOrder } from "./link_groups.ts";
import type { BackupMap } from "./map_file.ts";
import { decisionOn, type Link, suspectsOf, unmatchedOf, usersTable, type Way, waysOf } from "./ways.ts";

export { type Link, usersTable } from "./ways.ts";

/**
 * `reach`: owned where every user that the row reaches is this one, else shared. `owned`: owned as soon as it reaches this
 * one. `shared`: never owned.
 */
export type OwnershipRule = "reach" | "owned" | "shared";

/** A table whose rows can reach a user. */
export interface OwnedTable extends TableName {
  /** What tells its rows apart; null: no primary key over stored columns, so `tableoid` and `ctid`. */
  readonly key: readonly string[] | null;
  /** Of its stored columns, as `GraphColumn.type`. */
  readonly types: ReadonlyMap<string, string>;
  /** All ways from its rows towards users; empty for `auth.users` only. */
  readonly upward: readonly Link[];
  readonly rule: OwnershipRule;
  readonly treatment: Treatment;
  /** Part of the table's rows, 0 to 1, that may be one user's (share_limit.ts). */
  readonly share: number;
}

/** A way that is not gone, with the reason for people. */
export interface NotFollowed {
  readonly constraint: string | null;
  readonly from: TableName;
  readonly columns: readonly string[];
  readonly to: TableName;
  readonly reason: string;
}

export interface OwnershipPlan {
  /** `auth.users` first, then parents before children. Empty where there is no such table. */
  readonly groups: readonly OwnershipGroup[];
  readonly notFollowed: readonly NotFollowed[];
  /** Entries of the map that fit nothing in this graph, as sentences. */
  readonly unmatched: readonly string[];
  /** Columns that are no key, and whose names and types look like a user's id. They are not followed: a map decides. */
  readonly suspects: readonly UserColumn[];
}

/** One table, or all tables of a cycle, in the order of names. */
export interface OwnershipGroup {
  readonly tables: readonly OwnedTable[];
  /** Rows of its tables can lead to each other; so can those of a single table that refers to itself. */
  readonly cyclic: boolean;
}

/** Part of a table's rows that may be one user's, unless the map says otherwise. */
const defaultShare = 0.5;

/**
 * Every table whose rows can reach a user over ways that are followed (`waysOf`), and the ways that could have led on and
 * are not followed.
 */
export function planOwnership(graph: Graph, map: BackupMap): OwnershipPlan {
  const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
  if (!tables.has(nameOf(usersTable))) {
    return { groups: [], notFollowed: [], unmatched: unmatchedOf(graph, map), suspects: [] };
  }
  const { ways, reaching, groups } = settle(graph, waysOf(graph, map));
  return {
    groups: withoutOrphans(groups.map((group) => ({
      tables: group.map((table) => ownedTable(table, linksOf(table, ways, reaching), map)),
      cyclic: isCyclic(group, ways),
    }))),
    notFollowed: ways.flatMap(({ from, link, reason }) =>
      reason === null || !reaching.has(nameOf(link.to))
        ? []
        : [{ constraint: link.constraint, from, columns: link.columns, to: link.to, reason }]
    ),
    unmatched: [
      ...unmatchedOf(graph, map),
      ...map.tables.flatMap(({ table, rows }, index) =>
        tables.has(nameOf(table)) && rows !== undefined && rows !== "never" && !reaching.has(nameOf(table))
          ? [`tables[${index}]: no row of ${nameOf(table)} can reach a user`]
          : []
      ),
    ],
    suspects: suspectsOf(graph, ways),
  };
}

interface Settled {
  readonly ways: readonly Way[];
  /** Names of the tables whose rows can reach a user. */
  readonly reaching: ReadonlySet<string>;
  readonly groups: readonly GraphTable[][];
}

/** Closing ways of cycles changes what can be reached: again until none is left. */
function settle(graph: Graph, ways: readonly Way[]): Settled {
  const reaching = reachingTables(ways);
  const groups = groupsOf(graph, ways, reaching);
  const closed = closeUnclearCycles(ways, groups, new Map(graph.tables.map((table) => [nameOf(table), table])));
  return closed === null ? { ways, reaching, groups } : settle(graph, closed);
}

/** All tables of the plan in its order. */
export function ownedTables(plan: OwnershipPlan): readonly OwnedTable[] {
  return plan.groups.flatMap(({ tables }) => tables);
}

/** Names of auth.users and of all tables from which a followed way leads there. */
function reachingTables(ways: readonly Way[]): ReadonlySet<string> {
  const followed = ways.filter(({ reason }) => reason === null);
  const reaching = new Set([nameOf(usersTable)]);
  for (let before = 0; before !== reaching.size;) {
    before = reaching.size;
    for (const { from, link } of followed) if (reaching.has(nameOf(link.to))) reaching.add(nameOf(from));
  }
  return reaching;
}

function linksOf(table: TableName, ways: readonly Way[], reaching: ReadonlySet<string>): Link[] {
  return ways.filter(({ from, link, reason }) =>
    reason === null && nameOf(from) === nameOf(table) && reaching.has(nameOf(link.to))
  ).map(({ link }) => link);
}

function groupsOf(graph: Graph, ways: readonly Way[], reaching: ReadonlySet<string>): GraphTable[][] {
  const tables = graph.tables.filter((table) => reaching.has(nameOf(table)));
  const isUsers = (table: TableName) => nameOf(table) === nameOf(usersTable);
  const ordered = [...tables.filter(isUsers), ...tables.filter((table) => !isUsers(table)).toSorted(byName)];
  const byKey = new Map(ordered.map((table) => [nameOf(table), table]));
  return groupsInOrder(
    ordered,
    (table) => linksOf(table, ways, reaching).flatMap(({ to }) => byKey.get(nameOf(to)) ?? []),
  );
}

const inside = (group: readonly TableName[], { from, link, reason }: Way): boolean => {
  const names = new Set(group.map(nameOf));
  return reason === null && names.has(nameOf(from)) && names.has(nameOf(link.to));
};

const isCyclic = (group: readonly TableName[], ways: readonly Way[]): boolean => ways.some((way) => inside(group, way));

/** Equal values of these types have equal texts: rows of a cycle are followed by texts. */
const clearTypes =
  /^(uuid|smallint|integer|bigint|oid|boolean|date|text|bytea|character varying(\(\d+\))?|timestamp with(out)? time zone)$/;

/** The ways with those closed that cannot be followed in a cycle; null: there is none. */
function closeUnclearCycles(
  ways: readonly Way[],
  groups: readonly (readonly TableName[])[],
  tables: ReadonlyMap<string, GraphTable>,
): Way[] | null {
  const isClear = (table: TableName, columns: readonly string[]) =>
    columns.every((name) =>
      clearTypes.test(tables.get(nameOf(table))?.columns.find((column) => column.name === name)?.type ?? "")
    );
  const unclear = new Set(
    ways.filter((way) =>
      groups.some((group) => inside(group, way)) &&
      !(isClear(way.from, way.link.columns) && isClear(way.link.to, way.link.toColumns))
    ),
  );
  if (unclear.size === 0) return null;
  const reason = "it is part of a cycle, over a type whose texts do not tell whether values are equal";
  return ways.map((way) => unclear.has(way) ? { ...way, reason } : way);
}

function ownedTable(table: GraphTable, upward: readonly Link[], map: BackupMap): OwnedTable {
  const { schema, name, key, columns } = table;
  const decided = decisionOn(table, map);
  const isUsers = nameOf(table) === nameOf(usersTable);
  const types = new Map(columns.map((column) => [column.name, column.type]));
  return {
    schema,
    name,
    key: key?.every((column) => types.has(column)) ? key : null,
    types,
    upward,
    rule: decided?.rows === "owned" || decided?.rows === "shared" ? decided.rows : "reach",
    treatment: treatmentOf(table),
    share: isUsers ? 1 : decided?.share ?? map.share ?? defaultShare,
  };
}

/** Rows that reach users only through rows that never come back cannot come back either: their keys would lead nowhere. */
function withoutOrphans(groups: readonly OwnershipGroup[]): OwnershipGroup[] {
  const gone = new Set(
    groups.flatMap(({ tables }) => tables).filter(({ treatment }) => treatment.restore === "never").map(nameOf),
  );
  return groups.map((group) => {
    const own = new Set(group.tables.map(nameOf));
    const links = group.tables.flatMap(({ upward }) => upward).filter(({ to }) => !own.has(nameOf(to)));
    const parents = [...new Set(links.map(({ to }) => nameOf(to)))];
    if (parents.length === 0 || !parents.every((name) => gone.has(name))) return group;
    const why = `its rows hang on rows of ${parents.join(", ")}, which never come back`;
    for (const name of own) gone.add(name);
    return {
      ...group,
      tables: group.tables.map((table) =>
        table.treatment.restore === "never"
          ? table
          : { ...table, treatment: { ...table.treatment, restore: "never", why } }
      ),
    };
  });
}
