/** Views, materialised views and rules. */
import { z } from "zod";
import { type Collector, ownObject } from "./collector.ts";
import { type Draft, draft } from "./draft.ts";
import { storageOptions } from "./options.ts";
import { quoteIdent, quoteQualified } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import { type Column, groupBy, type Relation, type Relations } from "./relations.ts";
import { columnSettings, defaultKey } from "./table_statements.ts";

export function viewCollector(relations: Relations): Collector {
  return async (context) => {
    const rules = await readRows(
      context.connection,
      "rules",
      z.object({
        oid: z.string(),
        name: z.string(),
        relation: z.string(),
        relationName: z.string(),
        isReturn: z.boolean(),
        definition: z.string(),
        enabled: z.string(),
      }),
      `select r.oid, r.rulename as name, r.ev_class as relation,
              pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as "relationName",
              r.rulename = '_RETURN' as "isReturn",
              case when r.rulename <> '_RETURN' then pg_catalog.pg_get_ruledef(r.oid) else '' end as definition,
              r.ev_enabled as enabled
         from pg_catalog.pg_rewrite r join pg_catalog.pg_class c on c.oid = r.ev_class
         join pg_catalog.pg_namespace n on n.oid = c.relnamespace where r.oid >= 16384`,
    );
    const returns = groupBy(rules.filter((rule) => rule.isReturn), (rule) => rule.relation);
    const drafts: Draft[] = [];
    for (const relation of relations.byOid.values()) {
      if (relation.relkind !== "v" && relation.relkind !== "m") continue;
      if (ownObject(context, "pg_class", relation.oid) === undefined) continue;
      const columns = relations.columns.get(relation.oid) ?? [];
      const covers = [
        `pg_type:${relation.rowType}`,
        ...(returns.get(relation.oid) ?? []).map((rule) => `pg_rewrite:${rule.oid}`),
      ];
      if (relation.relkind === "v") drafts.push(...viewDrafts(relation, columns, covers));
      else drafts.push(...materialisedDrafts(relation, columns, covers));
    }
    for (const rule of rules) {
      if (rule.isReturn || ownObject(context, "pg_rewrite", rule.oid) === undefined) continue;
      const state = enabledWord(rule.enabled);
      drafts.push(
        draft(`pg_rewrite:${rule.oid}`, "rule", "post-data", [
          rule.definition.trim().replace(/;$/, ""),
          ...(state === null ? [] : [`alter table ${rule.relationName} ${state} rule ${quoteIdent(rule.name)}`]),
        ], { table: `pg_class:${rule.relation}` }),
      );
    }
    return drafts;
  };
}

/** `disable`, `enable replica` …; null for the usual state. */
export function enabledWord(enabled: string): string | null {
  return enabled === "D" ? "disable" : enabled === "R" ? "enable replica" : enabled === "A" ? "enable always" : null;
}

const nameOf = (relation: Relation): string => quoteQualified(relation.schema, relation.name);
const definitionOf = (relation: Relation): string => (relation.viewDefinition ?? "").trim().replace(/;$/, "");

function optionsOf(relation: Relation): string {
  const options = storageOptions(relation.options);
  return options.length === 0 ? "" : ` with (${options.join(", ")})`;
}

function viewDrafts(relation: Relation, columns: readonly Column[], covers: readonly string[]): Draft[] {
  const name = nameOf(relation);
  const key = `pg_class:${relation.oid}`;
  const shell = columns.map((column) =>
    `null::${column.type}${column.collation === null ? "" : ` collate ${column.collation}`} as ${
      quoteIdent(column.name)
    }`
  );
  const defaults = columns.filter((column) => column.defaultText !== null);
  return [
    draft(key, "view", "pre-data", [
      `create or replace view ${name}${optionsOf(relation)} as\n${definitionOf(relation)}`,
    ], {
      covers,
      ownerWord: "view",
      stub: [`create view ${name} as select ${shell.join(", ")}`],
    }),
    ...defaults.map((column) =>
      draft(defaultKey(column), "default", "post-data", [
        `alter view ${name} alter column ${quoteIdent(column.name)} set default ${column.defaultText ?? "null"}`,
      ], { identity: `default of ${name}.${quoteIdent(column.name)}`, table: key, after: [key] })
    ),
  ];
}

function materialisedDrafts(relation: Relation, columns: readonly Column[], covers: readonly string[]): Draft[] {
  const name = nameOf(relation);
  const key = `pg_class:${relation.oid}`;
  const using = relation.accessMethod === null || relation.accessMethod === "heap"
    ? ""
    : ` using ${quoteIdent(relation.accessMethod)}`;
  const made = draft(key, "materialized view", "pre-data", [
    `create materialized view ${name}${using}${materialisedOptions(relation)} as\n${
      definitionOf(relation)
    }\nwith no data`,
    ...columns.flatMap((column) =>
      columnSettings(column, `alter materialized view ${name} alter column ${quoteIdent(column.name)}`)
    ),
  ], { covers, ownerWord: "materialized view" });
  if (!relation.populated) return [made];
  return [
    made,
    draft(`refresh:${relation.oid}`, "materialized view data", "last", [`refresh materialized view ${name}`], {
      identity: `data of materialized view ${name}`,
      table: key,
      after: [key],
    }),
  ];
}

function materialisedOptions(relation: Relation): string {
  const options = [...storageOptions(relation.options), ...storageOptions(relation.toastOptions, "toast.")];
  return options.length === 0 ? "" : ` with (${options.join(", ")})`;
}
