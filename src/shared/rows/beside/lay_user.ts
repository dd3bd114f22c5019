/** All that one user owned, into a side schema: found by the keys of then, row by row. */
import { HoldfastError } from "../../errors.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import { liveGraph } from "../ownership/live_graph.ts";
import type { BackupMap } from "../ownership/map_file.ts";
import { type OwnedTable, ownedTables, type OwnershipPlan, planOwnership, usersTable } from "../ownership/ownership.ts";
import { liveRelation, ownershipSql } from "../ownership/ownership_sql.ts";
import { ownershipSteps } from "../ownership/ownership_steps.ts";
import { checkShares, type TableShare } from "../ownership/share_limit.ts";
import { userIdColumns } from "../ownership/user_id_columns.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { type Beside, type PairDeps, pairUp } from "./beside.ts";
import { type Laid, type LaidTable, readLaid, settleOnce, type UserFacts } from "./laid.ts";
import { countOf, findPastTable, type LayDeps } from "./lay.ts";
import { LaySteps } from "./lay_steps.ts";
import { type LiveTable, readLiveTables } from "./live_tables.ts";
import { makeSideSchema, type SideTable } from "./side_tables.ts";
import { fitTable, isUnfit } from "./fit.ts";
import { Extraction, type Wanted } from "./user_extraction.ts";
import { countStrangers, findStrangers, isNoStranger, type Strangers } from "./user_strangers.ts";

export interface UserChoice {
  /** `auth.users.id` of then. */
  readonly user: string;
  /** The id under which the user signed up again; null: the same. */
  readonly as: string | null;
  /** Password and second factors of a user who is there as well. */
  readonly credentials: boolean;
  /** Rows that are others' as well. */
  readonly shared: boolean;
  readonly map: BackupMap;
  /** Rows may be deleted that are the user's now and were nobody's then: which those are is looked up. */
  readonly replaces: boolean;
}

/**
 * Errors: `user_not_found`, then or (with `as`) now; `ownership_unclear` where one user would own too much of a table;
 * those of `loadSideTable` and of the connection.
 */
export async function layUser(deps: LayDeps, choice: UserChoice, comment: string): Promise<Laid> {
  const { connection, schema, source } = deps;
  await makeSideSchema(connection, schema, comment);
  const there = await readLaid(connection, schema);
  if (there !== null) return there;
  const user = await readUserId(deps, choice.user);
  const as = choice.as === null ? null : await readUserId(deps, choice.as);
  const plan = planOwnership(source.graph, choice.map);
  findPastTable(source, usersTable);
  const isThere = await userIsThere(deps, as ?? user);
  if (as !== null && !isThere) {
    throw new HoldfastError("user_not_found", "the database has no user with the id of --as", {
      hint: "Give the id of the new account, as it stands in auth.users.",
    });
  }
  const tables: Wanted = new Map(
    ownedTables(plan).flatMap((table) => {
      const past = source.tables.find((one) => nameOf(one) === nameOf(table));
      return past === undefined ? [] : [[nameOf(table), { table, past }] as const];
    }),
  );
  const live = await readLiveTables(connection, [...tables.values()].map(({ past }) => past));
  const laySteps = await LaySteps.open(connection, schema);
  const extraction = new Extraction(deps, laySteps, user, tables, live);
  const steps = ownershipSteps(plan);
  for (const group of [...steps.candidates, ...steps.referred]) await extraction.take(group);
  if (extraction.rowsOf(usersTable) === 0) {
    throw new HoldfastError("user_not_found", "the backup has no such user");
  }
  const owned = await liveOwned(deps, as ?? user, choice.map);
  const strangers = new Map<string, Strangers>();
  if (choice.replaces) {
    for (const [index, [name, { past }]] of [...tables].entries()) {
      const side = extraction.sideOf(past);
      if (side === null) continue;
      const found = await findStrangers(deps, laySteps, index + 1, { past, side }, live, owned(past));
      if (found !== null) strangers.set(name, found);
    }
  }
  return await settleOnce(connection, schema, async () => {
    const shared = await keepOwned(deps, plan, extraction, user, choice.shared);
    if (as !== null) await moveTo(deps, extraction, tables, userIdColumns(source.graph, choice.map), user, as);
    const leftOut: { table: string; reason: string }[] = [];
    const laid: LaidTable[] = [];
    const stay: { table: string; rows: number }[] = [];
    for (const [name, { table }] of tables) {
      const side = extraction.sideOf(table);
      if (side === null) continue;
      const rows = await countOf(deps, side.sql);
      const reason = reasonToLeaveOut(table, { isThere, as, credentials: choice.credentials });
      if (reason !== null || (rows === 0 && !(await hasLive(deps, live, table, owned(table))))) {
        if (rows > 0 && reason !== null) leftOut.push({ table: name, reason });
        await connection.execute(`drop table ${side.sql}`);
        continue;
      }
      const others = strangers.get(name) ?? null;
      laid.push({ ...await withoutTokens(deps, table, side, rows, choice.credentials), others });
      const left = others === null ? 0 : await countStrangers(deps, others, side, live);
      if (left > 0) stay.push({ table: name, rows: left });
    }
    const { notFollowed, suspects, unmatched } = plan;
    return {
      tables: laid,
      user: {
        shared,
        notFollowed,
        suspects,
        unmatched,
        leftOut,
        stay,
      },
    };
  });
}

