/** All ways from tables towards users, each with whether it is followed. Pure. */
import type { TableName } from "../../restore/project_rows.ts";
import { platformUserColumns, projectTables, type UserColumn } from "./auth_map.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { Edge, Graph, GraphTable } from "../past/graph.ts";
import { type BackupMap, mapFileName } from "./map_file.ts";

export const usersTable = { schema: "auth", name: "users" } as const satisfies TableName;

/** What leads from a row towards users: a foreign key, or a column that holds a user's id without being one. */
export interface Link {
  /** The foreign key's name; null: a map says so. */
  readonly constraint: string | null;
  readonly columns: readonly string[];
  readonly to: TableName;
  /** In the order of `columns`. */
  readonly toColumns: readonly string[];
  /** The one of `columns` that holds the user's id itself, as `auth.users.id` does; null: only the row it leads to tells. */
  readonly userColumn: string | null;
}

export interface Way {
  readonly from: TableName;
  readonly link: Link;
  /** Why it is not followed; null: it is. */
  readonly reason: string | null;
}

/** The reason of a key that the map does not let follow. */
export const mapSaysSo = `${mapFileName} says so`;

/**
 * Foreign keys and columns that hold a user's id. Not followed, unless the map says so: keys of a table to itself, and keys
 * whose rows outlive what they refer to. Never followed: keys of auth.users, keys of tables that are left out, keys over
 * columns that the server computes, since a backup does not hold their values.
 */
export function waysOf(graph: Graph, map: BackupMap): Way[] {
  const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
  const outside = (table: TableName): string | null =>
    decisionOn(table, map)?.rows === "never"
      ? `${mapFileName} leaves ${nameOf(table)} out`
      : projectTables.has(nameOf(table))
      ? `rows of ${nameOf(table)} are the project's`
      : null;
  const ways = graph.edges.map((edge): Way => {
    const reason = outside(edge.from) ?? outside(edge.to) ?? reasonAgainst(edge, tables, map);
    return { from: edge.from, link: linkOf(edge), reason };
  });
  const held = new Set(ways.map((way) => JSON.stringify([nameOf(way.from), way.link.columns, nameOf(way.link.to)])));
  for (const { table, column } of [...platformUserColumns, ...map.users]) {
    const key = JSON.stringify([nameOf(table), [column], nameOf(usersTable)]);
    if (held.has(key) || !hasColumns(tables.get(nameOf(table)), [column])) continue;
    held.add(key);
    const link = { constraint: null, columns: [column], to: usersTable, toColumns: ["id"], userColumn: column };
    ways.push({ from: table, link, reason: outside(table) ?? ofUsers(table) });
  }
  return ways;
}

/** The last one holds. */
export function decisionOn(table: TableName, map: BackupMap): BackupMap["tables"][number] | undefined {
  return map.tables.findLast((entry) => nameOf(entry.table) === nameOf(table));
}

/** Entries of `keys` and `users` that fit nothing in the graph, and tables that are not in it, as sentences. */
export function unmatchedOf(graph: Graph, map: BackupMap): string[] {
  const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
  const columnsOf = (columns: readonly string[]) => `(${columns.join(", ")})`;
  return [
    ...map.keys.flatMap((entry, index) =>
      graph.edges.some((edge) => decides(entry, edge))
        ? []
        : [`keys[${index}]: ${nameOf(entry.table)} has no such foreign key over ${columnsOf(entry.columns)}`]
    ),
    ...map.users.flatMap(({ table, column }, index) =>
      hasColumns(tables.get(nameOf(table)), [column])
        ? []
        : [`users[${index}]: there is no stored column ${column} in ${nameOf(table)}`]
    ),
    ...map.tables.flatMap(({ table }, index) =>
      tables.has(nameOf(table)) ? [] : [`tables[${index}]: there is no table ${nameOf(table)}`]
    ),
  ];
}

const idNames =
  /^(user|owner|author|creator|member|sender|recipient|customer|assignee|profile)(_?(id|uuid))?$|^(created|updated|uploaded)_by$/;
const idTypes = /^(uuid|text|character varying(\(\d+\))?)$/;

/** Columns of the user's own tables that look like a user's id and lead nowhere. */
export function suspectsOf(graph: Graph, ways: readonly Way[]): UserColumn[] {
  const leading = new Set(
    ways.flatMap(({ from, link }) => link.columns.map((column) => JSON.stringify([nameOf(from), column]))),
  );
  return graph.tables.filter(({ schema }) => schema !== "auth" && schema !== "storage").flatMap((table) =>
    table.columns.filter(({ name, type }) =>
      idNames.test(name) && idTypes.test(type) && !leading.has(JSON.stringify([nameOf(table), name]))
    ).map(({ name }) => ({ table: { schema: table.schema, name: table.name }, column: name }))
  );
}

function reasonAgainst(edge: Edge, tables: ReadonlyMap<string, GraphTable>, map: BackupMap): string | null {
  const ofUser = ofUsers(edge.from);
  if (ofUser !== null) return ofUser;
  if (
    !hasColumns(tables.get(nameOf(edge.from)), edge.columns) || !hasColumns(tables.get(nameOf(edge.to)), edge.toColumns)
  ) return "the server computes a column of it";
  const decided = map.keys.findLast((entry) => decides(entry, edge));
  if (decided !== undefined) return decided.follow ? null : mapSaysSo;
  if (map.users.some((entry) => isUserKey(entry, edge))) return null;
  if (nameOf(edge.from) === nameOf(edge.to)) return "it leads to its own table";
  return edge.onDelete === "set null" || edge.onDelete === "set default"
    ? `the row outlives what it refers to (on delete ${edge.onDelete})`
    : null;
}

const ofUsers = (table: TableName): string | null =>
  nameOf(table) === nameOf(usersTable) ? "a user belongs to nobody else" : null;

function linkOf({ constraint, columns, to, toColumns }: Edge): Link {
  const place = nameOf(to) === nameOf(usersTable) ? toColumns.indexOf("id") : -1;
  return { constraint, columns, to, toColumns, userColumn: columns[place] ?? null };
}

const decides = (entry: BackupMap["keys"][number], edge: Edge): boolean =>
  nameOf(entry.table) === nameOf(edge.from) && sameColumns(entry.columns, edge.columns) &&
  (entry.to === undefined || nameOf(entry.to) === nameOf(edge.to));

const isUserKey = ({ table, column }: UserColumn, edge: Edge): boolean =>
  nameOf(table) === nameOf(edge.from) && sameColumns([column], edge.columns) &&
  nameOf(edge.to) === nameOf(usersTable);

/** In any order: a person who writes the map does not know the order of the key. */
const sameColumns = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((column) => b.includes(column));

function hasColumns(table: GraphTable | undefined, columns: readonly string[]): boolean {
  const known = new Set(table?.columns.map(({ name }) => name));
  return columns.every((column) => known.has(column));
}
