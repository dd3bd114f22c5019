/** Rows that came back, read again as the user whom they belong to, under row-level security. */
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import { keyOfDelta, liveName, liveRelation, type Pair } from "./difference.ts";
import { nameOf } from "../past/fold_partitions.ts";
import { type Equalities, readEqualities } from "../ownership/equalities.ts";
import { liveGraph } from "../ownership/live_graph.ts";
import { emptyMap } from "../ownership/map_file.ts";
import {
  type Link,
  type OwnedTable,
  ownedTables,
  type OwnershipPlan,
  planOwnership,
  usersTable,
} from "../ownership/ownership.ts";

export interface ReadBack {
  /** Null: the rows lead to no user, or to several. */
  readonly user: string | null;
  readonly rows: number;
  /** Of them, what that user sees. */
  readonly visible: number;
}

/** So many rows are read again. */
const mostRows = 100;

/**
 * By the first way of the live keys that leads to a user. Nothing is changed: the reading's transaction is rolled back. Empty
 * where there is no role `authenticated`, no `auth.users`, or no key to name a row by. Errors: those of the connection.
 */
export async function readAsOwner(connection: Connection, pair: Pair): Promise<ReadBack[]> {
  const { fit } = pair;
  if (fit.key === null || !(await hasAuth(connection))) return [];
  const graph = await liveGraph(connection);
  const ways = { plan: planOwnership(graph, emptyMap), equals: await readEqualities(connection, graph.tables) };
  const owner = ownerOf(ways, { schema: fit.live.schema, name: fit.live.name }, "l");
  const keys = fit.key.map(({ name }, at) => `l.${quoteIdent(name)}::text as k${at}`).join(", ");
  const rows = await connection.query(
    `select ${keys}, ${owner ?? "null::text"} as owner from ${liveRelation(pair)} as l
       join ${pair.delta} as d on ${keyOfDelta(pair, "l")} where d."action" <> 'delete' and d."done" limit ${mostRows}`,
  );
  const byOwner = new Map<string | null, (typeof rows)[number][]>();
  for (const row of rows) {
    const user = row["owner"] ?? null;
    byOwner.set(user, [...byOwner.get(user) ?? [], row]);
  }
  const found: ReadBack[] = [];
  for (const [user, own] of byOwner) {
    if (user === null) {
      found.push({ user, rows: own.length, visible: 0 });
      continue;
    }
    const conditions = own.map((row) =>
      (fit.key ?? []).map(({ name, equals }, at) => {
        const type = fit.live.columns.find((column) => column.name === name)?.type ?? "text";
        return `l.${quoteIdent(name)} ${equals} ${quoteLiteral(row[`k${at}`] ?? "")}::${type}`;
      }).join(" and ")
    );
    found.push({ user, rows: own.length, visible: await countAs(connection, user, pair, conditions) });
  }
  return found;
}

async function hasAuth(connection: Connection): Promise<boolean> {
  const [row] = await connection.query(
    `select pg_catalog.to_regclass('auth.users') is not null
        and exists (select from pg_catalog.pg_roles where rolname = 'authenticated') as yes`,
  );
  return row?.["yes"] === "t";
}

interface Ways {
  readonly plan: OwnershipPlan;
  readonly equals: Equalities;
}

/** SQL for the id of the user to whom a row with this alias leads; null: no way does. */
function ownerOf(
  ways: Ways,
  table: { readonly schema: string; readonly name: string },
  alias: string,
): string | null {
  const owned = ownedTables(ways.plan).find((one) => nameOf(one) === nameOf(table));
  if (owned === undefined) return null;
  if (nameOf(owned) === nameOf(usersTable)) return `${alias}.id::text`;
  const direct = owned.upward.find(({ userColumn }) => userColumn !== null);
  if (direct !== undefined) return `${alias}.${quoteIdent(direct.userColumn ?? "")}::text`;
  const [link] = owned.upward.filter(({ to }) => nameOf(to) !== nameOf(table));
  return link === undefined ? null : throughParent(ways, owned, link, alias);
}

function throughParent(ways: Ways, child: OwnedTable, link: Link, alias: string): string | null {
  const parent = `${alias}_`;
  const owner = parent.length > 8 ? null : ownerOf(ways, link.to, parent);
  if (owner === null) return null;
  const types = ownedTables(ways.plan).find((one) => nameOf(one) === nameOf(link.to))?.types;
  const same = link.columns.map((column, at) => {
    const toColumn = link.toColumns[at] ?? "";
    const equals = ways.equals(child.types.get(column) ?? "", types?.get(toColumn) ?? "");
    return `${parent}.${quoteIdent(toColumn)} ${equals} ${alias}.${quoteIdent(column)}`;
  });
  return `(select ${owner} from ${nameOf(link.to)} as ${parent} where ${same.join(" and ")} limit 1)`;
}

/** What PostgREST looks in behind the schema that a request names, unless it is set up otherwise. */
const alwaysSearched = ["public", "extensions"];

/**
 * As PostgREST does it for a signed-in user who asks for the table's schema, with its search_path: policies call functions
 * that were written under it. The statement itself names operators and types with their schemas. A role that may not read the
 * table, or whose policy fails, sees nothing.
 */
async function countAs(
  connection: Connection,
  user: string,
  pair: Pair,
  conditions: readonly string[],
): Promise<number> {
  const claims = JSON.stringify({ sub: user, role: "authenticated", aal: "aal2" });
  await connection.execute("begin; set local row_security = on");
  try {
    await connection.query("select pg_catalog.set_config('request.jwt.claims', $1, true)", [claims]);
    const path = [...new Set([pair.fit.live.schema, ...alwaysSearched])].map(quoteIdent).join(", ");
    await connection.execute(`set local search_path = ${path}; set local role authenticated`);
    const [row] = await connection.query(
      `select count(*) as n from ${liveName(pair)} as l where ${conditions.map((one) => `(${one})`).join(" or ")}`,
    );
    return Number(row?.["n"]);
  } catch (error) {
    // It may not read the table, or a policy asks for what this session does not have: the rows are in place all the same.
    const sqlstate = sqlstateOf(error);
    if (sqlstate !== null && !/^(08|57)/.test(sqlstate)) return 0;
    throw error;
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
}
