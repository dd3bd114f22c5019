import { isObject } from "./answer.ts";
import { quoted, type Statements } from "./database.ts";
import { assertSingle, type Call, type Outcome, parsed, type RestDeps, transaction } from "./rest_call.ts";
import { primaryKey, relation } from "./rest_catalog.ts";
import { RestFailure } from "./rest_errors.ts";
import { conditions, ordering, paging, Parameters, selection, splitTop } from "./rest_query.ts";
import type { Caller } from "./tokens.ts";

/** Reads and changes of one table or view. */
export function table(deps: RestDeps, caller: Caller, call: Call): Promise<Outcome> {
  const { method } = call.request;
  const act = { GET: read, HEAD: read, POST: insert, PATCH: update, DELETE: remove }[method];
  if (act === undefined) throw new RestFailure(405, "PGRST117", `Unsupported HTTP method: ${method}`);
  return transaction(deps, caller, call, act === read, async (sql) => act(sql, call, await relation(sql, call.name)));
}

async function read(sql: Statements, call: Call, target: string): Promise<Outcome> {
  const parameters = new Parameters();
  const where = conditions(call.search, "t", parameters);
  const { offset, limit } = pageOf(call);
  const [row] = await sql.query(
    `select coalesce(json_agg(r), '[]')::text as body, count(*)::text as rows from (
       select ${selection(call.search.get("select"), "t")} from ${target} as t where ${where}
       ${ordering(call.search.get("order"), "t")} ${limit === null ? "" : `limit ${limit}`} offset ${offset}) as r`,
    parameters.values,
  );
  const rows = Number(row?.["rows"] ?? "0");
  let total: number | null = null;
  if (call.prefer.has("count=exact")) {
    const [counted] = await sql.query(
      `select count(*)::text as rows from ${target} as t where ${where}`,
      parameters.values,
    );
    total = Number(counted?.["rows"] ?? "0");
  }
  if (total !== null && offset > 0 && offset >= total) {
    throw new RestFailure(
      416,
      "PGRST103",
      "Requested range not satisfiable",
      `An offset of ${offset} was requested, but there are only ${total} rows.`,
    );
  }
  return { body: row?.["body"] ?? "[]", rows, total, status: total !== null && rows < total ? 206 : 200 };
}

/** `limit` and `offset`, or the `Range` header that older clients send instead. */
export function pageOf(call: Call): { readonly offset: number; readonly limit: number | null } {
  const [, from, to] = /^(?:items=)?(\d+)-(\d*)$/.exec(call.request.headers.get("range") ?? "") ?? [];
  if (from === undefined || call.search.has("limit") || call.search.has("offset")) return paging(call.search);
  return { offset: Number(from), limit: to === undefined || to === "" ? null : Number(to) - Number(from) + 1 };
}

async function insert(sql: Statements, call: Call, target: string): Promise<Outcome> {
  const given = parsed(call);
  const items: unknown[] = Array.isArray(given) ? given : [given];
  const rows = items.filter(isObject);
  if (rows.length < items.length) throw new RestFailure(400, "PGRST102", "Empty or invalid json");
  const listed = call.search.get("columns");
  const names = listed === null
    ? Object.keys(rows[0] ?? {})
    : splitTop(listed).map((one) => one.replace(/^"(.*)"$/, "$1"));
  if (listed === null && rows.some((row) => Object.keys(row).sort().join() !== [...names].sort().join())) {
    throw new RestFailure(400, "PGRST102", "All object keys must match");
  }
  if (rows.length === 0) return await returned(sql, call, null, []);
  const columns = names.map(quoted).join(", ");
  const source = names.length === 0
    ? "default values"
    : `(${columns}) select ${columns} from json_populate_recordset(null::${target}, $1::json)`;
  const statement = `insert into ${target} as t ${source} ${await onConflict(sql, call, names)}`;
  // The server gets the text as it came: what JavaScript makes of it would round long numbers.
  const text = Array.isArray(given) ? call.body : `[${call.body}]`;
  return { ...await returned(sql, call, statement, names.length === 0 ? [] : [text]), status: 201 };
}

/** `Prefer: resolution=merge-duplicates | ignore-duplicates`, on the columns named or on the primary key. */
async function onConflict(sql: Statements, call: Call, names: readonly string[]): Promise<string> {
  const merge = call.prefer.has("resolution=merge-duplicates");
  if (!merge && !call.prefer.has("resolution=ignore-duplicates")) return "";
  const named = call.search.get("on_conflict");
  const key = named === null ? await primaryKey(sql, call.name) : splitTop(named).map((one) => one.trim());
  if (key.length === 0) return "";
  const target = `on conflict (${key.map(quoted).join(", ")})`;
  if (!merge) return `${target} do nothing`;
  return `${target} do update set ${names.map((name) => `${quoted(name)} = excluded.${quoted(name)}`).join(", ")}`;
}

async function update(sql: Statements, call: Call, target: string): Promise<Outcome> {
  const values = parsed(call);
  if (!isObject(values)) throw new RestFailure(400, "PGRST102", "Empty or invalid json");
  const names = Object.keys(values);
  if (names.length === 0) return await returned(sql, call, null, []);
  const parameters = new Parameters();
  const source = `json_populate_record(null::${target}, ${parameters.add(call.body)}::json)`;
  const set = names.map((name) => `${quoted(name)} = v.${quoted(name)}`).join(", ");
  const where = conditions(call.search, "t", parameters);
  return await returned(
    sql,
    call,
    `update ${target} as t set ${set} from ${source} as v where ${where}`,
    parameters.values,
  );
}

async function remove(sql: Statements, call: Call, target: string): Promise<Outcome> {
  const parameters = new Parameters();
  const where = bounded(conditions(call.search, "t", parameters), "DELETE");
  return await returned(sql, call, `delete from ${target} as t where ${where}`, parameters.values);
}

/** The platform loads pg-safeupdate for the API: a change of every row by mistake is refused. */
function bounded(where: string, statement: string): string {
  if (where === "true") throw new RestFailure(400, "21000", `${statement} requires a WHERE clause`);
  return where;
}

/** Runs a change; rows come back (and need the right to be read) only with `Prefer: return=representation`. */
async function returned(
  sql: Statements,
  call: Call,
  statement: string | null,
  values: readonly (string | null)[],
): Promise<Outcome> {
  const wanted = call.prefer.has("return=representation");
  const none = { body: wanted ? "[]" : null, rows: 0, total: null, status: wanted ? 200 : 204 };
  if (statement === null) return none;
  const list = wanted ? selection(call.search.get("select"), "t") : "1";
  const [row] = await sql.query(
    `with changed as (${statement} returning ${list})
     select count(*)::text as rows, ${
      wanted ? "coalesce(json_agg(changed), '[]')::text" : "null::text"
    } as body from changed`,
    values,
  );
  const rows = Number(row?.["rows"] ?? "0");
  assertSingle(call, rows, wanted);
  return { ...none, body: row?.["body"] ?? null, rows, total: call.prefer.has("count=exact") ? rows : null };
}
