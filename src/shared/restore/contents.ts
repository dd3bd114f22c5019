/** What a backup holds, as plans and loads see it. */
import type { SchemaCapture } from "../schema/capture_format.ts";

export interface BackupContents {
  readonly backupId: string;
  /** SHA-256 of the manifest's plaintext in hex. */
  readonly manifestHash: string;
  readonly source: {
    readonly systemIdentifier: string;
    readonly database: string;
  };
  readonly capture: SchemaCapture;
  readonly tables: readonly ContentTable[];
}

export interface ContentTable {
  /** As in the capture's `tables`. */
  readonly identity: string;
  /** In the order of the fields of the chunks. */
  readonly columns: readonly string[];
  /** Exact count in the snapshot. */
  readonly rows: number;
  /** Bytes of COPY text. */
  readonly rawBytes: number;
  readonly chunks: readonly ContentChunk[];
}

export interface ContentChunk {
  /** Full name in the store. */
  readonly object: string;
  /** SHA-256 of the plaintext in hex. */
  readonly hash: string;
  readonly rows: number;
  readonly rawBytes: number;
}
