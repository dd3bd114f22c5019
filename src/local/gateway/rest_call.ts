import { type Login, quoted, type Statements } from "./database.ts";
import type { PreRequest } from "./pre_request.ts";
import { exposedSchema } from "./rest_catalog.ts";
import { RestFailure } from "./rest_errors.ts";
import type { Caller, Tokens } from "./tokens.ts";

export interface RestDeps {
  /** As `authenticator`. */
  readonly login: Login;
  readonly tokens: Tokens;
  readonly preRequest: PreRequest;
}

/** What a statement gave back: JSON of the rows (or of one value), how many, and how many there are in all. */
export interface Outcome {
  readonly body: string | null;
  readonly rows: number;
  readonly total: number | null;
  readonly status: number;
}

export interface Call {
  readonly request: Request;
  readonly name: string;
  readonly search: URLSearchParams;
  readonly prefer: ReadonlySet<string>;
  /** The body's text; only where the method has one. */
  readonly body: string;
}

/** Asked for by `.single()`. */
export const singleType = "application/vnd.pgrst.object+json";

/** The call's transaction: role and settings, then the pre-request function, then the work. */
export function transaction<T>(
  deps: RestDeps,
  caller: Caller,
  { request }: Call,
  readOnly: boolean,
  work: (sql: Statements) => Promise<T>,
): Promise<T> {
  const headers = Object.fromEntries([...request.headers].map(([name, value]) => [name.toLowerCase(), value]));
  const settings = {
    search_path: `${quoted(exposedSchema)}, "extensions"`,
    "request.method": request.method,
    "request.path": new URL(request.url).pathname.replace(/^\/rest\/v1/, ""),
    "request.headers": JSON.stringify(headers),
    "request.cookies": "{}",
  };
  return deps.login.as(caller, settings, async (sql) => {
    const before = deps.preRequest.statement;
    if (before !== null) await sql.query(before);
    return await work(sql);
  }, readOnly ? "begin isolation level read committed read only" : "begin isolation level read committed");
}

export function parsed(call: Call): unknown {
  try {
    return JSON.parse(call.body);
  } catch {
    throw new RestFailure(400, "PGRST102", "Empty or invalid json");
  }
}

/** The one item of a JSON array, as text: parsing it would round long numbers. */
export function onlyItem(array: string): string {
  return array.slice(1, -1);
}

export function wantsSingle(call: Call): boolean {
  return call.request.headers.get("accept")?.includes(singleType) ?? false;
}

/** With `.single()` a change of more or fewer rows than one is taken back. */
export function assertSingle(call: Call, rows: number, wanted: boolean): void {
  if (!wanted || !wantsSingle(call) || rows === 1) return;
  throw new RestFailure(
    406,
    "PGRST116",
    "Cannot coerce the result to a single JSON object",
    `The result contains ${rows} rows`,
  );
}
