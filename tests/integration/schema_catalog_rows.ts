/** A witness that shares nothing with the product: rows of the catalogs themselves, with every oid replaced by the server's own words. */

type Ask = (text: string, values?: readonly unknown[]) => Promise<Record<string, unknown>[]>;

/** Columns that a faithful copy may differ in: places, sizes, counters, and texts that hold oids (looked at through pg_get_… instead). */
const free = new Set([
  "pg_class.relfilenode",
  "pg_class.relpages",
  "pg_class.reltuples",
  "pg_class.relallvisible",
  "pg_class.relfrozenxid",
  "pg_class.relminmxid",
  "pg_class.relhasindex",
  "pg_class.relhassubclass",
  "pg_class.relpartbound",
  // Dimensions of an array column: a note that the server neither keeps to nor shows.
  "pg_attribute.attndims",
  // Labels added in between have fractions; their order is compared.
  "pg_enum.enumsortorder",
  // Numbers of columns, which move up where a column was dropped.
  "pg_class.relnatts",
  "pg_attribute.attnum",
  "pg_attribute.attoptions",
  "pg_attribute.atthasmissing",
  "pg_attribute.attmissingval",
  "pg_attrdef.adnum",
  "pg_attrdef.adbin",
  "pg_constraint.conkey",
  "pg_constraint.confkey",
  "pg_constraint.confdelsetcols",
  "pg_constraint.conbin",
  "pg_index.indkey",
  "pg_index.indexprs",
  "pg_index.indpred",
  "pg_index.indcheckxmin",
  "pg_trigger.tgattr",
  "pg_trigger.tgqual",
  "pg_trigger.tgname",
  "pg_policy.polqual",
  "pg_policy.polwithcheck",
  "pg_rewrite.ev_qual",
  "pg_rewrite.ev_action",
  "pg_proc.proargdefaults",
  "pg_proc.prosqlbody",
  "pg_type.typdefaultbin",
  "pg_statistic_ext.stxkeys",
  "pg_statistic_ext.stxexprs",
  "pg_publication_rel.prattrs",
  "pg_publication_rel.prqual",
  "pg_partitioned_table.partattrs",
  "pg_partitioned_table.partexprs",
  "pg_description.objsubid",
]);

const catalogs = [
  "pg_namespace",
  "pg_class",
  "pg_attribute",
  "pg_attrdef",
  "pg_type",
  "pg_enum",
  "pg_range",
  "pg_proc",
  "pg_aggregate",
  "pg_operator",
  "pg_opclass",
  "pg_opfamily",
  "pg_amop",
  "pg_amproc",
  "pg_cast",
  "pg_conversion",
  "pg_collation",
  "pg_ts_dict",
  "pg_ts_config",
  "pg_ts_config_map",
  "pg_foreign_data_wrapper",
  "pg_foreign_server",
  "pg_foreign_table",
  "pg_am",
  "pg_event_trigger",
  "pg_publication",
  "pg_publication_rel",
  "pg_publication_namespace",
  "pg_statistic_ext",
  "pg_default_acl",
  "pg_policy",
  "pg_rewrite",
  "pg_trigger",
  "pg_constraint",
  "pg_index",
  "pg_inherits",
  "pg_sequence",
  "pg_partitioned_table",
  "pg_description",
];

/** The first column tells whose row it is, where there is no oid. */
const owningColumn: Readonly<Record<string, string>> = {
  pg_attribute: "attrelid",
  pg_range: "rngtypid",
  pg_aggregate: "aggfnoid",
  pg_ts_config_map: "mapcfg",
  pg_foreign_table: "ftrelid",
  pg_index: "indexrelid",
  pg_inherits: "inhrelid",
  pg_sequence: "seqrelid",
  pg_partitioned_table: "partrelid",
  pg_description: "objoid",
};

