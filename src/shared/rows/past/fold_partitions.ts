/** From tables as the catalog has them to a graph: a partitioned table stands for its partitions. Pure. */
import type { TableName } from "../../restore/project_rows.ts";
import { quoteQualified } from "../../schema/quote.ts";
import type { Edge, Graph, GraphTable } from "./graph.ts";

/** A table or a leaf; a partitioned table is one with `partitioned`. */
export interface FoundTable extends Omit<GraphTable, "partitions"> {
  readonly partitioned: boolean;
}

/** One text a table, for maps. */
export const nameOf = ({ schema, name }: TableName): string => quoteQualified(schema, name);

/**
 * Foreign keys of leaves, and those to leaves, count as their parent's; keys of leaves do not, since they say nothing of
 * the other leaves. Keys that lead out of the graph are dropped, those that say the same are one, in the order of names.
 * A leaf whose parent is not in the graph stands for itself.
 */
export function foldPartitions(
  found: readonly FoundTable[],
  partitions: readonly { readonly parent: TableName; readonly child: TableName }[],
  edges: readonly Edge[],
): Graph {
  const known = new Set(found.map(nameOf));
  const parentOf = new Map(
    partitions.filter(({ parent }) => known.has(nameOf(parent))).map(({ parent, child }) => [nameOf(child), parent]),
  );
  const topOf = (table: TableName): TableName => {
    let top = table;
    for (let next = parentOf.get(nameOf(top)); next !== undefined; next = parentOf.get(nameOf(top))) top = next;
    return { schema: top.schema, name: top.name };
  };
  const leaves = new Map<string, TableName[]>();
  for (const table of found) {
    if (table.partitioned || !parentOf.has(nameOf(table))) continue;
    const top = nameOf(topOf(table));
    leaves.set(top, [...leaves.get(top) ?? [], { schema: table.schema, name: table.name }]);
  }
  const tables = found.filter((table) => !parentOf.has(nameOf(table)))
    .map(({ schema, name, columns, key }) => ({
      schema,
      name,
      columns,
      key,
      partitions: (leaves.get(nameOf({ schema, name })) ?? []).toSorted(byName),
    }));
  const folded = new Map<string, Edge>();
  for (const edge of edges.toSorted((a, b) => compare(a.constraint, b.constraint))) {
    const from = topOf(edge.from);
    const to = topOf(edge.to);
    if (!known.has(nameOf(from)) || !known.has(nameOf(to))) continue;
    const key = JSON.stringify([from, edge.columns, to, edge.toColumns]);
    if (!folded.has(key)) folded.set(key, { ...edge, from, to });
  }
  return {
    tables: tables.toSorted(byName),
    edges: [...folded.values()].toSorted((a, b) => byName(a.from, b.from) || compare(a.constraint, b.constraint)),
  };
}

const compare = (a: string, b: string): number => a < b ? -1 : a > b ? 1 : 0;

/** Order of schema and name, by code units. */
export const byName = (a: TableName, b: TableName): number => compare(a.schema, b.schema) || compare(a.name, b.name);
