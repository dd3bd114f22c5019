/** The ledger applied to rows: of a whole database, or of those that lie in a side schema. */
import type { Connection } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import { ownPath, withUsersPath } from "../rows/apply/user_path.ts";
import { whileDeletable } from "../rows/apply/published_deletes.ts";
import type { SideTable } from "../rows/beside/side_tables.ts";
import { liveGraph } from "../rows/ownership/live_graph.ts";
import { liveRelation } from "../rows/ownership/ownership_sql.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { Graph, GraphTable } from "../rows/past/graph.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";
import { hashSql, hashTable, isErasedSql, keyTable, layHashes } from "./hashes.ts";
import type { Ledger } from "./ledger.ts";
import { scrub } from "./scrub.ts";
import {
  identityKey,
  mapOf,
  planRemoval,
  removalConditions,
  type RemovalTable,
  usersIdentity,
} from "./removal_plan.ts";

export interface Removed {
  readonly table: string;
  readonly rows: number;
}

/** In the transaction that is open, once. */
async function layLedger(connection: Connection, { entries, keys }: Ledger): Promise<void> {
  const hashes = new Set<string>();
  for (const entry of entries) for (const hash of entry.hashes) hashes.add(hash);
  await layHashes(connection, keys, hashes);
}

/**
 * `relationsOf`: what holds rows of the table, with its columns. The transaction is open, and its triggers are quiet. What goes
 * counts as erased for whatever refers to it.
 */
async function remove(
  connection: Connection,
  graph: Graph,
  ledger: Ledger,
  relationsOf: (table: GraphTable) => readonly string[],
  around: (relation: string, work: () => Promise<number>) => Promise<number>,
): Promise<Map<string, number>> {
  await layLedger(connection, ledger);
  const known = new Set(ledger.entries.flatMap(({ rows }) => rows.map(identityKey)));
  known.add(identityKey(usersIdentity));
  const removed = new Map<string, number>();
  for (const { tables, cyclic } of planRemoval(graph, mapOf(ledger.entries))) {
    for (let more = true; more;) {
      more = false;
      for (const table of tables) {
        for (const relation of relationsOf(table.table)) {
          const gone = await around(relation, () => removeFrom(connection, table, relation, known));
          if (gone === 0) continue;
          removed.set(relation, (removed.get(relation) ?? 0) + gone);
          for (const identity of table.identities) known.add(identityKey(identity));
          more = cyclic;
        }
      }
    }
  }
  return removed;
}

async function removeFrom(
  connection: Connection,
  table: RemovalTable,
  relation: string,
  known: ReadonlySet<string>,
): Promise<number> {
  const { remove, clear } = removalConditions(table, relation, known);
  let gone = 0;
  if (remove !== null) {
    const columns = [...new Set(table.identities.flatMap((one) => one.columns))];
    const fields = columns.map((column, at) => `t.${quoteIdent(column)}::text as x${at}`);
    const hashes = table.identities.map((one) =>
      `select ${hashSql(one, one.columns.map((column) => `g.x${columns.indexOf(column)}`))} as hash
         from gone as g cross join ${keyTable} as k`
    );
    const noted = hashes.length === 0 ? "" : `, noted as (
      insert into ${hashTable} select distinct n.hash from (${hashes.join(" union all ")}) as n
       where n.hash is not null on conflict do nothing
    )`;
    const [row] = await connection.query(
      `with gone as (
         delete from ${relation} as t where ${remove} returning ${fields.length === 0 ? "1 as x0" : fields.join(", ")}
       )${noted}
       select pg_catalog.count(*) as n from gone`,
    );
    gone = Number(row?.["n"]);
  }
  for (const { columns, where } of clear) {
    await connection.query(
      `with done as (
         update ${relation} as t set ${
        columns.map((one) => `${quoteIdent(one)} = null`).join(", ")
      } where ${where} returning 1
       ) select pg_catalog.count(*) from done where ${withUsersPath}`,
    );
    await connection.execute(ownPath);
  }
  return gone;
}

/**
 * Takes out of the database of the connection whoever the ledger names, in the transaction that is open there: rows by their
 * keys, what hangs on them, and what leads to an erased user by id. Never by e-mail, so a person who signed up again stays.
 * Errors: those of the connection; `definitions_stuck` where a publication refuses deletes.
 */
export async function removeFromDatabase(connection: Connection, ledger: Ledger): Promise<Removed[]> {
  if (ledger.entries.length === 0) return [];
  const [was] = await connection.query(
    `select pg_catalog.current_setting('session_replication_role') as role,
            pg_catalog.current_setting('search_path') as path`,
  );
  await connection.execute("set local session_replication_role = replica; set local search_path = ''");
  const removed = await remove(
    connection,
    await liveGraph(connection),
    ledger,
    (table) => [liveRelation(table)],
    async (relation, work) => {
      const [found] = await connection.query("select pg_catalog.to_regclass($1)::pg_catalog.oid as oid", [
        relation.replace(/^only /, ""),
      ]);
      return await whileDeletable(connection, [found?.["oid"] ?? "0"], work);
    },
  );
  await scrub(connection, (id) => isErasedSql(usersIdentity, [id]));
  await connection.execute(
    `set local session_replication_role = ${was?.["role"] ?? "origin"};
     select pg_catalog.set_config('search_path', ${quoteLiteral(was?.["path"] ?? "")}, true)`,
  );
  return [...removed].map(([relation, rows]) => ({ table: relation.replace(/^only /, ""), rows }));
}

/**
 * Takes erased rows out of tables of a side schema, in the transaction that is open. `graph`: of the rows' own time. Rows that
 * went, by the side table's `sql`. Errors: those of the connection.
 */
export async function removeFromSides(
  connection: Connection,
  graph: Graph,
  sides: readonly SideTable[],
  ledger: Ledger,
): Promise<ReadonlyMap<string, number>> {
  if (ledger.entries.length === 0) return new Map();
  const byName = new Map(sides.map((side) => [nameOf(side.past), side.sql]));
  return await remove(
    connection,
    graph,
    ledger,
    (table) => [table, ...table.partitions].flatMap((one) => byName.get(nameOf(one)) ?? []),
    (_, work) => work(),
  );
}

/** Was the user erased? In a transaction of its own. `user`: as the server writes ids. */
export async function isErasedUser(connection: Connection, ledger: Ledger, user: string): Promise<boolean> {
  if (ledger.entries.length === 0) return false;
  return await inTransaction(connection, async () => {
    await layLedger(connection, ledger);
    const [row] = await connection.query(`select ${isErasedSql(usersIdentity, [quoteLiteral(user)])} as yes`);
    return row?.["yes"] === "t";
  });
}
