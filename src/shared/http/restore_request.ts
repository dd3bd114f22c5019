/** What a restore was asked for over HTTP, and where it waits for its legs: it may hold values of rows. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import type { RowsAsked } from "../rows/asked.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { closeTable } from "../rows/beside/side_tables.ts";
import type { LegRequest } from "../rows/leg_request.ts";
import { emptyMap, readBackupMap } from "../rows/ownership/map_file.ts";
import { splitQualified, unquoteIdent } from "../schema/quote.ts";
import { type PlanRequest, restoreRequest } from "./requests.ts";

/** Errors: `payload_invalid` for fields that do not belong together, naming them. */
export function legRequestOf(request: PlanRequest): LegRequest {
  return { asked: askedOf(request), all: request.all ?? false, mode: request.mode ?? "merge" };
}

function askedOf({ scope, table, where, all, user, as, credentials, shared, map, mode }: PlanRequest): RowsAsked {
  const forUsers = { user, as, credentials, shared, map };
  if (scope === "user") {
    only("user", { table, where, all });
    if (user === undefined) throw invalid("user is missing");
    if (shared === true && mode === "replace") throw invalid("rows that are others' as well are not replaced");
    const choice = {
      // One spelling: a person's hash in the audit is that of this text.
      user: user.toLowerCase(),
      as: as ?? null,
      credentials: credentials ?? false,
      shared: shared ?? false,
      map: map === undefined ? emptyMap : readBackupMap(JSON.stringify(map)),
      replaces: mode === "replace",
    };
    return { scope, choice };
  }
  only(scope, forUsers);
  const named = tableAsked(table);
  if (scope === "table") {
    only("table", { where, all });
    return { scope, table: named };
  }
  if (where === undefined) throw invalid("where is missing");
  return { scope, table: named, where };
}

/** Errors: `payload_invalid`. */
export function tableAsked(table: string | undefined): { readonly schema: string; readonly name: string } {
  const parts = table === undefined ? null : splitQualified(table);
  if (parts === null) throw invalid("table is written as schema.table");
  return { schema: folded(parts[0]), name: folded(parts[1]) };
}

/** A name without quotes is folded to small letters, as the server and the CLI do. */
function folded(name: string): string {
  return name.startsWith('"') ? unquoteIdent(name) : name.toLowerCase();
}

function only(scope: string, others: Readonly<Record<string, unknown>>): void {
  const given = Object.keys(others).filter((field) => others[field] !== undefined);
  if (given.length > 0) throw invalid(`${given.join(", ")} with the scope ${scope}`);
}

function invalid(message: string): HoldfastError {
  return new HoldfastError("payload_invalid", `not as expected: ${message}`);
}

const tableOf = (schema: string) => `${schema}."holdfast request"`;

/** In the caller's transaction. The schema has to be there. Errors: `payload_invalid`. */
export async function keepRequest(connection: Connection, schema: string, request: PlanRequest): Promise<void> {
  const table = tableOf(schema);
  await connection.execute(`create table ${table} (document jsonb not null)`);
  await closeTable(connection, table);
  await connection.query(`insert into ${table} values ($1::jsonb)`, [JSON.stringify(request)]).catch(
    (error: unknown) => {
      if (!(sqlstateOf(error) ?? "").startsWith("22")) throw error;
      throw new HoldfastError("payload_invalid", "not as expected: a text that no database takes", { cause: error });
    },
  );
}

/** Errors: `run_state` for rows that were not asked for over HTTP. */
export async function readLegRequest(connection: Connection, schema: string): Promise<LegRequest> {
  const [there] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [tableOf(schema)]);
  const [row] = there?.["yes"] === "t"
    ? await connection.query(`select document::text as document from ${tableOf(schema)}`)
    : [];
  if (row === undefined) {
    throw new HoldfastError("run_state", "these rows were not asked for over HTTP, or are gone", {
      hint: "The CLI, which laid them, puts them into place: holdfast restore … --apply",
    });
  }
  const request = restoreRequest.parse(JSON.parse(row["document"] ?? "null"));
  if (request.action !== "plan") {
    throw new HoldfastError("internal", `what stands in ${schema} is no request for a plan`);
  }
  return legRequestOf(request);
}
