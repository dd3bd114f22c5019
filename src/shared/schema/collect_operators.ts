/** Operators, operator families and classes, casts, conversions, transforms, access methods, languages. */
import { z } from "zod";
import { type Collector, identityOf, ownObject } from "./collector.ts";
import { type Draft, draft } from "./draft.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import { groupBy } from "./relations.ts";

export const collectOperators: Collector = async (context) => [
  ...(await operators(context)),
  ...(await families(context)),
  ...(await casts(context)),
  ...(await conversions(context)),
  ...(await languages(context)),
];

/** `schema.op` of an operator's oid, as OPERATOR() takes it. */
const operatorName = (oid: string): string =>
  `(select pg_catalog.quote_ident(n2.nspname) || '.' || o2.oprname from pg_catalog.pg_operator o2
     join pg_catalog.pg_namespace n2 on n2.oid = o2.oprnamespace where o2.oid = ${oid})`;

const operators: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "operators",
    z.object({
      oid: z.string(),
      name: z.string(),
      code: z.string(),
      left: z.string().nullable(),
      right: z.string().nullable(),
      commutator: z.string().nullable(),
      negator: z.string().nullable(),
      merges: z.boolean(),
      hashes: z.boolean(),
      restrict: z.string(),
      join: z.string(),
    }),
    `select o.oid, ${operatorName("o.oid")} as name, o.oprcode::text as code,
            case when o.oprleft <> 0 then pg_catalog.format_type(o.oprleft, null) end as "left",
            case when o.oprright <> 0 then pg_catalog.format_type(o.oprright, null) end as "right",
            ${operatorName("o.oprcom")} as commutator, ${operatorName("o.oprnegate")} as negator,
            o.oprcanmerge as merges, o.oprcanhash as hashes, o.oprrest::text as restrict, o.oprjoin::text as "join"
       from pg_catalog.pg_operator o where o.oid >= 16384 and o.oprcode <> 0`,
  );
  return rows.filter((row) => ownObject(context, "pg_operator", row.oid) !== undefined).map((row) => {
    const details = [`function = ${row.code}`];
    if (row.left !== null) details.push(`leftarg = ${row.left}`);
    if (row.right !== null) details.push(`rightarg = ${row.right}`);
    if (row.commutator !== null) details.push(`commutator = operator(${row.commutator})`);
    if (row.negator !== null) details.push(`negator = operator(${row.negator})`);
    if (row.restrict !== "-") details.push(`restrict = ${row.restrict}`);
    if (row.join !== "-") details.push(`join = ${row.join}`);
    if (row.hashes) details.push("hashes");
    if (row.merges) details.push("merges");
    return draft(`pg_operator:${row.oid}`, "operator", "pre-data", [
      `create operator ${row.name} (${details.join(", ")})`,
    ], { ownerWord: "operator" });
  });
};

