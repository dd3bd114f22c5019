/**
 * Draining the slot into segments: peek → seal → put → read back → record → advance. A crash between any two of these
 * can only repeat: what is stored is found again by its name, what is recorded is not read again, and the slot moves last.
 */
import type { BackupDeps } from "../../backup/deps.ts";
import { newestEpoch } from "../../backup/repository_epoch.ts";
import { openSession } from "../../backup/session.ts";
import { sameBytes } from "../../crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../../errors.ts";
import { copyQueued } from "../../files/copy_queued.ts";
import { countQueued } from "../../files/file_queries.ts";
import { recognise } from "../../identity/identity_queries.ts";
import { putAtPlace, settlePlace } from "../../identity/settle_place.ts";
import type { Connection } from "../../postgres/connection.ts";
import { type ChainState, currentChain } from "./chain.ts";
import { chainOver, unreadable } from "./chain_end.ts";
import { noteLook, putBack } from "./store_look.ts";
import { Collector, CollectorFull } from "./collect.ts";
import { formatLsn } from "../decode/lsn.ts";
import type { ListedSegment } from "../segments/chain_reader.ts";
import { PeekReader } from "./peek_reader.ts";
import { RecordedFilter } from "./recorded_filter.ts";
import {
  busyDrain,
  type DrainLimits,
  type DrainOptions,
  type DrainResult,
  functionFileLimits,
} from "./drain_options.ts";
import { type DrainedSegment, type GuardedPut, SegmentWriter } from "./segment_writer.ts";
import { Spool } from "./spool.ts";
import {
  call,
  type Chain,
  claimDrain,
  holdDrain,
  type Horizon,
  isFlushed,
  type LastSegment,
  logOwners,
  readHorizon,
  releaseDrain,
} from "./stream_queries.ts";
import type { Taken } from "./taken.ts";

export type { DrainedSegment } from "./segment_writer.ts";
export * from "./drain_options.ts";

type PeekLimits = Omit<DrainLimits, "peekChanges"> & { readonly peekChanges: number | null };

const defaultLeaseSeconds = 90;
const defaultIdleSeconds = 600;
const defaultLockMs = 20_000;

/** Errors: `stream_unavailable`, `place_changed`, `lease_lost`, `lock_timeout`, those of the connection, the keys and the store. Nothing is lost by any. */
export async function drain(deps: BackupDeps, options: DrainOptions): Promise<DrainResult> {
  const connection = await openSession(deps.database, "holdfast:drain");
  try {
    // A role's own setting could let our commits return before the log is durable.
    await connection.execute(`set synchronous_commit = local; set lock_timeout = ${options.lockMs ?? defaultLockMs}`);
    const token = await claimDrain(connection, options.worker, options.leaseSeconds ?? defaultLeaseSeconds);
    if (token === null) return busyDrain;
    let failure: HoldfastError | null = null;
    let coveredUntil: string | null = null;
    try {
      await recognise(connection, options.projectRef ?? null);
      const place = await settlePlace(deps, connection);
      const placed = { ...deps, store: place.store };
      const state = await currentChain(placed, connection, token, place);
      const drainer = new Drainer(
        placed,
        connection,
        token,
        state,
        options,
        (name, put) => putAtPlace(deps, connection, place, name, put),
      );
      coveredUntil = await drainer.run();
      const filesLeft = coveredUntil !== null && await drainer.copyFiles();
      const outcome = coveredUntil === null || filesLeft ? "work_left" : "caught_up";
      const { chain, begun, gap } = state;
      const [full] = await call(connection, "select backup.chain_lacks_full() as lacks", []);
      const lacksFull = full?.["lacks"] === "t";
      return { outcome, chain: chain.id, begun, gap, lacksFull, segments: drainer.segments, coveredUntil };
    } catch (error) {
      failure = asHoldfastError(error);
      throw failure;
    } finally {
      // A session that was lost cannot give the lease back: it runs out.
      await releaseDrain(connection, token, coveredUntil, failure).catch(() => {});
    }
  } finally {
    await connection.close();
  }
}

class Drainer {
  readonly segments: DrainedSegment[] = [];
  readonly #deps: BackupDeps;
  readonly #connection: Connection;
  readonly #token: string;
  readonly #chain: Chain;
  readonly #options: DrainOptions;
  readonly #guarded: GuardedPut;
  readonly #writer: SegmentWriter;
  readonly #spool: Spool;
  /** See `ChainState`. */
  readonly #doubtful: readonly ListedSegment[];
  #last: LastSegment | null;

