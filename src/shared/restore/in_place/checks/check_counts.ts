/** Rows of the critical tables, counted again against the manifest. */
import type { Connection } from "../../../postgres/connection.ts";
import { sqlstateOf } from "../../../postgres/server_error.ts";
import { captureGraph } from "../../../rows/past/capture_graph.ts";
import { nameOf } from "../../../rows/past/fold_partitions.ts";
import { quoteQualified } from "../../../schema/quote.ts";
import type { TableName } from "../../project_rows.ts";
import { failed, type Found, listed, notTried, well } from "./check_result.ts";
import type { CheckChoice } from "./checks.ts";

/** By count alone, not by the query that the restore used. Errors: those of the connection. */
export async function checkCounts(
  connection: Connection,
  choice: Pick<CheckChoice, "manifest" | "was" | "critical" | "mode">,
): Promise<Found> {
  const known = rowsByTable(choice);
  const graph = captureGraph(choice.was).tables;
  const partitioned = new Set(graph.filter(({ partitions }) => partitions.length > 0).map(nameOf));
  const tables = choice.critical ?? ownTables(choice, known);
  if (tables.length === 0) return notTried("the backup holds no table of the user's");
  const wrong: string[] = [];
  let total = 0;
  for (const table of tables) {
    const name = quoteQualified(table.schema, table.name);
    const expected = known.get(nameOf(table));
    if (expected === undefined) {
      wrong.push(`${name} is not in the backup`);
      continue;
    }
    // Not those of tables that inherit from it, which are counted themselves or came after the backup.
    const present = await countOf(connection, partitioned.has(nameOf(table)) ? name : `only ${name}`);
    if (present === null) wrong.push(`${name} is not there`);
    else if (choice.mode === "replace" ? present !== expected : present < expected) {
      wrong.push(`${name} holds ${present} of ${expected} rows`);
    } else total += present;
  }
  if (wrong.length > 0) return failed(listed(wrong));
  return well(`${tables.length} tables, ${total} rows${choice.mode === "replace" ? "" : ", none missing"}`);
}

/** By `nameOf`; a partitioned table has the rows of its partitions. */
function rowsByTable({ manifest, was }: Pick<CheckChoice, "manifest" | "was">): ReadonlyMap<string, number> {
  const known = new Map(manifest.tables.map((table) => [nameOf(table), table.rows]));
  for (const { schema, name, partitions } of captureGraph(was).tables) {
    if (partitions.length === 0) continue;
    known.set(nameOf({ schema, name }), partitions.reduce((sum, leaf) => sum + (known.get(nameOf(leaf)) ?? 0), 0));
  }
  return known;
}

/** Sign-in goes on under maintenance: of Auth's tables only the users stand still. */
function ownTables({ was }: Pick<CheckChoice, "was">, known: ReadonlyMap<string, number>): TableName[] {
  const own = was.tables.filter((table) =>
    (table.dataOwner === "user" && table.restoreData && table.schema !== "supabase_migrations") ||
    (table.schema === "auth" && table.name === "users")
  );
  return own.filter((table) => known.has(nameOf(table)));
}

/** Null: there is no such table. */
async function countOf(connection: Connection, name: string): Promise<number | null> {
  try {
    const [row] = await connection.query(`select pg_catalog.count(*)::text as rows from ${name}`);
    return Number(row?.["rows"]);
  } catch (error) {
    if (["42P01", "3F000"].includes(sqlstateOf(error) ?? "")) return null;
    throw error;
  }
}
