/** Did the database lose rows for a reason that it knows of? Pure. */

export interface TableRows {
  readonly oid: string;
  readonly relfilenode: string;
  readonly name: string;
  readonly rows: number;
  /** Rows deleted since the counters began, by pg_stat. */
  readonly deleted: number;
}

/** Below this many rows a table may come and go without a question. */
const smallTable = 1_000;

/**
 * A sentence that says what shrank without a cause, or null.
 *
 * A cause is a table that was dropped, a file that was replaced (TRUNCATE and rewrites do that), or as many deletes counted since.
 * Counters that went back (a crash, a reset) are no cause. Suspicious is a table of 1,000 rows or more that lost more
 * than half of them, or all, without one; and a backup that became empty.
 */
export function shrinkage(before: readonly TableRows[], after: readonly TableRows[]): string | null {
  const byOid = new Map(after.map((table) => [table.oid, table]));
  const lost: string[] = [];
  let unexplained = 0;
  for (const old of before) {
    const now = byOid.get(old.oid);
    if (now === undefined || now.relfilenode !== old.relfilenode) continue;
    const missing = old.rows - now.rows - Math.max(0, now.deleted - old.deleted);
    if (missing <= 0) continue;
    unexplained += missing;
    if (old.rows >= smallTable && missing > old.rows / 2) {
      lost.push(`${old.name} went from ${old.rows} to ${now.rows} rows`);
    }
  }
  if (lost.length > 0) return `without a cause that the database knows of, ${lost.slice(0, 5).join("; ")}`;
  const total = (tables: readonly TableRows[]) => tables.reduce((sum, table) => sum + table.rows, 0);
  if (unexplained > 0 && total(after) === 0) {
    return `all rows are gone (${total(before)} before) without a cause that the database knows of`;
  }
  return null;
}
