/** One restore of rows, from its record in the database to its end. */
import type { Clock } from "../clock.ts";
import { asHoldfastError, type ErrorCode, HoldfastError } from "../errors.ts";
import {
  dropSide,
  failRestore,
  finishRestore,
  keysUsed,
  type RestoreFacts,
  type RestoreLease,
  restoreProgress,
  type RestoreSafety,
  restoreSafety,
  restRestore,
} from "../jobs/restore_queries.ts";
import type { RestoreTable } from "../jobs/restore_row.ts";
import type { Log } from "../log.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { openSession } from "../backup/session.ts";
import { toHex } from "../crypto/digest.ts";
import type { Random } from "../random.ts";
import type { BeforeCommit } from "../restore/before_commit.ts";
import { requireRoom } from "../restore/room.ts";
import type { Beside } from "./beside/beside.ts";
import type { RestoreMode } from "./apply/difference.ts";
import { keepTries, readDone } from "./apply/done_counts.ts";
import { parentsFirst } from "./apply/parents_first.ts";
import { planRows, type RowsPlan } from "./apply/plan_rows.ts";
import { putBack, type PutBackOptions, type PutBackResult } from "./apply/put_back.ts";
import { shrinkDifference } from "./apply/put_back_steps.ts";
import { capBytesOf } from "./cap_bytes.ts";
import {
  beginOrGoOn,
  clearSide,
  endSessions,
  readIdentity,
  type TargetIdentity,
  type WorkRequest,
} from "./work_begin.ts";

export interface WorkDeps {
  /** Where rows go. */
  readonly target: Database;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly signal?: AbortSignal | undefined;
  /** Of the log that one transaction writes; default: that of `capBytesOf`. */
  readonly capBytes?: number | undefined;
  /** In every transaction that puts rows into live tables. */
  readonly beforeCommit?: BeforeCommit | undefined;
}

const askedInVain: ReadonlySet<ErrorCode> = new Set([
  "usage",
  "setting_missing",
  "payload_invalid",
  "table_not_found",
  "row_not_found",
  "rows_ambiguous",
  "user_not_found",
  "rows_conflict",
  "value_unfit",
  "triggers_would_fire",
  "ownership_unclear",
  "definitions_stuck",
  "confirmation_wrong",
  "confirmation_missing",
  "space_missing",
  "rows_exist",
  "import_not_agreed",
  "export_unsigned",
]);

const renewMs = 20_000;

/** Opens sessions, begins the record; every way out has to go through `finish` or `fail`, then `close`. */
export class RowsWork {
  readonly identity: TargetIdentity;
  /** `restore_` and eight hex digits. */
  readonly schema: string;
  readonly connection: Connection;
  /** `goesOn`: with one that was broken off while it changed something. */
  readonly lease: (RestoreLease & { readonly goesOn: boolean }) | null;
  readonly #records: Connection;
  readonly #deps: WorkDeps;
  readonly #onAbort: () => void;
  #renewedMs = 0;
  /** Steps were committed, by this call or by one that it goes on with. */
  #changed: boolean;
  /**
   * Null: no leg; whoever asked is told why nothing came of it, and the record says no more than that. `keepsSide`: the side
   * schema outlives a failure, as somebody may want its rows in another mode.
   */
  readonly #leg: { readonly keepsSide: boolean } | null;

