/** DDL at its place: rows of the DDL log of one transaction → statements for the target. Pure. */
import { z } from "zod";
import { HoldfastError } from "../../errors.ts";
import { quoteIdent, quoteLiteral, unquoteIdent } from "../../schema/quote.ts";
import { description, missingValues } from "./definition_format.ts";
import { SentString } from "./sent_string.ts";

const object = z.object({
  type: z.string(),
  identity: z.string().nullable(),
  schema: z.string().nullish(),
  /** Of a GRANT the server tells neither this nor the identity. */
  oid: z.number().nullish(),
  extension: z.boolean().optional(),
  original: z.boolean().optional(),
  /** Of a rewrite: bits of `pg_event_trigger_table_rewrite_reason()`. */
  reason: z.int().optional(),
  /** Of a rewrite: tables that it is a part of, or inherits from. */
  ancestors: z.array(z.string()).optional(),
  /** What it is now, where the text does not say it; null also where it is of a kind that this version does not know. */
  made: description.nullish().catch(null),
  missing: missingValues.optional(),
});
export type DdlObject = z.infer<typeof object>;

/** A row of `backup.ddl_log`. */
export interface DdlRow {
  readonly id: string;
  readonly what: "command" | "drop" | "rewrite" | "uncovered" | "doubted";
  readonly tag: string;
  readonly objects: readonly DdlObject[];
  readonly query: string;
  /** Whose rights counted. */
  readonly role: string;
  readonly searchPath: string;
  /**
   * Under which its text was read, by the names of SET; none where nobody noted them. Beside them `caller` (`client`, or `code`
   * that ran then), the code's `statement` where it is known, and the names of `temporary` relations.
   */
  readonly settings: Readonly<Record<string, string>>;
}

const whats = new Set(["command", "drop", "rewrite", "uncovered", "doubted"]);

/** From the columns of the row by name. `object_damaged` for what no trigger of ours writes. */
export function readDdlRow(values: ReadonlyMap<string, string | null>): DdlRow {
  const value = (name: string) => {
    const found = values.get(name);
    if (found === undefined || found === null) {
      throw new HoldfastError("object_damaged", "a row of the DDL log is short");
    }
    return found;
  };
  const what = value("what");
  const objects = z.array(object).safeParse(JSON.parse(value("objects")));
  const settings = z.record(z.string(), z.string()).catch({}).parse(JSON.parse(values.get("settings") ?? "{}"));
  if (!whats.has(what) || !objects.success) {
    throw new HoldfastError("object_damaged", "a row of the DDL log cannot be read");
  }
  return {
    id: value("id"),
    what: what as DdlRow["what"],
    tag: value("tag"),
    objects: objects.data,
    query: value("query"),
    role: value("role_name"),
    searchPath: value("search_path"),
    settings,
  };
}

/** The objects become what the row says. `dropped`: columns that the same command dropped, as `schema.table.column`. */
export interface Define {
  readonly do: "define";
  readonly dropped: ReadonlySet<string>;
  readonly names: string;
}

/** As it was called then; `oid` is null where the log does not tell. */
export interface ClosedTable {
  readonly name: string;
  readonly oid: number | null;
}

/** What the target has to do at one row of the log. */
export type DdlStep =
  /** `otherwise`: what to do where the statements fail, or make another table than the row says. */
  | {
    readonly do: "run";
    readonly statements: readonly string[];
    readonly otherwise: Define | null;
    readonly names: string;
  }
  | Define
  /** Another row of the same statement does it, or nothing is left to do. */
  | { readonly do: "nothing" }
  /** Rows of these tables were computed anew: what follows cannot be known until the next full backup. */
  | { readonly do: "close"; readonly tables: readonly ClosedTable[]; readonly names: string }
  | { readonly do: "refuse"; readonly names: string; readonly why: string };

/** Reasons of a rewrite (event_trigger.h): 1 logged or not, 2 a new column's default, 4 another type, 8 another method. */
const changesPersistence = 1;
const computesDefault = 2;
const changesType = 4;

/** Casts to these are the same in every session; to text, times and the rest they depend on settings that nobody logged. */
const settled = /^(?:smallint|int[248]?|integer|bigint|numeric|decimal|real|float[48]?|double\s+precision|jsonb?)\b/i;

/**
 * Walks the rows of one transaction in order. A statement's text is used only where it stands alone for what happened:
 * the string that the client sent holds as many commands as the log has rows of it, in the same order, in one of its
 * transactions. Elsewhere the objects are made what the log says they became.
 */
export class DdlTransaction {
  readonly #strings = new Map<string, SentString>();
  /** Of rows that do not say who gave the command. */
  readonly #unclearStrings = new Map<string, SentString>();
  readonly #dropped = new Set<string>();

