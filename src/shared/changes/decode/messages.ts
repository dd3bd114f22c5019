/** What the server's output plugin `pgoutput` says, protocol version 1, values as text. */

/** A position in the write-ahead log as a number; `formatLsn` gives the server's text. */
export type Lsn = bigint;

/** The value of a column that an update left where it is, out of line: the stream does not carry it. */
export const unchanged = Symbol("unchanged");

/** A column's text, SQL NULL, or a large value that an update did not touch. */
export type Value = string | null | typeof unchanged;

export interface StreamColumn {
  readonly name: string;
  readonly typeOid: number;
  /** -1: none. */
  readonly typeModifier: number;
  /** Part of the replica identity; true for every column of identity FULL. */
  readonly isKey: boolean;
}

/** How a row of a table is known again: its primary key, nothing, all of it, or an index of the user's choice. */
export type ReplicaIdentity = "default" | "nothing" | "full" | "index";

export interface Relation {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly identity: ReplicaIdentity;
  /** Without generated columns, in the order of the values. */
  readonly columns: readonly StreamColumn[];
}

export interface Begin {
  readonly kind: "begin";
  /** Of the commit record. */
  readonly commitLsn: Lsn;
  /** Microseconds since 1970-01-01 UTC. */
  readonly committedAt: bigint;
  /** The lower 32 bits. */
  readonly xid: number;
}

export interface Commit {
  readonly kind: "commit";
  readonly commitLsn: Lsn;
  /** First position past the commit record. */
  readonly endLsn: Lsn;
  readonly committedAt: bigint;
}

export interface Insert {
  readonly kind: "insert";
  readonly relation: number;
  readonly row: readonly Value[];
}

export interface Update {
  readonly kind: "update";
  readonly relation: number;
  /** The old key (`key`, other columns null) or the whole old row (`row`); null: the key did not change. */
  readonly old: { readonly what: "key" | "row"; readonly values: readonly Value[] } | null;
  readonly row: readonly Value[];
}

export interface Delete {
  readonly kind: "delete";
  readonly relation: number;
  readonly old: { readonly what: "key" | "row"; readonly values: readonly Value[] };
}

export interface Truncate {
  readonly kind: "truncate";
  readonly relations: readonly number[];
  readonly cascade: boolean;
  readonly restartIdentity: boolean;
}

export type RowChange = Insert | Update | Delete;

export type Message =
  | Begin
  | Commit
  | { readonly kind: "origin"; readonly name: string }
  | { readonly kind: "relation"; readonly relation: Relation }
  | { readonly kind: "type"; readonly oid: number; readonly schema: string; readonly name: string }
  | RowChange
  | Truncate
  | {
    readonly kind: "message";
    readonly transactional: boolean;
    readonly lsn: Lsn;
    readonly prefix: string;
    readonly content: Uint8Array;
  };
