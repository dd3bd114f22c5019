/** The tables of a full backup as sources of rows. Pure. */
import { HoldfastError } from "../../errors.ts";
import type { Manifest, ManifestChunk, ManifestTable } from "../../format/manifest.ts";
import type { SchemaCapture, TableShape } from "../../schema/capture_format.ts";
import { quoteQualified } from "../../schema/quote.ts";
import { nameOf } from "./fold_partitions.ts";
import type { Graph, GraphTable } from "./graph.ts";
import type { PastTable } from "./past.ts";
import { readPrimaryKey } from "./read_definitions.ts";
import type { FilterColumn } from "./row_filter.ts";
import { textForm } from "./row_filter_types.ts";

/** Chunks whose rows have the same fields. */
export interface StoredRows {
  /** Fields of the chunks in their order. */
  readonly columns: readonly FilterColumn[];
  /** Indexes into `columns`, in the order of the table's own. */
  readonly order: readonly number[];
  readonly chunks: readonly ManifestChunk[];
}

export interface BackupTable {
  readonly table: PastTable;
  /** Those of its leaves where it is partitioned. */
  readonly stored: readonly StoredRows[];
}

/**
 * Partitioned tables, then all others, leaves among them. `graph`: of the capture.
 * Errors: `manifest_damaged` where capture and manifest do not fit.
 */
export function backupTables(
  capture: SchemaCapture,
  graph: Graph,
  manifest: Pick<Manifest, "tables">,
): BackupTable[] {
  const shapes = new Map(capture.tables.map((shape) => [nameOf(shape), shape]));
  const keys = primaryKeys(capture);
  const looseCollations = nondeterministicCollations(capture);
  const plain = new Map<string, BackupTable>();
  for (const stored of manifest.tables) {
    const name = nameOf(stored);
    const shape = shapes.get(name);
    if (shape === undefined) throw new HoldfastError("manifest_damaged", `the capture does not describe ${name}`);
    if (!isRestored(shape)) continue;
    plain.set(name, plainTable(shape, stored, keys.get(name) ?? null, looseCollations));
  }
  const partitioned = graph.tables.filter((table) => !shapes.has(nameOf(table)));
  return [
    ...partitioned.map((table) =>
      partitionedTable(table, table.partitions.flatMap((leaf) => plain.get(nameOf(leaf)) ?? []))
    ),
    ...plain.values(),
  ];
}

/** What an extension or a project keeps for itself comes back by no restore of rows. */
function isRestored({ dataOwner, restoreData }: TableShape): boolean {
  return restoreData && !dataOwner.startsWith("extension ");
}

function plainTable(
  shape: TableShape,
  stored: ManifestTable,
  key: readonly string[] | null,
  looseCollations: ReadonlySet<string>,
): BackupTable {
  const { schema, name, oid, dataOwner } = shape;
  const described = new Map(shape.columns.map((column) => [column.name, column]));
  const columns = stored.columns.map((column) => {
    const found = described.get(column.name);
    if (found === undefined) {
      throw new HoldfastError("manifest_damaged", `${shape.identity} has a column that the capture does not describe`);
    }
    return found;
  });
  return {
    table: {
      schema,
      name,
      oid,
      columns: columns.map(({ name, type, attnum }) => ({ name, type, attnum })),
      key,
      dataOwner,
      rows: stored.rows,
      rawBytes: stored.rawBytes,
    },
    stored: [{
      columns: columns.map(({ name, type, collation }) => ({
        name,
        type,
        form: collation !== null && looseCollations.has(collation) ? null : textForm(type),
      })),
      order: columns.map((_, at) => at),
      chunks: stored.chunks,
    }],
  };
}

function partitionedTable(partitioned: GraphTable, leaves: readonly BackupTable[]): BackupTable {
  const { schema, name, columns, key } = partitioned;
  const stored = leaves.flatMap((leaf) => leaf.stored).map((rows) => ({
    ...rows,
    order: columns.map((column) => {
      const at = rows.columns.findIndex((one) => one.name === column.name);
      if (at >= 0) return at;
      throw new HoldfastError("manifest_damaged", `a partition of ${nameOf(partitioned)} lacks one of its columns`);
    }),
  }));
  // The last in the order of names: where partitions are of days, the one that goes last.
  const leaf = leaves.at(-1)?.table;
  const attnums = new Map(leaf?.columns.map(({ name, attnum }) => [name, attnum]));
  const sum = (of: (table: PastTable) => number) => leaves.reduce((total, { table }) => total + of(table), 0);
  return {
    table: {
      schema,
      name,
      oid: "0",
      leaf: leaf?.oid,
      columns: columns.map(({ name, type }) => ({ name, type, attnum: attnums.get(name) ?? 0 })),
      key,
      dataOwner: leaf?.dataOwner ?? "user",
      rows: sum(({ rows }) => rows),
      rawBytes: sum(({ rawBytes }) => rawBytes),
    },
    stored,
  };
}

/** By table, of leaves too. */
function primaryKeys(capture: SchemaCapture): Map<string, readonly string[]> {
  const found = capture.definitions.filter(({ kind }) => kind === "primary key").flatMap(({ statements }) =>
    statements.filter((statement) => statement.startsWith("alter table ")).slice(0, 1).map(readPrimaryKey)
  );
  return new Map(found.map(({ table, columns }) => [nameOf(table), columns]));
}

/** As columns name them. Texts that differ may be equal under them. */
function nondeterministicCollations(capture: SchemaCapture): Set<string> {
  return new Set(
    capture.definitions.filter(({ kind, statements }) =>
      kind === "collation" && statements.some((text) => /\bdeterministic = false\b/.test(text))
    ).map(({ schema, name }) => quoteQualified(schema ?? "", name)),
  );
}