  /** What to do at this row. */
  next(row: DdlRow): DdlStep {
    const names = namesOf(row);
    if (row.what === "uncovered" && row.objects.length === 0) {
      return { do: "refuse", names: row.tag, why: "it could not be logged" };
    }
    if (row.what === "uncovered") return { do: "close", tables: tablesOf(row), names };
    if (row.what === "doubted") return { do: "nothing" };
    if (row.what === "rewrite") return rewriteStep(row, names, this.#stringOf(row).rewritings(row));
    if (row.what === "drop") {
      for (const { type, identity } of row.objects) if (type === "table column") this.#dropped.add(identity ?? "");
      // A drop's objects come beside its command's row only where the command has one; DROP itself has none.
      if (!/^DROP /.test(row.tag)) return { do: "nothing" };
    }
    if (row.objects.every((one) => one.extension === true)) return { do: "nothing" };
    // Views have their rows in the end, whoever asked for it here; `made` says whether they have any.
    if (row.tag === "REFRESH MATERIALIZED VIEW" && row.objects.every((one) => one.made == null)) {
      return { do: "nothing" };
    }
    // An index that is built anew is the same one, where it had been built.
    if (row.tag === "REINDEX" && row.objects.some((one) => one.made == null)) return { do: "nothing" };
    const statement = this.#stringOf(row).take(row);
    const defined = this.#define(row, names);
    // A command's drops stand right before it: a column may have gone and come again in it.
    if (row.what === "command") this.#dropped.clear();
    // What it takes away from others' objects is in its text alone.
    if (row.what === "drop" && row.tag !== "DROP OWNED") {
      const statements = dropStatements(row);
      if (statements !== null) return { do: "run", names, statements, otherwise: null };
    } else if (defined !== null && (statement === null || !isSaidByText(row, statement))) return defined;
    if (statement === null || isComputed(row, statement)) {
      return { do: "refuse", names, why: "it was done inside a function, a DO block, a script or by a query" };
    }
    return {
      do: "run",
      names,
      otherwise: defined,
      statements: [
        ...settingsOf(row),
        `select pg_catalog.set_config('search_path', ${quoteLiteral(searchPathOf(row))}, true)`,
        `set local role ${quoteIdent(row.role)}`,
        inTransaction(statement),
        "reset role",
        "set local search_path = ''",
        ...pinned,
        ...lookedFor(row),
      ],
    };
  }

  #define(row: DdlRow, names: string): Define | null {
    const isDescribed = row.what === "command" &&
      row.objects.every((one) => one.extension === true || one.made != null) && !isMovedAlone(row);
    return isDescribed ? { do: "define", names, dropped: new Set(this.#dropped) } : null;
  }

  #stringOf({ query, settings: { caller, statement = "" } }: DdlRow): SentString {
    const text = caller === "code" ? statement : query;
    const strings = caller === undefined ? this.#unclearStrings : this.#strings;
    let sent = strings.get(text);
    if (sent === undefined) strings.set(text, sent = new SentString(text, caller !== undefined));
    return sent;
  }
}

const fromQueries = new Set([
  "CREATE TABLE AS",
  "SELECT INTO",
  "CREATE MATERIALIZED VIEW",
  "REFRESH MATERIALIZED VIEW",
]);

/** An index or a sequence that was altered by itself may have another name now, and nothing says which it had. */
function isMovedAlone(row: DdlRow): boolean {
  return /^ALTER /.test(row.tag) && row.objects.every((one) => one.type === "index" || one.type === "sequence");
}

/**
 * A table's text says more than its description (statistics targets, options of its indexes), and what it made can be
 * compared. Descriptions of all else that was made are whole, and hang on nobody's search path.
 */
function isSaidByText(row: DdlRow, statement: string): boolean {
  if (isComputed(row, statement)) return false;
  // What was altered may have had another name.
  return /^ALTER /.test(row.tag) || row.objects.some((one) => one.made != null && "table" in one.made);
}

/** Did the command compute what its text does not say: rows or columns of a query, bounds, the time? */
function isComputed(row: DdlRow, statement: string): boolean {
  return fromQueries.has(row.tag) || /\bfor\s+values\b|'(?:now|today|tomorrow|yesterday)'/i.test(statement);
}

/** Its rows are in the stream before the row of the log, which is written when the command is over. */
export function isTableFromQuery(row: DdlRow): boolean {
  return row.tag === "CREATE TABLE AS" || row.tag === "SELECT INTO";
}

/** Types whose identity is what DROP wants, but needs a word of its own. */
const dropWords: Readonly<Record<string, string>> = {
  "statistics object": "statistics",
  "foreign-data wrapper": "foreign data wrapper",
};
const droppable = new Set([
  "table",
  "view",
  "materialized view",
  "foreign table",
  "sequence",
  "index",
  "function",
  "procedure",
  "aggregate",
  "trigger",
  "policy",
  "rule",
  "type",
  "domain",
  "schema",
  "extension",
  "collation",
  "conversion",
  "operator",
  "operator class",
  "operator family",
  "cast",
  "text search parser",
  "text search dictionary",
  "text search template",
  "text search configuration",
  "server",
  "language",
  "access method",
  ...Object.keys(dropWords),
]);

/** What hung on the objects went with them on the source as well. */
function dropStatements(row: DdlRow): string[] | null {
  const dropped = row.objects.filter((one) => one.original !== false);
  if (!dropped.every((one) => droppable.has(one.type) && one.identity !== null)) return null;
  // One that goes with another of them is not there any more, and an index whose building failed never was.
  const ifExists = dropped.length > 1 || dropped[0]?.type === "index" ? "if exists " : "";
  return dropped.map((one) => `drop ${dropWords[one.type] ?? one.type} ${ifExists}${one.identity} cascade`);
}

/** `statements`: of which one rewrote the table, where that is known. */
function rewriteStep(row: DdlRow, names: string, statements: readonly string[]): DdlStep {
  const reason = row.objects[0]?.reason ?? 0;
  const computed = (reason & (changesPersistence | computesDefault)) !== 0 ||
    ((reason & changesType) !== 0 && !(statements.length > 0 && statements.every(isSettled)));
  return computed ? { do: "close", tables: tablesOf(row), names } : { do: "nothing" };
}

/** Does the statement give columns other types, all of them by a cast that is the same in every session? */
function isSettled(statement: string): boolean {
  const types = [...statement.matchAll(/\btype\s+(?=(.{1,40}))/gis)].map(([, type = ""]) => type);
  return !/\busing\b/i.test(statement) && types.length > 0 && types.every((type) => settled.test(type));
}

export function namesOf(row: DdlRow): string {
  const names = [...new Set(row.objects.map((one) => one.identity ?? one.type))];
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  return `${row.tag} of ${names.slice(0, 3).join(", ")}${more}`;
}

export function tablesOf(row: DdlRow): ClosedTable[] {
  return row.objects.flatMap(({ type, identity, oid }) =>
    type === "table" && identity !== null ? [{ name: identity, oid: oid ?? null }] : []
  );
}

/**
 * In a transaction an index is built without CONCURRENTLY; nobody else is there to wait for it. One whose building failed is
 * there on the source, to be dropped, and is not in the log.
 */
function inTransaction(statement: string): string {
  const alone = /^(create|drop)\s+(unique\s+)?index\s+concurrently\b/i.test(statement)
    ? statement.replace(/\bconcurrently\b/i, "")
    : statement;
  return alone.replace(/^(drop\s+index)\s+(?!if\s+exists\b)/i, "$1 if exists ");
}

/** As `openSession` has them. */
const pinned = [
  "set local timezone = 'UTC'",
  "set local datestyle = 'ISO, YMD'",
  "set local intervalstyle = 'postgres'",
];

/** Constants in the text meant what they meant under these. */
function settingsOf(row: DdlRow): string[] {
  return ["timezone", "datestyle", "intervalstyle"].flatMap((name) => {
    const value = row.settings[name];
    return value === undefined ? [] : [`set local ${name} = ${quoteLiteral(value)}`];
  });
}

/**
 * The path that was noted. Where none was (somebody switched the trigger off), the schemas of what was made come first, so that
 * a bare name means what the log says, then the session's default path. What came to be is looked for afterwards. Anybody may
 * set any path: it is no SQL.
 */
function searchPathOf(row: DdlRow): string {
  const noted = row.settings["search_path"];
  if (noted !== undefined) return noted;
  const own = row.objects.filter((one) => one.original !== false).flatMap((one) => schemaOf(one) ?? []);
  const parts = row.searchPath.split(",").map((part) => part.trim()).filter((part) => part !== "");
  const path = [
    ...new Set(own.map(quoteIdent)),
    ...parts.map((name) => name.startsWith('"') ? name : quoteIdent(name)),
  ];
  return path.join(", ");
}

/** A policy, a trigger or a rule has the one of its table. */
export function schemaOf(one: DdlObject): string | null {
  if (one.schema != null) return one.schema;
  const found = / on ("(?:[^"]|"")*"|[^\s."]+)\.(?:"(?:[^"]|"")*"|[^\s."]+)$/.exec(one.identity ?? "")?.[1];
  return found === undefined ? null : unquoteIdent(found);
}

/** How the server is asked for an object by its identity; it raises where there is none. */
const lookups: Readonly<Record<string, string>> = {
  table: "regclass",
  view: "regclass",
  "materialized view": "regclass",
  "foreign table": "regclass",
  sequence: "regclass",
  index: "regclass",
  function: "regprocedure",
  procedure: "regprocedure",
  type: "regtype",
  domain: "regtype",
  schema: "regnamespace",
};

/** A statement that did something else than the log says must not pass. */
function lookedFor(row: DdlRow): string[] {
  if (row.what !== "command") return [];
  return row.objects.flatMap(({ type, identity }) => {
    const lookup = lookups[type];
    return lookup === undefined || identity === null ? [] : `select ${quoteLiteral(identity)}::pg_catalog.${lookup}`;
  });
}
