/** Queries of views that another version of the server writes in other words: PostgreSQL 16 leaves out names that 15 puts before columns. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import type { SchemaCapture } from "../schema/capture_format.ts";
import type { Difference } from "./prove.ts";

/** What stands before the query, the query, and whether a materialised view is filled. */
const form = /^(create [\s\S]*?) as\s+((?:select|with|values)\b[\s\S]*?)(\s+with (?:no )?data)?$/i;

/**
 * Names of views, among those that differ, of which both texts are one query to the server of the target: it reads them and writes them
 * down anew. Empty where both captures are of one version. The session is in no transaction, and is left so; nothing is changed.
 * Errors: those of the connection.
 */
export async function otherWords(
  connection: Connection,
  source: Pick<SchemaCapture, "definitions" | "server">,
  target: Pick<SchemaCapture, "definitions" | "server">,
  differences: readonly Difference[],
): Promise<ReadonlySet<string>> {
  const [was, is] = [source, target].map(({ server }) => Math.floor(server.versionNum / 10_000));
  const same = new Set<string>();
  if (was === is) return same;
  for (const { name } of differences.filter(({ kind }) => kind === "definition")) {
    const [one, other] = [source, target].map(({ definitions }) =>
      definitions.find(({ identity, kind }) => identity === name && /^(materialized )?view$/.test(kind))
    );
    const [mine, theirs] = [one, other].map((definition) => form.exec(definition?.statements[0] ?? ""));
    if (mine == null || theirs == null || mine[1] !== theirs[1] || mine[3] !== theirs[3]) continue;
    if (one?.statements.slice(1).join() !== other?.statements.slice(1).join()) continue;
    if (await isOneQuery(connection, mine[2] ?? "", theirs[2] ?? "")) same.add(name);
  }
  return same;
}

async function isOneQuery(connection: Connection, mine: string, theirs: string): Promise<boolean> {
  await connection.execute("begin");
  try {
    await connection.execute(`create temporary view holdfast_mine as ${mine}`);
    await connection.execute(`create temporary view holdfast_theirs as ${theirs}`);
    const [row] = await connection.query(
      `select pg_catalog.pg_get_viewdef('pg_temp.holdfast_mine'::regclass)
              = pg_catalog.pg_get_viewdef('pg_temp.holdfast_theirs'::regclass) as same`,
    );
    return row?.["same"] === "t";
  } catch (error) {
    // A query that cannot be made there is another one.
    if (error instanceof HoldfastError && error.code === "database_failed") return false;
    throw error;
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
}
