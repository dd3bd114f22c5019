/** pg_depend as edges between drafts. */
import { z } from "zod";
import type { Connection } from "../postgres/connection.ts";
import type { Draft } from "./draft.ts";
import type { Edge } from "./order.ts";
import { readRows } from "./read_rows.ts";

/** At most this many internal steps lead from a row (an array type, a row type) to the object that owns it. */
const maxOwnerSteps = 8;

/** Edges between drafts, and from drafts to `others`: rows of the inventory that no draft defines. */
export async function readEdges(
  connection: Connection,
  drafts: readonly Draft[],
  others: Iterable<string>,
): Promise<Edge[]> {
  const rows = await connection.query(
    `select distinct d.classid::regclass::text || ':' || d.objid as "from",
            d.refclassid::regclass::text || ':' || d.refobjid as "to", d.deptype as type
       from pg_catalog.pg_depend d
      where d.objid >= 16384 and (d.refobjid >= 16384 or d.refclassid = 'pg_catalog.pg_namespace'::regclass)
        and d.deptype in ('n', 'a', 'i', 'e', 'P', 'S')
        and not (d.classid = 'pg_catalog.pg_class'::regclass and d.refclassid = d.classid and d.deptype = 'a'
          and exists (select from pg_catalog.pg_class s where s.oid = d.objid and s.relkind = 'S'))`,
  );
  const holder = new Map<string, string>();
  for (const key of others) holder.set(key, key);
  for (const one of drafts) {
    for (const key of [one.key, ...one.covers]) holder.set(key, one.key);
  }
  /** Where an internal row belongs: element type, relation, extension. */
  const belongsTo = new Map<string, string>();
  for (const row of rows) {
    const { from, to, type } = row;
    if (from == null || to == null) continue;
    if (type === "e" || (type === "i" && !belongsTo.has(from))) belongsTo.set(from, to);
  }
  const resolve = (key: string): string | undefined => {
    let at: string | undefined = key;
    for (let step = 0; step < maxOwnerSteps && at !== undefined; step++) {
      const found = holder.get(at);
      if (found !== undefined) return found;
      at = belongsTo.get(at);
    }
    return undefined;
  };
  const edges: Edge[] = [];
  for (const row of rows) {
    const { from, to } = row;
    if (from == null || to == null) continue;
    const owner = holder.get(from) ?? resolve(from);
    const target = resolve(to);
    if (owner !== undefined && target !== undefined && owner !== target) {
      edges.push({ from: owner, part: from, to: target });
    }
  }
  return edges;
}

const hazardFormat = z.object({ key: z.string(), schemas: z.array(z.string()) });

/**
 * Objects that use an `=` outside pg_catalog, with the schemas of those operators.
 *
 * IS DISTINCT FROM, NULLIF, CASE x WHEN, USING (…) and NATURAL are written without naming the operator, comparisons of rows with the
 * first column's only. Under an empty search_path they come back with another one (citext compares as text) or not at all.
 */
export async function readHiddenOperators(connection: Connection): Promise<ReadonlyMap<string, readonly string[]>> {
  const rows = await readRows(
    connection,
    "operators in expressions",
    hazardFormat,
    `select d.classid::regclass::text || ':' || d.objid as key,
            pg_catalog.json_agg(distinct n.nspname) as schemas
       from pg_catalog.pg_depend d
       join pg_catalog.pg_operator o on d.refclassid = 'pg_catalog.pg_operator'::regclass and o.oid = d.refobjid
       join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
      where o.oprname in ('=', '<>') and n.nspname <> 'pg_catalog' and d.objid >= 16384
        and d.classid <> 'pg_catalog.pg_operator'::regclass
      group by 1`,
  );
  return new Map(rows.map((row) => [row.key, row.schemas]));
}

const hiddenOperator =
  /\bIS (NOT )?DISTINCT FROM\b|\bNULLIF\(|\bCASE\b(?!\s+WHEN\b)|\bUSING \(|\bNATURAL\b|\b(IN|ANY|ALL) \(\s*SELECT\b|\bROW\(/i;

/** True when a statement uses an operator that it does not name. */
export function hidesOperator(statement: string): boolean {
  return hiddenOperator.test(statement);
}
