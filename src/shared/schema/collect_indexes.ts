/** Indexes, key and exclusion constraints, foreign keys, extended statistics. All of it waits for the data. */
import { z } from "zod";
import { type Collector, identityOf, ownObject } from "./collector.ts";
import { type Draft, draft } from "./draft.ts";
import { storageOptions } from "./options.ts";
import { quoteIdent } from "./quote.ts";
import { readRows } from "./read_rows.ts";

export const collectIndexes: Collector = async (context) => [
  ...(await indexes(context)),
  ...(await foreignKeys(context)),
  ...(await statistics(context)),
];

const indexFormat = z.object({
  oid: z.string(),
  name: z.string(),
  schema: z.string(),
  tableOid: z.string(),
  table: z.string(),
  tableKind: z.string(),
  kind: z.string(),
  definition: z.string(),
  valid: z.boolean(),
  clustered: z.boolean(),
  replicaIdentity: z.boolean(),
  tablespace: z.string().nullable(),
  options: z.array(z.string()).nullable(),
  parentOid: z.string().nullable(),
  parent: z.string().nullable(),
  constraintOid: z.string().nullable(),
  constraintName: z.string().nullable(),
  constraintType: z.string().nullable(),
  constraintText: z.string().nullable(),
  statistics: z.array(z.object({ attnum: z.number(), target: z.number() })).nullable(),
});

const indexes: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "indexes",
    indexFormat,
    `select i.indexrelid as oid, c.relname as name, n.nspname as schema, i.indrelid as "tableOid",
            pg_catalog.quote_ident(tn.nspname) || '.' || pg_catalog.quote_ident(t.relname) as table,
            t.relkind as "tableKind", c.relkind as kind, pg_catalog.pg_get_indexdef(i.indexrelid) as definition,
            i.indisvalid as valid, i.indisclustered as clustered, i.indisreplident as "replicaIdentity",
            s.spcname as tablespace, c.reloptions as options, p.oid as "parentOid",
            pg_catalog.quote_ident(pn.nspname) || '.' || pg_catalog.quote_ident(p.relname) as parent,
            k.oid as "constraintOid", k.conname as "constraintName", k.contype as "constraintType",
            pg_catalog.pg_get_constraintdef(k.oid) as "constraintText",
            (select pg_catalog.json_agg(pg_catalog.json_build_object('attnum', a.attnum, 'target', a.attstattarget)
               order by a.attnum) from pg_catalog.pg_attribute a
              where a.attrelid = c.oid and a.attstattarget >= 0) as statistics
       from pg_catalog.pg_index i
       join pg_catalog.pg_class c on c.oid = i.indexrelid
       join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       join pg_catalog.pg_class t on t.oid = i.indrelid
       join pg_catalog.pg_namespace tn on tn.oid = t.relnamespace
       left join pg_catalog.pg_tablespace s on s.oid = c.reltablespace
       left join pg_catalog.pg_inherits h on h.inhrelid = c.oid
       left join pg_catalog.pg_class p on p.oid = h.inhparent
       left join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
       left join pg_catalog.pg_constraint k on k.conindid = c.oid and k.conrelid = t.oid and k.contype in ('p', 'u', 'x')
      where c.oid >= 16384 and tn.nspname !~ '^pg_(temp|toast)'
      order by c.oid`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_class", row.oid);
    if (object === undefined) return [];
    const name = identityOf(object);
    if (!row.valid && row.kind !== "I") {
      context.warnings.push(`index ${name} is invalid and is not captured`);
      return [];
    }
    if (row.tablespace !== null) {
      context.warnings.push(`index ${name} comes back in the default tablespace, not ${row.tablespace}`);
    }
    const statements = [createStatement(row)];
    for (const { attnum, target } of row.statistics ?? []) {
      statements.push(`alter index ${name} alter column ${attnum} set statistics ${target}`);
    }
    const table = `pg_class:${row.tableOid}`;
    const key = row.constraintOid === null ? `pg_class:${row.oid}` : `pg_constraint:${row.constraintOid}`;
    const drafts: Draft[] = [
      draft(key, row.constraintOid === null ? "index" : constraintKind(row.constraintType), "post-data", statements, {
        table,
        covers: row.constraintOid === null ? [] : [`pg_class:${row.oid}`],
        after: [table],
      }),
    ];
    const marks = [
      ...(row.clustered
        ? [`alter ${relationWord(row.tableKind)} ${row.table} cluster on ${quoteIdent(row.name)}`]
        : []),
      ...(row.replicaIdentity
        ? [`alter table only ${row.table} replica identity using index ${quoteIdent(row.name)}`]
        : []),
    ];
    if (marks.length > 0) {
      drafts.push(
        draft(`index marks:${row.oid}`, "index marks", "post-data", marks, {
          identity: `marks of index ${name}`,
          table,
          after: [key],
        }),
      );
    }
    if (row.parent !== null && row.parentOid !== null) {
      drafts.push(
        draft(`index attach:${row.oid}`, "index partition", "post-data", [
          `alter index ${row.parent} attach partition ${name}`,
        ], {
          identity: `index partition ${name} of ${row.parent}`,
          table,
          after: [`pg_class:${row.oid}`, `pg_class:${row.parentOid}`],
        }),
      );
    }
    return drafts;
  });
};

