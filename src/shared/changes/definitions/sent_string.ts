/** A string that a client sent: which of its statements a row of the DDL log is of. Pure. */
import type { DdlObject, DdlRow } from "./ddl_replay.ts";
import { leadingWords, splitStatements } from "./statements.ts";

/** What `current_query()` is cut to in the log. */
const longestQuery = 1_000_000;

/** Statements of one transaction of the string that are told of in its log, if anything is: none was rolled back. */
interface Segment {
  readonly definitions: readonly string[];
  /** That are left to be told of. */
  left: readonly string[];
}

type Named = Pick<DdlRow, "tag" | "objects">;

/** As the rows of one transaction tell of it, in order. */
export class SentString {
  /** None where the log has not all of it, or it cannot be cut. */
  readonly #segments: readonly Segment[];
  /** Those that can be the transaction of these rows. */
  #alive: readonly Segment[];
  /** Can functions of users have done what another statement of the string does? */
  readonly #calls: boolean;
  /** … in another transaction than that one's? */
  readonly #callsElsewhere: boolean;

  constructor(query: string) {
    const statements = (query.length < longestQuery ? splitStatements(query) : null) ?? [];
    const first = (statement: string) => leadingWords(statement, 1)[0] ?? "";
    const transactions = transactionsOf(statements.map((text) => ({ text, first: first(text) })));
    this.#segments = transactions.map((each) => each.map(({ text }) => text).filter(isDefinition))
      .flatMap((definitions) => definitions.length === 0 ? [] : [{ definitions, left: definitions }]);
    this.#alive = this.#segments;
    this.#calls = statements.some((statement) => callers.has(first(statement)));
    this.#callsElsewhere = transactions.length > 1 && transactions.flat().some((one) => deliberate.has(one.first));
  }

