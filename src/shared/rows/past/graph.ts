/** Tables and the foreign keys between them: what leads from a row to the user whom it belongs to. */
import type { TableName } from "../../restore/project_rows.ts";

export interface GraphColumn {
  readonly name: string;
  /** `format_type` with its typmod, under an empty search_path. */
  readonly type: string;
  readonly notNull: boolean;
}

/** An ordinary table; a partitioned one stands for its partitions, which are not listed. */
export interface GraphTable extends TableName {
  /** Without those that the server computes. */
  readonly columns: readonly GraphColumn[];
  /** Columns of the primary key in its order; null: there is none. */
  readonly key: readonly string[] | null;
  /** Leaves of a partitioned table; empty for others. */
  readonly partitions: readonly TableName[];
}

/** A foreign key. */
export interface Edge {
  readonly constraint: string;
  readonly from: TableName;
  readonly columns: readonly string[];
  readonly to: TableName;
  /** In the order of `columns`. */
  readonly toColumns: readonly string[];
  readonly onDelete: "no action" | "restrict" | "cascade" | "set null" | "set default";
}

export interface Graph {
  readonly tables: readonly GraphTable[];
  readonly edges: readonly Edge[];
}
