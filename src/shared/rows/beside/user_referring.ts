/** Rows of a user that refer to rows which stay out, and that are not there any more: without them they cannot come back. */
import { quoteIdent, quoteQualified } from "../../schema/quote.ts";
import { liveRelation } from "../ownership/ownership_sql.ts";
import { nameOf } from "../past/fold_partitions.ts";
import type { Edge } from "../past/graph.ts";
import type { PastTable } from "../past/past.ts";
import { type Fit, fitTable, isUnfit } from "./fit.ts";
import type { LayDeps } from "./lay.ts";
import type { LiveTable } from "./live_tables.ts";
import type { SideTable } from "./side_tables.ts";
import type { UserNow } from "./user_now.ts";

interface Kept {
  readonly name: string;
  readonly past: PastTable;
  readonly side: SideTable;
}

interface Child extends Kept {
  readonly fit: Fit;
  /** Temporary table of the rows that were taken out. */
  readonly gone: string;
}

/**
 * Takes them out of the side tables, and with them the rows that refer to these; says how many of each table, and why. By the
 * live foreign keys. `kept`: tables with rows that come back; `out`: those without. In a transaction. Errors: those of the
 * connection.
 */
export async function leaveOutReferring(
  { connection, sameDatabase }: LayDeps,
  { graph, equals }: UserNow,
  kept: readonly Kept[],
  out: readonly PastTable[],
  live: readonly LiveTable[],
): Promise<{ table: string; rows: number; reason: string }[]> {
  const fitOf = (past: PastTable) => {
    const fit = fitTable(past, live, sameDatabase);
    return isUnfit(fit) ? null : fit;
  };
  const children = new Map<string, Child>();
  for (const [at, one] of kept.entries()) {
    const fit = fitOf(one.past);
    if (fit !== null) children.set(nameOf(fit.live), { ...one, fit, gone: `pg_temp.left_out_${at}` });
  }
  const absent = new Map(out.flatMap((past) => {
    const fit = fitOf(past);
    return fit === null ? [] : [[nameOf(fit.live), past] as const];
  }));
  const tables = new Map(graph.tables.map((table) => [nameOf(table), table]));
  const typeOf = (table: string, column: string) =>
    tables.get(table)?.columns.find(({ name }) => name === column)?.type ?? "";

  /** What refers by the key to a row of `parent` (alias `p`) with these columns; null: rows of then have no such column. */
  const refers = ({ fit, side }: Child, edge: Edge, parent: string, columnOf: (live: string) => string | null) => {
    const pairs = edge.columns.map((name, at) => {
      const column = fit.columns.find((one) => one.live === name);
      const to = edge.toColumns[at] ?? "";
      const theirs = columnOf(to);
      if (column === undefined || theirs === null) return null;
      const type = side.columns.find((one) => one.name === column.past)?.type;
      const value = `s.${quoteIdent(column.past)}`;
      return {
        isSet: `${value} is not null`,
        isSame: `${type === column.liveType ? value : `${value}::text::${column.liveType}`} ${
          equals(typeOf(nameOf(edge.from), name), typeOf(nameOf(edge.to), to))
        } p.${theirs}`,
      };
    });
    const found = pairs.flatMap((pair) => pair === null ? [] : [pair]);
    if (found.length !== pairs.length) return null;
    return {
      isSet: found.map(({ isSet }) => isSet).join(" and "),
      hasRow: `exists (select from ${parent} as p where ${found.map(({ isSame }) => isSame).join(" and ")})`,
    };
  };
  /** The row is in the live table. */
  const isLive = (child: Child, edge: Edge) => {
    const parent = tables.get(nameOf(edge.to));
    return parent === undefined ? null : refers(child, edge, liveRelation(parent), quoteIdent);
  };
  const missing = (child: Child, edge: Edge): string | null => {
    const to = nameOf(edge.to);
    const there = isLive(child, edge);
    if (there === null) return null;
    if (absent.has(to)) return `${there.isSet} and not ${there.hasRow}`;
    const parent = children.get(to);
    if (parent === undefined) return null;
    const left = refers(child, edge, parent.gone, (name) => {
      const column = parent.fit.columns.find((one) => one.live === name);
      return column === undefined ? null : quoteIdent(column.past);
    });
    return left === null ? null : `${left.hasRow} and not ${there.hasRow}`;
  };

  if (absent.size === 0) return [];
  for (const { gone, side } of children.values()) {
    await connection.execute(
      `create temporary table ${gone.replace("pg_temp.", "")} as select * from ${side.sql} where false`,
    );
  }
  const taken = new Map<string, { rows: number; parents: Set<string> }>();
  for (let more = true; more;) {
    more = false;
    for (const edge of graph.edges) {
      const child = children.get(nameOf(edge.from));
      const condition = child === undefined ? null : missing(child, edge);
      if (child === undefined || condition === null) continue;
      const [row] = await connection.query(
        `with gone as (delete from ${child.side.sql} as s where ${condition} returning s.*),
              kept as (insert into ${child.gone} select * from gone returning 1)
         select count(*) as n from kept`,
      );
      const rows = Number(row?.["n"]);
      if (rows === 0) continue;
      more = true;
      const entry = taken.get(child.name) ?? { rows: 0, parents: new Set<string>() };
      entry.rows += rows;
      entry.parents.add(quoteQualified(edge.to.schema, edge.to.name));
      taken.set(child.name, entry);
    }
  }
  for (const { gone } of children.values()) await connection.execute(`drop table ${gone}`);
  return [...taken].map(([table, { rows, parents }]) => ({
    table,
    rows,
    reason: `they refer to rows of ${[...parents].join(", ")} that stay out and are not there any more`,
  }));
}
