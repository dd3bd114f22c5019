/** All that one user owned, into a side schema: found by the keys of then, row by row. */
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { quoteIdent, quoteLiteral } from "../../schema/quote.ts";
import { type Beside, type BesideDeps, findPastTable, type LaidTable, load, makeSide, pairUp } from "./beside.ts";
import { escapeCopyText } from "./conditions.ts";
import { nameOf } from "../past/fold_partitions.ts";
import { liveGraph } from "../ownership/live_graph.ts";
import { type LiveTable, readLiveTables } from "./live_tables.ts";
import type { BackupMap } from "../ownership/map_file.ts";
import {
  type NotFollowed,
  type OwnedTable,
  ownedTables,
  type OwnershipPlan,
  planOwnership,
  usersTable,
} from "../ownership/ownership.ts";
import { equalityOf } from "../ownership/ownership_sets.ts";
import { liveRelation, ownershipSql } from "../ownership/ownership_sql.ts";
import { ownershipSteps, type StepCondition, type StepGroup } from "../ownership/ownership_steps.ts";
import type { PastTable, RowCondition } from "../past/past.ts";
import { checkShares, type TableShare } from "../ownership/share_limit.ts";
import { makeSideSchema, sideNames, type SideTable } from "./side_tables.ts";
import { userIdColumns } from "../ownership/user_id_columns.ts";

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
}

export interface UserBeside extends Beside {
  /** Rows that reach another user too; among the rows only where they were asked for. */
  readonly shared: readonly { readonly table: string; readonly rows: number }[];
  readonly notFollowed: readonly NotFollowed[];
  /** Columns that look like a user's id and are no key: a map can say so. */
  readonly suspects: OwnershipPlan["suspects"];
  /** Entries of the map that fit nothing. */
  readonly unmatched: readonly string[];
  /** Tables of which rows of the user stay out, with the reason. */
  readonly leftOut: readonly { readonly table: string; readonly reason: string }[];
}

/**
 * Errors: `user_not_found`, then or (with `as`) now; `ownership_unclear` where one user would own too much of a table;
 * those of `loadSideTable` and of the connection.
 */
