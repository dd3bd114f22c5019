/** Which transactions may have done the damage, the likeliest first, each with its reason. Pure. */
import { type LostChanges, type SeenTransaction, sum } from "./lost_changes.ts";

export interface Suspect extends SeenTransaction {
  /** The moment right before its commit, to the microsecond: a restore to it shows all that was committed until then. */
  readonly before: string;
  /** A sentence. */
  readonly why: string;
  /**
   * Rows that it took away or changed; of tables that it dropped or emptied as many as the backup before it holds. Null: no backup
   * tells.
   */
  readonly rows: number | null;
}

/** Rows of a table in the newest full backup, by `schema.name`; null: it is not in there. */
export type RowsAtBackup = (table: string) => number | null;

/** Told to people; the document has as many. */
export const mostSuspects = 10;

/**
 * Drops and TRUNCATEs first, by what they took; then deletes, then updates, by rows. Whatever is left out took less than each
 * that is named of its sort.
 */
export function suspectsOf({ transactions }: Pick<LostChanges, "transactions">, rowsAtBackup: RowsAtBackup): Suspect[] {
  const known = transactions.map((one) => suspectOf(one, rowsAtBackup));
  const rank = (one: Suspect) => takesAll(one) ? 2 : sum(one, "deleted") > 0 ? 1 : 0;
  return known
    .filter((one) => takesAll(one) || sum(one, "deleted") > 0 || sum(one, "updated") > 1)
    .sort((a, b) =>
      rank(b) - rank(a) || (b.rows ?? Infinity) - (a.rows ?? Infinity) || (a.committedAt < b.committedAt ? 1 : -1)
    )
    .slice(0, mostSuspects);
}

function takesAll(one: SeenTransaction): boolean {
  return one.droppedTables.length > 0 || one.droppedColumns.length > 0 || sum(one, "truncated") > 0;
}

function suspectOf(one: SeenTransaction, rowsAtBackup: RowsAtBackup): Suspect {
  const emptied = one.tables.filter(({ truncated }) => truncated > 0).map(({ table }) => table);
  const touched = one.tables.filter(({ deleted, updated }) => deleted + updated > 0);
  const whole = [...new Set([...one.droppedTables, ...emptied])].map(rowsAtBackup);
  const ofWhole = whole.reduce<number | null>(
    (total, rows) => rows === null || total === null ? null : total + rows,
    0,
  );
  const counted = sum(one, "deleted") + sum(one, "updated");
  return {
    ...one,
    before: momentBefore(one.committedAt),
    rows: ofWhole === null ? null : ofWhole + counted,
    why: [
      ...one.droppedTables.map((table) => `dropped ${table}${inBackup(rowsAtBackup(table))}`),
      ...one.droppedColumns.map((column) => `dropped the column ${column}`),
      ...emptied.map((table) => `emptied ${table}${inBackup(rowsAtBackup(table))}`),
      ...touched.map(({ table, deleted, updated }) => {
        const all = rowsAtBackup(table);
        const share = deleted === 0 || all === null || all === 0 ? "" : ` of ${all} in the backup`;
        return [
          ...(deleted > 0 ? [`deleted ${deleted} rows${share} from ${table}`] : []),
          ...(updated > 0 ? [`changed ${updated} rows of ${table}`] : []),
        ].join(" and ");
      }),
    ].join("; "),
  };
}

function inBackup(rows: number | null): string {
  return rows === null ? "" : ` (${rows} rows in the backup)`;
}

/** A microsecond earlier, of ISO 8601 with microseconds. */
export function momentBefore(moment: string): string {
  const whole = BigInt(Date.parse(`${moment.slice(0, 19)}Z`)) * 1000n + BigInt(moment.slice(20, 26)) - 1n;
  const seconds = new Date(Number(whole / 1_000_000n) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(whole % 1_000_000n).padStart(6, "0")}Z`;
}