/** Sorted lines, one a row of the catalogs and one a dependency, equal for equal databases whatever their oids. */
export async function catalogRows(ask: Ask): Promise<string[]> {
  const keys = await ask(`select fktable::text as "table", fkcols[1] as "column", pktable::text as target, is_array
       from pg_get_catalog_foreign_keys() where cardinality(fkcols) = 1`);
  const lines: string[] = [];
  for (const catalog of catalogs) {
    const columns = await ask(
      `select attname, atttypid::regtype::text as type from pg_attribute
        where attrelid = $1::regclass and attnum > 0 and not attisdropped and attname <> 'oid' order by attnum`,
      [`pg_catalog.${catalog}`],
    );
    const texts = columns.filter((column) => !free.has(`${catalog}.${String(column["attname"])}`)).map((column) => {
      const name = String(column["attname"]);
      const key = keys.find((candidate) => candidate["table"] === catalog && candidate["column"] === name);
      const named = (value: string, target: string) =>
        `coalesce((pg_identify_object('pg_catalog.${target}'::regclass, ${value}, 0)).identity, '-')`;
      if (catalog === "pg_description" && name === "objoid") {
        return `'objoid=' || ${describe("classoid", "objoid", "objsubid")}`;
      }
      if (String(column["type"]) === "aclitem[]") {
        return `'${name}=' || coalesce((select string_agg(a::text, ',' order by a::text) from unnest(o.${name}) a), '')`;
      }
      if (key === undefined) return `'${name}=' || coalesce(o.${name}::text, '')`;
      const target = String(key["target"]);
      if ((key["is_array"] === true || key["is_array"] === "t")) {
        return `'${name}=' || coalesce((select string_agg(${named("u.x", target)}, ',' order by u.n)
          from unnest(o.${name}::oid[]) with ordinality u(x, n)), '')`;
      }
      return `'${name}=' || ${named(`o.${name}::oid`, target)}`;
    });
    const owner = owningColumn[catalog] ?? "oid";
    const where = catalog === "pg_attribute" ? " and o.attnum > 0 and not o.attisdropped" : "";
    const order = catalog === "pg_attribute"
      ? `'#' || (select count(*) from pg_attribute b where b.attrelid = o.attrelid and b.attnum between 1 and o.attnum
           and not b.attisdropped), coalesce((select string_agg(x, ',') from unnest(o.attoptions) x where x not like 'pg\\_%'), ''), `
      : "";
    const rows = await ask(
      `select concat_ws(' | ', '${catalog}', ${order}${texts.join(", ")}) as line from pg_catalog.${catalog} o
        where o.${owner}::oid >= 16384${where}`,
    );
    lines.push(...rows.map((row) => String(row["line"])));
  }
  const dependencies = await ask(`select concat_ws(' | ', 'pg_depend', ${describe("classid", "objid", "objsubid")},
              ${describe("refclassid", "refobjid", "refobjsubid")}, o.deptype) as line
       from pg_catalog.pg_depend o where o.objid >= 16384 and o.classid <> 'pg_trigger'::regclass`);
  lines.push(...dependencies.map((row) => String(row["line"])));
  const texts = await ask(
    `select 'default | ' || adrelid::regclass || '.' || (select attname from pg_attribute where attrelid = adrelid
        and attnum = adnum) || ' | ' || pg_get_expr(adbin, adrelid) as line from pg_attrdef
     union all select 'constraint | ' || conname || ' | ' || coalesce(conrelid::regclass::text, '') || ' | ' ||
        pg_get_constraintdef(oid) from pg_constraint where oid >= 16384
     union all select 'index | ' || pg_get_indexdef(indexrelid) from pg_index where indexrelid >= 16384
     union all select 'trigger | ' || pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
     union all select 'rule | ' || pg_get_ruledef(oid) from pg_rewrite where oid >= 16384
     union all select 'function | ' || pg_get_functiondef(oid) from pg_proc where oid >= 16384 and prokind <> 'a'
     union all select 'policy | ' || polname || ' | ' || coalesce(pg_get_expr(polqual, polrelid), '') || ' | ' ||
        coalesce(pg_get_expr(polwithcheck, polrelid), '') from pg_policy
     union all select 'partition | ' || oid::regclass || ' | ' || pg_get_expr(relpartbound, oid) from pg_class where relispartition
     union all select 'partitioned | ' || partrelid::regclass || ' | ' || pg_get_partkeydef(partrelid) from pg_partitioned_table
     union all select 'statistics | ' || pg_get_statisticsobjdef(oid) from pg_statistic_ext
     union all select 'published | ' || prrelid::regclass || ' | ' || coalesce(pg_get_expr(prqual, prrelid), '') ||
        (select coalesce(string_agg(attname, ',' order by attname), '') from pg_attribute
          where attrelid = prrelid and attnum = any (prattrs)) from pg_publication_rel`,
  );
  lines.push(...texts.map((row) => String(row["line"])));
  // A partition's key that was made with the partition says "may be inherited", one that was attached does not: nothing reads it.
  const partitionKey = /^(pg_constraint .*)connoinherit=\w+(.*)$/;
  // Names that hold an oid, in toast tables and triggers of constraints.
  return lines.map((line) =>
    line.replace(/pg_toast_\d+/g, "pg_toast_N").replace(
      partitionKey,
      (whole, before: string, after: string) => /conparentid=-( |$)/.test(whole) ? whole : before + after,
    ).replace(/(RI_ConstraintTrigger_[ac])_\d+/g, "$1_N")
  )
    .sort();
}

/** A stable name of any object; a column by its name. */
function describe(classid: string, objid: string, subid: string): string {
  return `coalesce((select i.type || ' ' || i.identity from pg_identify_object(o.${classid}, o.${objid}, o.${subid}) i), '-')`;
}
