import type { Connection } from "../postgres/connection.ts";

/**
 * The last word of a restore on rows that it has brought: runs in the transaction that makes them last (each step's, where rows
 * go into live tables in steps) or that ends the restore of a whole database, before its views are filled for good. What it
 * throws undoes that transaction. The same rows can come before it again, where a restore is gone on with.
 */
export type BeforeCommit = (connection: Connection) => Promise<void>;
