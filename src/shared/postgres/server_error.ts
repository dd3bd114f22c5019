import { asHoldfastError, type ErrorCode, errorTable, HoldfastError } from "../errors.ts";

/** What we read of the server's error fields; `message` and `detail` can hold a row's value. */
interface ServerFields {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly hint?: unknown;
  readonly schema?: unknown;
  readonly table?: unknown;
  readonly column?: unknown;
  readonly constraint?: unknown;
}

const codeBySqlstate: ReadonlyMap<string, ErrorCode> = new Map(
  Object.entries(errorTable).map(([code, facts]) => [facts.sqlstate, code as ErrorCode]),
);

/** Classes whose primary message can quote a value: data exceptions, constraint violations, a user's own RAISE. */
const quotesValues = /^(22|23|P0)/;

const networkCodes = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ENOTFOUND",
  "EAI_AGAIN",
  "ETIMEDOUT",
  "EPIPE",
  "ENOENT",
  "EACCES",
]);

/** The server's SQLSTATE behind an error (its own or that of its causes), or null when no server raised it. */
export function sqlstateOf(error: unknown): string | null {
  let at: unknown = error;
  for (let depth = 0; depth < 8 && at instanceof Error; depth++) {
    if ("code" in at && typeof at.code === "string" && isSqlstate(at.code) && "severity" in at) return at.code;
    at = at.cause;
  }
  return null;
}

/**
 * A driver's or server's error as ours. `where` names the server for people, without a password.
 * HFxxx → its code; 28xxx and 42501 → `database_denied`; 55P03 → `lock_timeout`; 57P01–57P03, class 08 and socket errors →
 * `database_unreachable`; any other SQLSTATE → `database_failed`. Values of rows are left out of the message.
 */
export function mapServerError(error: unknown, where: string): HoldfastError {
  if (error instanceof HoldfastError) return error;
  if (!(error instanceof Error)) return asHoldfastError(error);
  const fields: ServerFields = error;
  const sqlstate = sqlstateOf(error);
  if (sqlstate !== null) {
    const own = codeBySqlstate.get(sqlstate);
    const code = own ?? codeOf(sqlstate);
    const options: { cause: unknown; hint?: string } = { cause: error };
    if (own !== undefined && typeof fields.hint === "string") options.hint = fields.hint;
    return new HoldfastError(code, own === undefined ? describe(sqlstate, fields) : error.message, options);
  }
  if (typeof fields.code === "string" && networkCodes.has(fields.code)) {
    return new HoldfastError("database_unreachable", `${where} cannot be reached (${fields.code})`, { cause: error });
  }
  if (
    /Connection terminated|timeout expired|does not support SSL|certificate|SSL connection|altnames/i.test(
      error.message,
    )
  ) {
    return new HoldfastError("database_unreachable", `${where}: ${error.message}`, { cause: error });
  }
  return new HoldfastError("database_unreachable", `${where}: the session failed (${error.name})`, { cause: error });
}

function codeOf(sqlstate: string): ErrorCode {
  if (sqlstate.startsWith("28") || sqlstate === "42501") return "database_denied";
  if (sqlstate === "55P03") return "lock_timeout";
  if (sqlstate.startsWith("08") || /^57P0[1-3]$/.test(sqlstate) || sqlstate === "53300") return "database_unreachable";
  if (sqlstate === "3D000") return "database_unreachable";
  return "database_failed";
}

function describe(sqlstate: string, fields: ServerFields): string {
  if (!quotesValues.test(sqlstate)) return `${text(fields.message)} (SQLSTATE ${sqlstate})`;
  const place = [fields.schema, fields.table, fields.column, fields.constraint].map(text).filter((part) => part !== "");
  return `the server refused a value${place.length === 0 ? "" : ` (${place.join(".")})`} (SQLSTATE ${sqlstate})`;
}

function isSqlstate(code: string): boolean {
  return /^[0-9A-Z]{5}$/.test(code);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
