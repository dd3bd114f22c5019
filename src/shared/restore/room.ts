/** Whether the disk has room for what a restore brings. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";

/** A row in a table and its index, for a byte of its text. */
const roomPerByte = 1.5;

/** Bytes that rows of so many bytes of text take, about. */
export function roomOf(bytes: number): number {
  return Math.ceil(bytes * roomPerByte);
}

/**
 * Errors: `space_missing` where the setting disk_mb tells the size of the disk, which SQL cannot see, and the databases leave
 * less of it than rows of so many bytes take. `connection`: to a database with Holdfast installed.
 */
export async function requireRoom(connection: Connection, bytes: number): Promise<void> {
  const [row] = await connection.query(
    `select pg_catalog.round(backup.setting_integer('disk_mb') - (
              select pg_catalog.sum(pg_catalog.pg_database_size(d.oid)) from pg_catalog.pg_database as d
            ) / 1048576)::text as free
      where backup.setting_integer('disk_mb') > 0`,
  );
  const needed = Math.ceil(roomOf(bytes) / 1024 ** 2);
  if (row === undefined || Number(row["free"]) >= needed) return;
  throw new HoldfastError(
    "space_missing",
    `the rows take about ${needed} MB, and the databases leave ${Math.max(0, Number(row["free"]))} MB of the disk`,
    { hint: "Make room, set disk_mb right, or restore into another server with --target-db-url." },
  );
}