  private constructor(
    deps: WorkDeps,
    identity: TargetIdentity,
    sessions: { readonly connection: Connection; readonly records: Connection },
    schema: string,
    lease: (RestoreLease & { readonly goesOn: boolean }) | null,
    leg: { readonly keepsSide: boolean } | null = null,
  ) {
    this.#deps = deps;
    this.identity = identity;
    this.connection = sessions.connection;
    this.#records = sessions.records;
    this.schema = schema;
    this.lease = lease;
    this.#changed = lease?.goesOn === true;
    this.#leg = leg;
    this.#onAbort = () => void this.#cancelStatement();
    deps.signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  /** Errors: those of the connection, `run_state` while another restore in place is at work on the same tables. */
  static async begin(deps: WorkDeps, request: WorkRequest): Promise<RowsWork> {
    const connection = await openSession(deps.target, "holdfast:restore");
    let records: Connection | null = null;
    try {
      records = await openSession(deps.target, "holdfast:restore record");
      const identity = await readIdentity(connection);
      const begun = identity.installed ? await beginOrGoOn(records, deps.target, request) : null;
      const schema = begun?.sideSchema ?? `restore_${toHex(deps.random(4))}`;
      if (begun?.goesOn === true) await clearSide(connection, schema);
      return new RowsWork(deps, identity, { connection, records }, schema, begun);
    } catch (error) {
      await Promise.all([connection.close(), records?.close()]);
      throw error;
    }
  }

  /**
   * For one leg of a restore that was claimed for it. What an earlier leg laid stays as it is; rows that it kept before they
   * were changed get another name where `applying`. A session that it left is ended, as a statement may still be under way
   * there. Errors: those of the connection.
   */
  static async leg(
    deps: WorkDeps,
    claimed: RestoreLease & { readonly sideSchema: string; readonly applying: boolean },
  ): Promise<RowsWork> {
    const records = await openSession(deps.target, "holdfast:restore record");
    let connection: Connection | null = null;
    try {
      const name = `holdfast:${claimed.sideSchema}`;
      await endSessions(records, name);
      connection = await openSession(deps.target, name);
      const identity = await readIdentity(connection);
      const goesOn = claimed.applying && await keepTries(connection, claimed.sideSchema);
      return new RowsWork(
        deps,
        identity,
        { connection, records },
        claimed.sideSchema,
        { ...claimed, goesOn },
        { keepsSide: claimed.applying },
      );
    } catch (error) {
      await Promise.all([connection?.close(), records.close()]);
      throw error;
    }
  }

  /** What the rows come from was opened with these keys. Errors: those of the connection. */
  async usedKeys(ring: { readonly used: readonly string[] }): Promise<void> {
    if (this.lease !== null) await keysUsed(this.#records, { what: "restore", id: this.lease.id }, ring);
  }

  /** Errors: `space_missing`, where Holdfast is installed. */
  async requireRoom(bytes: number): Promise<void> {
    if (this.identity.installed) await requireRoom(this.#records, bytes);
  }

  /** To be called as rows come. Errors: `cancelled`, `lease_lost`. */
  async loaded(rows: number): Promise<void> {
    this.check();
    if (this.lease === null || this.#deps.clock.monotonicMs() - this.#renewedMs < renewMs) return;
    this.#renewedMs = this.#deps.clock.monotonicMs();
    // One that goes on is at `applying` already, and no restore goes back.
    const stage = this.#changed ? {} : { status: "loading" as const };
    await restoreProgress(this.#records, this.lease, { ...stage, rowsDone: rows });
  }

  /** Renews the lease while something else is under way. Errors: `cancelled`, `lease_lost`. */
  async keepAlive(): Promise<void> {
    this.check();
    if (this.lease !== null) await restoreProgress(this.#records, this.lease, {});
  }

  /** Holds on to the restore while a person makes up their mind. Errors: `cancelled`, `lease_lost`. */
  async waiting<T>(answer: () => Promise<T>): Promise<T> {
    return await this.keptAlive(answer);
  }

  check(): void {
    if (this.#deps.signal?.aborted === true) throw new HoldfastError("cancelled", "the restore was cancelled");
  }

  /** Something that lasts was changed beside the rows: the side schema stays whatever happens. */
  changed(): void {
    this.#changed = true;
  }

  /** From here on something is changed in place. Errors: `run_state`, `cancelled`, `lease_lost`. */
  async applying(safetyRun: string | null): Promise<void> {
    if (this.lease === null) return;
    await restoreProgress(this.#records, this.lease, {
      status: "applying",
      ...(safetyRun === null ? {} : { safetyRun }),
    });
  }

  async plan(beside: Beside, mode: RestoreMode): Promise<RowsPlan> {
    return await planRows(this.connection, beside.pairs, beside.keys, mode);
  }

  /**
   * In one transaction, or in steps where that would write more log than the cap. Errors: those of `putBack`; `run_state`
   * while another restore is at work on the same tables; `cancelled`, `lease_lost`. `onStep`: between two steps; what it throws
   * ends the work there. The counts are those of all tries.
   */
  async apply(
    beside: Beside,
    options: Omit<PutBackOptions, "beforeCommit">,
    safetyRun: string | null,
    onStep?: (rows: number) => Promise<void>,
  ): Promise<PutBackResult> {
    this.check();
    if (this.lease !== null) {
      await restoreProgress(this.#records, this.lease, {
        status: "applying",
        tables: beside.pairs.map(({ fit }) => ({ schema: fit.live.schema, name: fit.live.name })),
        ...(safetyRun === null ? {} : { safetyRun }),
      });
    }
    const pairs = parentsFirst(beside.pairs, beside.keys);
    const { beforeCommit } = this.#deps;
    const capBytes = this.#deps.capBytes ??
      await capBytesOf(this.#records, this.identity.installed, this.#leg !== null);
    return await this.keptAlive(async () => {
      // Whether a COMMIT that was not answered took place, nobody here can tell.
      const noted = (error: unknown): never => {
        this.#changed ||= error instanceof HoldfastError && error.code === "database_unreachable";
        throw error;
      };
      await shrinkDifference(this.connection, pairs, beside.keys, {
        ...options,
        beforeCommit,
        capBytes,
        onStep: async (rows) => {
          this.#changed = true;
          this.check();
          this.#deps.log.step("rows.step", {});
          await onStep?.(rows);
        },
      }).catch(noted);
      this.#deps.log.step("rows.shrunk", {});
      const { sequences } = await putBack(this.connection, pairs, beside.keys, { ...options, beforeCommit })
        .catch(noted);
      this.#changed = true;
      return { ...await readDone(this.connection, this.schema, pairs), sequences };
    });
  }

  /** Renews the lease while `work` goes on; a lease that is lost, or a wish to end, ends its statement. */
  async keptAlive<T>(work: () => Promise<T>): Promise<T> {
    const over = new AbortController();
    let ended: unknown = null;
    const beating = (async () => {
      while (this.lease !== null) {
        await this.#deps.clock.sleep(renewMs, over.signal);
        await restoreProgress(this.#records, this.lease, {});
      }
    })().catch(async (error: unknown) => {
      if (over.signal.aborted) return;
      ended = error;
      await this.#cancelStatement();
    });
    try {
      return await work();
    } catch (error) {
      throw ended ?? error;
    } finally {
      over.abort();
      await beating;
    }
  }

  /** Writes down what the next leg, or somebody who asks, needs to know. Errors: `cancelled`, `lease_lost`. */
  async note(facts: RestoreFacts): Promise<void> {
    if (this.lease !== null) await restoreProgress(this.#records, this.lease, facts);
  }

  /** Of a leg alone. Errors: `lease_lost`. */
  async safety(): Promise<RestoreSafety> {
    if (this.lease === null) throw new HoldfastError("internal", "a restore without a record has no safety backup");
    return await restoreSafety(this.#records, this.lease);
  }

  /** This leg is over, its restore is not; the next one comes at once, or after so long. */
  async rest(waitSeconds = 0): Promise<void> {
    if (this.lease !== null) await restRestore(this.#records, this.lease, waitSeconds);
  }

  /** The side schema stays until it expires. `measuredSeconds`: without the time that a person took to confirm; default: since it began. */
  async finish(tables: readonly RestoreTable[], measuredSeconds?: number): Promise<void> {
    if (this.lease !== null) {
      await finishRestore(this.#records, this.lease, {
        tables,
        ...(measuredSeconds === undefined ? {} : { measuredSeconds }),
      });
    }
  }

  /**
   * The record says why, and the side schema goes; it stays where steps were committed, since the rows as they were before
   * stand in it. Never throws. Returns the error to tell.
   */
  async fail(error: unknown): Promise<unknown> {
    const told = this.#deps.signal?.aborted === true && sqlstateOf(error) === "57014"
      ? new HoldfastError("cancelled", "the restore was cancelled", { cause: error })
      : error;
    await this.connection.execute("rollback").catch(() => {});
    if (this.lease !== null) {
      const inVain = !this.#changed && askedInVain.has(asHoldfastError(told).code);
      const isOurs = await failRestore(this.#records, this.lease, this.#reason(told), !inVain).then(
        () => true,
        () => false,
      );
      // Whoever took over works with the rows that lie there.
      if (!isOurs) return told;
    }
    if (this.#changed || this.#leg?.keepsSide === true) return told;
    if (this.lease !== null) await dropSide(this.#records, this.lease.id).catch(() => false);
    else await this.connection.execute(`drop schema if exists ${this.schema} cascade`).catch(() => {});
    return told;
  }

  /** Only a look was wanted: cancelled, or where it went on with a broken one, as broken as before. Never throws. */
  async leave(why: string): Promise<void> {
    const failure = this.lease?.goesOn === true
      ? new HoldfastError("run_stalled", `it was broken off, and has been looked at since: ${why}`, {
        hint: "Run the same command again: it goes on.",
      })
      : new HoldfastError("cancelled", why);
    await this.fail(failure);
  }

  /** What a person asked for in vain is no failure of a restore, and nothing to be alarmed by. */
  #reason(error: unknown): HoldfastError {
    const failure = asHoldfastError(error);
    return this.#leg !== null || this.#changed || !askedInVain.has(failure.code)
      ? failure
      : new HoldfastError("cancelled", `${failure.code}: ${failure.message}`, { cause: error });
  }

  async close(): Promise<void> {
    this.#deps.signal?.removeEventListener("abort", this.#onAbort);
    await Promise.all([this.connection.close(), this.#records.close()]);
  }

  async #cancelStatement(): Promise<void> {
    const canceller = await this.#deps.target.connect("holdfast:cancel").catch(() => null);
    if (canceller === null) return;
    await canceller.query("select pg_catalog.pg_cancel_backend($1::int)", [String(this.connection.processId)])
      .catch(() => []);
    await canceller.close();
  }
}
