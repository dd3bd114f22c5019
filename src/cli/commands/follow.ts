import type { DrainResult } from "../../shared/changes/drain/drain.ts";
import { asHoldfastError } from "../../shared/errors.ts";
import type { Context } from "../context.ts";
import { copiesBeside } from "../copy_beside.ts";
import { DirectDrain, noteOfChain } from "../drain_direct.ts";
import type { Outcome } from "../output.ts";
import { amount, duration } from "../progress.ts";

/** Between two tries while another drainer is at work. */
const busyMs = 500;
/** After the first failure in a row, doubled with each, up to the most. */
const firstRetryMs = 1_000;
const mostRetryMs = 60_000;
/** Between two reminders that a full backup is missing. */
const tellEveryMs = 3_600_000;

/**
 * The document: `{segments, transactions, changes, storedBytes, seconds}`, once it is told to end.
 * What is stored is copied into the second store beside it, where one is set; what fails there is told and hinders nothing.
 * Errors: those of the drain that do not pass by themselves.
 */
export async function run(context: Context): Promise<Outcome> {
  const { clock, signal } = context;
  const intervalMs = context.settings.integer("interval", 1, 3600) * 1000;
  const drainer = await DirectDrain.open(context);
  const startMs = clock.monotonicMs();
  const copies = copiesBeside(context);
  let failures = 0;
  let toldMs: number | null = null;
  let durableUntil: string | null = null;
  while (!signal.aborted) {
    let pauseMs = intervalMs;
    try {
      const result = await drainer.once();
      const isTold = toldMs !== null && clock.monotonicMs() - toldMs < tellEveryMs;
      await noteOfChain(context, drainer.deps.database, { ...result, lacksFull: result.lacksFull && !isTold });
      if (result.lacksFull && !isTold) toldMs = clock.monotonicMs();
      durableUntil = result.coveredUntil ?? durableUntil;
      if (result.outcome !== "caught_up") pauseMs = result.outcome === "busy" ? busyMs : 0;
      if (failures > 0) context.note("the stream goes on");
      failures = 0;
      show(context, drainer, result, durableUntil);
      copies.tend(result.segments.length > 0);
    } catch (error) {
      if (signal.aborted) break;
      const failure = asHoldfastError(error);
      if (failure.retry !== "backoff") throw error;
      pauseMs = Math.min(mostRetryMs, firstRetryMs * 2 ** failures++);
      context.note(`warning: ${failure.code}: ${failure.message}; tried again in ${duration(pauseMs)}`);
    }
    await clock.sleep(pauseMs, signal).catch(() => {});
  }
  await copies.settled();
  context.progress.clear();
  const { total } = drainer;
  const seconds = Math.round((clock.monotonicMs() - startMs) / 1000);
  return {
    exit: 0,
    document: { ...total, seconds },
    lines: [
      `${amount(total.transactions, "transactions")} with ${amount(total.changes, "changes")}, ${
        amount(total.storedBytes, "bytes")
      } stored in ${total.segments} segments in ${duration(seconds * 1000)}.`,
      ...(durableUntil === null ? [] : [`Everything up to ${durableUntil} is stored.`]),
    ],
  };
}

function show(context: Context, drainer: DirectDrain, { outcome }: DrainResult, durableUntil: string | null): void {
  const until = durableUntil === null ? "" : `all up to ${durableUntil.replace(/\.\d+Z$/, "Z")} is stored`;
  context.progress.update({
    label: outcome === "busy" ? "waiting for another drainer" : "following",
    done: drainer.total.changes,
    total: null,
    unit: "changes",
    ...(until === "" ? {} : { detail: until }),
  });
}
