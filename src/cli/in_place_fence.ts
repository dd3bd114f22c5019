/** Maintenance mode around a full restore in place: whose it is, what it does not reach, and the end of both in one step. */
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import { finishRestore, type RestoreLease } from "../shared/jobs/restore_queries.ts";
import type { RestoreTable } from "../shared/jobs/restore_row.ts";
import { pauseJobs, readMaintenance } from "../shared/maintenance/state.ts";
import { ofRestore, openAfterRestore, proveOpen } from "../shared/maintenance/switch_off.ts";
import { enterMaintenance, type MaintenanceDeps } from "../shared/maintenance/switch_on.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Context } from "./context.ts";
import { untilOf } from "./maintenance_deps.ts";

const usualMessage = "The data of this app is being restored. Please try again later.";

/** In the result's document. */
export interface FenceResult {
  /** Who turned it on, where that was not a restore: it stays on, with its message. */
  readonly keptFor: string | null;
  /** Writes that went on meanwhile, in sentences. */
  readonly unfenced: readonly string[];
  /** Transactions of the API that began before it and did not end, and were undone. */
  readonly ended: number;
  /** Null: writes were seen to go through again, or it stays on. Else why not, with the code of an error. */
  readonly unproven: string | null;
}

export class InPlaceFence {
  readonly #context: Context;
  readonly #deps: MaintenanceDeps;
  readonly #lease: RestoreLease;
  /** It was on before, by this restore's earlier try or somebody else. */
  readonly #wasClosed: boolean;
  readonly #result: FenceResult;
  #isOpen = false;

  private constructor(
    context: Context,
    deps: MaintenanceDeps,
    lease: RestoreLease,
    wasClosed: boolean,
    result: FenceResult,
  ) {
    this.#context = context;
    this.#deps = deps;
    this.#lease = lease;
    this.#wasClosed = wasClosed;
    this.#result = result;
  }

  /**
   * Closes the project; one that a person closed keeps its message and its end. Errors: those of `enterMaintenance`, and
   * `maintenance_unproven` while transactions are open that cannot be ended; it is as open or closed as before then.
   */
  static async close(
    context: Context,
    deps: MaintenanceDeps,
    session: Connection,
    lease: RestoreLease,
  ): Promise<InPlaceFence> {
    const { settings } = context;
    const before = await readMaintenance(session);
    const isTheirs = before.closed && before.by?.startsWith(ofRestore) !== true;
    const closed = await enterMaintenance(deps, {
      message: (isTheirs ? before.message : null) ?? settings.get("message") ?? usualMessage,
      until: isTheirs ? before.until : untilOf(context),
      by: `${ofRestore}${lease.id}`,
      endsOpen: true,
    });
    const { stillOpen, ended, unfenced } = closed;
    const keptFor = isTheirs ? before.by : null;
    const fence = new InPlaceFence(context, deps, lease, before.closed, { keptFor, unfenced, ended, unproven: null });
    if (stillOpen > 0) {
      await fence.takeBack();
      throw new HoldfastError(
        "maintenance_unproven",
        `${stillOpen} transactions of the API that began before are open and cannot be ended`,
        { hint: "Nothing was restored. End them in pg_stat_activity, then run the same command again." },
      );
    }
    context.note(`maintenance mode is on; tried and refused: ${closed.probed.join(", ")}`);
    for (const one of closed.notProbed) context.note(`not tried: ${one}`);
    for (const one of unfenced) context.note(`not refused: ${one}`);
    if (ended > 0) context.note(`warning: ${ended} transactions of the API that did not end were undone`);
    if (keptFor !== null) context.note(`notice: ${keptFor} had turned it on; it stays on afterwards`);
    return fence;
  }

  /** An error that ended the restore while the project is closed by it: what becomes of that is told. */
  told(error: unknown): unknown {
    if (this.#isOpen || this.#result.keptFor !== null) return error;
    const { code, message, retry } = asHoldfastError(error);
    return new HoldfastError(code, `${message}; the project is still closed to writes`, {
      hint: "The same command goes on, to its end; `maintenance off` opens the project as it is now.",
      retry,
      cause: error,
    });
  }

  /** After an error before anything was changed: open again, unless it was closed before, or a person took over. Never throws. */
  async takeBack(): Promise<void> {
    if (this.#wasClosed) return;
    try {
      const state = await openAfterRestore(this.#deps, () => Promise.resolve());
      if ("keptFor" in state) return this.#context.note(staysFor(state.keptFor));
      this.#isOpen = true;
      this.#context.note("maintenance mode is off again: nothing was restored");
    } catch (error) {
      this.#context.note(`warning: maintenance mode is still on: ${sentenceOf(error)}; run \`maintenance off\``);
    }
  }

  /** Cron jobs that came back are paused like the others. Errors: those of the session. */
  async pauseJobs(session: Connection): Promise<void> {
    await pauseJobs(session);
  }

  /**
   * The restore has ended and the project is open: both, or neither where this is killed. That writes go through is tried
   * after that; where it does not come out, the restore is done all the same. Errors: `lease_lost`, those of the session;
   * it stays closed then.
   */
  async openAndFinish(tables: readonly RestoreTable[], measuredSeconds: number): Promise<FenceResult> {
    const finish = (session: Connection) => finishRestore(session, this.#lease, { tables, measuredSeconds });
    const state = await openAfterRestore(this.#deps, finish);
    if ("keptFor" in state) {
      const { keptFor } = state;
      this.#context.note(staysFor(keptFor));
      return { ...this.#result, keptFor };
    }
    for (const one of state.left) this.#context.note(`left as it is: ${one}`);
    try {
      const { probed } = await proveOpen(this.#deps, state);
      this.#context.note(`maintenance mode is off; tried and done: ${probed.join(", ")}`);
      return this.#result;
    } catch (error) {
      return { ...this.#result, unproven: sentenceOf(error) };
    }
  }
}

const staysFor = (who: string): string =>
  `notice: maintenance mode stays on, as ${who} had turned it on: \`maintenance off\` ends it`;

function sentenceOf(error: unknown): string {
  const { code, message } = asHoldfastError(error);
  return `${code}: ${message}`;
}