const relationWord = (kind: string): string => kind === "m" ? "materialized view" : "table";

function constraintKind(type: string | null): string {
  return type === "p" ? "primary key" : type === "u" ? "unique constraint" : "exclusion constraint";
}

function createStatement(row: z.infer<typeof indexFormat>): string {
  if (row.constraintName === null || row.constraintText === null) return row.definition;
  const options = storageOptions(row.options ?? []);
  // The text of an exclusion constraint has its options already, that of a key has not.
  const text = options.length === 0 || row.constraintType === "x"
    ? row.constraintText
    : withOptions(row.constraintText, options);
  return `alter table only ${row.table} add constraint ${quoteIdent(row.constraintName)} ${text}`;
}

/** WITH stands behind the columns and INCLUDE, before DEFERRABLE. */
function withOptions(text: string, options: readonly string[]): string {
  const tail = /( DEFERRABLE)?( INITIALLY DEFERRED)?$/.exec(text);
  const at = tail?.index ?? text.length;
  return `${text.slice(0, at)} with (${options.join(", ")})${text.slice(at)}`;
}

const foreignKeys: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "foreign keys",
    z.object({
      oid: z.string(),
      name: z.string(),
      tableOid: z.string(),
      table: z.string(),
      tableKind: z.string(),
      text: z.string(),
    }),
    `select k.oid, k.conname as name, k.conrelid as "tableOid",
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(t.relname) as table,
            t.relkind as "tableKind", pg_catalog.pg_get_constraintdef(k.oid) as text
       from pg_catalog.pg_constraint k
       join pg_catalog.pg_class t on t.oid = k.conrelid
       join pg_catalog.pg_namespace n on n.oid = t.relnamespace
      where k.contype = 'f' and k.conparentid = 0 and k.oid >= 16384`,
  );
  return rows.filter((row) => ownObject(context, "pg_constraint", row.oid) !== undefined).map((row) => {
    const table = `pg_class:${row.tableOid}`;
    const only = row.tableKind === "p" ? "" : "only ";
    return draft(`pg_constraint:${row.oid}`, "foreign key", "post-data", [
      `alter table ${only}${row.table} add constraint ${quoteIdent(row.name)} ${row.text}`,
    ], { table, after: [table] });
  });
};

const statistics: Collector = async (context) => {
  const rows = await readRows(
    context.connection,
    "extended statistics",
    z.object({ oid: z.string(), definition: z.string(), target: z.number().nullable(), tableOid: z.string() }),
    `select s.oid, pg_catalog.pg_get_statisticsobjdef(s.oid) as definition, nullif(s.stxstattarget, -1) as target,
            s.stxrelid as "tableOid" from pg_catalog.pg_statistic_ext s where s.oid >= 16384`,
  );
  return rows.flatMap((row) => {
    const object = ownObject(context, "pg_statistic_ext", row.oid);
    if (object === undefined) return [];
    const statements = [row.definition];
    if (row.target !== null) statements.push(`alter statistics ${identityOf(object)} set statistics ${row.target}`);
    return [draft(`pg_statistic_ext:${row.oid}`, "statistics", "post-data", statements, {
      table: `pg_class:${row.tableOid}`,
      ownerWord: "statistics",
    })];
  });
};