/** Next to the live tables; `replace` looks at the rows that are the user's alone now. Errors: those of `pairUp`. */
export async function pairUser(deps: PairDeps, { tables }: Laid, choice: UserChoice): Promise<Beside> {
  const live = await readLiveTables(deps.connection, tables.map(({ side }) => side.past));
  const owned = await liveOwned(deps, await readUserId(deps, choice.as ?? choice.user), choice.map);
  return await pairUp(deps, tables, live, ({ side, others }) => {
    const scope = owned(side.past);
    if (others === undefined || others === null || scope === "false") return scope;
    const fit = fitTable(side.past, live, deps.sameDatabase);
    return isUnfit(fit) ? "false" : `(${scope}) and ${isNoStranger(others, fit.key)}`;
  });
}

/** What people have to know about a user's rows. `taken`: those that are others' as well are among them. */
export function userWarnings(
  { shared, notFollowed, suspects, unmatched, leftOut, stay }: UserFacts,
  taken: boolean,
): string[] {
  const rowsText = (rows: number) => rows === 1 ? "1 row" : `${rows} rows`;
  return [
    ...shared.map(({ table, rows }) =>
      `${rowsText(rows)} of ${table} are other users' as well; ${
        taken ? "they are among the rows" : "they stay out (--shared takes them)"
      }`
    ),
    ...suspects.map(({ table, column }) =>
      `${nameOf(table)}.${column} looks like a user's id and is no key; backup.map.json can say so`
    ),
    ...unmatched,
    ...leftOut.map(({ table, reason }) => `rows of ${table} stay out: ${reason}`),
    ...stay.map(({ table, rows }) =>
      `${rowsText(rows)} of ${table} are the user's now and were not theirs alone then; replace leaves them as they are`
    ),
    ...notFollowed.map(({ from, columns, to, reason }) =>
      `${nameOf(from)} (${columns.join(", ")}) is not followed to ${nameOf(to)}: ${reason}`
    ),
  ];
}

/** What opened something once opens nothing again. */
async function withoutTokens(
  { connection }: PairDeps,
  { treatment: { credentials, tokens } }: OwnedTable,
  side: SideTable,
  rows: number,
  withCredentials: boolean,
): Promise<LaidTable> {
  const columns = tokens.filter((token) => side.columns.some((column) => column.name === token));
  if (columns.length > 0) {
    await connection.execute(`update ${side.sql} set ${columns.map((one) => `${quoteIdent(one)} = ''`).join(", ")}`);
  }
  return {
    side,
    rows,
    keep: [...tokens, ...(withCredentials ? [] : credentials)],
  };
}

function reasonToLeaveOut(
  table: OwnedTable,
  { isThere, as, credentials }: {
    readonly isThere: boolean;
    readonly as: string | null;
    readonly credentials: boolean;
  },
): string | null {
  const { treatment, schema } = table;
  if (treatment.restore === "never") return treatment.why;
  if (treatment.restore === "files") return "a row comes back with its file only";
  if (as !== null && schema === "auth") return "the new account keeps its own";
  if (treatment.restore === "credentials" && isThere && !credentials) return "second factors need --credentials";
  return null;
}

