/** `column=value` as a person types it: compared in the column's type, by the server. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteIdent, quoteLiteral, quoteQualified } from "../../schema/quote.ts";
import type { PastTable, RowFilter } from "../past/past.ts";
import type { SideTable } from "./side_tables.ts";

export interface Condition {
  readonly column: string;
  readonly value: string;
}

/** A condition that the server has read. */
export interface TypedCondition {
  readonly column: string;
  /** What values are compared as: the column's type without its length or precision, to which a value would be cut. */
  readonly type: string;
  /** The value as the server writes it. */
  readonly text: string;
  /** `operator(schema.=)`. */
  readonly equals: string;
  /** Behind a text: a collation that tells any two apart; empty for types without. */
  readonly collate: string;
}

/** Errors: `usage` for anything but `column=value`; the value may hold more signs of equality, and be empty. */
export function parseCondition(text: string): Condition {
  const at = text.indexOf("=");
  if (at <= 0) {
    throw new HoldfastError("usage", "a condition is not written as column=value", {
      hint: "Write --where id=42; several conditions all have to hold.",
    });
  }
  return { column: text.slice(0, at).trim(), value: text.slice(at + 1) };
}

/** Errors: `usage` for a column that the table did not have, a value that its type does not take, a type without equality. */
export async function typeConditions(
  connection: Connection,
  table: PastTable,
  types: ReadonlyMap<string, string>,
  conditions: readonly Condition[],
): Promise<TypedCondition[]> {
  const typed: TypedCondition[] = [];
  for (const { column, value } of conditions) {
    const type = types.get(column);
    if (type === undefined) {
      throw new HoldfastError("usage", `${quoteQualified(table.schema, table.name)} had no column ${column}`, {
        hint: `It had ${table.columns.map(({ name }) => name).join(", ")}.`,
      });
    }
    const equality = await equalityOf(connection, type);
    if (equality === null) throw incomparable(type);
    typed.push({ column, ...equality, text: await asWritten(connection, column, equality, value) });
  }
  return typed;
}

/**
 * The same conditions on a live column, in the type that it has now, to which values come through their text. Null: no value of
 * that type is such a one. Errors: those of the connection.
 */
export async function retypeCondition(
  connection: Connection,
  condition: TypedCondition,
  column: string,
  type: string,
): Promise<TypedCondition | null> {
  const equality = await equalityOf(connection, type);
  if (equality === null) return null;
  try {
    return { column, ...equality, text: await asWritten(connection, column, equality, condition.text) };
  } catch (error) {
    if (error instanceof HoldfastError && error.code === "usage") return null;
    throw error;
  }
}

async function asWritten(
  connection: Connection,
  column: string,
  { type, equals }: Pick<TypedCondition, "type" | "equals">,
  value: string,
): Promise<string> {
  try {
    const [row] = await connection.query(
      `select v.value::text as text, v.value ${equals} v.value as is_itself from (select ($1::text)::${type} as value) as v`,
      [value],
    );
    return row?.["text"] ?? "";
  } catch (error) {
    const sqlstate = sqlstateOf(error) ?? "";
    // An array of what has no equality is asked for it only when two of them meet.
    if (sqlstate === "42883") throw incomparable(type);
    if (!sqlstate.startsWith("22")) throw error;
    throw new HoldfastError("usage", `the value for ${column} is no ${type}`, { cause: error });
  }
}

function incomparable(type: string): HoldfastError {
  return new HoldfastError("usage", `values of type ${type} cannot be compared`, {
    hint: "Find the row by another column.",
  });
}

/**
 * The equality of the type's own index operators, or of those of a type that its values are as they are (`varchar` is `text`,
 * `regclass` is `oid`); of a domain what it is made of. Null: there is none.
 */
async function equalityOf(
  connection: Connection,
  type: string,
): Promise<Pick<TypedCondition, "type" | "equals" | "collate"> | null> {
  const [row] = await connection.query(
    `with recursive base (oid) as (
       select $1::regtype::oid
       union select t.typbasetype from base as b join pg_catalog.pg_type as t on t.oid = b.oid where t.typtype = 'd'
     ), own as materialized (
       select t.* from base as b join pg_catalog.pg_type as t on t.oid = b.oid where t.typtype <> 'd'
     ), taken (intype, place) as materialized (
       select t.oid, 0 from own as t
       union all select k.casttarget, case when a.typispreferred then 1 else 2 end
         from own as t
         join pg_catalog.pg_cast as k on k.castsource = t.oid and k.castmethod = 'b' and k.castcontext = 'i'
         join pg_catalog.pg_type as a on a.oid = k.casttarget
       union all select 'pg_catalog.anyenum'::regtype, 1 from own as t where t.typtype = 'e'
       union all select 'pg_catalog.anyarray'::regtype, 1 from own as t where t.typcategory = 'A' and t.typlen = -1
       union all select 'pg_catalog.anyrange'::regtype, 1 from own as t where t.typtype = 'r'
       union all select 'pg_catalog.anymultirange'::regtype, 1 from own as t where t.typtype = 'm'
       union all select 'pg_catalog.record'::regtype, 1 from own as t where t.typtype = 'c'
     )
     select pg_catalog.format_type(t.oid, -1) as type,
            pg_catalog.format('operator(%s.%s)', o.oprnamespace::regnamespace, o.oprname) as equals,
            case when t.typcollation = 0 then '' else ' collate pg_catalog."default"' end as collate
       from own as t
       cross join taken
       join pg_catalog.pg_opclass as c on c.opcdefault and c.opcintype = taken.intype
       join pg_catalog.pg_am as m on m.oid = c.opcmethod and m.amname in ('btree', 'hash')
       join pg_catalog.pg_amop as p on p.amopfamily = c.opcfamily and p.amoplefttype = c.opcintype
        and p.amoprighttype = c.opcintype and p.amopstrategy = case m.amname when 'btree' then 3 else 1 end
       join pg_catalog.pg_operator as o on o.oid = p.amopopr
      order by taken.place, m.amname
      limit 1`,
    [type],
  );
  return row === undefined
    ? null
    : { type: row["type"] ?? "", equals: row["equals"] ?? "", collate: row["collate"] ?? "" };
}

/** What a source of rows can leave out by itself. */
export function filterOf(conditions: readonly TypedCondition[]): RowFilter {
  return [{
    columns: conditions.map(({ column }) => column),
    values: new Set([conditions.map(({ text }) => escapeCopyText(text)).join("\t")]),
  }];
}

/** As COPY writes a value. Source: PostgreSQL documentation, COPY, "Text Format". */
export function escapeCopyText(text: string): string {
  const letters: Readonly<Record<string, string>> = {
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
  };
  return text.replace(/[\\\b\f\n\r\t\v]/g, (letter) => letters[letter] ?? letter);
}

/** The condition in SQL, on the columns with this alias. */
export function conditionSql(conditions: readonly TypedCondition[], alias: string): string {
  return conditions.map(({ column, type, text, equals, collate }) =>
    `${alias}.${quoteIdent(column)}::${type}${collate} ${equals} ${quoteLiteral(text)}::${type}`
  ).join(" and ");
}

/** Removes what a filter let pass and the server does not find equal. */
export async function keepFitting(
  connection: Connection,
  side: SideTable,
  conditions: readonly TypedCondition[],
): Promise<void> {
  await connection.execute(
    `delete from ${side.sql} as s where (${conditionSql(conditions, "s")}) is not true`,
  );
}
