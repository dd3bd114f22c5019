/** One session with a PostgreSQL server, as every room of the product sees it. */

/** One row by column name. Every value is the server's own text, or null: nothing is parsed on the way. */
export type Row = Readonly<Record<string, string | null>>;

export interface CopyResult {
  /** Rows the server says it sent or took (from the command tag). */
  readonly rows: number;
}

/**
 * A session. Calls are made one after the other; a second call while one is under way is an `internal` error.
 * Server errors become `HoldfastError`s with the server's SQLSTATE in `sqlstateOf(error)`.
 */
export interface Connection {
  /** Backend process id on the server. */
  readonly processId: number;
  /** `server_version_num`, such as 150020. */
  readonly serverVersion: number;

  /** One statement with text parameters. Memory: the whole result; for catalog and bookkeeping, never for table data. */
  query(text: string, values?: readonly (string | null)[]): Promise<Row[]>;

  /** Any number of statements by the simple protocol; results are thrown away. */
  execute(text: string): Promise<void>;

  /**
   * `COPY … TO STDOUT`. `onData` gets the stream's bytes in order, in views that are valid only during the call (copy
   * what is kept); a call may hold many rows or a part of one. It must not block; the socket is never paused. A throw in
   * it cancels the statement and is rethrown once the session is usable again.
   */
  copyOut(text: string, onData: (bytes: Uint8Array) => void): Promise<CopyResult>;

  /** `COPY … FROM STDIN`, fed with backpressure. A throw in the source fails the statement (CopyFail) and is rethrown. */
  copyIn(text: string, source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<CopyResult>;

  /** Ends the session; bounded (a TLS session's end is not waited for longer than a second). Never throws. */
  close(): Promise<void>;
}

/** Opens sessions to one database, all with the same credentials. */
export interface Database {
  /** Host, port, database and user for people; never a password. */
  readonly label: string;
  /** `applicationName` shows in pg_stat_activity, such as `holdfast:chunk`. */
  connect(applicationName: string): Promise<Connection>;
}
