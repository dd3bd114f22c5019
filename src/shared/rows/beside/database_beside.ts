/** The rows of all tables into a side schema, for a full restore in place. */
import { removeFromSides } from "../../erase/remove_erased.ts";
import { inTransaction } from "../../postgres/in_transaction.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { projectTables, treatmentOf } from "../ownership/auth_map.ts";
import { type Beside, pairUp, type Scope } from "./beside.ts";
import { fitTable, isUnfit } from "./fit.ts";
import type { LaidTable } from "./laid.ts";
import { countOf, type LayDeps, load, makeSide } from "./lay.ts";
import { LaySteps } from "./lay_steps.ts";
import { nameOf } from "../past/fold_partitions.ts";
import { workNames } from "../apply/difference.ts";
import { triesOf } from "../apply/done_counts.ts";
import { readForeignKeys } from "../apply/keys.ts";
import { type LiveTable, readLiveTables } from "./live_tables.ts";
import { usersTable } from "../ownership/ownership.ts";
import type { PastTable } from "../past/past.ts";
import { makeSideSchema, makeSideTable, readSideTable, sideNames, type SideTable } from "./side_tables.ts";

interface ScopedTable extends LaidTable {
  readonly scope: Scope;
}

export interface DatabaseBeside extends Beside {
  readonly laid: readonly ScopedTable[];
  /** Tables whose rows stay as they are, with the reason. */
  readonly leftOut: readonly { readonly table: string; readonly reason: string; readonly rows: number }[];
  /** Tables that get their rows once the definitions are what they were: these do not fit the types of today. */
  readonly waiting: readonly WaitingTable[];
  /** Rows of people who were erased since, by the name of the table of then: they do not come back. */
  readonly erased: ReadonlyMap<string, number>;
}

export interface WaitingTable {
  /** Quoted name of the live table. */
  readonly table: string;
  readonly oid: string;
  /** Of then. */
  readonly rows: number;
}

export interface DatabaseChoice {
  readonly credentials: boolean;
  /**
   * `schema.name`, quoted, of types that the restore of definitions is going to change (`changingTypes`); null: definitions
   * stay as they are, so rows have to fit them.
   */
  readonly changingTypes: ReadonlySet<string> | null;
}

/** Whose rows belong to the target, whatever a backup says. */
const neverSchemas = new Set(["supabase_migrations"]);
/** The platform makes them itself, out of files. */
const derived = new Set(["storage.prefixes"]);

/**
 * Of the services' tables what a project's own restore may touch: users, identities, buckets. Sessions and tokens never; files
 * come with their bytes; password and second factors of users who are there stay, unless `credentials`.
 * Errors: those of `loadSideTable` and of the connection.
 */
