/** Collations and text search. */
import { z } from "zod";
import { type Collector, identityOf, ownObject } from "./collector.ts";
import { draft } from "./draft.ts";
import { quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import { groupBy } from "./relations.ts";

export const collectText: Collector = async (context) => [
  ...(await collations(context)),
  ...(await textSearch(context)),
];

const collations: Collector = async (context) => {
  const version = context.connection.serverVersion;
  const locale = version >= 170000 ? "c.colllocale" : "c.colliculocale";
  const rows = await readRows(
    context.connection,
    "collations",
    z.object({
      oid: z.string(),
      provider: z.string(),
      deterministic: z.boolean(),
      collate: z.string().nullable(),
      ctype: z.string().nullable(),
      locale: z.string().nullable(),
      rules: z.string().nullable(),
    }),
    `select c.oid, c.collprovider as provider, c.collisdeterministic as deterministic, c.collcollate as collate,
            c.collctype as ctype, ${locale} as locale, ${version >= 160000 ? "c.collicurules" : "null"} as rules
       from pg_catalog.pg_collation c where c.oid >= 16384`,
  );
  const providers: Readonly<Record<string, string>> = { c: "libc", i: "icu", b: "builtin", d: "default" };
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_collation", row.oid);
    if (object === undefined) return [];
    const parts = [`provider = ${providers[row.provider] ?? "libc"}`];
    if (!row.deterministic) parts.push("deterministic = false");
    if (row.locale !== null) parts.push(`locale = ${quoteLiteral(row.locale)}`);
    else {
      parts.push(`lc_collate = ${quoteLiteral(row.collate ?? "")}`, `lc_ctype = ${quoteLiteral(row.ctype ?? "")}`);
    }
    if (row.rules !== null) parts.push(`rules = ${quoteLiteral(row.rules)}`);
    return [draft(`pg_collation:${row.oid}`, "collation", "pre-data", [
      `create collation ${identityOf(object)} (${parts.join(", ")})`,
    ], { ownerWord: "collation" })];
  });
};

const textSearch: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "text search objects",
    z.object({ catalog: z.string(), oid: z.string(), word: z.string(), details: z.string() }),
    `select 'pg_ts_dict' as catalog, d.oid, 'dictionary' as word, 'template = ' ||
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.tmplname) ||
            coalesce(', ' || d.dictinitoption, '') as details
       from pg_catalog.pg_ts_dict d join pg_catalog.pg_ts_template t on t.oid = d.dicttemplate
       join pg_catalog.pg_namespace n on n.oid = t.tmplnamespace where d.oid >= 16384
     union all
     select 'pg_ts_config', c.oid, 'configuration', 'parser = ' || pg_catalog.quote_ident(n.nspname) || '.' ||
            pg_catalog.quote_ident(p.prsname)
       from pg_catalog.pg_ts_config c join pg_catalog.pg_ts_parser p on p.oid = c.cfgparser
       join pg_catalog.pg_namespace n on n.oid = p.prsnamespace where c.oid >= 16384
     union all
     select 'pg_ts_template', t.oid, 'template', case when t.tmplinit <> 0 then 'init = ' || t.tmplinit::text || ', ' else '' end
            || 'lexize = ' || t.tmpllexize::text
       from pg_catalog.pg_ts_template t where t.oid >= 16384
     union all
     select 'pg_ts_parser', p.oid, 'parser', 'start = ' || p.prsstart::text || ', gettoken = ' || p.prstoken::text ||
            ', end = ' || p.prsend::text || ', lextypes = ' || p.prslextype::text ||
            case when p.prsheadline <> 0 then ', headline = ' || p.prsheadline::text else '' end
       from pg_catalog.pg_ts_parser p where p.oid >= 16384`,
  );
  const mappings = await readRows(
    context.connection,
    "text search mappings",
    z.object({ oid: z.string(), token: z.string(), dictionaries: z.string() }),
    `select m.mapcfg as oid, (select t.alias from pg_catalog.ts_token_type(c.cfgparser) t
              where t.tokid = m.maptokentype) as token,
            pg_catalog.string_agg(m.mapdict::regdictionary::text, ', ' order by m.mapseqno) as dictionaries
       from pg_catalog.pg_ts_config_map m join pg_catalog.pg_ts_config c on c.oid = m.mapcfg
      where m.mapcfg >= 16384 group by m.mapcfg, m.maptokentype, c.cfgparser order by m.mapcfg, m.maptokentype`,
  );
  const byConfiguration = groupBy(mappings, (mapping) => mapping.oid);
  return rows.flatMap((row) => {
    const object = ownObject(context, row.catalog, row.oid);
    if (object === undefined) return [];
    const name = identityOf(object);
    const statements = [`create text search ${row.word} ${name} (${row.details})`];
    if (row.catalog === "pg_ts_config") {
      for (const mapping of byConfiguration.get(row.oid) ?? []) {
        statements.push(
          `alter text search configuration ${name} add mapping for "${mapping.token}" with ${mapping.dictionaries}`,
        );
      }
    }
    const owned = row.catalog === "pg_ts_dict" || row.catalog === "pg_ts_config";
    return [draft(`${row.catalog}:${row.oid}`, `text search ${row.word}`, "pre-data", statements, {
      ownerWord: owned ? `text search ${row.word}` : null,
    })];
  });
};
