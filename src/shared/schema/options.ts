/** Lists of `name=value` texts (reloptions, attoptions, foreign options, settings) as SQL. */
import { quoteIdent, quoteLiteral } from "./quote.ts";

export function splitOption(option: string): { name: string; value: string } {
  const at = option.indexOf("=");
  return at < 0 ? { name: option, value: "" } : { name: option.slice(0, at), value: option.slice(at + 1) };
}

/** `with (…)` content: `fillfactor = 70, toast.autovacuum_enabled = 'false'`. */
export function storageOptions(options: readonly string[], prefix = ""): string[] {
  return options.map((option) => {
    const { name, value } = splitOption(option);
    return `${prefix}${quoteIdent(name)} = ${/^[0-9]+$/.test(value) ? value : quoteLiteral(value)}`;
  });
}

/** ` options (a 'b', …)`, or nothing. */
export function foreignOptions(options: readonly string[] | null): string {
  if (options === null || options.length === 0) return "";
  const texts = options.map((option) => {
    const { name, value } = splitOption(option);
    return `${quoteIdent(name)} ${quoteLiteral(value)}`;
  });
  return ` options (${texts.join(", ")})`;
}

/** Settings whose stored value is a list of identifiers, quoted by the server (GUC_LIST_QUOTE in PostgreSQL's guc tables). */
const listSettings = new Set([
  "local_preload_libraries",
  "search_path",
  "session_preload_libraries",
  "shared_preload_libraries",
  "temp_tablespaces",
  "unix_socket_directories",
]);

/** The value part of `set name to …` for a stored `name=value`. */
export function settingValue(name: string, value: string): string {
  if (!listSettings.has(name.toLowerCase())) return quoteLiteral(value);
  const elements = splitIdentifierList(value);
  return elements.length === 0 ? "''" : elements.map(quoteLiteral).join(", ");
}

/** Elements of `a, "B c", ""`, unquoted. */
export function splitIdentifierList(list: string): string[] {
  const elements: string[] = [];
  for (const match of list.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^",\s]+))\s*(?:,|$)/g)) {
    elements.push(match[1] === undefined ? (match[2] ?? "") : match[1].replaceAll('""', '"'));
  }
  return elements;
}

/** A GUC name, whose dots separate parts. */
export function settingName(name: string): string {
  return name.split(".").map(quoteIdent).join(".");
}