export async function layDatabaseBeside(
  deps: LayDeps,
  choice: DatabaseChoice,
  comment: string,
): Promise<DatabaseBeside> {
  const { connection, schema, source } = deps;
  // Partition by partition: one that was detached since has its rows under its own name.
  const parents = new Set(source.graph.tables.filter((table) => table.partitions.length > 0).map(nameOf));
  const leftOut: { table: string; reason: string; rows: number }[] = [];
  const wanted: PastTable[] = [];
  const closed: PastTable[] = [];
  for (const table of source.tables) {
    if (parents.has(nameOf(table)) || neverSchemas.has(table.schema) || derived.has(nameOf(table))) continue;
    const reason = reasonToLeaveOut(table);
    if (reason === null) wanted.push(table);
    else if (table.rows > 0) leftOut.push({ table: nameOf(table), reason, rows: table.rows });
    if (reason !== null && treatmentOf(table).restore === "never") closed.push(table);
  }
  await makeSideSchema(connection, schema, comment);
  const live = await readLiveTables(connection, [...wanted, ...closed]);
  const names = sideNames([...wanted, ...closed]);
  const laid: ScopedTable[] = [];
  const steps = await LaySteps.open(connection, schema);
  const users = wanted.find((table) => nameOf(table) === nameOf(usersTable));
  const usersSide = users === undefined ? null : quoteQualified(schema, names.get(users) ?? users.name);
  const ofGone = await rowsOfGone(deps, live, usersSide);
  for (const table of wanted) {
    const side = await makeTyped(deps, table, names.get(table) ?? table.name, live, choice.changingTypes ?? new Set());
    const step = steps.next();
    if (!step.done) {
      await load(deps, side, null, step);
      await step.finish(() => Promise.resolve(step.rows));
    }
    let rows = step.rows;
    const { credentials, tokens, restore } = treatmentOf(table);
    const isPlatform = table.schema === "auth" || table.schema === "storage";
    if (isPlatform) await forgetTokens(deps, side.sql, side.columns.map(({ name }) => name), tokens);
    if (restore === "credentials" && isPlatform && !choice.credentials) {
      rows = await withoutPresentUsers(deps, side.sql, live, users === undefined ? 0 : wanted.indexOf(users) + 1);
    }
    const isGuarded = isPlatform && restore === "credentials" && !choice.credentials;
    laid.push({
      side,
      rows,
      keep: [...tokens, ...(choice.credentials ? [] : credentials)],
      scope: isGuarded ? ofGone(table) : null,
    });
  }
  const ledger = await deps.source.erased(connection);
  const erased = await inTransaction(
    connection,
    () => removeFromSides(connection, source.graph, laid.map(({ side }) => side), ledger),
  );
  for (const [at, one] of laid.entries()) laid[at] = { ...one, rows: one.rows - (erased.get(one.side.sql) ?? 0) };
  // What hangs on an account goes with it, as it would by the keys of the platform.
  for (const table of closed) {
    const scope = ofGone(table);
    if (scope === "false") continue;
    const side = await makeSide(deps, table, names.get(table) ?? table.name, live);
    laid.push({ side, rows: 0, keep: [], scope });
  }
  const waiting = choice.changingTypes === null ? [] : await findWaiting(deps, laid, live);
  // Without a live table it is not paired; all others keep their places among the tables of work.
  const oids = new Set(waiting.map(({ told }) => told.oid));
  const waits = new Set(waiting.map(({ past }) => past));
  const paired = await pairScoped(deps, laid, live.filter(({ oid }) => !oids.has(oid)));
  const unfit = paired.unfit.filter(({ past }) => !waits.has(past));
  const left = new Map(laid.map(({ side }) => [nameOf(side.past), erased.get(side.sql) ?? 0]));
  return { ...paired, unfit, laid, leftOut, waiting: waiting.map(({ told }) => told), erased: left };
}

async function makeTyped(
  deps: LayDeps,
  table: PastTable,
  name: string,
  live: readonly LiveTable[],
  asText: ReadonlySet<string>,
): Promise<SideTable> {
  const fit = fitTable(table, live, deps.sameDatabase);
  const types = new Map(isUnfit(fit) ? [] : fit.columns.map((column) => [column.past, column.liveType]));
  return await makeSideTable(deps.connection, deps.schema, table, name, types, asText);
}

/** Tables with a value of then that the type of today does not take. Errors: those of the connection. */
async function findWaiting(
  { connection, sameDatabase }: LayDeps,
  laid: readonly ScopedTable[],
  live: readonly LiveTable[],
): Promise<{ readonly past: PastTable; readonly told: WaitingTable }[]> {
  const found: { past: PastTable; told: WaitingTable }[] = [];
  for (const { side, rows } of laid) {
    const fit = fitTable(side.past, live, sameDatabase);
    if (isUnfit(fit)) continue;
    const types = new Map(side.columns.map(({ name, type }) => [name, type]));
    const casts = fit.columns.filter((column) => types.get(column.past) !== column.liveType)
      .map((column) => `pg_catalog.count(${quoteIdent(column.past)}::text::${column.liveType})`);
    if (casts.length === 0) continue;
    try {
      await connection.query(`select ${casts.join(", ")} from ${side.sql}`);
    } catch (error) {
      if (!/^(?:22|23)/.test(sqlstateOf(error) ?? "")) throw error;
      const { schema, name, oid } = fit.live;
      found.push({ past: side.past, told: { table: quoteQualified(schema, name), oid, rows } });
    }
  }
  return found;
}

