/** A string that a client sent: which of its statements a row of the DDL log is of. Pure. */
import { fits, temporaryOf } from "./named_in.ts";
import { leadingWords, splitStatements } from "./statements.ts";

/** What `current_query()` is cut to in the log. */
const longestQuery = 1_000_000;

/** Statements of one transaction of the string that are told of in its log, if anything is: none was rolled back. */
interface Segment {
  readonly definitions: readonly string[];
  /** That are left to be told of. */
  left: readonly string[];
}

type Named = Parameters<typeof fits>[1];

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
  /** Names of temporary relations that the string makes. */
  readonly #temporary: ReadonlySet<string>;

  /** `isDirect`: the rows are of what its statements did themselves; else functions that they call may have done it. */
  constructor(query: string, isDirect: boolean) {
    const statements = (query.length < longestQuery ? splitStatements(query) : null) ?? [];
    const first = (statement: string) => leadingWords(statement, 1)[0] ?? "";
    const transactions = transactionsOf(statements.map((text) => ({ text, first: first(text) })));
    this.#segments = transactions.map((each) => each.map(({ text }) => text).filter(isDefinition))
      .flatMap((definitions) => definitions.length === 0 ? [] : [{ definitions, left: definitions }]);
    this.#alive = this.#segments;
    this.#temporary = temporaryOf(statements);
    this.#calls = !isDirect && statements.some((statement) => callers.has(first(statement)));
    this.#callsElsewhere = !isDirect && transactions.length > 1 &&
      transactions.flat().some((one) => deliberate.has(one.first));
  }

  /** The row's statement; null where none fits it, or several that are not the same. */
  take(row: Named): string | null {
    if (this.#callsElsewhere) return null;
    // Those that did nothing (IF EXISTS), or nothing that lasts (temporary tables), have no row.
    const fit = (one: string) => isCommand(one, row.tag) ? fits(one, row, this.#temporary) : "no";
    const isIts = (one: string) => fit(one) !== "no";
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
    const only = onlyOf(taken);
    return only === null || fit(only) === "perhaps" ? null : only;
  }

  /** Statements of which one has given the row's table other types, its own row still to come; none: it can have been anybody. */
  rewritings(row: Named): readonly string[] {
    if (this.#calls) return [];
    // A partition is rewritten with its parent, which alone is named.
    const [table] = row.objects;
    const family = [...table?.ancestors ?? [], table?.identity ?? ""].map((identity) => ({ type: "table", identity }));
    const fit = (one: string) => fits(one, { ...row, objects: family }, this.#temporary);
    const isIts = (one: string) => /\btype\b/i.test(one) && isCommand(one, row.tag) && fit(one) !== "no";
    const among = (texts: readonly string[]) => texts.filter(isIts).slice(0, this.#alive.length > 1 ? undefined : 1);
    const left = this.#alive.flatMap((segment) => among(segment.left));
    const found = left.length > 0 ? left : this.#segments.flatMap(({ definitions }) => among(definitions));
    return found.some((one) => fit(one) === "perhaps") ? [] : found;
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
