/** Quoting of names and texts for SQL, as `quote_ident` and `quote_literal` of the newest known server do it. */

/** Every keyword of PostgreSQL 17 that is not unreserved (`pg_get_keywords()`); those need quotes to be names. */
const keywords = new Set(
  `
all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case 
cast char character check coalesce collate collation column concurrently constraint create cross 
current_catalog current_date current_role current_schema current_time current_timestamp current_user dec 
decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign 
freeze from full grant greatest group grouping having ilike in initially inner inout int integer intersect 
interval into is isnull join json json_array json_arrayagg json_exists json_object json_objectagg json_query 
json_scalar json_serialize json_table json_value lateral leading least left like limit localtime 
localtimestamp merge_action national natural nchar none normalize not notnull null nullif numeric offset on 
only or order out outer overlaps overlay placing position precision primary real references returning right 
row select session_user setof similar smallint some substring symmetric system_user table tablesample then 
time timestamp to trailing treat trim true union unique user using values varchar variadic verbose when where 
window with xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot 
xmlserialize xmltable
`.split(/\s+/),
);

export function quoteIdent(name: string): string {
  if (/^[a-z_][a-z0-9_]*$/.test(name) && !keywords.has(name)) return name;
  return `"${name.replaceAll('"', '""')}"`;
}

export function quoteQualified(...names: string[]): string {
  return names.map(quoteIdent).join(".");
}

const namePart = `"(?:[^"]|"")+"|[^\\s".,]+`;
const qualified = new RegExp(`^(${namePart})\\.(${namePart})$`);

/** `schema.name`, each quoted or not → the two as they are written; null for anything else. */
export function splitQualified(text: string): readonly [string, string] | null {
  const [, schema, name] = qualified.exec(text) ?? [];
  return schema === undefined || name === undefined ? null : [schema, name];
}

/** The name that `quoteIdent` or the server wrote. */
export function unquoteIdent(text: string): string {
  return text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text;
}

/** Safe under both settings of `standard_conforming_strings`: a backslash makes it an escape string. */
export function quoteLiteral(text: string): string {
  const doubled = text.replaceAll("'", "''");
  return doubled.includes("\\") ? `E'${doubled.replaceAll("\\", "\\\\")}'` : `'${doubled}'`;
}

/** A role in a grant; `public` is everybody. */
export function quoteGrantee(name: string | null): string {
  return name === null ? "public" : quoteIdent(name);
}

/** A text[] literal. */
export function arrayText(items: readonly string[]): string {
  return `{${items.map((item) => `"${item.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`).join(",")}}`;
}
