/** Whoever waits for a lock of ours keeps everybody behind them from the table: what holds it gives way. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";

/** So that a waiter is free before 5 s are over. */
const lookMs = 500;
const mostWaitSeconds = 4;

/**
 * Looks from `connection` at who waits for `session` while `work` goes on there, and ends its statement for them. Errors: those of
 * `work`; `lock_timeout` where it gave way, which a later try may not have to.
 */
export async function yieldingToWaiters<T>(
  { connection, clock }: { readonly connection: Connection; readonly clock: Clock },
  session: Connection,
  work: () => Promise<T>,
): Promise<T> {
  const over = new AbortController();
  let gaveWay = false;
  const looking = (async () => {
    for (;;) {
      await clock.sleep(lookMs, over.signal);
      const [row] = await connection.query(
        "select backup.longest_wait($1::integer) >= $2::integer as long",
        [String(session.processId), String(mostWaitSeconds)],
      );
      if (row?.["long"] !== "t") continue;
      // Before: the end of the statement may be told sooner than that it was ended.
      gaveWay = true;
      await connection.query("select pg_catalog.pg_cancel_backend($1::integer)", [String(session.processId)]);
    }
  })().catch((error: unknown) => {
    // A look that fails says nothing of the work.
    return error;
  });
  try {
    return await work();
  } catch (error) {
    if (!gaveWay || sqlstateOf(error) !== "57014") throw error;
    throw new HoldfastError("lock_timeout", "somebody waited for a table whose rows were read for an export", {
      hint: "The export gave way; run it again once definitions are not being changed.",
      cause: error,
    });
  } finally {
    over.abort();
    await looking;
  }
}
