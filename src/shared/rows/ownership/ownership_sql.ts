/** The SQL that tells a user's rows from those that are others' as well. Pure. */
import { HoldfastError } from "../../errors.ts";
import type { TableName } from "../../restore/project_rows.ts";
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { GraphTable } from "../past/graph.ts";
import type { Equalities } from "./equalities.ts";
import type { Link, OwnedTable, OwnershipPlan } from "./ownership.ts";
import { type Arm, type Carried, carriedTables, fieldOf, setsOf, viaOf } from "./ownership_sets.ts";

/** What stands behind FROM for a table, without an alias; null: it has no rows there. */
export type RelationOf = (table: TableName) => string | null;

/** The live table: with all its partitions, without tables that inherit from it, whose keys are not its own. */
export function liveRelation(table: Pick<GraphTable, "schema" | "name" | "partitions">): string {
  const name = quoteQualified(table.schema, table.name);
  return table.partitions.length > 0 ? name : `only ${name}`;
}

/**
 * Which rows of a table reach the user: a statement of one parameter, `user`: SQL for the user's id as text, such as `$1`. It
 * gives the key's columns as `i0`, `i1` … (of `Carried.identity`), whatever they are called, and `shared`, true where the row is not
 * the user's alone. Sets are built table by table: rows that reach the user (parents first), then all rows that those lead to
 * (children first), then which of them reach another user (parents first). So a side table has to hold the rows that
 * `ownershipSteps` names, and no more. Errors: `internal` for a table that is not in the plan.
 *
 * The session's search_path may be empty: `equals` of that session then names the operators of types that are not the server's.
 */
export function ownershipSql(
  plan: OwnershipPlan,
  relationOf: RelationOf,
  user: string,
  equals: Equalities,
): (table: TableName) => string {
  const { context, places, sets } = contextOf(plan, relationOf, user, equals);
  return (table) => {
    const place = places.get(nameOf(table));
    if (place === undefined) throw new HoldfastError("internal", `${nameOf(table)} is not in the ownership plan`);
    return `with recursive ${sets.join(",\n")}\n${verdicts(tableAt(context, place), place)}`;
  };
}

/**
 * The same for the rows of all tables at once, without a parameter: the table's place in `ownedTables`, where its row lies (`relation`
 * as oid, `row_at` as tid), `shared`. Where rows lie holds within the snapshot in which it is asked, and no longer.
 */
export function ownershipOfAllSql(
  plan: OwnershipPlan,
  relationOf: RelationOf,
  user: string,
  equals: Equalities,
): string {
  const byPlace: OwnershipPlan = {
    ...plan,
    groups: plan.groups.map((group) => ({ ...group, tables: group.tables.map((table) => ({ ...table, key: null })) })),
  };
  const { context, sets } = contextOf(byPlace, relationOf, user, equals);
  const parts = context.tables.map(({ identity, columns }, place) => {
    const [relation, row] = identity.map((column) => `v.c${columns.indexOf(column)}`);
    const select = (shared: boolean, operation: string) =>
      `select ${place} as place, ${relation} as relation, ${row} as row_at, ${shared} as shared
         from (select * from mine${place} ${operation} select * from others${place}) v`;
    return `${select(false, "except")}\nunion all ${select(true, "intersect")}`;
  });
  return `with recursive ${sets.join(",\n")}\n${parts.join("\nunion all ")}`;
}

/** The row with the alias `row` is the one that a row of the statement, with the alias `verdict`, is about. */
export function isVerdictOn(table: OwnedTable, row: string, verdict: string, equals: Equalities): string {
  return (table.key ?? ["tableoid", "ctid"]).map((column, at) => {
    const type = table.types.get(column) ?? "";
    return `${row}.${quoteIdent(column)} ${equals(type, type)} ${verdict}.i${at}`;
  }).join(" and ");
}

interface Context {
  readonly tables: readonly Carried[];
  readonly places: ReadonlyMap<string, number>;
  readonly relationOf: RelationOf;
  readonly user: string;
  readonly equals: Equalities;
}

/** Rows that reach the user. */
function mineArms(context: Context, place: number): Arm[] {
  const carried = tableAt(context, place);
  const source = relationSource(carried, context.relationOf);
  if (carried.isUsers) return [{ source, condition: isUser(carried, "id", "=", context.user), via: null }];
  return carried.table.upward.map((link) => upwardArm(context, carried, link, source, "="));
}

