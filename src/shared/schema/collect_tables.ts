/** Tables, foreign tables and partitioned tables, with defaults, checks, inheritance and row security. */
import { type Collector, identityOf, ownObject } from "./collector.ts";
import { type Draft, draft } from "./draft.ts";
import { quoteIdent, quoteQualified } from "./quote.ts";
import type { Check, Column, Relation, Relations } from "./relations.ts";
import { createTable, defaultKey, isPostponed, planTable, type TableFacts } from "./table_statements.ts";

export function tableCollector(relations: Relations): Collector {
  // deno-lint-ignore require-await
  return async (context) => {
    const drafts: Draft[] = [];
    for (const relation of relations.byOid.values()) {
      if (!["r", "p", "f"].includes(relation.relkind)) continue;
      const object = ownObject(context, "pg_class", relation.oid);
      if (object === undefined) continue;
      if (relation.tablespace !== null) {
        context.warnings.push(
          `table ${identityOf(object)} comes back in the default tablespace, not ${relation.tablespace}`,
        );
      }
      const facts = factsOf(relation, relations);
      const plan = planTable(facts);
      context.warnings.push(...plan.warnings);
      drafts.push(tableDraft(facts, plan), ...postponedChecks(facts), ...attachment(relation, relations));
      if (relation.rowSecurity || relation.forceRowSecurity) drafts.push(rowSecurity(relation));
    }
    return drafts;
  };
}

function factsOf(relation: Relation, relations: Relations): TableFacts {
  const parents = relation.isPartition ? [] : relation.parents.flatMap((oid) => {
    const parent = relations.byOid.get(oid);
    return parent === undefined ? [] : [{ relation: parent, columns: relations.columns.get(oid) ?? [] }];
  });
  return {
    relation,
    columns: relations.columns.get(relation.oid) ?? [],
    checks: relations.checks.get(relation.oid) ?? [],
    parents,
  };
}

const nameOf = (relation: Relation): string => quoteQualified(relation.schema, relation.name);
const wordOf = (relation: Relation): string => relation.relkind === "f" ? "foreign table" : "table";

function tableDraft(facts: TableFacts, plan: ReturnType<typeof planTable>): Draft {
  const { relation, columns } = facts;
  const key = `pg_class:${relation.oid}`;
  const inline = facts.checks.filter((check) => check.validated && !isPostponed(check));
  const parts = [
    ...columns.filter((column) => column.defaultText !== null && column.generated === "").map((column) =>
      defaultDraft(relation, column)
    ),
    ...inline.filter((check) => plan.checks.includes(check)).map((check) => checkDraft(relation, check, "pre-data")),
  ];
  return draft(key, wordOf(relation), "pre-data", (apart) => createTable(facts, plan, apart), {
    parts,
    covers: [
      `pg_type:${relation.rowType}`,
      ...columns.filter((column) => column.defaultOid !== null).map(defaultKey),
      ...inline.map((check) => `pg_constraint:${check.oid}`),
    ],
    ownerWord: wordOf(relation),
    after: relation.isPartition ? [] : relation.parents.map((oid) => `pg_class:${oid}`),
  });
}

function defaultDraft(relation: Relation, column: Column): Draft {
  const target = `alter ${wordOf(relation)} only ${nameOf(relation)} alter column ${quoteIdent(column.name)}`;
  return draft(defaultKey(column), "default", "pre-data", [`${target} set default ${column.defaultText ?? "null"}`], {
    identity: `default of ${nameOf(relation)}.${quoteIdent(column.name)}`,
    table: `pg_class:${relation.oid}`,
    after: [`pg_class:${relation.oid}`],
  });
}

function checkDraft(relation: Relation, check: Check, section: "pre-data" | "post-data"): Draft {
  return draft(`pg_constraint:${check.oid}`, "check constraint", section, [
    `alter table ${nameOf(relation)} add constraint ${quoteIdent(check.name)} ${check.definition}`,
  ], { table: `pg_class:${relation.oid}`, after: [`pg_class:${relation.oid}`] });
}

/** Checks that wait for the data. One that comes from a parent is made by the parent's own statement. */
function postponedChecks({ relation, checks }: TableFacts): Draft[] {
  return checks.filter((check) => !check.validated || isPostponed(check)).map((check) => {
    if (check.isLocal) return checkDraft(relation, check, "post-data");
    return draft(`pg_constraint:${check.oid}`, "check constraint", "post-data", [], {
      table: `pg_class:${relation.oid}`,
      after: [`pg_class:${relation.oid}`],
    });
  });
}

function attachment(relation: Relation, relations: Relations): Draft[] {
  const parent = relations.byOid.get(relation.parents[0] ?? "");
  if (!relation.isPartition || parent === undefined || relation.partitionBound === null) return [];
  const name = `${nameOf(relation)} of ${nameOf(parent)}`;
  return [draft(`attach:${relation.oid}`, "partition", "pre-data", [
    `alter table only ${nameOf(parent)} attach partition ${nameOf(relation)} ${relation.partitionBound}`,
  ], {
    identity: `partition ${name}`,
    table: `pg_class:${relation.oid}`,
    after: [`pg_class:${relation.oid}`, `pg_class:${parent.oid}`],
  })];
}

function rowSecurity(relation: Relation): Draft {
  const alter = `alter table ${nameOf(relation)}`;
  return draft(`row security:${relation.oid}`, "row security", "post-data", [
    ...(relation.rowSecurity ? [`${alter} enable row level security`] : []),
    ...(relation.forceRowSecurity ? [`${alter} force row level security`] : []),
  ], {
    identity: `row security of ${nameOf(relation)}`,
    table: `pg_class:${relation.oid}`,
    after: [`pg_class:${relation.oid}`],
  });
}
