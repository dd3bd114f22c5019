/** Is a statement of the objects that a row of the DDL log tells of, as far as their names say? Pure. */
import { splitQualified, unquoteIdent } from "../../schema/quote.ts";
import type { DdlObject, DdlRow } from "./ddl_replay.ts";
import { leadingTokens, type Token } from "./statements.ts";

type Row = Pick<DdlRow, "tag" | "objects"> & Partial<Pick<DdlRow, "settings" | "role">>;

const relations = ["table", "view", "materialized view", "foreign table"];
/** Named with their table. */
const hanging = new Set(["policy", "trigger", "rule"]);
const inSchemas = [
  ...relations,
  "sequence",
  "function",
  "procedure",
  "aggregate",
  "type",
  "domain",
  "collation",
  "conversion",
  "operator",
  "operator class",
  "operator family",
  "text search parser",
  "text search dictionary",
  "text search template",
  "text search configuration",
];
/** What a CREATE may leave to the server it does not name. */
const createdByName = new Set(inSchemas);
const alteredByName = new Set([...inSchemas, "index", "statistics object", "schema"]);

/**
 * `perhaps`: a bare name that a temporary relation has as well. `yes` also where nothing can be told: of rows without an object
 * that has a name, and names in escapes. `temporary`: relations that the same string makes.
 */
export function fits(statement: string, row: Row, temporary: ReadonlySet<string>): "no" | "perhaps" | "yes" {
  const alters = row.tag.startsWith("ALTER ");
  const named = alters ? alteredByName : createdByName;
  const objects = row.objects.filter((one) => one.original !== false).flatMap((one) => {
    if (named.has(one.type)) return [{ ...one, names: [lastName(one.identity ?? "")] }];
    return alters && hanging.has(one.type) ? [{ ...one, names: hangingNames(one) }] : [];
  });
  if (row.tag === "DROP OWNED" || objects.length === 0 || /\bu&"/i.test(statement)) return "yes";
  const held = objects.filter(({ names }) => names.every((name) => holdsWord(statement, name)));
  if (held.length === 0) return "no";
  const schemas = new Set(held.flatMap(({ type, schema, identity }) => {
    // A rewrite tells the identity only.
    const found = schema ?? splitQualified(identity ?? "")?.[0] ?? null;
    return named.has(type) && found !== null ? [schema ?? unquoteIdent(found)] : [];
  }));
  const target = targetOf(statement, row.tag);
  // A command that moves it names the schema of before.
  if (target === null || schemas.size === 0 || /\bset\s+schema\b/i.test(statement)) return "yes";
  if (target.schema !== null) return schemas.has(target.schema) ? "yes" : "no";
  const { search_path: path, temporary: others } = row.settings ?? {};
  if (temporary.has(target.name) || listOf(others ?? "").includes(target.name)) return "perhaps";
  if (path === undefined) return "yes";
  const searched = listOf(path).map((name) => name === "$user" ? row.role ?? "" : name);
  return ["pg_catalog", ...searched].some((name) => schemas.has(name)) ? "yes" : "no";
}

/** Of statements that make temporary relations: their names. */
export function temporaryOf(statements: readonly string[]): ReadonlySet<string> {
  return new Set(statements.flatMap((statement) => {
    const tokens = leadingTokens(statement, 40);
    const isTemporary = tokens.slice(0, 5).some((one) => !one.quoted && /^temp(?:orary)?$/.test(one.text)) ||
      tokens.some((one) => one.text === "pg_temp");
    if (tokens[0]?.text !== "create" || !isTemporary) return [];
    const kind = tokens.findIndex((one) => !one.quoted && /^(?:table|view|sequence)$/.test(one.text));
    const name = kind < 0 ? null : nameAt(tokens, kind + 1);
    return name === null ? [] : [name.name];
  }));
}

interface Target {
  readonly schema: string | null;
  readonly name: string;
}

/** The name behind the words of the tag; null where the statement has none there. */
function targetOf(statement: string, tag: string): Target | null {
  if (/ AS$|^SELECT |^CREATE INDEX$/.test(tag)) return null;
  const tokens = leadingTokens(statement, 40);
  let at = 0;
  for (const word of tag.toLowerCase().split(" ")) {
    while (at < tokens.length && (tokens[at]?.quoted === true || tokens[at]?.text !== word)) at++;
    at++;
  }
  return nameAt(tokens, at);
}

function nameAt(tokens: readonly Token[], start: number): Target | null {
  let at = start;
  const skip = (...words: readonly string[]) => {
    const found = words.every((word, index) =>
      tokens[at + index]?.text === word && tokens[at + index]?.quoted === false
    );
    if (found) at += words.length;
  };
  skip("if", "not", "exists");
  skip("if", "exists");
  skip("only");
  const parts: string[] = [];
  for (;; at += 2) {
    const token = tokens[at];
    if (token === undefined || !token.isName) return null;
    parts.push(token.text);
    if (tokens[at + 1]?.text !== ".") break;
  }
  return { schema: parts.at(-2) ?? null, name: parts.at(-1) ?? "" };
}

/** Names as SET has them, or quoted where needed. */
function listOf(names: string): string[] {
  return [...names.matchAll(/"(?:[^"]|"")*"|[^,\s]+/g)].map(([name]) => unquoteIdent(name));
}

function lastName(identity: string): string {
  const plain = identity.replace(/\((?:[^()"]|"(?:[^"]|"")*")*\)$/, "").replace(/ USING \S+$/, "");
  const [, name] = splitQualified(plain) ?? [];
  if (name !== undefined) return unquoteIdent(name);
  const last = /(?:"((?:[^"]|"")*)"|([^."]+))$/.exec(plain);
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
