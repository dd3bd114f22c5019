/** A user signs in by password and reads one own row, as the app would. */
import { z } from "zod";
import type { ProjectApi } from "../../../maintenance/project_api.ts";
import type { Connection } from "../../../postgres/connection.ts";
import { nameOf } from "../../../rows/past/fold_partitions.ts";
import { liveGraph } from "../../../rows/ownership/live_graph.ts";
import { emptyMap } from "../../../rows/ownership/map_file.ts";
import { ownedTables, planOwnership } from "../../../rows/ownership/ownership.ts";
import { quoteIdent, quoteQualified } from "../../../schema/quote.ts";
import type { TableName } from "../../project_rows.ts";
import { callAsApp, toldOf } from "./check_call.ts";
import { failed, type Found, notTried, reasonOf, well } from "./check_result.ts";

/** An account made for checks, without a second factor. */
export interface CheckUser {
  readonly email: string;
  readonly password: string;
}

const signedInFormat = z.object({ access_token: z.string().min(1), user: z.object({ id: z.uuid() }) });

/** The session that it opens is ended. Errors: `project_unreachable`, those of the connection. */
export async function checkSignIn(
  connection: Connection,
  project: ProjectApi,
  user: CheckUser,
  table: TableName | null,
): Promise<Found> {
  const answer = await callAsApp(project, {
    method: "POST",
    path: "/auth/v1/token?grant_type=password",
    accessToken: null,
    body: { email: user.email, password: user.password },
  });
  const signedIn = answer.status === 200 ? signedInFormat.safeParse(answer.json).data : undefined;
  if (signedIn === undefined) return failed(`the check user cannot sign in: ${toldOf(answer)}`);
  const { access_token: accessToken, user: { id } } = signedIn;
  let found: Found;
  try {
    found = await readOwnRow(connection, project, { id, accessToken }, table);
  } catch (error) {
    found = failed(`the check user signed in; ${reasonOf(error)}`);
  }
  const left = await signOut(project, accessToken) ? "" : "; the session of the check could not be ended";
  return { ...found, detail: found.detail + left };
}

interface SignedIn {
  readonly id: string;
  readonly accessToken: string;
}

async function readOwnRow(
  connection: Connection,
  project: ProjectApi,
  { id, accessToken }: SignedIn,
  table: TableName | null,
): Promise<Found> {
  const owned = await findOwnRows(connection, id, table);
  if (typeof owned === "string") return table === null ? notTried(`the check user signed in; ${owned}`) : failed(owned);
  const name = quoteQualified(owned.schema, owned.name);
  const column = /^\w+$/.test(owned.column) ? owned.column : `"${owned.column.replaceAll(/["\\]/g, "\\$&")}"`;
  const search = new URLSearchParams([["select", column], [column, `eq.${id}`], ["limit", "1"]]);
  const answer = await callAsApp(project, {
    method: "GET",
    path: `/rest/v1/${encodeURIComponent(owned.name)}?${search}`,
    accessToken,
    ...(owned.schema === exposedByDefault ? {} : { headers: { "accept-profile": owned.schema } }),
    body: null,
  });
  if (answer.status !== 200) return failed(`the check user signed in and cannot read ${name}: ${toldOf(answer)}`);
  const rows = z.array(z.record(z.string(), z.unknown())).safeParse(answer.json).data ?? [];
  return rows.length === 1 && rows[0]?.[owned.column] === id
    ? well(`the check user signed in and read an own row of ${name}`)
    : failed(`the check user signed in and sees no own row of ${name}, where there is one`);
}

/** What PostgREST shows without being told more. */
const exposedByDefault = "public";

interface OwnTable extends TableName {
  /** It holds the user's id. */
  readonly column: string;
}

/** A sentence where there is none. Among all tables only those under row-level security count. */
async function findOwnRows(connection: Connection, id: string, table: TableName | null): Promise<OwnTable | string> {
  const candidates = await tablesOfUsers(connection, table);
  if (table !== null && candidates.length === 0) {
    return `no column of ${quoteQualified(table.schema, table.name)} is known to hold a user's id`;
  }
  for (const { type, ...owned } of candidates) {
    const name = quoteQualified(owned.schema, owned.name);
    const [row] = await connection.query(
      `select c.relrowsecurity as secured,
         exists (select from ${name} as l where l.${quoteIdent(owned.column)} = $1::text::${type}) as there
       from pg_catalog.pg_class as c where c.oid = $2::pg_catalog.regclass`,
      [id, name],
    );
    if (table !== null && row?.["secured"] !== "t") return `${name} is not under row level security`;
    if (row?.["secured"] === "t" && row["there"] === "t") return owned;
  }
  return table === null
    ? "no table of public under row level security holds a row of theirs (--check-table)"
    : `${quoteQualified(table.schema, table.name)} holds no row of the check user`;
}

/** Tables with a column that leads straight to auth.users. */
async function tablesOfUsers(
  connection: Connection,
  only: TableName | null,
): Promise<(OwnTable & { readonly type: string })[]> {
  const plan = planOwnership(await liveGraph(connection), emptyMap);
  return ownedTables(plan).flatMap(({ schema, name, upward, types }) => {
    const column = upward.find(({ userColumn }) => userColumn !== null)?.userColumn ?? null;
    const type = types.get(column ?? "");
    const isMeant = only === null ? schema === exposedByDefault : nameOf({ schema, name }) === nameOf(only);
    return column === null || type === undefined || !isMeant ? [] : [{ schema, name, column, type }];
  });
}

async function signOut(project: ProjectApi, accessToken: string): Promise<boolean> {
  try {
    const path = "/auth/v1/logout?scope=local";
    const { status } = await callAsApp(project, { method: "POST", path, accessToken, body: null });
    return status >= 200 && status < 300;
  } catch {
    return false;
  }
}
