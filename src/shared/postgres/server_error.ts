import { asHoldfastError, type ErrorCode, errorTable, HoldfastError } from "../errors.ts";

/** What we read of the server's error fields; `message`, `detail`, `where` and `internalQuery` can hold a row's value. */
interface ServerFields {
  readonly code?: unknown;
  readonly message?: unknown;
  readonly hint?: unknown;
  readonly schema?: unknown;
  readonly table?: unknown;
  readonly column?: unknown;
  readonly constraint?: unknown;
  /** What code of the database was under way, innermost first. */
  readonly where?: unknown;
  /** A statement of such code that the server refuses. */
  readonly internalQuery?: unknown;
  /** The server's own file and function that raised it. */
  readonly file?: unknown;
  readonly routine?: unknown;
}

const codeBySqlstate: ReadonlyMap<string, ErrorCode> = new Map(
  Object.entries(errorTable).map(([code, facts]) => [facts.sqlstate, code as ErrorCode]),
);

/**
 * Classes whose primary message the server writes, of names and settings: of connections (08), states of a transaction (25),
 * logins (28), objects that others depend on (2B), databases (3D) and schemas (3F) that are not there, transactions that were
 * rolled back (40), names and rights (42; but see `saidOfValuesToo`), means (53), limits (54), states of objects (55), operators (57), the system (58).
 * Those of all others can quote a value, among them data exceptions (22), constraints (23), and a class that code of the
 * database made up (PT400).
 */
const tellsNoValue = /^(08|25|28|2B|3D|3F|40|42|53|54|55|57|58)/;

/** Where the server refuses a definition as not supported (0A): elsewhere that can be said of a value, such as a unit of time. */
const ofDefinitions =
  /^(tablecmds|extension|functioncmds|typecmds|indexcmds|trigger|view|rewriteDefine|dbcommands|heap|index|publicationcmds)\.c$/;

/**
 * What the server says of a statement's syntax and names (of class 42) some types say of a value as well: tsquery, jsonpath,
 * regconfig, regtype, hstore. These files speak of statements, but for the routines that read a value's text.
 */
const saidOfValuesToo = /^42(601|602|622|704|725|883)$/;
const ofStatements =
  /^(scan\.l|gram\.y|(parse|rewrite|copy|exec|pg)\w+\.c|\w+(cmds|chk)\.c|(acl|analyze|define|extension|foreign|guc|heap|index|logical|namespace|objectaddress|policy|relation|seclabel|slot|statscmds|tablespace|trigger|user|variable|view)\.c)$/;
const ofValues = /^(get_ts_\w+|parseTypeString|typeStringToTypeName)$/;

/** Names that code of the database looks for where the server does not find them. */
const isUnknownName = /^(42883|42P01|42704|42703|3F000)$/;

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
 * `database_unreachable`; any other SQLSTATE → `database_failed`. Values of rows are left out of the message: where it
 * could hold one, the SQLSTATE and names of objects stand in its place.
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
    if (own === undefined && isUnknownName.test(sqlstate) && codeUnderWay(fields)) {
      options.hint =
        "Code of the database names something without its schema, and sessions of Holdfast have an empty search_path: alter function … set search_path.";
    }
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
  const code = codeOfContext(fields);
  // RAISE takes any SQLSTATE, and a statement that code put together can be refused for a value in it.
  const isOfCode = fields.routine === "exec_stmt_raise" || text(fields.internalQuery) !== "";
  const mayTell = !isOfCode || code?.startsWith("backup.") === true;
  const isPlain = sqlstate.startsWith("0A")
    ? ofDefinitions.test(text(fields.file))
    : saidOfValuesToo.test(sqlstate)
    ? isOfStatement(fields)
    : tellsNoValue.test(sqlstate);
  if (mayTell && isPlain) return `${text(fields.message)} (SQLSTATE ${sqlstate})`;
  const place = [fields.schema, fields.table, fields.column, fields.constraint].map(text).filter((part) => part !== "");
  const what = /^2[23]/.test(sqlstate)
    ? "the server refused a value"
    : isOfCode || code !== null
    ? "code of the database failed"
    : "the server refused it";
  return `${what}${place.length === 0 ? "" : ` (${place.join(".")})`}${
    code === null ? "" : ` in ${code}`
  } (SQLSTATE ${sqlstate})`;
}

/** A type's name is read out of a value by the statements' own parser, which says so in its context. */
function isOfStatement(fields: ServerFields): boolean {
  return ofStatements.test(text(fields.file)) && !ofValues.test(text(fields.routine)) &&
    !/^invalid type name /m.test(text(fields.where));
}

const codeUnderWay = (fields: ServerFields): boolean =>
  text(fields.internalQuery) !== "" || codeOfContext(fields) !== null;

/** The innermost function that was under way, by its name alone, where that is a plain one; null: there was none. */
function codeOfContext(fields: ServerFields): string | null {
  const line = text(fields.where).split("\n").find((one) => /^(PL\/\w+|SQL) function /.test(one));
  if (line === undefined) return null;
  return /^(?:PL\/\w+ function ([\w$.]+)\(|SQL function "([\w$.]+)")/.exec(line)?.slice(1).find((name) => name) ??
    "a function";
}

function isSqlstate(code: string): boolean {
  return /^[0-9A-Z]{5}$/.test(code);
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
