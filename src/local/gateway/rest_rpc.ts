import { isObject } from "./answer.ts";
import { quoted, type Statements } from "./database.ts";
import { type Call, onlyItem, type Outcome, parsed, type RestDeps, transaction } from "./rest_call.ts";
import { type Routine, routine } from "./rest_catalog.ts";
import { RestFailure } from "./rest_errors.ts";
import type { Caller } from "./tokens.ts";

/** `/rpc/<name>`: by POST with a JSON object, or by GET with query parameters. */
export async function callRoutine(deps: RestDeps, caller: Caller, call: Call): Promise<Outcome> {
  const { method } = call.request;
  if (!["GET", "HEAD", "POST"].includes(method)) throw new RestFailure(405, "PGRST101", "Cannot use the method on RPC");
  const byQuery = method !== "POST";
  const body = byQuery
    ? Object.fromEntries([...call.search].filter(([name]) => name !== "apikey"))
    : call.body.trim() === ""
    ? {}
    : parsed(call);
  if (!isObject(body)) throw new RestFailure(400, "PGRST102", "Empty or invalid json");
  // A stable function runs read-only, so what it is must be known before the transaction begins.
  const found = await deps.login.as(caller, {}, (sql) => routine(sql, call.name, Object.keys(body)));
  const text = byQuery ? JSON.stringify(body) : call.body;
  const readOnly = byQuery || !found.volatile;
  return await transaction(deps, caller, call, readOnly, (sql) => runRoutine(sql, found, Object.keys(body), text));
}

/** `text` is a JSON object of the arguments named. */
async function runRoutine(
  sql: Statements,
  found: Routine,
  names: readonly string[],
  text: string,
): Promise<Outcome> {
  const types = names.map((name) => `${quoted(name)} ${found.types[name] ?? "text"}`).join(", ");
  const args = names.map((name) => `${quoted(name)} => a.${quoted(name)}`).join(", ");
  const source = names.length === 0 ? "(select 1) as a" : `json_to_record($1::json) as a (${types})`;
  const values = names.length === 0 ? [] : [text];
  if (found.returnsVoid) {
    await sql.query(`select ${found.name}(${args}) from ${source}`, values);
    return { body: null, rows: 0, total: null, status: 204 };
  }
  const rowsOf = found.returnsComposite || found.returnsSet;
  const aggregate = !rowsOf ? "(json_agg(r.v) -> 0)" : found.returnsComposite ? "json_agg(r)" : "json_agg(r.v)";
  const item = found.returnsComposite ? "f.*" : "f.v";
  const [row] = await sql.query(
    `select ${aggregate}::text as body, count(*)::text as rows from (
       select ${item} from ${source}, lateral ${found.name}(${args}) as f${found.returnsComposite ? "" : " (v)"}) as r`,
    values,
  );
  const rows = Number(row?.["rows"] ?? "0");
  const answered = row?.["body"] ?? (rowsOf ? "[]" : "null");
  if (found.returnsComposite && !found.returnsSet) {
    return { body: rows === 0 ? "null" : onlyItem(answered), rows: 1, total: null, status: 200 };
  }
  return { body: answered, rows, total: null, status: 200 };
}
