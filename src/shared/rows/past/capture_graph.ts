/** The graph of a backup, from its definitions. Pure. */
import { dataOf } from "../../schema/platform.ts";
import type { Definition, SchemaCapture, TableShape } from "../../schema/capture_format.ts";
import { foldPartitions, type FoundTable, nameOf } from "./fold_partitions.ts";
import type { Graph, GraphColumn } from "./graph.ts";
import { readForeignKey, readPartition, readPartitioned, readPrimaryKey } from "./read_definitions.ts";

/**
 * Tables whose rows the backup holds, those of extensions apart, in the order of schema and name; columns in their order
 * without those that the server computes. What `foldPartitions` says of partitions holds. Equal to `liveGraph` of the same
 * database.
 *
 * Errors: `internal` for definitions that are not written as this version writes them.
 */
export function captureGraph(capture: SchemaCapture): Graph {
  const partitions = statementsOf(capture, "partition", /^alter table only .* attach partition /s).map(readPartition);
  const childOf = new Map(partitions.map(({ parent, child }) => [nameOf(parent), nameOf(child)]));
  const shapes = new Map(
    capture.tables.filter(({ dataOwner }) => !dataOwner.startsWith("extension ")).map((
      shape,
    ) => [nameOf(shape), shape]),
  );
  const keys = new Map(
    statementsOf(capture, "primary key", /^alter table /).map(readPrimaryKey)
      .map(({ table, columns }) => [nameOf(table), columns]),
  );
  const found: FoundTable[] = [...shapes.values()].map((shape) => ({
    schema: shape.schema,
    name: shape.name,
    columns: columnsOf(shape),
    key: keys.get(nameOf(shape)) ?? null,
    partitioned: false,
  }));
  for (const { schema, name, columns } of partitionedOf(capture.definitions)) {
    const leaf = leafUnder(nameOf({ schema, name }), childOf, shapes);
    const known = columns.length === 0 && leaf !== undefined ? columnsOf(leaf) : columns;
    found.push({ schema, name, columns: known, key: keys.get(nameOf({ schema, name })) ?? null, partitioned: true });
  }
  const edges = statementsOf(capture, "foreign key", /^alter table /).map(readForeignKey);
  return foldPartitions(found, partitions, edges);
}

function statementsOf(capture: SchemaCapture, kind: string, form: RegExp): string[] {
  return capture.definitions.filter((definition) => definition.kind === kind)
    .flatMap((definition) => definition.statements.find((statement) => form.test(statement)) ?? []);
}

function columnsOf(shape: TableShape): GraphColumn[] {
  return shape.columns.filter(({ generated }) => !generated)
    .map(({ name, type, notNull }) => ({ name, type, notNull }));
}

function partitionedOf(definitions: readonly Definition[]) {
  return definitions.flatMap(({ kind, schema, name, owner, statements }) => {
    if (kind !== "table" || schema === null || dataOf(schema, name, owner).captured !== "capture") return [];
    const create = statements.find((statement) => statement.startsWith("create "));
    const columns = create === undefined ? null : readPartitioned(create);
    return columns === null ? [] : [{ schema, name, columns }];
  });
}

/** For a partitioned table that is made of a type: its columns are those of any leaf. */
function leafUnder(
  table: string,
  childOf: ReadonlyMap<string, string>,
  shapes: ReadonlyMap<string, TableShape>,
): TableShape | undefined {
  let at: string | undefined = table;
  while (at !== undefined && !shapes.has(at)) at = childOf.get(at);
  return at === undefined ? undefined : shapes.get(at);
}
