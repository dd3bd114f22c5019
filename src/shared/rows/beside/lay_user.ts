/** All that one user owned, into a side schema: found by the keys of then, row by row. */
import { isErasedUser, removeFromSides } from "../../erase/remove_erased.ts";
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import { type Equalities, readEqualities } from "../ownership/equalities.ts";
import type { BackupMap } from "../ownership/map_file.ts";
import { type OwnedTable, ownedTables, type OwnershipPlan, planOwnership, usersTable } from "../ownership/ownership.ts";
import { isVerdictOn, ownershipSql } from "../ownership/ownership_sql.ts";
import { ownershipSteps } from "../ownership/ownership_steps.ts";
import { checkShares, type TableShare } from "../ownership/share_limit.ts";
import { userIdColumns } from "../ownership/user_id_columns.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { PairDeps } from "./beside.ts";
import { type Laid, type LaidTable, readLaid, settleOnce } from "./laid.ts";
import { countOf, findPastTable, type LayDeps } from "./lay.ts";
import { LaySteps } from "./lay_steps.ts";
import { type LiveTable, readLiveTables } from "./live_tables.ts";
import { countStaying, countUntold, findNewcomers, type Newcomers } from "./newcomers.ts";
import { forgetTokens, keptColumns } from "./service_tables.ts";
import { makeSideSchema, type SideTable } from "./side_tables.ts";
import { Extraction, type Wanted } from "./user_extraction.ts";
import { readUserId, readUserNow, userIsThere } from "./user_now.ts";

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
 * Errors: `user_erased`; `user_not_found`, then or (with `as`) now; `ownership_unclear` where one user would own too much of a table;
 * those of `loadSideTable` and of the connection.
 */
export async function layUser(deps: LayDeps, choice: UserChoice, comment: string): Promise<Laid> {
  const { connection, schema, source } = deps;
  await makeSideSchema(connection, schema, comment);
  const there = await readLaid(connection, schema);
  if (there !== null) return there;
  const user = await readUserId(connection, choice.user);
  const as = choice.as === null ? null : await readUserId(connection, choice.as);
  const plan = planOwnership(source.graph, choice.map);
  const ledger = await source.erased(connection);
  if (await isErasedUser(connection, ledger, user)) {
    throw new HoldfastError("user_erased", "the person was erased, and is not brought back");
  }
  findPastTable(source, usersTable);
  if (as !== null && !(await userIsThere(connection, as))) {
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
  const equals = await readEqualities(connection, source.graph.tables);
  const extraction = new Extraction(deps, laySteps, user, tables, live, equals);
  const steps = ownershipSteps(plan);
  for (const group of [...steps.candidates, ...steps.referred]) await extraction.take(group);
  if (extraction.rowsOf(usersTable) === 0) {
    throw new HoldfastError("user_not_found", "the backup has no such user");
  }
  const now = await readUserNow(connection, as ?? user, choice.map);
  const newcomers = new Map<string, Newcomers>();
  if (choice.replaces) {
    for (const [index, [name, { past }]] of [...tables].entries()) {
      const side = extraction.sideOf(past);
      if (side === null) continue;
      const found = await findNewcomers(deps, laySteps, index + 1, { past, side }, live, now.owned(past));
      if (found !== null) newcomers.set(name, found);
    }
  }
  return await settleOnce(connection, schema, async () => {
    const sides = [...tables.values()].flatMap(({ table }) => extraction.sideOf(table) ?? []);
    await removeFromSides(connection, source.graph, sides, ledger);
    const shared = await keepOwned(deps, plan, extraction, user, choice.shared, equals);
    if (as !== null) await moveTo(deps, extraction, tables, userIdColumns(source.graph, choice.map), user, as);
    const leftOut: { table: string; reason: string }[] = [];
    const kept: { name: string; table: OwnedTable; side: SideTable }[] = [];
    for (const [name, { table }] of tables) {
      const side = extraction.sideOf(table);
      if (side === null) continue;
      const reason = reasonToLeaveOut(table, as);
      if (reason === null) {
        kept.push({ name, table, side });
        continue;
      }
      if (await countOf(deps, side.sql) > 0) leftOut.push({ table: name, reason });
      await connection.execute(`drop table ${side.sql}`);
    }
    const laid: LaidTable[] = [];
    const stay: { table: string; rows: number }[] = [];
    const untold: { table: string; rows: number }[] = [];
    for (const { name, table, side } of kept) {
      const rows = await countOf(deps, side.sql);
      const meant = now.owned(table);
      if (rows === 0 && !(await hasLive(deps, live, table, meant))) {
        await connection.execute(`drop table ${side.sql}`);
        continue;
      }
      const { treatment } = table;
      await forgetTokens(connection, treatment, side);
      const found = newcomers.get(name) ?? null;
      const left = found === null ? 0 : await countStaying(deps, found, side, live);
      const open = choice.replaces ? await countUntold(deps, side, live, meant) : 0;
      if (left > 0) stay.push({ table: name, rows: left });
      if (open > 0) untold.push({ table: name, rows: open });
      laid.push({ side, rows, keep: keptColumns(treatment, choice.credentials), newcomers: found, stay: left });
    }
    const { notFollowed, suspects, unmatched } = plan;
    return { tables: laid, user: { shared, notFollowed, suspects, unmatched, leftOut, stay, untold } };
  });
}

function reasonToLeaveOut({ treatment, schema }: OwnedTable, as: string | null): string | null {
  if (treatment.restore === "never") return treatment.why;
  if (treatment.restore === "files") return "a row comes back with its file only";
  if (as !== null && schema === "auth") return "the new account keeps its own";
  return null;
}

/** Removes from the side tables what is not the user's alone; says how many rows were others' as well. */
async function keepOwned(
  { connection }: PairDeps,
  plan: OwnershipPlan,
  extraction: Extraction,
  user: string,
  takeShared: boolean,
  equals: Equalities,
): Promise<{ table: string; rows: number }[]> {
  const sql = ownershipSql(plan, (table) => extraction.sideOf(table)?.sql ?? null, quoteLiteral(user), equals);
  const shared: { table: string; rows: number }[] = [];
  const shares: TableShare[] = [];
  const verdicts: { side: SideTable; verdict: string; same: string }[] = [];
  for (const table of ownedTables(plan)) {
    const side = extraction.sideOf(table);
    if (side === null) continue;
    const verdict = `pg_temp.verdict_${verdicts.length}`;
    await connection.execute(
      `create temporary table verdict_${verdicts.length} as
       ${sql(table)}`,
    );
    verdicts.push({ side, verdict, same: isVerdictOn(table, "t", "v", equals) });
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