export async function layUserBeside(deps: BesideDeps, choice: UserChoice, comment: string): Promise<UserBeside> {
  const { connection, schema, source } = deps;
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
  const tables = new Map(
    ownedTables(plan).flatMap((table) => {
      const past = source.tables.find((one) => nameOf(one) === nameOf(table));
      return past === undefined ? [] : [[nameOf(table), { table, past }] as const];
    }),
  );
  await makeSideSchema(connection, schema, comment);
  const live = await readLiveTables(connection, [...tables.values()].map(({ past }) => past));
  const extraction = new Extraction(deps, user, tables, live);
  const steps = ownershipSteps(plan);
  for (const group of [...steps.candidates, ...steps.referred]) await extraction.take(group);
  if (extraction.rowsOf(usersTable) === 0) {
    throw new HoldfastError("user_not_found", "the backup has no such user");
  }
  const shared = await keepOwned(deps, plan, extraction, user, choice.shared);
  if (as !== null) await moveTo(deps, extraction, tables, userIdColumns(source.graph, choice.map), user, as);
  const leftOut: { table: string; reason: string }[] = [];
  const owned = await liveOwned(deps, as ?? user, choice.map);
  const laid: LaidTable[] = [];
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
    const { credentials, tokens } = table.treatment;
    // What opened something once opens nothing again.
    const columns = tokens.filter((token) => side.columns.some((column) => column.name === token));
    if (columns.length > 0) {
      await connection.execute(`update ${side.sql} set ${columns.map((one) => `${quoteIdent(one)} = ''`).join(", ")}`);
    }
    const keep = new Set([...tokens, ...(choice.credentials ? [] : credentials)]);
    laid.push({ side, rows, keep, scope: owned(table) });
  }
  const beside = await pairUp(deps, laid, live);
  const { notFollowed, suspects, unmatched } = plan;
  return { ...beside, shared, notFollowed, suspects, unmatched, leftOut };
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
async function readUserId({ connection }: BesideDeps, text: string): Promise<string> {
  if (!/^\{?[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\}?$/i.test(text.trim())) {
    throw new HoldfastError("usage", "a user is named by the id in auth.users, a uuid");
  }
  const [row] = await connection.query("select $1::text::uuid::text as id", [text.trim()]);
  return row?.["id"] ?? "";
}

async function userIsThere({ connection }: BesideDeps, user: string): Promise<boolean> {
  const [table] = await connection.query("select pg_catalog.to_regclass('auth.users') is not null as yes");
  if (table?.["yes"] !== "t") return false;
  const [row] = await connection.query("select exists (select from auth.users where id = $1::uuid) as yes", [user]);
  return row?.["yes"] === "t";
}

type Wanted = ReadonlyMap<string, { readonly table: OwnedTable; readonly past: PastTable }>;

/** Rows of the steps of an ownership plan, each table once. */
class Extraction {
  readonly #deps: BesideDeps;
  readonly #user: string;
  readonly #wanted: Wanted;
  readonly #live: readonly LiveTable[];
  readonly #names: Map<PastTable, string>;
  readonly #taken = new Map<string, { readonly side: SideTable; readonly conditions: StepCondition[]; rows: number }>();

  constructor(deps: BesideDeps, user: string, wanted: Wanted, live: readonly LiveTable[]) {
    this.#deps = deps;
    this.#user = user;
    this.#wanted = wanted;
    this.#live = live;
    this.#names = sideNames([...wanted.values()].map(({ past }) => past));
  }

  sideOf(table: TableName): SideTable | null {
    return this.#taken.get(nameOf(table))?.side ?? null;
  }

  rowsOf(table: TableName): number {
    return this.#taken.get(nameOf(table))?.rows ?? 0;
  }

  /** Errors: those of `loadSideTable`. */
  async take({ steps, repeat }: StepGroup): Promise<void> {
    for (;;) {
      const before = this.#total();
      for (const { table, conditions } of steps) {
        if (this.#wanted.has(nameOf(table))) await this.#takeTable(table, conditions);
      }
      if (!repeat || this.#total() === before) return;
    }
  }

  #total(): number {
    return [...this.#taken.values()].reduce((sum, { rows }) => sum + rows, 0);
  }

  /** All rows that fit a condition of this step or of one before, read again as a whole: no row is there twice. */
  async #takeTable(table: TableName, conditions: readonly StepCondition[]): Promise<void> {
    const { connection } = this.#deps;
    const wanted = this.#wanted.get(nameOf(table));
    if (wanted === undefined) return;
    let taken = this.#taken.get(nameOf(table));
    if (taken === undefined) {
      const name = this.#names.get(wanted.past) ?? table.name;
      taken = { side: await makeSide(this.#deps, wanted.past, name, this.#live), conditions: [], rows: 0 };
      this.#taken.set(nameOf(table), taken);
    }
    taken.conditions.push(...conditions.filter((one) => one.from === null || this.sideOf(one.from) !== null));
    const filter: RowCondition[] = [];
    for (const condition of taken.conditions) filter.push(await this.#condition(condition));
    const { side } = taken;
    const fits = taken.conditions.map((condition) => this.#fits(side, condition));
    if (filter.every(({ values }) => values.size === 0)) return;
    // A table that refers to itself is asked for what it holds now, so that is kept until the new rows are in.
    const asked = taken.conditions.some(({ from }) => from !== null && nameOf(from) === nameOf(table));
    if (asked) await connection.execute(`create temporary table taken_before as select * from ${taken.side.sql}`);
    await connection.execute(`truncate ${taken.side.sql}`);
    await load(this.#deps, taken.side, filter);
    const own = asked ? (sql: string) => sql.replaceAll(`from ${taken.side.sql}`, "from pg_temp.taken_before") : String;
    await connection.execute(`delete from ${taken.side.sql} as t where (${fits.map(own).join(" or ")}) is not true`);
    if (asked) await connection.execute("drop table pg_temp.taken_before");
    taken.rows = await countOf(this.#deps, taken.side.sql);
  }

  async #condition({ columns, from, fromColumns }: StepCondition): Promise<RowCondition> {
    if (from === null) return { columns, values: new Set([this.#user]) };
    const side = this.sideOf(from);
    if (side === null) return { columns, values: new Set() };
    const list = fromColumns.map((column) => `${quoteIdent(column)}::text`).join(", ");
    const rows = await this.#deps.connection.query(
      `select distinct pg_catalog.to_json(array[${list}])::text as texts from ${side.sql}
        where ${fromColumns.map((column) => `${quoteIdent(column)} is not null`).join(" and ")}`,
    );
    return {
      columns,
      values: new Set(rows.map((row) => (JSON.parse(row["texts"] ?? "[]") as string[]).map(escapeCopyText).join("\t"))),
    };
  }

  #fits(own: SideTable, { columns, from, fromColumns }: StepCondition): string {
    if (from === null) {
      return columns.map((column) => `t.${quoteIdent(column)}::text = ${quoteLiteral(this.#user)}`).join(" and ");
    }
    const side = this.sideOf(from);
    if (side === null) return "false";
    const typeOf = (table: SideTable, name: string) => table.columns.find((column) => column.name === name)?.type ?? "";
    const pairs = fromColumns.map((column, at) => {
      const equals = equalityOf(typeOf(own, columns[at] ?? ""), typeOf(side, column));
      return `t.${quoteIdent(columns[at] ?? "")} ${equals} f.${quoteIdent(column)}`;
    });
    return `exists (select from ${side.sql} as f where ${pairs.join(" and ")})`;
  }
}

/** Removes from the side tables what is not the user's alone; says how many rows were others' as well. */
async function keepOwned(
  { connection }: BesideDeps,
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
    // No column may be called as the server's own are.
    const identity = (table.key ?? ["tableoid", "ctid"]).map(quoteIdent);
    await connection.execute(
      `create temporary table verdict_${verdicts.length} as
       select ${identity.map((column, at) => `q.${column} as i${at}`).join(", ")}, q.shared from (${
        sql.rows(table)
      }) as q`,
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
  { connection }: BesideDeps,
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
  { connection }: BesideDeps,
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
  { connection }: BesideDeps,
  user: string,
  map: BackupMap,
): Promise<(table: OwnedTable) => string> {
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
    const theirs = identity.map((column) => `o.${quoteIdent(column)}`).join(", ");
    return `(${own}) in (select ${theirs} from (${sql.rows(found)}) as o where not o.shared)`;
  };
}

async function countOf({ connection }: BesideDeps, relation: string): Promise<number> {
  const [row] = await connection.query(`select count(*) as n from ${relation}`);
  return Number(row?.["n"]);
}