/** As the server writes it. Errors: `usage`. */
async function readUserId({ connection }: PairDeps, text: string): Promise<string> {
  if (!/^\{?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?$/i.test(text.trim())) {
    throw new HoldfastError("usage", "a user is named by the id in auth.users, a uuid");
  }
  const [row] = await connection.query("select $1::text::uuid::text as id", [text.trim()]);
  return row?.["id"] ?? "";
}

async function userIsThere({ connection }: PairDeps, user: string): Promise<boolean> {
  const [table] = await connection.query("select pg_catalog.to_regclass('auth.users') is not null as yes");
  if (table?.["yes"] !== "t") return false;
  const [row] = await connection.query("select exists (select from auth.users where id = $1::uuid) as yes", [user]);
  return row?.["yes"] === "t";
}

/** Removes from the side tables what is not the user's alone; says how many rows were others' as well. */
async function keepOwned(
  { connection }: PairDeps,
  plan: OwnershipPlan,
  extraction: Extraction,
  user: string,
  takeShared: boolean,
): Promise<{ table: string; rows: number }[]> {
  const sql = ownershipSql(plan, (table) => extraction.sideOf(table)?.sql ?? null, quoteLiteral(user));
  const shared: { table: string; rows: number }[] = [];
  const shares: TableShare[] = [];
  const verdicts: { side: SideTable; verdict: string; same: string }[] = [];
  for (const table of ownedTables(plan)) {
    const side = extraction.sideOf(table);
    if (side === null) continue;
    const verdict = `pg_temp.verdict_${verdicts.length}`;
    const identity = (table.key ?? ["tableoid", "ctid"]).map(quoteIdent);
    await connection.execute(
      `create temporary table verdict_${verdicts.length} as
       ${sql(table)}`,
    );
    verdicts.push({ side, verdict, same: identity.map((column, at) => `v.i${at} = t.${column}`).join(" and ") });
    const [row] = await connection.query(`select count(*) as n from ${verdict} where shared`);
    if (Number(row?.["n"]) > 0) shared.push({ table: nameOf(table), rows: Number(row?.["n"]) });
    const [all] = await connection.query(`select count(*) as n from ${verdict}`);
    shares.push({ schema: table.schema, name: table.name, reached: Number(all?.["n"]), total: side.past.rows });
  }
  checkShares(plan, shares);
  // Only now: what one table's rows are hangs on those of the others.
  for (const { side, verdict, same } of verdicts) {
    await connection.execute(
      `delete from ${side.sql} as t where not exists (select from ${verdict} as v where ${same}${
        takeShared ? "" : " and not v.shared"
      }); drop table ${verdict}`,
    );
  }
  return shared;
}

/** Rows that `replace` would look at: then the table matters although none of then is there. */
async function hasLive(
  { connection }: PairDeps,
  live: readonly LiveTable[],
  table: OwnedTable,
  scope: string,
): Promise<boolean> {
  const found = live.find((one) => nameOf(one) === nameOf(table));
  if (found === undefined) return false;
  const relation = found.partitioned ? nameOf(found) : `only ${nameOf(found)}`;
  const [row] = await connection.query(`select exists (select from ${relation} as l where ${scope}) as yes`);
  return row?.["yes"] === "t";
}

/** The rows of then become the new account's: wherever a column holds the user's id, by keys of any number or by the map. */
async function moveTo(
  { connection }: PairDeps,
  extraction: Extraction,
  tables: Wanted,
  columnsOf: (table: TableName) => readonly string[],
  user: string,
  as: string,
): Promise<void> {
  for (const { table } of tables.values()) {
    const side = extraction.sideOf(table);
    if (side === null) continue;
    for (const column of columnsOf(table)) {
      // The account itself keeps its own.
      if (nameOf(table) === nameOf(usersTable)) continue;
      const type = side.columns.find(({ name }) => name === column)?.type ?? "text";
      await connection.execute(
        `update ${side.sql} set ${quoteIdent(column)} = ${quoteLiteral(as)}::${type}
          where ${quoteIdent(column)}::text = ${quoteLiteral(user)}`,
      );
    }
  }
}

/** Which live rows `replace` looks at: those that are the user's alone now. */
async function liveOwned(
  { connection }: PairDeps,
  user: string,
  map: BackupMap,
): Promise<(table: TableName) => string> {
  const graph = await liveGraph(connection);
  const plan = planOwnership(graph, map);
  const present = new Map(ownedTables(plan).map((table) => [nameOf(table), table]));
  const graphed = new Map(graph.tables.map((table) => [nameOf(table), table]));
  const sql = ownershipSql(plan, (table) => {
    const found = graphed.get(nameOf(table));
    return found === undefined ? null : liveRelation(found);
  }, quoteLiteral(user));
  return (table) => {
    const found = present.get(nameOf(table));
    if (found === undefined || nameOf(table) === nameOf(usersTable)) return "false";
    const identity = found.key ?? ["tableoid", "ctid"];
    const own = identity.map((column) => `l.${quoteIdent(column)}`).join(", ");
    const theirs = identity.map((_, index) => `o.i${index}`).join(", ");
    return `(${own}) in (select ${theirs} from (${sql(found)}) as o where not o.shared)`;
  };
}
