/** The rows of all tables into a side schema, for a full restore in place. */
import { quoteIdent } from "../schema/quote.ts";
import { projectTables, treatmentOf } from "./auth_map.ts";
import { type Beside, type BesideDeps, type LaidTable, load, makeSide, pairUp } from "./beside.ts";
import { nameOf } from "./fold_partitions.ts";
import { type LiveTable, readLiveTables } from "./live_tables.ts";
import type { PastTable } from "./past.ts";
import { makeSideSchema, sideNames } from "./side_tables.ts";

export interface DatabaseBeside extends Beside {
  readonly laid: readonly LaidTable[];
  /** Tables whose rows stay as they are, with the reason. */
  readonly leftOut: readonly { readonly table: string; readonly reason: string; readonly rows: number }[];
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
  deps: BesideDeps,
  choice: { readonly credentials: boolean },
  comment: string,
): Promise<DatabaseBeside> {
  const { connection, schema, source } = deps;
  // Partition by partition: one that was detached since has its rows under its own name.
  const parents = new Set(source.graph.tables.filter((table) => table.partitions.length > 0).map(nameOf));
  const leftOut: { table: string; reason: string; rows: number }[] = [];
  const wanted: PastTable[] = [];
  for (const table of source.tables) {
    if (parents.has(nameOf(table)) || neverSchemas.has(table.schema) || derived.has(nameOf(table))) continue;
    const reason = reasonToLeaveOut(table);
    if (reason === null) wanted.push(table);
    else if (table.rows > 0) leftOut.push({ table: nameOf(table), reason, rows: table.rows });
  }
  await makeSideSchema(connection, schema, comment);
  const live = await readLiveTables(connection, wanted);
  const names = sideNames(wanted);
  const laid: LaidTable[] = [];
  for (const table of wanted) {
    const side = await makeSide(deps, table, names.get(table) ?? table.name, live);
    let rows = await load(deps, side, null);
    const { credentials, tokens, restore } = treatmentOf(table);
    const isPlatform = table.schema === "auth" || table.schema === "storage";
    if (isPlatform) await forgetTokens(deps, side.sql, side.columns.map(({ name }) => name), tokens);
    if (restore === "credentials" && isPlatform && !choice.credentials) {
      rows = await withoutPresentUsers(deps, side.sql, live);
    }
    laid.push({ side, rows, keep: new Set([...tokens, ...(choice.credentials ? [] : credentials)]), scope: null });
  }
  return { ...await pairUp(deps, laid, live), laid, leftOut };
}

/** The same rows, with the tables that there are now. */
export async function pairAgain(deps: BesideDeps, beside: DatabaseBeside): Promise<DatabaseBeside> {
  const live = await readLiveTables(deps.connection, beside.laid.map(({ side }) => side.past));
  return { ...beside, ...await pairUp(deps, beside.laid, live) };
}

function reasonToLeaveOut(table: PastTable): string | null {
  if (projectTables.has(nameOf(table))) return null;
  const { restore, why } = treatmentOf(table);
  if (restore === "never") return why;
  return restore === "files" ? "a row comes back with its file only" : null;
}

async function forgetTokens(
  { connection }: BesideDeps,
  side: string,
  columns: readonly string[],
  tokens: readonly string[],
): Promise<void> {
  const there = tokens.filter((token) => columns.includes(token));
  if (there.length === 0) return;
  await connection.execute(`update ${side} set ${there.map((one) => `${quoteIdent(one)} = ''`).join(", ")}`);
}

/** Second factors come back with their user only. Returns how many rows are left. */
async function withoutPresentUsers(
  { connection }: BesideDeps,
  side: string,
  live: readonly LiveTable[],
): Promise<number> {
  if (live.some((table) => table.schema === "auth" && table.name === "users")) {
    await connection.execute(`delete from ${side} where user_id in (select id from auth.users)`);
  }
  const [row] = await connection.query(`select count(*) as n from ${side}`);
  return Number(row?.["n"]);
}
