/** A restore into another database, recorded in that of --db-url: with its time against the objective, as one there would be. */
import type { Clock } from "../shared/clock.ts";
import type { KeyRing } from "../shared/crypto/key_ring.ts";
import { asHoldfastError, HoldfastError } from "../shared/errors.ts";
import {
  beginRestore,
  failRestore,
  finishRestore,
  keysUsed,
  type RestoreEnd,
  type RestoreLease,
  restoreProgress,
  type RestoreRequest,
} from "../shared/jobs/restore_queries.ts";
import type { Connection } from "../shared/postgres/connection.ts";
import type { Context } from "./context.ts";
import { isInstalled } from "./installed.ts";
import { sourceDatabase } from "./open.ts";

/** `pointAt` and `userId` are null by default; `ring`: what is restored is opened with it. */
export type RecordedRequest =
  & Pick<RestoreRequest, "scope" | "mode" | "sourceBackup" | "targetLabel">
  & Partial<Pick<RestoreRequest, "pointAt" | "userId">>
  & { readonly ring?: Pick<KeyRing, "used"> };

const leaseSeconds = 90;
const renewMs = 20_000;
/** A source that answers no sooner is taken for lost. */
const answerMs = 15_000;

/**
 * Does `work`, which is recorded as under way meanwhile; `cancel_restore` ends it by the signal. `restore`: the record's id,
 * null where there is none: without --db-url, where that is no Holdfast's, or the target itself, and where it cannot be
 * reached. That hinders nothing, and is told. Errors: those of `work`; `cancelled`.
 */
export async function recorded<T>(
  context: Context,
  request: RecordedRequest,
  work: (signal: AbortSignal) => Promise<T>,
  endOf: (result: T) => RestoreEnd,
): Promise<{ readonly result: T; readonly restore: string | null }> {
  const record = await SourceRecord.begin(context, request);
  if (record === null) return { result: await work(context.signal), restore: null };
  const [over, asked] = [new AbortController(), new AbortController()];
  const beating = record.beat(over.signal, (reason) => asked.abort(reason));
  let result: T;
  try {
    result = await work(AbortSignal.any([context.signal, asked.signal]));
  } catch (error) {
    over.abort();
    await beating;
    await record.end((session, lease) => failRestore(session, lease, asHoldfastError(error)));
    throw error;
  }
  over.abort();
  await beating;
  await record.end((session, lease) => finishRestore(session, lease, endOf(result)));
  return { result, restore: record.id };
}

/** As `recorded`, for a restore that has come to its good end. Never throws. */
export async function recordDone(context: Context, request: RecordedRequest, end: RestoreEnd): Promise<void> {
  await recorded(context, request, () => Promise.resolve(), () => end);
}

class SourceRecord {
  readonly #context: Context;
  readonly #session: Connection;
  readonly #lease: RestoreLease;
  readonly #ring: Pick<KeyRing, "used"> | undefined;
  #lost = false;

  private constructor(
    context: Context,
    session: Connection,
    lease: RestoreLease,
    ring: Pick<KeyRing, "used"> | undefined,
  ) {
    this.#context = context;
    this.#session = session;
    this.#lease = lease;
    this.#ring = ring;
  }

  get id(): string {
    return this.#lease.id;
  }

  static async begin(context: Context, { ring, ...request }: RecordedRequest): Promise<SourceRecord | null> {
    if (context.settings.get("db-url") === undefined) return null;
    let session: Connection | null = null;
    try {
      const source = await sourceDatabase({ settings: context.settings, note: () => {} });
      if (source.label === request.targetLabel) return null;
      const opened = await source.connect("holdfast:restore record");
      session = opened;
      const begun = await inTime(
        context.clock,
        async () =>
          await isInstalled(opened)
            ? await beginRestore(opened, {
              pointAt: null,
              userId: null,
              ...request,
              targetIsHere: false,
              side: false,
              worker: "cli",
              leaseSeconds,
            })
            : null,
      );
      if (begun !== null) {
        const record = new SourceRecord(context, session, begun, ring);
        await record.#tellKeys();
        return record;
      }
    } catch (error) {
      tell(context, error);
    }
    await session?.close();
    return null;
  }

  async #tellKeys(): Promise<void> {
    const ring = this.#ring;
    if (ring === undefined || this.#lost) return;
    await inTime(this.#context.clock, () => keysUsed(this.#session, { what: "restore", id: this.id }, ring));
  }

  /** Until `over`; `onCancel` once somebody has asked that it ends. */
  async beat(over: AbortSignal, onCancel: (reason: HoldfastError) => void): Promise<void> {
    while (!this.#lost) {
      try {
        await this.#context.clock.sleep(renewMs, over);
      } catch {
        return;
      }
      await inTime(this.#context.clock, () => restoreProgress(this.#session, this.#lease, { status: "loading" })).catch(
        (error: unknown) => {
          if (error instanceof HoldfastError && error.code === "cancelled") return onCancel(error);
          this.#lost = true;
          tell(this.#context, error);
        },
      );
    }
  }

  async end(how: (session: Connection, lease: RestoreLease) => Promise<unknown>): Promise<void> {
    try {
      // Segments of other epochs may have been opened on the way.
      await this.#tellKeys();
      if (!this.#lost) await inTime(this.#context.clock, () => how(this.#session, this.#lease));
    } catch (error) {
      tell(this.#context, error);
    } finally {
      await this.#session.close();
    }
  }
}

function tell({ note }: Context, error: unknown): void {
  const { code, message } = asHoldfastError(error);
  note(`warning: this restore is not recorded in the database of --db-url: ${code}: ${message}`);
}

async function inTime<T>(clock: Clock, work: () => Promise<T>): Promise<T> {
  const over = new AbortController();
  const late = clock.sleep(answerMs, over.signal).then(() => {
    throw new HoldfastError("database_unreachable", "it gave no answer in time");
  });
  try {
    return await Promise.race([work(), late]);
  } finally {
    late.catch(() => {});
    over.abort();
  }
}
