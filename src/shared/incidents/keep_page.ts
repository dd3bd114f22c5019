/** Brings the status page to what the database says. */
import type { Clock } from "../clock.ts";
import { asHoldfastError } from "../errors.ts";
import { readPage, recordPageFailed, recordPagePut } from "../jobs/incident_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import type { StatusPage } from "./publish_page.ts";

/** `place` null: none is set up, or this database is a copy, whose state is nobody's concern. */
export interface KeptPage {
  readonly place: string | null;
  readonly isOriginal: boolean;
}

/** Longer than another one puts it; whoever holds the lock for longer stands still, and an incident waits for nobody. */
const waitMs = 40_000;

/**
 * Repeated, it changes nothing but the moment. `open` gives the page; null: none is set up. Errors: those of `open` and of the store,
 * which are recorded too, and of the session; `lock_timeout` while another one has been at it for too long.
 */
export async function keepPage(
  connection: Connection,
  open: () => StatusPage | null,
  clock: Clock,
  mostMs = waitMs,
): Promise<KeptPage> {
  // One at a time: what was read first must not be put last. Held by the session, so that a dead one leaves it.
  await inTransaction(connection, async () => {
    await connection.execute(`set local lock_timeout = ${mostMs}`);
    await connection.query(`select pg_catalog.pg_advisory_lock(${lockKey})`);
  });
  try {
    const { content, hash, isOriginal } = await readPage(connection);
    if (!isOriginal) return { place: null, isOriginal };
    let place: string | null = null;
    try {
      const page = open();
      await page?.put(content, `${clock.now().toISOString().slice(0, 19)}Z`);
      place = page?.label ?? null;
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      await recordPageFailed(connection, `${code}: ${message}`);
      throw error;
    }
    await recordPagePut(connection, place, hash);
    return { place, isOriginal };
  } finally {
    await connection.query(`select pg_catalog.pg_advisory_unlock(${lockKey})`);
  }
}

const lockKey = "pg_catalog.hashtextextended('holdfast:page', 0)";
