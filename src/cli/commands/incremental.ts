import type { DrainResult } from "../../shared/changes/drain/drain.ts";
import { HoldfastError } from "../../shared/errors.ts";
import type { Connection, Database } from "../../shared/postgres/connection.ts";
import type { Context } from "../context.ts";
import { withCopies } from "../copy_to_second.ts";
import { DirectDrain, noteOfChain } from "../drain_direct.ts";
import type { Outcome } from "../output.ts";
import { amount } from "../progress.ts";

/** Between two tries while another drainer is at work, and for how long that is waited for. */
const busyMs = 500;
const busyForMs = 10 * 60_000;

/**
 * The document: `{id, from, to, changes, storedBytes, segments, transactions, coveredUntil, chain, begun, gap, copies}`. `id`: the
 * incremental that owns the changes, null when nothing has changed; `from` and `to`: the moments up to which the chain was
 * and is stored. A segment is stored all the same when nothing has changed: it says so.
 * Errors: those of the drain; `stream_busy` after ten minutes; `cancelled`, what is stored by then stays.
 */
export async function run(context: Context): Promise<Outcome> {
  const drainer = await DirectDrain.open(context);
  const result = await toTheEnd(context, drainer);
  context.progress.clear();
  await noteOfChain(context, drainer.deps.database, result);
  const { segments, transactions, changes, storedBytes } = drainer.total;
  const id = transactions === 0 ? null : result.segments.findLast((segment) => segment.transactions > 0)?.run ?? null;
  const { from, to } = await spanOf(drainer.deps.database, result);
  const { coveredUntil, chain, begun, gap } = result;
  return await withCopies(context, {
    exit: 0,
    document: { id, from, to, changes, storedBytes, segments, transactions, coveredUntil, chain, begun, gap },
    lines: [
      transactions === 0
        ? `Nothing has changed since ${from}.`
        : `${amount(transactions, "transactions")} with ${amount(changes, "changes")} since ${from}, ${
          amount(storedBytes, "bytes")
        } stored in ${segments} segments of incremental ${id}.`,
      `Everything up to ${coveredUntil} is stored.`,
    ],
  }, false);
}

async function toTheEnd(context: Context, drainer: DirectDrain): Promise<DrainResult> {
  const { clock, progress, signal } = context;
  const endsAt = clock.monotonicMs() + busyForMs;
  progress.update({ label: "draining", done: 0, total: null, unit: "changes" });
  for (;;) {
    signal.throwIfAborted();
    const result = await drainer.once({
      idleSeconds: 0,
      onSegment: () =>
        progress.update({ label: "draining", done: drainer.total.changes, total: null, unit: "changes" }),
    });
    if (result.outcome === "caught_up") return result;
    if (result.outcome !== "busy") continue;
    if (clock.monotonicMs() > endsAt) {
      throw new HoldfastError("stream_busy", "another drainer has been at work for long");
    }
    progress.update({ label: "waiting for another drainer", done: 0, total: null, unit: "changes" });
    await clock.sleep(busyMs, signal);
  }
}

/** Moments of the chain before and after the drain. */
async function spanOf(database: Database, { chain, segments }: DrainResult) {
  const session: Connection = await database.connect("holdfast:drain");
  try {
    const [row] = await session.query(
      `with chain as (select c.id, c.started_at from backup.chains as c where c.id = $1),
         new as (select s.start_lsn, s.taken_at from backup.segments as s where s.name = any ($2::text[])),
         old as (
           select max(s.taken_at) as taken_at from backup.segments as s, chain as c
           where s.chain_id = c.id and s.end_lsn <= coalesce((select min(n.start_lsn) from new as n), s.end_lsn)
         )
       select ${moment("coalesce(o.taken_at, c.started_at)")} as from,
         ${moment("coalesce((select max(n.taken_at) from new as n), o.taken_at, c.started_at)")} as to
       from chain as c, old as o`,
      [chain, `{${segments.map((segment) => segment.name).join(",")}}`],
    );
    return { from: row?.["from"] ?? null, to: row?.["to"] ?? null };
  } finally {
    await session.close();
  }
}

function moment(expression: string): string {
  return `to_char(${expression} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;
}