const families: Collector = async (context) => {
  const members = await readRows(
    context.connection,
    "operator family members",
    z.object({ holder: z.string(), key: z.string(), text: z.string() }),
    `select d.refclassid::regclass::text || ':' || d.refobjid as holder, 'pg_amop:' || m.oid as key,
            'operator ' || m.amopstrategy || ' ' || ${operatorName("m.amopopr")} || '(' ||
            pg_catalog.format_type(m.amoplefttype, null) || ', ' || pg_catalog.format_type(m.amoprighttype, null) || ')' ||
            case when m.amoppurpose = 'o' then ' for order by ' || pg_catalog.quote_ident(fn.nspname) || '.' ||
              pg_catalog.quote_ident(f.opfname) else '' end as text
       from pg_catalog.pg_amop m
       join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_amop'::regclass and d.objid = m.oid
         and d.refclassid in ('pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_opfamily'::regclass)
         and d.deptype in ('a', 'i')
       left join pg_catalog.pg_opfamily f on f.oid = m.amopsortfamily
       left join pg_catalog.pg_namespace fn on fn.oid = f.opfnamespace
      where m.oid >= 16384
     union all
     select d.refclassid::regclass::text || ':' || d.refobjid, 'pg_amproc:' || m.oid,
            'function ' || m.amprocnum || ' (' || pg_catalog.format_type(m.amproclefttype, null) || ', ' ||
            pg_catalog.format_type(m.amprocrighttype, null) || ') ' || m.amproc::regprocedure::text
       from pg_catalog.pg_amproc m
       join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_amproc'::regclass and d.objid = m.oid
         and d.refclassid in ('pg_catalog.pg_opclass'::regclass, 'pg_catalog.pg_opfamily'::regclass)
         and d.deptype in ('a', 'i')
      where m.oid >= 16384
      order by 1, 3`,
  );
  const byHolder = groupBy(members, (member) => member.holder);
  const familyRows = await readRows(
    context.connection,
    "operator families",
    z.object({ oid: z.string() }),
    `select f.oid from pg_catalog.pg_opfamily f where f.oid >= 16384`,
  );
  const classRows = await readRows(
    context.connection,
    "operator classes",
    z.object({
      oid: z.string(),
      name: z.string(),
      method: z.string(),
      family: z.string(),
      familyOid: z.string(),
      type: z.string(),
      isDefault: z.boolean(),
      storage: z.string().nullable(),
    }),
    `select c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.opcname) as name,
            pg_catalog.quote_ident(am.amname) as method,
            pg_catalog.quote_ident(fn.nspname) || '.' || pg_catalog.quote_ident(f.opfname) as family,
            f.oid as "familyOid", pg_catalog.format_type(c.opcintype, null) as type, c.opcdefault as "isDefault",
            case when c.opckeytype <> 0 then pg_catalog.format_type(c.opckeytype, null) end as storage
       from pg_catalog.pg_opclass c
       join pg_catalog.pg_namespace n on n.oid = c.opcnamespace
       join pg_catalog.pg_am am on am.oid = c.opcmethod
       join pg_catalog.pg_opfamily f on f.oid = c.opcfamily
       join pg_catalog.pg_namespace fn on fn.oid = f.opfnamespace
      where c.oid >= 16384`,
  );
  const drafts: Draft[] = [];
  for (const row of familyRows) {
    const object = ownObject(context, "pg_opfamily", row.oid);
    if (object === undefined) continue;
    const key = `pg_opfamily:${row.oid}`;
    drafts.push(
      draft(key, "operator family", "pre-data", [`create operator family ${identityOf(object)}`], {
        ownerWord: "operator family",
      }),
    );
    const loose = byHolder.get(key) ?? [];
    if (loose.length > 0) {
      drafts.push(
        draft(`family members:${row.oid}`, "operator family members", "pre-data", [
          `alter operator family ${identityOf(object)} add ${loose.map((member) => member.text).join(", ")}`,
        ], {
          identity: `members of operator family ${identityOf(object)}`,
          after: [
            key,
            ...classRows.filter((item) => item.familyOid === row.oid).map((item) => `pg_opclass:${item.oid}`),
          ],
          covers: loose.map((member) => member.key),
        }),
      );
    }
  }
  for (const row of classRows) {
    if (ownObject(context, "pg_opclass", row.oid) === undefined) continue;
    const key = `pg_opclass:${row.oid}`;
    const items = byHolder.get(key) ?? [];
    const texts = items.map((member) => member.text);
    if (row.storage !== null || texts.length === 0) texts.unshift(`storage ${row.storage ?? row.type}`);
    drafts.push(
      draft(key, "operator class", "pre-data", [
        `create operator class ${row.name}${row.isDefault ? " default" : ""} for type ${row.type} using ${row.method}` +
        ` family ${row.family} as ${texts.join(", ")}`,
      ], { covers: items.map((member) => member.key), ownerWord: "operator class" }),
    );
  }
  return drafts;
};

const casts: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "casts",
    z.object({
      oid: z.string(),
      source: z.string(),
      target: z.string(),
      method: z.string(),
      function: z.string().nullable(),
      context: z.string(),
    }),
    `select c.oid, pg_catalog.format_type(c.castsource, null) as source,
            pg_catalog.format_type(c.casttarget, null) as target, c.castmethod as method,
            case when c.castfunc <> 0 then c.castfunc::regprocedure::text end as function, c.castcontext as context
       from pg_catalog.pg_cast c where c.oid >= 16384`,
  );
  const when: Readonly<Record<string, string>> = { a: " as assignment", i: " as implicit" };
  return rows.filter((row) => ownObject(context, "pg_cast", row.oid) !== undefined).map((row) => {
    const how = row.method === "f"
      ? `with function ${row.function ?? ""}`
      : row.method === "i"
      ? "with inout"
      : "without function";
    return draft(`pg_cast:${row.oid}`, "cast", "pre-data", [
      `create cast (${row.source} as ${row.target}) ${how}${when[row.context] ?? ""}`,
    ]);
  });
};