  constructor(
    deps: BackupDeps,
    connection: Connection,
    token: string,
    state: ChainState,
    options: DrainOptions,
    guarded: GuardedPut,
  ) {
    this.#deps = deps;
    this.#connection = connection;
    this.#token = token;
    this.#chain = state.chain;
    this.#doubtful = state.doubtful;
    this.#last = state.chain.last;
    this.#options = options;
    this.#guarded = guarded;
    this.#writer = new SegmentWriter(deps, connection, token, state.chain, options.budget, guarded);
    this.#spool = new Spool({
      connection,
      log: deps.log,
      token,
      chain: state.chain,
      segmentBytes: options.limits.segmentBytes,
      ownBucket: options.ownBucket ?? null,
      budget: options.budget,
      // Only the first segment of a drain can be one that a drainer before it put: its limit was perhaps another one.
      sizeOfPart: (segment) => this.segments.length > 0 ? Promise.resolve(null) : this.#writer.sizeOf(segment),
    });
  }

  /** Until the end of what is durable, or of the budget. Returns the moment up to which all is stored, or null. */
  async run(): Promise<string | null> {
    await this.#catchUp();
    await this.#adoptDoubtful();
    await logOwners(this.#connection, this.#token);
    for (let round = 0;; round++) {
      if (round > 0 && (this.#options.budget.spent() || this.#options.signal?.aborted === true)) return null;
      const horizon = await this.#durableHorizon();
      const taken = await this.#take(horizon);
      if (taken === null) continue;
      this.#deps.log.step("drain.peeked", { bytes: taken.records.length });
      const { facts } = taken;
      const whole = !taken.endsInTransaction && taken.part === 0;
      const idle = whole && facts.ddl === 0 && facts.changes === facts.ownObjects;
      const fresh = this.#last !== null &&
        this.#last.ageSeconds < (this.#options.idleSeconds ?? defaultIdleSeconds);
      // Rows of our own puts wait in the slot for something worth a put; nothing at all needs none.
      const waits = idle && fresh && (facts.bytes === 0 || taken.isEnd);
      if ((taken.endLsn > this.#reached() || taken.part > 0) && !waits) await this.#store(taken, horizon);
      if (!taken.endsInTransaction && (!waits || facts.bytes === 0)) await this.#advance(taken);
      if (taken.isEnd) return horizon.takenAt;
    }
  }

  /** Those of which the stream has told, as many as the budget allows. True: some are left for the next leg. */
  async copyFiles(): Promise<boolean> {
    const { budget, files = functionFileLimits, leaseSeconds = defaultLeaseSeconds } = this.#options;
    const stored = this.segments.reduce((sum, { rawBytes }) => sum + rawBytes, 0);
    if (stored > files.afterRecords) return await countQueued(this.#connection) > 0;
    return await copyQueued({
      deps: this.#deps,
      connection: this.#connection,
      token: this.#token,
      keep: () => holdDrain(this.#connection, this.#token, leaseSeconds),
      chain: this.#chain.id,
      epoch: () => newestEpoch(this.#deps),
      budget: files.budget ?? budget,
      fileBytesAtOnce: files.bytesAtOnce,
      guarded: this.#guarded,
    });
  }

  async #durableHorizon(): Promise<Horizon> {
    const horizon = await readHorizon(this.#connection);
    // Its commit makes everything durable that was written before it.
    await holdDrain(this.#connection, this.#token, this.#options.leaseSeconds ?? defaultLeaseSeconds);
    if (!(await isFlushed(this.#connection, horizon.endLsn))) {
      throw new HoldfastError("internal", "a commit did not make durable what was written before it");
    }
    return horizon;
  }

  /** Null: there is more to do before there is a segment. */
  async #take(horizon: Horizon, limits?: PeekLimits): Promise<Taken | null> {
    return this.#last?.endsInTransaction === true || await this.#spool.hasRows()
      ? await this.#spool.take(this.#last, horizon.endLsn)
      : await this.#peek(horizon, limits);
  }

  /**
   * What was put and not recorded when the server was started anew. The same log gives the same records: taken once more it
   * is ours, and recorded; else the database is not the one that it was, and the chain ends.
   */
  async #adoptDoubtful(): Promise<void> {
    const longest = this.#doubtful.at(-1);
    if (longest === undefined) return;
    const { header, records } = await this.#writer.open(longest.name);
    const horizon = await this.#durableHorizon();
    // A whole segment is taken up to its own end; what begins a large transaction is only its beginning.
    const whole = !header.endsInTransaction && header.part === 0;
    const limits = whole ? { segmentBytes: records.length + 1, peekChanges: null } : undefined;
    const upTo = whole ? { ...horizon, endLsn: longest.endLsn } : horizon;
    const taken = await this.#take(upTo, limits) ?? await this.#take(upTo, limits);
    const others = await Promise.all(this.#doubtful.slice(0, -1).map(({ name }) => this.#writer.open(name)));
    const isOurs = taken !== null && (whole ? taken.endLsn === longest.endLsn : taken.endLsn >= longest.endLsn) &&
      (whole ? sameBytes(records, taken.records) : beginsAlike(records, taken.records)) &&
      others.every((other) => beginsAlike(other.records, records));
    if (taken === null || !isOurs) throw await chainOver(this.#connection, this.#chain, putBack);
    await this.#store(taken, horizon);
    if (!taken.endsInTransaction) await this.#advance(taken);
    await noteLook(this.#connection, this.#token);
  }

  /** Where the next segment starts. */
  #reached(): bigint {
    return this.#last?.endLsn ?? this.#chain.startLsn;
  }

  /**
   * After a crash of the server the slot is behind what is recorded. It is moved on before anything is read, so that the
   * same stretch gives the same records again, and a spooled transaction is the one that it was.
   */
  async #catchUp(): Promise<void> {
    const done = this.#last?.endsInTransaction === true ? this.#last.startLsn : this.#reached();
    await call(
      this.#connection,
      `select pg_catalog.pg_replication_slot_advance(s.slot_name, x.done)
         from pg_catalog.pg_replication_slots as s, backup.drain as d,
              greatest($2::pg_lsn, d.advanced_lsn) as x(done)
        where s.slot_name = $1::name and s.confirmed_flush_lsn < x.done`,
      [this.#chain.slot, formatLsn(done)],
    );
  }

  /** Null: the first transaction is larger than a segment, and in the spool now. */
  async #peek(horizon: Horizon, limits: PeekLimits = this.#options.limits): Promise<Taken | null> {
    const { budget } = this.#options;
    const collector = new Collector(limits.segmentBytes, this.#options.ownBucket ?? null);
    const reached = this.#reached();
    // The slot's own position is coarser than ours may be: what is recorded and comes again is left out.
    const filter = new RecordedFilter(reached, collector);
    let rows = 0;
    const reader = new PeekReader((lsn, xid, data) => {
      rows++;
      filter.add(lsn, xid, data);
    });
    let full = false;
    try {
      await this.#connection.copyOut(
        peekStatement(this.#chain, horizon.endLsn, limits.peekChanges),
        (bytes) => reader.push(bytes),
      );
      reader.end();
    } catch (error) {
      if (!(error instanceof CollectorFull)) throw await unreadable(this.#connection, this.#chain, error);
      full = true;
    }
    budget.spendText(rows, collector.bytes);
    const { records, facts } = collector.wholeTransactions();
    const commit = collector.lastCommit ?? filter.lastCommit;
    if (full && commit === null) {
      await this.#spool.fill();
      return null;
    }
    const cut = full || (limits.peekChanges !== null && rows >= limits.peekChanges);
    // At a page's end the server reads one record further than it was told: what came of it counts.
    const endLsn = commit !== null && (cut || commit.endLsn > horizon.endLsn) ? commit.endLsn : horizon.endLsn;
    return {
      records,
      facts,
      endLsn: endLsn > reached ? endLsn : reached,
      part: 0,
      endsInTransaction: false,
      spoolPosition: null,
      isEnd: !cut,
    };
  }

  async #store(taken: Taken, horizon: Horizon): Promise<void> {
    const { segment, last } = await this.#writer.store(taken, this.#last, horizon);
    this.#last = last;
    this.segments.push(segment);
    this.#options.onSegment?.(segment);
  }

  async #advance(taken: Taken): Promise<void> {
    const lsn = formatLsn(taken.endLsn);
    await call(this.#connection, "select backup.intend_advance($1::bigint, $2::pg_lsn)", [this.#token, lsn]);
    await call(
      this.#connection,
      "select pg_catalog.pg_replication_slot_advance(s.slot_name, $2::pg_lsn) from pg_catalog.pg_replication_slots as s" +
        " where s.slot_name = $1::name and s.confirmed_flush_lsn < $2::pg_lsn",
      [this.#chain.slot, lsn],
    );
    this.#deps.log.step("drain.advanced", { lsn });
    if (taken.spoolPosition !== null) await this.#spool.clear();
  }
}

/** Is the shorter one the beginning of the longer one? */
function beginsAlike(a: Uint8Array, b: Uint8Array): boolean {
  const length = Math.min(a.length, b.length);
  return sameBytes(a.subarray(0, length), b.subarray(0, length));
}

function peekStatement(chain: Chain, upto: bigint, atMost: number | null): string {
  const names = chain.publications.map((name) => `"${name}"`).join(",");
  return `copy (
    select c.lsn, c.xid, c.data from pg_catalog.pg_logical_slot_peek_binary_changes(
      '${chain.slot}', '${formatLsn(upto)}', ${atMost}, 'proto_version', '1', 'publication_names', '${names}'
    ) as c
  ) to stdout (format binary)`;
}
