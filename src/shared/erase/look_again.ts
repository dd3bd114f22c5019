/** The second look: by another session, and by another way than the erasure took. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import type { BackupMap } from "../rows/ownership/map_file.ts";
import { liveRelation } from "../rows/ownership/ownership_sql.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import { quoteLiteral } from "../schema/quote.ts";
import type { Mention } from "./erase_queries.ts";
import { OwnedRows } from "./owned_rows.ts";

/**
 * Every row of every table, as text, searched for the id; then the rows that the keys of now lead to. Where the id still stands:
 * in rows that the map keeps, and in tables without a path to people. Errors: `erasure_incomplete` for a row or a file that is
 * theirs.
 */
export async function lookAgain(connection: Connection, user: string, map: BackupMap): Promise<Mention[]> {
  await connection.execute("begin isolation level repeatable read");
  try {
    const owned = await OwnedRows.collect(connection, user, map, false);
    // An upload under way is no file, and ends by itself.
    const left = owned.counts.filter(({ rows, table, files }) => rows > 0 && (!files || table === "storage.objects"));
    if (left.length > 0) {
      const told = left.map(({ table, rows }) => `${table}: ${rows}`).join(", ");
      throw new HoldfastError("erasure_incomplete", `rows of the person came back or are left: ${told}`);
    }
    const mentions: Mention[] = [];
    for (const table of owned.graph.tables) {
      const rows = await countMentions(connection, liveRelation(table), user);
      if (rows > 0) mentions.push({ table: nameOf(table), rows });
    }
    return mentions;
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
}

/** A table that this role may not read holds nothing that it has written. */
async function countMentions(connection: Connection, relation: string, user: string): Promise<number> {
  await connection.execute("savepoint look");
  try {
    const [row] = await connection.query(
      `select pg_catalog.count(*) as n from ${relation} as t where pg_catalog.strpos(pg_catalog.lower(t::text), ${
        quoteLiteral(user)
      }) > 0`,
    );
    await connection.execute("release savepoint look");
    return Number(row?.["n"]);
  } catch (error) {
    if (sqlstateOf(error) !== "42501") throw error;
    await connection.execute("rollback to savepoint look");
    return 0;
  }
}
