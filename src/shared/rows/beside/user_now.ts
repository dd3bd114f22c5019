/** The user as the database knows them now, and which live rows are theirs. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import { type Equalities, readEqualities } from "../ownership/equalities.ts";
import { liveGraph } from "../ownership/live_graph.ts";
import type { BackupMap } from "../ownership/map_file.ts";
import { type OwnedTable, ownedTables, type OwnershipPlan, planOwnership, usersTable } from "../ownership/ownership.ts";
import { isVerdictOn, liveRelation, ownershipSql } from "../ownership/ownership_sql.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { Graph } from "../past/graph.ts";

export interface UserNow {
  readonly graph: Graph;
  readonly plan: OwnershipPlan;
  readonly equals: Equalities;
  /** Condition on live rows `l` of the table that they are the user's alone; never of the account itself. */
  readonly owned: (table: TableName) => string;
}

/** As the server writes it. Errors: `usage`. */
export async function readUserId(connection: Connection, text: string): Promise<string> {
  if (!/^\{?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?$/i.test(text.trim())) {
    throw new HoldfastError("usage", "a user is named by the id in auth.users, a uuid");
  }
  const [row] = await connection.query("select $1::text::uuid::text as id", [text.trim()]);
  return row?.["id"] ?? "";
}

export async function userIsThere(connection: Connection, user: string): Promise<boolean> {
  const [table] = await connection.query("select pg_catalog.to_regclass('auth.users') is not null as yes");
  if (table?.["yes"] !== "t") return false;
  const [row] = await connection.query("select exists (select from auth.users where id = $1::uuid) as yes", [user]);
  return row?.["yes"] === "t";
}

/** `user`: as `readUserId` gives it. Errors: those of the connection. */
export async function readUserNow(connection: Connection, user: string, map: BackupMap): Promise<UserNow> {
  const graph = await liveGraph(connection);
  const plan = planOwnership(graph, map);
  const equals = await readEqualities(connection, graph.tables);
  const present = new Map(ownedTables(plan).map((table) => [nameOf(table), table]));
  const relations = new Map(graph.tables.map((table) => [nameOf(table), liveRelation(table)]));
  const sql = ownershipSql(plan, (table) => relations.get(nameOf(table)) ?? null, quoteLiteral(user), equals);
  return {
    graph,
    plan,
    equals,
    owned: (table) => {
      const found = present.get(nameOf(table));
      if (found === undefined || nameOf(table) === nameOf(usersTable)) return "false";
      return isAmong(found, sql(found), "not o.shared", equals);
    },
  };
}

/** The row `l` of the table is one of those that the statement tells, and `wanted` holds for what it tells (`o`). */
function isAmong(table: OwnedTable, sql: string, wanted: string, equals: Equalities): string {
  const identity = table.key ?? ["tableoid", "ctid"];
  const types = identity.map((column) => table.types.get(column) ?? "");
  if (types.some((type) => equals(type, type) !== "=")) {
    return `exists (select from (${sql}) as o where ${wanted} and ${isVerdictOn(table, "l", "o", equals)})`;
  }
  const own = identity.map((column) => `l.${quoteIdent(column)}`).join(", ");
  return `(${own}) in (select ${identity.map((_, at) => `o.i${at}`).join(", ")} from (${sql}) as o where ${wanted})`;
}

/** Name of a column that no table has. */
const stake = "holdfast stake";

/**
 * Condition on live rows `l` that they are another user's now, or also, although `staked` (a condition on `l`, by `nameOf`) says
 * that they were this one's. Rows that lead to nobody any more are none of them, nor those that the map gives to whoever they
 * reach. `was`: the id that the user had, whose columns hold it (`idColumns`); their rows count as this user's. Null: no such
 * table leads to users now. Pure.
 */
export function othersNow(
  { graph, plan, equals }: UserNow,
  user: string,
  staked: ReadonlyMap<string, string>,
  was: { readonly id: string; readonly idColumns: (table: TableName) => readonly string[] } | null,
): (table: TableName) => string | null {
  const literal = quoteLiteral(user);
  const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
  // That a row was the user's is one more way that leads from it to the user: whoever else it leads to is another one.
  const marked: OwnershipPlan = {
    ...plan,
    groups: plan.groups.map((group) => ({
      ...group,
      tables: group.tables.map((table) =>
        staked.has(nameOf(table))
          ? {
            ...table,
            types: new Map([...table.types, [stake, "uuid"]]),
            upward: [...table.upward, {
              constraint: null,
              columns: [stake],
              to: usersTable,
              toColumns: ["id"],
              userColumn: stake,
            }],
          }
          : table
      ),
    })),
  };
  const relationOf = (table: TableName): string | null => {
    const found = tables.get(nameOf(table));
    if (found === undefined) return null;
    const condition = staked.get(nameOf(table));
    const own = nameOf(table) === nameOf(usersTable) ? [] : was?.idColumns(table) ?? [];
    if (condition === undefined && own.length === 0) return liveRelation(found);
    const columns = [
      "l.tableoid",
      "l.ctid",
      ...found.columns.map(({ name, type }) => own.includes(name) ? asUser(name, type) : `l.${quoteIdent(name)}`),
      ...(condition === undefined ? [] : [`case when ${condition} then ${literal}::uuid end as ${quoteIdent(stake)}`]),
    ];
    return `(select ${columns.join(", ")} from ${liveRelation(found)} as l)`;
  };
  const asUser = (name: string, type: string) =>
    `case when l.${quoteIdent(name)}::text = ${quoteLiteral(was?.id ?? "")} then ${literal}::text::${type} else l.${
      quoteIdent(name)
    } end as ${quoteIdent(name)}`;
  const sql = ownershipSql(marked, relationOf, literal, equals);
  const present = new Map(ownedTables(marked).map((table) => [nameOf(table), table]));
  return (table) => {
    const found = present.get(nameOf(table));
    const condition = staked.get(nameOf(table));
    return found === undefined || condition === undefined
      ? null
      : `(${condition}) and ${isAmong(found, sql(found), "o.shared", equals)}`;
  };
}
