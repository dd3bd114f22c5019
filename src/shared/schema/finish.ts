/** From an ordered draft to the definition that is sealed: names, comments, owner, grants, platform mark. Pure. */
import type { Definition } from "./capture_format.ts";
import { onThisDatabase } from "./collect_roles.ts";
import { hidesOperator } from "./dependencies.ts";
import type { Draft } from "./draft.ts";
import { commentTarget, grantTarget } from "./designation.ts";
import type { CatalogObject } from "./inventory.ts";
import type { Node } from "./order.ts";
import { platformOf } from "./platform.ts";
import { accessStatements, grantOn, type GrantText } from "./privileges.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import type { Remarks } from "./remarks.ts";

export interface Surroundings {
  readonly objects: ReadonlyMap<string, CatalogObject>;
  readonly remarks: Remarks;
  /** Schemas of unnamed operators, by row. */
  readonly hiddenOperators: ReadonlyMap<string, readonly string[]>;
  /** Identities by draft key. */
  readonly identities: ReadonlyMap<string, string>;
}

/** What has another owner on every server. */
const ownerless = new Set(["pg_database", "pg_parameter_acl"]);

export function finish(node: Node, around: Surroundings): Definition {
  const { draft } = node;
  const object = around.objects.get(draft.key);
  const table = draft.table === null ? undefined : around.objects.get(draft.table);
  // A part that stands on its own brings its comment itself.
  const rows = [draft.key, ...draft.covers].filter((key) => key === draft.key || !around.identities.has(key));
  const objects = rows.flatMap((key) => around.objects.get(key) ?? []);
  const statements = [
    ...visibleOperators(node.statements, schemasFor(rows, around)),
    ...objects.flatMap((one) => remarksOn(one, around.remarks, rows)),
  ];
  return {
    identity: identityOfDraft(node, around),
    kind: draft.kind,
    section: node.section,
    schema: object?.schema ?? table?.schema ?? null,
    name: object === undefined || object.catalog === "pg_database" ? "" : object.name,
    owner: ownerless.has(object?.catalog ?? "") ? null : object?.owner ?? table?.owner ?? null,
    statements,
    ownership: ownershipOf(draft, object),
    privileges: [...draft.privileges, ...objects.flatMap((one) => grantsFor(one, around.remarks))],
    dependsOn: node.dependsOn.flatMap((key) => around.identities.get(key) ?? []).sort(),
    platform: draft.platform !== undefined ? draft.platform : platformOfDraft(object, table),
    held: draft.held,
    release: [...draft.release],
    table: draft.table === null ? null : around.identities.get(draft.table) ?? null,
  };
}

function ownershipOf(draft: Draft, object: CatalogObject | undefined): string[] {
  if (draft.ownerWord === null || object === undefined || object.owner === null) return [];
  const owner = quoteIdent(object.owner);
  return [
    `alter ${draft.ownerWord} ${object.identity ?? object.name} owner to ${owner}`,
    ...draft.ownedTypes.map((type) =>
      `do ${
        quoteLiteral(`begin alter type ${type} owner to ${owner}; exception when wrong_object_type then null; end`)
      }`
    ),
  ];
}

function identityOfDraft(node: Node, around: Surroundings): string {
  return around.identities.get(node.draft.key) ?? node.draft.key;
}

function platformOfDraft(object: CatalogObject | undefined, table: CatalogObject | undefined): string | null {
  if (object !== undefined && object.owner !== null) return platformOf(object);
  return table === undefined ? (object === undefined ? null : platformOf(object)) : platformOf(table);
}

function schemasFor(rows: readonly string[], around: Surroundings): string[] {
  return [...new Set(rows.flatMap((key) => around.hiddenOperators.get(key) ?? []))].sort();
}

/** Puts the schemas of unnamed operators on the path of the statements that use them, and only of those. */
function visibleOperators(statements: readonly string[], schemas: readonly string[]): string[] {
  if (schemas.length === 0) return [...statements];
  return statements.flatMap((statement) =>
    hidesOperator(statement)
      ? [`set search_path = ${schemas.map(quoteIdent).join(", ")}`, statement, "set search_path = ''"]
      : [statement]
  );
}

function remarksOn(object: CatalogObject, remarks: Remarks, rows: readonly string[]): string[] {
  const key = `${object.catalog}:${object.oid}`;
  const target = commentTarget(object);
  const statements: string[] = [];
  if (target !== null && object.comment !== null) {
    statements.push(`comment on ${target} is ${quoteLiteral(object.comment)}`);
  }
  // Columns of a composite type hang on its pg_class row, which the type covers.
  const relationKeys = object.catalog === "pg_type" ? rows.filter((row) => row.startsWith("pg_class:")) : [key];
  for (const relationKey of relationKeys) {
    for (const { column, comment } of remarks.columnComments.get(relationKey) ?? []) {
      if (object.sub === "i" || object.sub === "I") continue;
      statements.push(`comment on column ${object.identity ?? ""}.${quoteIdent(column)} is ${quoteLiteral(comment)}`);
    }
  }
  for (const label of remarks.labels.get(key) ?? []) {
    if (target === null) continue;
    const where = label.column === null ? target : `column ${object.identity ?? ""}.${quoteIdent(label.column)}`;
    statements.push(`security label for ${quoteIdent(label.provider)} on ${where} is ${quoteLiteral(label.label)}`);
  }
  for (const { extension } of remarks.dependsOnExtension.get(key) ?? []) {
    if (target !== null) statements.push(`alter ${target} depends on extension ${quoteIdent(extension)}`);
  }
  return statements;
}

function grantsFor(object: CatalogObject, remarks: Remarks): string[] {
  const key = `${object.catalog}:${object.oid}`;
  if (object.catalog === "pg_database") {
    const text: GrantText = (verb, privileges, tail) => onThisDatabase(`${verb} ${privileges} on`, tail);
    return accessStatements(
      { owner: object.owner, actual: object.acl, base: object.baseAcl ?? [], column: null },
      text,
    );
  }
  const target = grantTarget(object);
  if (target === null) return [];
  const text = grantOn(target);
  const absolute = object.catalog === "pg_namespace" && object.name === "public";
  const base = object.baseAcl ?? [];
  const statements = absolute
    // On every target it is there before, with grants that depend on who made it.
    ? [
      `revoke all on ${target} from public, pg_database_owner`,
      ...accessStatements({ owner: object.owner, actual: object.acl ?? base, base: [], column: null }, text),
    ]
    : accessStatements({ owner: object.owner, actual: object.acl, base, column: null }, text);
  for (const { column, acl } of remarks.columnGrants.get(key) ?? []) {
    statements.push(...accessStatements({ owner: object.owner, actual: acl, base: [], column }, text));
  }
  return statements;
}