const conversions: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "conversions",
    z.object({ oid: z.string(), isDefault: z.boolean(), from: z.string(), to: z.string(), function: z.string() }),
    `select c.oid, c.condefault as "isDefault", pg_catalog.pg_encoding_to_char(c.conforencoding) as "from",
            pg_catalog.pg_encoding_to_char(c.contoencoding) as "to", c.conproc::text as function
       from pg_catalog.pg_conversion c where c.oid >= 16384`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_conversion", row.oid);
    if (object === undefined) return [];
    const names = `for ${quoteLiteral(row.from)} to ${quoteLiteral(row.to)} from ${row.function}`;
    return [draft(`pg_conversion:${row.oid}`, "conversion", "pre-data", [
      `create ${row.isDefault ? "default " : ""}conversion ${identityOf(object)} ${names}`,
    ], { ownerWord: "conversion" })];
  });
};

const languages: Collector = async (context) => {
  const languageRows = await readRows(
    context.connection,
    "languages",
    z.object({
      oid: z.string(),
      name: z.string(),
      trusted: z.boolean(),
      handler: z.string(),
      inline: z.string(),
      validator: z.string(),
    }),
    `select l.oid, l.lanname as name, l.lanpltrusted as trusted, l.lanplcallfoid::regproc::text as handler,
            l.laninline::regproc::text as inline, l.lanvalidator::regproc::text as validator
       from pg_catalog.pg_language l where l.oid >= 16384 and l.lanplcallfoid <> 0`,
  );
  const transformRows = await readRows(
    context.connection,
    "transforms",
    z.object({
      oid: z.string(),
      type: z.string(),
      language: z.string(),
      from: z.string().nullable(),
      to: z.string().nullable(),
    }),
    `select t.oid, pg_catalog.format_type(t.trftype, null) as type, l.lanname as language,
            case when t.trffromsql <> 0 then t.trffromsql::regprocedure::text end as "from",
            case when t.trftosql <> 0 then t.trftosql::regprocedure::text end as "to"
       from pg_catalog.pg_transform t join pg_catalog.pg_language l on l.oid = t.trflang where t.oid >= 16384`,
  );
  const methodRows = await readRows(
    context.connection,
    "access methods",
    z.object({ oid: z.string(), name: z.string(), type: z.string(), handler: z.string() }),
    `select a.oid, a.amname as name, a.amtype as type, a.amhandler::text as handler
       from pg_catalog.pg_am a where a.oid >= 16384`,
  );
  return [
    ...languageRows.filter((row) => ownObject(context, "pg_language", row.oid) !== undefined).map((row) =>
      draft(`pg_language:${row.oid}`, "language", "pre-data", [
        `create ${row.trusted ? "trusted " : ""}language ${quoteIdent(row.name)} handler ${row.handler}` +
        (row.inline === "-" ? "" : ` inline ${row.inline}`) +
        (row.validator === "-" ? "" : ` validator ${row.validator}`),
      ], { ownerWord: "language" })
    ),
    ...transformRows.filter((row) => ownObject(context, "pg_transform", row.oid) !== undefined).map((row) => {
      const functions = [
        row.from === null ? "" : `from sql with function ${row.from}`,
        row.to === null ? "" : `to sql with function ${row.to}`,
      ].filter((text) => text !== "");
      return draft(`pg_transform:${row.oid}`, "transform", "pre-data", [
        `create transform for ${row.type} language ${quoteIdent(row.language)} (${functions.join(", ")})`,
      ]);
    }),
    ...methodRows.filter((row) => ownObject(context, "pg_am", row.oid) !== undefined).map((row) =>
      draft(`pg_am:${row.oid}`, "access method", "pre-data", [
        `create access method ${quoteIdent(row.name)} type ${
          row.type === "t" ? "table" : "index"
        } handler ${row.handler}`,
      ])
    ),
  ];
};
