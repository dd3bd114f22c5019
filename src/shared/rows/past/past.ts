/** Rows as they were: of a full backup, or of a moment. */
import type { Edge, GraphTable } from "./graph.ts";
import type { Ledger } from "../../erase/ledger.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { TableName } from "../../restore/project_rows.ts";
import type { SchemaCapture } from "../../schema/capture_format.ts";

export interface PastColumn {
  readonly name: string;
  /** `format_type` with its typmod, under an empty search_path. */
  readonly type: string;
  /** `pg_attribute.attnum` in the source; with the table's oid it tells a column that was renamed. */
  readonly attnum: number;
}

/** A table as it was. A partitioned one is one table here, with the rows of all its partitions. */
export interface PastTable extends TableName {
  /** In the source, in decimal; tells a table that was renamed. `0`: not known, as of every partitioned one. */
  readonly oid: string;
  /** Of a partitioned table the oid of one of its partitions, whose attnums `columns` have; left out: not known. */
  readonly leaf?: string | undefined;
  /** Fields of the rows in their order; generated columns are not among them. */
  readonly columns: readonly PastColumn[];
  /** Columns of the primary key; null: there is none. */
  readonly key: readonly string[] | null;
  /** `user`, or the platform's service, such as `auth`. */
  readonly dataOwner: string;
  readonly rows: number;
  /** Bytes of COPY text. */
  readonly rawBytes: number;
}

/**
 * Rows that may be wanted: those in which, for one of the conditions, each of its columns holds a value of its set (texts as
 * the server writes them under `applySettings`). Null: all rows.
 */
export type RowFilter = readonly RowCondition[] | null;

export interface RowCondition {
  readonly columns: readonly string[];
  /** One text a column of `columns`, joined by tabs, each escaped as in COPY text. */
  readonly values: ReadonlySet<string>;
}

/** What one step of a reading gave: whole rows that may be wanted (often none), and where to go on behind it. */
export interface PastPiece {
  /** COPY text. */
  readonly rows: Uint8Array;
  /** For `after` of a later reading of the same table with the same filter. */
  readonly end: string;
  /** Bytes of text that were looked at for it. */
  readonly looked: number;
}

/** Where the rows of a restore come from. */
export interface PastRows {
  /** Of the full backup that they are from or that they stand on. */
  readonly backupId: string;
  /** The moment that they show, ISO 8601. */
  readonly at: string;
  readonly tables: readonly PastTable[];
  readonly graph: { readonly tables: readonly GraphTable[]; readonly edges: readonly Edge[] };
  /** All definitions of then. Errors: those of the connection, of a moment. */
  definitions(): Promise<SchemaCapture>;
  /**
   * Whole rows in pieces, fields in the order of `columns`; `after`: behind the piece with that end. Where the text of a type does not tell whether
   * two values are equal, a filter lets rows pass that do not fit: who reads compares again on the server.
   * Errors: `object_missing`, `object_damaged`, those of keys and store.
   */
  read(table: PastTable, filter: RowFilter, after?: string | null): AsyncIterable<PastPiece>;
  /**
   * The erasure ledger of the store that they are from: who has to be taken out of them. `database`: knows which entries there are,
   * where it made them. Errors: `ledger_unreadable`.
   */
  erased(database: Connection): Promise<Ledger>;
  /** Gives back what the source holds (a scratch database). Never throws. */
  close(): Promise<void>;
}
