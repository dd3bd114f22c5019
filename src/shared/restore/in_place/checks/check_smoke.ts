/** The user's own queries: each has to go through, and none may say that something is not ok. */
import type { Clock } from "../../../clock.ts";
import type { Connection, Row } from "../../../postgres/connection.ts";
import { sqlstateOf } from "../../../postgres/server_error.ts";
import { failed, type Found, listed, notTried, well } from "./check_result.ts";
import { type SmokeStatement, smokeStatements } from "./smoke_statements.ts";

/** For each statement, its rows included. */
export const smokeSeconds = 30;
/** Rows in memory at once. */
const fetchRows = 1_000;
const tooLong = `not done after ${smokeSeconds} s`;

/**
 * Every statement in a read-only transaction of its own, as role postgres where the session may, with the role's own
 * search_path. A statement fails with an SQLSTATE (its text may quote a value and is not shown), or with a row whose only
 * column `ok` is false. Errors: those of a session that was lost.
 */
export async function checkSmoke(
  connection: Connection,
  sql: string,
  { clock, signal }: { readonly clock: Clock; readonly signal?: AbortSignal | undefined },
): Promise<Found> {
  const statements = smokeStatements(sql);
  if (statements.length === 0) return notTried("the file of --smoke holds no statement");
  const role = await actingRole(connection);
  const wrong: string[] = [];
  for (const [index, statement] of statements.entries()) {
    if (signal?.aborted) return failed("broken off");
    const reason = await tryOne(connection, clock, statement, role);
    if (reason !== null) wrong.push(`statement ${index + 1} (line ${statement.line}): ${reason}`);
  }
  return wrong.length > 0 ? failed(listed(wrong)) : well(`${statements.length} statements went through`);
}

/** What puts the transaction under role postgres; empty where that is no role, or not one of the session's. */
async function actingRole(connection: Connection): Promise<string> {
  const [row] = await connection.query(
    `select exists (select from pg_catalog.pg_roles as r
       where r.rolname = 'postgres' and pg_catalog.pg_has_role(r.oid, 'member')) as may`,
  );
  return row?.["may"] === "t" ? "set local role postgres;" : "";
}

/** Null: it went well. */
async function tryOne(
  connection: Connection,
  clock: Clock,
  { text }: SmokeStatement,
  role: string,
): Promise<string | null> {
  try {
    await connection.execute(`begin read only; ${role} set local statement_timeout = '${smokeSeconds}s'`);
    return await (isQuery(text) ? rowsAreOk(connection, clock, text) : rowIsNotOk(await connection.query(text)));
  } catch (error) {
    const sqlstate = sqlstateOf(error);
    if (sqlstate === null || /^(08|57P)/.test(sqlstate)) throw error;
    return sqlstate === "57014" ? tooLong : `SQLSTATE ${sqlstate}`;
  } finally {
    await connection.execute("rollback").catch(() => {});
  }
}

/** What a cursor can be declared for. */
const isQuery = (text: string): boolean => /^\(*\s*(select|with|values|table)\b/i.test(text);

/** Through a cursor: all of it is run, and never all of it held. */
async function rowsAreOk(connection: Connection, clock: Clock, text: string): Promise<string | null> {
  const deadline = clock.monotonicMs() + smokeSeconds * 1_000;
  await connection.execute(`declare holdfast_smoke no scroll cursor for ${text}`);
  for (;;) {
    const rows = await connection.query(`fetch forward ${fetchRows} from holdfast_smoke`);
    const reason = rowIsNotOk(rows);
    if (reason !== null || rows.length < fetchRows) return reason;
    if (clock.monotonicMs() > deadline) return tooLong;
  }
}

function rowIsNotOk(rows: readonly Row[]): string | null {
  const says = rows.some((row) => Object.keys(row).join() === "ok" && row["ok"] === "f");
  return says ? "a row says that it is not ok" : null;
}
