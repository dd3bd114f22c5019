import {
  assertSingle,
  type Call,
  onlyItem,
  type Outcome,
  type RestDeps,
  singleType,
  wantsSingle,
} from "./rest_call.ts";
import { exposedSchema } from "./rest_catalog.ts";
import { RestFailure, restFailureAnswer } from "./rest_errors.ts";
import { callRoutine } from "./rest_rpc.ts";
import { pageOf, table } from "./rest_table.ts";

const longestBody = 16 * 1024 * 1024;

/** `/rest/v1`: one transaction a call, under the caller's role, as PostgREST does it. */
export async function restRoute(deps: RestDeps, request: Request, path: string): Promise<Response> {
  let role = "anon";
  try {
    const { pathname, searchParams } = new URL(path, "http://rest");
    const caller = await deps.tokens.callerOf(request);
    role = caller.role;
    const [, rpc, name] = /^\/(rpc\/)?([^/]+)$/.exec(decodeURIComponent(pathname)) ?? [];
    if (name === undefined) throw new RestFailure(404, "PGRST125", "Invalid path specified in request URL");
    const prefer = new Set((request.headers.get("prefer") ?? "").split(",").map((one) => one.trim()).filter(Boolean));
    const body = request.method === "GET" || request.method === "HEAD" ? "" : await request.text();
    if (body.length > longestBody) throw new RestFailure(413, "PGRST000", "Payload too large");
    const call: Call = { request, name, search: searchParams, prefer, body };
    const outcome = await (rpc === undefined ? table(deps, caller, call) : callRoutine(deps, caller, call));
    return answer(call, outcome);
  } catch (error) {
    const refused = restFailureAnswer(error, role);
    if (refused === null) throw error;
    return refused;
  }
}

function answer(call: Call, outcome: Outcome): Response {
  const { rows, total } = outcome;
  const { offset } = call.request.method === "GET" || call.request.method === "HEAD" ? pageOf(call) : { offset: 0 };
  const range = rows === 0 ? "*" : `${offset}-${offset + rows - 1}`;
  const headers: Record<string, string> = {
    "content-range": `${range}/${total ?? "*"}`,
    "content-profile": exposedSchema,
  };
  let { body } = outcome;
  if (body !== null) headers["content-type"] = "application/json; charset=utf-8";
  if (body?.startsWith("[") && wantsSingle(call)) {
    assertSingle(call, rows, true);
    body = onlyItem(body);
    headers["content-type"] = `${singleType}; charset=utf-8`;
  }
  const empty = body === null || call.request.method === "HEAD";
  return new Response(empty ? null : body, { status: outcome.status, headers });
}
