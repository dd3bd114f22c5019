import { quoted } from "./database.ts";
import { RestFailure } from "./rest_errors.ts";

/** Collects the bound parameters of one statement. */
export class Parameters {
  readonly values: (string | null)[] = [];
  /** The placeholder of a new parameter. */
  add(value: string | null): string {
    this.values.push(value);
    return `$${this.values.length}`;
  }
}

/** Query parameters that are no filters. */
const reserved = new Set(["select", "order", "limit", "offset", "on_conflict", "columns", "apikey"]);

const comparisons: Readonly<Record<string, string>> = {
  eq: "=",
  neq: "<>",
  gt: ">",
  gte: ">=",
  lt: "<",
  lte: "<=",
  like: "like",
  ilike: "ilike",
  cs: "@>",
  cd: "<@",
};

const badRequest = (code: string, message: string) => new RestFailure(400, code, message);

/** `select=a,b:c,d::text,e->>f` as SQL; `*` for all. Embedded resources are refused by name. */
export function selection(select: string | null, from: string): string {
  if (select === null || select === "" || select === "*") return `${from}.*`;
  return splitTop(select).map((item) => {
    if (item === "*") return `${from}.*`;
    if (item.includes("(")) throw badRequest("PGRST200", `embedded resources are not available here: ${item}`);
    const [, alias, path = "", cast] = /^(?:([^:]+):(?!:))?(.+?)(?:::([a-z0-9_ ]+))?$/i.exec(item) ?? [];
    const expression = column(path, from);
    const name = alias ?? path.split(/->>?/).at(-1) ?? path;
    return `${cast === undefined ? expression : `(${expression})::${quoted(cast)}`} as ${quoted(name)}`;
  }).join(", ");
}

/** `a`, `a->b->>c` as SQL. */
function column(path: string, from: string): string {
  const [first = "", ...steps] = path.split(/(->>?)/);
  let sql = `${from}.${quoted(first)}`;
  for (let at = 0; at < steps.length; at += 2) {
    const key = steps[at + 1] ?? "";
    sql += `${steps[at]}${/^-?\d+$/.test(key) ? key : literal(key)}`;
  }
  return sql;
}

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

/** All filters of a request joined by `and`, or `true`. */
export function conditions(search: URLSearchParams, from: string, parameters: Parameters): string {
  const all = [...search].filter(([name]) => !reserved.has(name)).map(([name, value]) => {
    if (name === "or" || name === "and") return group(name, value, from, parameters);
    return condition(name, value, from, parameters);
  });
  return all.length === 0 ? "true" : all.join(" and ");
}

/** `or=(a.eq.1,b.is.null)`, one level deep. */
function group(joiner: string, value: string, from: string, parameters: Parameters): string {
  const inner = /^\((.*)\)$/.exec(value)?.[1];
  if (inner === undefined) throw badRequest("PGRST100", `"failed to parse logic tree (${value})"`);
  const parts = splitTop(inner).map((part) => {
    const dot = part.indexOf(".");
    return condition(part.slice(0, dot), part.slice(dot + 1), from, parameters);
  });
  return `(${parts.join(` ${joiner} `)})`;
}

function condition(name: string, value: string, from: string, parameters: Parameters): string {
  const [, not, operator = "", operand = ""] = /^(not\.)?([a-z]+)\.(.*)$/s.exec(value) ?? [];
  const left = column(name, from);
  const sql = comparison(left, operator, operand, parameters);
  if (sql === null) throw badRequest("PGRST100", `"failed to parse filter (${value})"`);
  return not === undefined ? sql : `not (${sql})`;
}

function comparison(left: string, operator: string, operand: string, parameters: Parameters): string | null {
  if (operator === "is") {
    const wanted = ["null", "true", "false", "unknown"].find((one) => one === operand.toLowerCase());
    return wanted === undefined ? null : `${left} is ${wanted}`;
  }
  if (operator === "in") {
    const inner = /^\((.*)\)$/s.exec(operand)?.[1];
    if (inner === undefined) return null;
    const items = inner === "" ? [] : splitTop(inner).map(unquote);
    return items.length === 0 ? "false" : `${left} in (${items.map((item) => parameters.add(item)).join(", ")})`;
  }
  const symbol = comparisons[operator];
  if (symbol === undefined) return null;
  const given = operator.endsWith("like") ? operand.replaceAll("*", "%") : operand;
  return `${left} ${symbol} ${parameters.add(given)}`;
}

function unquote(item: string): string {
  return /^".*"$/s.test(item) ? item.slice(1, -1).replace(/\\(.)/gs, "$1") : item;
}

/** Splits at commas outside quotes and brackets. */
export function splitTop(list: string): string[] {
  const parts: string[] = [];
  let [depth, inQuotes, start] = [0, false, 0];
  for (let at = 0; at < list.length; at += 1) {
    const sign = list[at];
    if (sign === "\\") at += 1;
    else if (sign === '"') inQuotes = !inQuotes;
    else if (inQuotes) continue;
    else if (sign === "(") depth += 1;
    else if (sign === ")") depth -= 1;
    else if (sign === "," && depth === 0) {
      parts.push(list.slice(start, at));
      start = at + 1;
    }
  }
  parts.push(list.slice(start));
  return parts;
}

/** `order=a.desc.nullslast,b` as SQL with its keyword, or nothing. */
export function ordering(order: string | null, from: string): string {
  if (order === null || order === "") return "";
  const items = splitTop(order).map((item) => {
    const [, path = "", direction, nulls] = /^(.+?)(?:\.(asc|desc))?(?:\.(nullsfirst|nullslast))?$/.exec(item) ?? [];
    return `${column(path, from)} ${direction ?? "asc"}${nulls === undefined ? "" : ` nulls ${nulls.slice(5)}`}`;
  });
  return `order by ${items.join(", ")}`;
}

/** First row and number of rows (null: all), from `limit` and `offset`. */
export function paging(search: URLSearchParams): { readonly offset: number; readonly limit: number | null } {
  const number = (name: string) => {
    const text = search.get(name);
    if (text === null) return null;
    if (!/^\d{1,15}$/.test(text)) throw badRequest("PGRST100", `"failed to parse ${name} (${text})"`);
    return Number(text);
  };
  return { offset: number("offset") ?? 0, limit: number("limit") };
}