/** Rows that reach the user, and all that they lead to. */
function reachedArms(context: Context, place: number): Arm[] {
  const carried = tableAt(context, place);
  const source = relationSource(carried, context.relationOf);
  return [
    { source: `mine${place} t`, condition: null, via: null },
    ...context.tables.flatMap((child, at) =>
      child.table.upward.filter((link) => link.userColumn === null && nameOf(link.to) === nameOf(carried.table))
        .map((link): Arm => ({
          source,
          condition: null,
          via: viaOf(carried, link.toColumns, at, child, link.columns, context.equals),
        }))
    ),
  ];
}

/** Of those, the rows that reach another user as well, or that a rule gives to others. */
function othersArms(context: Context, place: number): Arm[] {
  const carried = tableAt(context, place);
  const mine = `mine${place}`;
  const source = carried.table.rule === "owned"
    ? `(select * from reached${place} except select * from ${mine}) t`
    : `reached${place} t`;
  if (carried.isUsers) return [{ source, condition: isUser(carried, "id", "<>", context.user), via: null }];
  const arms = carried.table.upward.map((link) => upwardArm(context, carried, link, source, "<>"));
  return carried.table.rule === "shared" ? [{ source: `${mine} t`, condition: null, via: null }, ...arms] : arms;
}

function upwardArm(context: Context, carried: Carried, link: Link, source: string, operator: "=" | "<>"): Arm {
  if (link.userColumn !== null) {
    const rest = link.columns.filter((column) => column !== link.userColumn)
      .map((column) => `t.${fieldOf(carried, column)} is not null`);
    return {
      source,
      condition: [isUser(carried, link.userColumn, operator, context.user), ...rest].join(" and "),
      via: null,
    };
  }
  const place = context.places.get(nameOf(link.to)) ?? -1;
  const target = tableAt(context, place);
  return {
    source,
    condition: null,
    via: viaOf(carried, link.columns, place, target, link.toColumns, context.equals),
  };
}

/** The id is compared in the column's type where that is known, so that an index serves. */
function isUser(carried: Carried, column: string, operator: "=" | "<>", user: string): string {
  const field = `t.${fieldOf(carried, column)}`;
  const type = carried.table.types.get(column) ?? "";
  if (type === "uuid") return `${field} ${operator} ${user}::text::uuid`;
  const text = /^(text|character varying)/.test(type) ? field : `${field}::text`;
  return `${text} ${operator} ${user}::text::uuid::text`;
}

function contextOf(plan: OwnershipPlan, relationOf: RelationOf, user: string, equals: Equalities) {
  const tables = carriedTables(plan);
  const places = new Map(tables.map(({ table }, place) => [nameOf(table), place]));
  const groups = plan.groups.map((group) => group.tables.map((table) => places.get(nameOf(table)) ?? -1));
  const context: Context = { tables, places, relationOf, user, equals };
  const sets = [
    ...setsOf("mine", groups, tables, (place) => mineArms(context, place)),
    ...setsOf("reached", groups.toReversed(), tables, (place) => reachedArms(context, place)),
    ...setsOf("others", groups, tables, (place) => othersArms(context, place)),
  ];
  return { context, places, sets };
}

function tableAt({ tables }: Context, place: number): Carried {
  const carried = tables[place];
  if (carried === undefined) throw new HoldfastError("internal", "an ownership plan leads out of itself");
  return carried;
}

function relationSource({ table, columns, types }: Carried, relationOf: RelationOf): string {
  const relation = relationOf(table);
  const fields = columns.map((column, index) =>
    `${relation === null ? `null::${types[index]}` : `t.${quoteIdent(column)}`} as c${index}`
  );
  return relation === null
    ? `(select ${fields.join(", ")} where false) t`
    : `(select ${fields.join(", ")} from ${relation} t) t`;
}

function verdicts({ identity, columns }: Carried, place: number): string {
  const named = identity.map((column, index) => `v.c${columns.indexOf(column)} as i${index}`).join(", ");
  const part = (operation: string) => `(select * from mine${place} ${operation} select * from others${place}) v`;
  return `select ${named}, false as shared from ${part("except")}
union all select ${named}, true from ${part("intersect")}`;
}
