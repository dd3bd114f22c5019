/** What the target's catalog says about the tables that changes go to. */
import { HoldfastError } from "../../errors.ts";
import type { Connection, Row } from "../../postgres/connection.ts";
import { arrayText, quoteIdent, quoteQualified } from "../../schema/quote.ts";
import type { Relation } from "../decode/messages.ts";

export interface TargetColumn {
  readonly name: string;
  /** Quoted; below any domains. */
  readonly type: string;
  /** Quoted; null where the type has none (an array itself), and for a composite, which `unnest` would take apart. */
  readonly arrayType: string | null;
  /** Between the elements of an array of this type. */
  readonly delimiter: string;
}

/** A column of an index and how it compares. */
export interface KeyColumn {
  readonly name: string;
  /** Of equality, as `operator(schema.=)`: an extension's type has its own, and the search path is empty. */
  readonly operator: string;
  /** `collate …`, or empty. */
  readonly collate: string;
}

/** A unique index, valid, without condition, not deferrable, on columns alone. */
export interface TargetIndex {
  readonly columns: readonly KeyColumn[];
  /** No column can be NULL, so the index knows every row. */
  readonly total: boolean;
}

export interface TargetTable {
  /** Quoted. */
  readonly sqlName: string;
  readonly isPartitioned: boolean;
  readonly columns: ReadonlyMap<string, TargetColumn>;
  /** The primary key first, then the replica identity. */
  readonly indexes: readonly TargetIndex[];
}

export function sqlNameOf(relation: Relation): string {
  return quoteQualified(relation.schema, relation.name);
}

const wanted = `from rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) as w(schema, name)
  join pg_catalog.pg_namespace as n on n.nspname = w.schema
  join pg_catalog.pg_class as c on c.relnamespace = n.oid and c.relname = w.name`;

const columnsQuery = `
select n.nspname as schema, c.relname as name, c.relkind as kind, a.attname as column,
       tn.nspname as type_schema, t.typname as type, t.typdelim as delimiter, rn.nspname as array_schema, r.typname as array
  ${wanted}
  left join pg_catalog.pg_attribute as a
    on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
  left join lateral (
    with recursive down as (
      select b.oid, b.typtype, b.typbasetype from pg_catalog.pg_type as b where b.oid = a.atttypid
      union all
      select b.oid, b.typtype, b.typbasetype
        from down join pg_catalog.pg_type as b on b.oid = down.typbasetype where down.typtype = 'd'
    )
    select down.oid from down where down.typtype <> 'd'
  ) as base on true
  left join pg_catalog.pg_type as t on t.oid = base.oid
  left join pg_catalog.pg_namespace as tn on tn.oid = t.typnamespace
  left join pg_catalog.pg_type as r on r.oid = t.typarray and t.typtype <> 'c'
  left join pg_catalog.pg_namespace as rn on rn.oid = r.typnamespace`;

const indexesQuery = `
select n.nspname as schema, c.relname as name, i.indexrelid as index, a.attname as column, a.attnotnull as not_null,
       opn.nspname as operator_schema, op.oprname as operator, cn.nspname as collation_schema, co.collname as collation
  ${wanted}
  join pg_catalog.pg_index as i on i.indrelid = c.oid
   and i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
  cross join lateral pg_catalog.unnest(i.indkey::int2[]) with ordinality as k(attnum, place)
  join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = k.attnum
  join pg_catalog.pg_opclass as oc on oc.oid = i.indclass[k.place - 1]
  join pg_catalog.pg_amop as ao on ao.amopfamily = oc.opcfamily and ao.amopstrategy = 3
   and ao.amoplefttype = oc.opcintype and ao.amoprighttype = oc.opcintype
  join pg_catalog.pg_operator as op on op.oid = ao.amopopr
  join pg_catalog.pg_namespace as opn on opn.oid = op.oprnamespace
  left join pg_catalog.pg_collation as co on co.oid = i.indcollation[k.place - 1] and co.collname <> 'default'
  left join pg_catalog.pg_namespace as cn on cn.oid = co.collnamespace
 where k.place <= i.indnkeyatts
 order by i.indisprimary desc, i.indisreplident desc, i.indexrelid, k.place`;

