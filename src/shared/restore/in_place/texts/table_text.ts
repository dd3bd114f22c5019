/** CREATE TABLE of a capture, taken apart. Pure. */
import { findWord, splitAtCommas, type Token, tokensOf } from "./sql_text.ts";

/** Names are quoted as they stand in the text. */
export interface ColumnText {
  readonly name: string;
  readonly type: string;
  readonly collation: string | null;
  readonly default: string | null;
  /** The expression with what follows it, such as `(a + b) stored`. */
  readonly generated: string | null;
  readonly notNull: boolean;
}

export interface TableText {
  readonly name: string;
  readonly unlogged: boolean;
  readonly columns: readonly ColumnText[];
  /** `name` quoted, `text` from CHECK on. */
  readonly checks: readonly { readonly name: string; readonly text: string }[];
  readonly inherits: string;
  readonly partitionBy: string;
  readonly using: string;
  /** `name = value`. */
  readonly options: readonly string[];
  /** What follows CREATE TABLE: settings of columns, the replica identity, remarks. */
  readonly rest: readonly string[];
  /** Schemas that the statement wants on its path, as SQL; null: none. */
  readonly searchPath: string | null;
}

/** Null where the statements are not what `table_statements.ts` writes for an ordinary or partitioned table. */
export function parseTable(statements: readonly string[]): TableText | null {
  const [path] = statements;
  const wrapped = path !== undefined && path.startsWith("set search_path = ");
  const create = statements[wrapped ? 1 : 0];
  if (create === undefined) return null;
  const rest = statements.slice(wrapped ? 3 : 1).filter((text) => !text.startsWith("set search_path = "));
  const head = /^create (unlogged )?table /.exec(create);
  if (head === null) return null;
  const tokens = tokensOf(create);
  const open = tokens.findIndex((token) => token.text === "(");
  const close = tokens.findIndex((token, at) => at > open && token.text === ")" && token.depth === 0);
  const opens = tokens[open];
  const closes = tokens[close];
  if (opens === undefined || closes === undefined) return null;
  const name = create.slice(head[0].length, opens.start).trim();
  if (findWord(tokensOf(name), new Set(["of"]), 1) < tokensOf(name).length) return null;
  const columns: ColumnText[] = [];
  const checks: { name: string; text: string }[] = [];
  for (const line of splitAtCommas(create.slice(opens.start + 1, closes.start))) {
    const check = /^constraint ("(?:[^"]|"")+"|\S+) ([\s\S]+)$/.exec(line);
    if (check !== null) checks.push({ name: check[1] ?? "", text: check[2] ?? "" });
    else {
      const column = parseColumn(line);
      if (column === null) return null;
      columns.push(column);
    }
  }
  const tail = parseTail(create.slice(closes.start + 1));
  if (tail === null) return null;
  const table: TableText = {
    name,
    unlogged: head[1] !== undefined,
    columns,
    checks,
    ...tail,
    rest,
    searchPath: wrapped ? path.slice("set search_path = ".length) : null,
  };
  return renderTable(table) === create ? table : null;
}

function renderTable(table: TableText): string {
  const lines = [
    ...table.columns.map((column) => columnText(column) + (column.notNull ? " not null" : "")),
    ...table.checks.map((check) => `constraint ${check.name} ${check.text}`),
  ];
  return `create ${table.unlogged ? "unlogged " : ""}table ${table.name}` +
    (lines.length === 0 ? " ()" : ` (\n    ${lines.join(",\n    ")}\n)`) +
    (table.inherits === "" ? "" : ` inherits (${table.inherits})`) +
    (table.partitionBy === "" ? "" : ` partition by ${table.partitionBy}`) +
    (table.using === "" ? "" : ` using ${table.using}`) +
    (table.options.length === 0 ? "" : ` with (${table.options.join(", ")})`);
}

/** As ADD COLUMN takes it, without NOT NULL. */
export function columnText(column: ColumnText): string {
  return `${column.name} ${column.type}` + (column.collation === null ? "" : ` collate ${column.collation}`) +
    (column.generated === null ? "" : ` generated always as ${column.generated}`) +
    (column.default === null ? "" : ` default ${column.default}`);
}

const afterType = new Set(["collate", "generated", "default", "not", "options"]);

function parseColumn(line: string): ColumnText | null {
  const notNull = line.endsWith(" not null");
  const text = notNull ? line.slice(0, -" not null".length) : line;
  const tokens = tokensOf(text);
  const [first] = tokens;
  if (first === undefined || tokens.length < 2) return null;
  let at = findWord(tokens, afterType, 1);
  const type = between(text, tokens, 1, at);
  let collation: string | null = null;
  if (tokens[at]?.text === "collate") {
    const end = findWord(tokens, afterType, at + 1);
    collation = between(text, tokens, at + 1, end);
    at = end;
  }
  const clause = tokens[at];
  const base = { name: first.text, type, collation, notNull };
  if (clause === undefined) return { ...base, default: null, generated: null };
  if (clause.text === "default") {
    return { ...base, default: text.slice(clause.start + "default ".length), generated: null };
  }
  const generated = "generated always as ";
  if (!text.startsWith(generated, clause.start)) return null;
  return { ...base, default: null, generated: text.slice(clause.start + generated.length) };
}

function between(text: string, tokens: readonly Token[], from: number, to: number): string {
  return text.slice(tokens[from]?.start ?? 0, tokens[to]?.start ?? text.length).trim();
}

const tailWords = new Set(["inherits", "partition", "using", "with"]);

function parseTail(text: string): Pick<TableText, "inherits" | "partitionBy" | "using" | "options"> | null {
  const tail = { inherits: "", partitionBy: "", using: "", options: [] as string[] };
  const tokens = tokensOf(text);
  for (let at = 0; at < tokens.length;) {
    const word = tokens[at]?.text ?? "";
    if (!tailWords.has(word)) return null;
    const end = findWord(tokens, tailWords, at + 1);
    const piece = between(text, tokens, at + 1, end);
    if (word === "inherits") tail.inherits = piece.slice(1, -1);
    else if (word === "partition") tail.partitionBy = piece.replace(/^by /, "");
    else if (word === "using") tail.using = piece;
    else tail.options = splitAtCommas(piece.slice(1, -1));
    at = end;
  }
  return tail;
}