  /** The row's statement; null where none fits it, or several that are not the same. */
  take(row: Named): string | null {
    if (this.#callsElsewhere) return null;
    // Those that did nothing (IF EXISTS), or nothing that lasts (temporary tables), have no row.
    const isIts = (one: string) => isCommand(one, row.tag) && isNamedIn(one, row);
    const holds = (segment: Segment) => segment.left.some(isIts);
    let found = this.#alive.filter(holds);
    if (found.length === 0 && !this.#calls) {
      // The same string came once more in this transaction.
      found = this.#segments.filter(({ definitions }) => definitions.some(isIts));
      for (const segment of found) segment.left = segment.definitions;
    }
    if (found.length === 0) return null;
    this.#alive = found;
    const taken = found.map((segment) => {
      const position = segment.left.findIndex(isIts);
      const statement = segment.left[position] ?? null;
      segment.left = segment.left.slice(position + 1);
      return statement;
    });
    return onlyOf(taken);
  }

  /** Statements of which one has given the row's table other types, its own row still to come; none: it can have been anybody. */
  rewritings(row: Named): readonly string[] {
    if (this.#calls) return [];
    // A partition is rewritten with its parent, which alone is named.
    const [table] = row.objects;
    const family = [...table?.ancestors ?? [], table?.identity ?? ""].map((identity) => ({ type: "table", identity }));
    const isIts = (one: string) =>
      /\btype\b/i.test(one) && isCommand(one, row.tag) && isNamedIn(one, { ...row, objects: family });
    const among = (texts: readonly string[]) => texts.filter(isIts).slice(0, this.#alive.length > 1 ? undefined : 1);
    const left = this.#alive.flatMap((segment) => among(segment.left));
    return left.length > 0 ? left : this.#segments.flatMap(({ definitions }) => among(definitions));
  }
}

function onlyOf<T>(values: readonly T[]): T | null {
  const [first] = values;
  return first === undefined || values.some((value) => value !== first) ? null : first;
}

interface Statement {
  readonly text: string;
  /** Its first word. */
  readonly first: string;
}

/** What each transaction of the string did to definitions, or may have, without what the string took back itself. */
function transactionsOf(statements: readonly Statement[]): Statement[][] {
  const transactions: Statement[][] = [];
  let open: Statement[] = [];
  let savepoints: { readonly name: string; readonly at: number }[] = [];
  const end = (isKept: boolean) => {
    if (isKept && open.length > 0) transactions.push(open);
    open = [];
    savepoints = [];
  };
  for (const statement of statements) {
    const words = controls.has(statement.first) ? wordsOf(statement.text) : [];
    const name = words.at(-1) ?? "";
    const last = savepoints.findLastIndex((one) => one.name === name);
    switch (words[1] === "prepared" ? "" : statement.first) {
      case "savepoint":
        savepoints.push({ name, at: open.length });
        break;
      case "release":
        savepoints = savepoints.slice(0, Math.max(last, 0));
        break;
      case "prepare":
        if (words[1] === "transaction") end(true);
        break;
      case "commit":
      case "end":
        end(true);
        break;
      case "rollback":
      case "abort":
        if (!words.includes("to")) end(false);
        else {
          // One from before the string takes all of it back.
          open = open.slice(0, savepoints[last]?.at ?? 0);
          savepoints = savepoints.slice(0, last + 1);
        }
        break;
      default:
        if (isDefinition(statement.text) || deliberate.has(statement.first)) open.push(statement);
    }
  }
  end(true);
  return transactions;
}

/** Of a command that is made of words, as the server reads them. */
function wordsOf(statement: string): string[] {
  return [...statement.replace(/--.*$|\/\*.*?\*\//gms, " ").matchAll(/"((?:[^"]|"")*)"|[\p{L}_][\p{L}\p{N}_$]*/gu)]
    .map(([word, quoted]) => quoted?.replaceAll('""', '"') ?? word.toLowerCase());
}

const controls = new Set(["savepoint", "commit", "end", "prepare", "rollback", "abort", "release"]);

/** Functions of users can do by these what another statement of the string does. */
const callers = new Set(["select", "with", "values", "do", "call", "execute", "insert", "update", "delete", "merge"]);
/** … and are meant to, not as the triggers of a row. */
const deliberate = new Set(["select", "do", "call", "execute"]);

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

const relations = new Set(["table", "view", "materialized view", "foreign table"]);
/** What an ALTER names; a CREATE may leave it to the server. */
const altered = new Set([
  ...relations,
  "sequence",
  "index",
  "function",
  "procedure",
  "aggregate",
  "type",
  "domain",
  "schema",
]);
/** Named with their table. */
const hanging = new Set(["policy", "trigger", "rule"]);

/** Does the statement hold the names of an object that the row is of? True for rows without one, and names in escapes. */
function isNamedIn(statement: string, row: Named): boolean {
  const alters = row.tag.startsWith("ALTER ");
  const named = alters ? altered : relations;
  const objects = row.objects.filter((one) => one.original !== false).flatMap((one) => {
    if (named.has(one.type)) return [[lastName(one.identity ?? "")]];
    return alters && hanging.has(one.type) ? [hangingNames(one)] : [];
  });
  return objects.length === 0 || /\bu&"/i.test(statement) ||
    objects.some((names) => names.every((name) => holdsWord(statement, name)));
}

function lastName(identity: string): string {
  const last = /(?:"((?:[^"]|"")*)"|([^."]+))$/.exec(identity.replace(/\((?:[^()"]|"(?:[^"]|"")*")*\)$/, ""));
  return last?.[1] ?? last?.[2] ?? "";
}

/** `name on schema.table` */
function hangingNames({ identity }: Pick<DdlObject, "identity">): string[] {
  const [, quoted, bare, table = ""] = /^(?:"((?:[^"]|"")*)"|(\S+)) on (.*)$/s.exec(identity ?? "") ?? [];
  return [quoted ?? bare ?? "", lastName(table)];
}

const wordPart = /[\p{L}\p{N}_$]/u;

/** In any case, and as no part of a longer word. */
function holdsWord(text: string, word: string): boolean {
  const [where, what] = [text.toLowerCase(), word.toLowerCase()];
  for (let at = where.indexOf(what); at >= 0 && what !== ""; at = where.indexOf(what, at + 1)) {
    if (!wordPart.test(where[at - 1] ?? "") && !wordPart.test(where[at + what.length] ?? "")) return true;
  }
  return false;
}