/** The same rows, with the tables that there are now. */
export async function pairAgain(deps: LayDeps, beside: DatabaseBeside): Promise<DatabaseBeside> {
  const live = await readLiveTables(deps.connection, beside.laid.map(({ side }) => side.past));
  const laid: ScopedTable[] = [];
  for (const one of beside.laid) laid.push({ ...one, side: await readSideTable(deps.connection, one.side) });
  return { ...beside, ...await pairScoped(deps, laid, live), laid, waiting: [] };
}

async function pairScoped(deps: LayDeps, laid: readonly ScopedTable[], live: readonly LiveTable[]): Promise<Beside> {
  const scopes = new Map<LaidTable, Scope>(laid.map((table) => [table, table.scope]));
  return await pairUp(deps, laid, live, (table) => scopes.get(table) ?? null);
}

/** Which live rows `l` of a service's table hang, by its foreign keys, on users who were not there then; `false`: none. */
async function rowsOfGone(
  { connection }: LayDeps,
  live: readonly LiveTable[],
  usersSide: string | null,
): Promise<(table: PastTable) => string> {
  const users = live.find((table) => nameOf(table) === nameOf(usersTable));
  if (users === undefined || usersSide === null) return () => "false";
  const services = live.filter(({ schema }) => schema === usersTable.schema);
  const keys = await readForeignKeys(connection, services.map(({ oid }) => oid));
  const conditions = (oid: string, alias: string, path: readonly string[]): string[] =>
    oid === users.oid ? [`not exists (select from ${usersSide} as u where u.id = ${alias}.id)`] : keys
      .filter((key) => key.childOid === oid && !path.includes(key.parentOid))
      .flatMap((key) => {
        const parent = `p${path.length}`;
        const same = key.pairs.map((pair) =>
          `${parent}.${quoteIdent(pair.parent)} ${pair.equals} ${alias}.${quoteIdent(pair.child)}`
        );
        const further = conditions(key.parentOid, parent, [...path, oid]);
        return further.length === 0 ? [] : [
          `exists (select from ${key.parentRows} as ${parent} where ${same.join(" and ")} and (${
            further.join(" or ")
          }))`,
        ];
      });
  return (table) => {
    const found = services.find((one) => nameOf(one) === nameOf(table));
    const all = found === undefined || found.oid === users.oid ? [] : conditions(found.oid, "l", []);
    return all.length === 0 ? "false" : all.join(" or ");
  };
}

function reasonToLeaveOut(table: PastTable): string | null {
  if (projectTables.has(nameOf(table))) return null;
  const { restore, why } = treatmentOf(table);
  if (restore === "never") return why;
  return restore === "files" ? "a row comes back with its file only" : null;
}

async function forgetTokens(
  { connection }: LayDeps,
  side: string,
  columns: readonly string[],
  tokens: readonly string[],
): Promise<void> {
  const there = tokens.filter((token) => columns.includes(token));
  if (there.length === 0) return;
  await connection.execute(`update ${side} set ${there.map((one) => `${quoteIdent(one)} = ''`).join(", ")}`);
}

/**
 * Second factors come back with their user only: with one who is not there, or whom an earlier try of this restore brought.
 * `place`: of the accounts among the tables of work; 0: there are none. Returns how many rows are left.
 */
async function withoutPresentUsers(
  deps: LayDeps,
  side: string,
  live: readonly LiveTable[],
  place: number,
): Promise<number> {
  const { connection, schema } = deps;
  if (live.some((table) => nameOf(table) === nameOf(usersTable))) {
    const tries = place === 0 ? [] : await triesOf(connection, schema, workNames.delta(place));
    const ownWork = tries.map((name) =>
      ` and not exists (select from ${
        quoteQualified(schema, name)
      } as d where d."action" = 'insert' and d."done" and d."key 1" = s.user_id)`
    );
    await connection.execute(
      `delete from ${side} as s where s.user_id in (select id from auth.users)${ownWork.join("")}`,
    );
  }
  return await countOf(deps, side);
}