/** By `sqlNameOf`. Errors: `target_differs` for a table or a column that is not there. */
export async function readTargetTables(
  connection: Connection,
  relations: readonly Relation[],
): Promise<ReadonlyMap<string, TargetTable>> {
  const names = [arrayText(relations.map(({ schema }) => schema)), arrayText(relations.map(({ name }) => name))];
  const columns = bySqlName(await connection.query(columnsQuery, names));
  const indexes = bySqlName(await connection.query(indexesQuery, names));
  const tables = new Map<string, TargetTable>();
  for (const relation of relations) {
    const sqlName = sqlNameOf(relation);
    const rows = columns.get(sqlName);
    if (rows === undefined) throw new HoldfastError("target_differs", `the target has no table ${sqlName}`);
    const table: TargetTable = {
      sqlName,
      isPartitioned: rows[0]?.["kind"] === "p",
      columns: new Map(rows.filter((row) => row["column"] !== null).map((row) => [text(row, "column"), columnOf(row)])),
      indexes: indexesOf(indexes.get(sqlName) ?? []),
    };
    const missing = relation.columns.find(({ name }) => !table.columns.has(name));
    if (missing !== undefined) {
      throw new HoldfastError("target_differs", `the target's ${sqlName} has no column ${quoteIdent(missing.name)}`);
    }
    tables.set(sqlName, table);
  }
  return tables;
}

/** The index on exactly these columns. Errors: `target_differs` when the target has none. */
export function indexOn(table: TargetTable, columns: readonly string[]): TargetIndex {
  const found = table.indexes.find((index) =>
    index.columns.length === columns.length && index.columns.every(({ name }) => columns.includes(name))
  );
  if (found !== undefined) return found;
  throw new HoldfastError(
    "target_differs",
    `the target's ${table.sqlName} has no unique index on (${columns.map(quoteIdent).join(", ")})`,
  );
}

/** An index by which every row can be found, on columns that the stream has; the primary key where there is one. */
export function totalIndex(table: TargetTable, relation: Relation): TargetIndex | undefined {
  const streamed = new Set(relation.columns.map(({ name }) => name));
  return table.indexes.find((index) => index.total && index.columns.every(({ name }) => streamed.has(name)));
}

function columnOf(row: Row): TargetColumn {
  return {
    name: text(row, "column"),
    type: quoteQualified(text(row, "type_schema"), text(row, "type")),
    arrayType: row["array"] === null ? null : quoteQualified(text(row, "array_schema"), text(row, "array")),
    delimiter: text(row, "delimiter"),
  };
}

function indexesOf(rows: readonly Row[]): TargetIndex[] {
  const byIndex = new Map<string, Row[]>();
  for (const row of rows) append(byIndex, text(row, "index"), row);
  return [...byIndex.values()].map((keys) => ({
    columns: keys.map((row) => ({
      name: text(row, "column"),
      operator: `operator(${quoteIdent(text(row, "operator_schema"))}.${text(row, "operator")})`,
      collate: row["collation"] === null
        ? ""
        : ` collate ${quoteQualified(text(row, "collation_schema"), text(row, "collation"))}`,
    })),
    total: keys.every((row) => row["not_null"] === "t"),
  }));
}

function bySqlName(rows: readonly Row[]): Map<string, Row[]> {
  const found = new Map<string, Row[]>();
  for (const row of rows) append(found, quoteQualified(text(row, "schema"), text(row, "name")), row);
  return found;
}

function append(lists: Map<string, Row[]>, name: string, row: Row): void {
  const list = lists.get(name);
  if (list === undefined) lists.set(name, [row]);
  else list.push(row);
}

function text(row: Row, column: string): string {
  const value = row[column];
  if (typeof value !== "string") throw new HoldfastError("internal", `the catalog gave no ${column}`);
  return value;
}
