/** DDL at its place: rows of the DDL log of one transaction → statements for the target. Pure. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";
import { leadingWords, splitStatements } from "./statements.ts";

const object = z.object({
  type: z.string(),
  identity: z.string().nullable(),
  schema: z.string().nullish(),
  oid: z.number(),
  extension: z.boolean().optional(),
  original: z.boolean().optional(),
  /** Of a rewrite: bits of `pg_event_trigger_table_rewrite_reason()`. */
  reason: z.int().optional(),
});
export type DdlObject = z.infer<typeof object>;

/** A row of `backup.ddl_log`. */
export interface DdlRow {
  readonly id: string;
  readonly what: "command" | "drop" | "rewrite" | "uncovered";
  readonly tag: string;
  readonly objects: readonly DdlObject[];
  readonly query: string;
  readonly role: string;
  readonly searchPath: string;
}

const whats = new Set(["command", "drop", "rewrite", "uncovered"]);

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
  };
}

/** What the target has to do at one row of the log. */
export type DdlStep =
  | { readonly do: "run"; readonly statements: readonly string[]; readonly names: string }
  /** Another row of the same statement does it, or nothing is left to do. */
  | { readonly do: "nothing" }
  /** Rows of these tables were computed anew: what follows cannot be known until the next full backup. */
  | { readonly do: "close"; readonly tables: readonly string[]; readonly names: string }
  | { readonly do: "refuse"; readonly names: string; readonly why: string };

/** Reasons of a rewrite (event_trigger.h): 2 a new column's default, 4 another type, 8 another access method. */
const computesDefault = 2;
const changesType = 4;

/**
 * Walks the rows of one transaction in order. A statement's text is used only where it stands alone for what happened:
 * the string that the client sent holds as many commands as the log has rows of it, in the same order.
 */
export class DdlTransaction {
  readonly #seen = new Map<string, number>();

  /** What to do at this row. */
  next(row: DdlRow): DdlStep {
    const names = namesOf(row);
    if (row.what === "uncovered") return { do: "close", tables: tablesOf(row), names };
    if (row.what === "rewrite") return rewriteStep(row, names);
    // A drop's objects come beside its command's row only where the command has one; DROP itself has none.
    if (row.what === "drop" && !/^DROP /.test(row.tag)) return { do: "nothing" };
    if (row.objects.every((one) => one.extension === true)) return { do: "nothing" };
    const statements = splitStatements(row.query)?.filter(isDefinition);
    const position = this.#seen.get(row.query) ?? 0;
    this.#seen.set(row.query, position + 1);
    const statement = statements?.[position];
    if (statements === undefined || statement === undefined || !isCommand(statement, row.tag)) {
      return { do: "refuse", names, why: "it was made inside a function, a DO block or a script" };
    }
    if (row.tag === "REFRESH MATERIALIZED VIEW") return { do: "nothing" };
    if (row.tag === "CREATE TABLE AS" || row.tag === "SELECT INTO" || row.tag === "CREATE MATERIALIZED VIEW") {
      return { do: "refuse", names, why: "its rows came from a query" };
    }
    return {
      do: "run",
      names,
      statements: [
        `set local search_path = ${searchPathOf(row)}`,
        `set local role ${quoteIdent(row.role)}`,
        inTransaction(statement),
        "reset role",
        "set local search_path = ''",
      ],
    };
  }
}

function rewriteStep(row: DdlRow, names: string): DdlStep {
  const reason = row.objects[0]?.reason ?? 0;
  const computed = (reason & computesDefault) !== 0 || ((reason & changesType) !== 0 && /\busing\b/i.test(row.query));
  return computed ? { do: "close", tables: tablesOf(row), names } : { do: "nothing" };
}

function namesOf(row: DdlRow): string {
  const names = [...new Set(row.objects.map((one) => one.identity ?? one.type))];
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  return `${row.tag} of ${names.slice(0, 3).join(", ")}${more}`;
}

function tablesOf(row: DdlRow): string[] {
  return row.objects.flatMap((one) => one.type === "table" && one.identity !== null ? [one.identity] : []);
}

const definitionWords = new Set([
  "create",
  "alter",
  "drop",
  "grant",
  "revoke",
  "comment",
  "security",
  "import",
  "reassign",
  "refresh",
  "select",
]);

/** Could it be in the log? `select` counts only as SELECT INTO. */
function isDefinition(statement: string): boolean {
  const [first = ""] = leadingWords(statement, 1);
  return definitionWords.has(first) && (first !== "select" || /\binto\b/i.test(statement));
}

/** Is this the statement that the server gave the tag to? Every word of the tag stands at its start, in order. */
function isCommand(statement: string, tag: string): boolean {
  if (tag === "SELECT INTO") return /^select\b/i.test(statement);
  if (tag === "CREATE TABLE AS") return /^create\b/i.test(statement);
  const words = leadingWords(statement, 10);
  let at = 0;
  for (const word of tag.toLowerCase().split(" ")) {
    const found = words.indexOf(word, at);
    if (found < 0 || (at === 0 && found !== 0)) return false;
    at = found + 1;
  }
  return true;
}

/** In a transaction an index is built without CONCURRENTLY; nobody else is there to wait for it. */
function inTransaction(statement: string): string {
  return /^(create|drop)\s+(unique\s+)?index\s+concurrently\b/i.test(statement)
    ? statement.replace(/\bconcurrently\b/i, "")
    : statement;
}

/**
 * The session's default path: the present one cannot be seen inside a trigger. A name that is found elsewhere makes the
 * statement fail, or make something else than the log says, which is looked at afterwards.
 */
function searchPathOf(row: DdlRow): string {
  if (row.searchPath.trim() === "") return "''";
  return row.searchPath.split(",").map((part) => {
    const name = part.trim();
    return name.startsWith('"') ? name : quoteLiteral(name);
  }).join(", ");
}
