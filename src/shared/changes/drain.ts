/**
 * Draining the slot into segments: peek → seal → put → read back → record → advance. A crash between any two of these
 * can only repeat: what is stored is found again by its name, what is recorded is not read again, and the slot moves last.
 */
import type { Budget } from "../backup/budget.ts";
import type { BackupDeps } from "../backup/deps.ts";
import { newestEpoch } from "../backup/repository_epoch.ts";
import { openSession } from "../backup/session.ts";
import type { Epoch } from "../crypto/epoch.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { putAndReadBack } from "../store/put.ts";
import { type SegmentName, segmentName } from "../format/layout.ts";
import { type ChainState, currentChain } from "./chain.ts";
import { type Collected, Collector, CollectorFull } from "./collect.ts";
import { formatLsn, parseLsn } from "./lsn.ts";
import { momentOf } from "./moment.ts";
import { PeekReader } from "./peek_reader.ts";
import { RecordedFilter } from "./recorded_filter.ts";
import { openSegment, sealSegment, segmentFormat, type SegmentHeader, segmentVersion } from "./segment.ts";
import {
  call,
  type Chain,
  claimDrain,
  endChain,
  holdDrain,
  type Horizon,
  isFlushed,
  type LastSegment,
  publishTables,
  readDefinitions,
  readHorizon,
  readSequenceValues,
  recordSegment,
  releaseDrain,
  streamError,
} from "./stream_queries.ts";

export interface DrainLimits {
  /** Records of one segment. */
  readonly segmentBytes: number;
  /** Changes that the server decodes at once, to the next commit. */
  readonly peekChanges: number;
}

/** An isolate has 256 MB: records, their plaintext and the sealed copy are in memory at once. */
export const functionDrainLimits: DrainLimits = { segmentBytes: 8 * 1024 * 1024, peekChanges: 50_000 };
export const processDrainLimits: DrainLimits = { segmentBytes: 32 * 1024 * 1024, peekChanges: 400_000 };

export interface DrainOptions {
  /** Names the drainer in `backup.drain`. */
  readonly worker: string;
  readonly budget: Budget;
  readonly limits: DrainLimits;
  readonly leaseSeconds?: number;
  /** A segment without a change is stored when the last one is older than this: it says that nothing happened. */
  readonly idleSeconds?: number;
  /** Where backups go in this project's own Storage; null or absent: they go elsewhere. */
  readonly ownBucket?: string | null;
  readonly signal?: AbortSignal;
  /** Called for each segment that was recorded. */
  readonly onSegment?: (segment: DrainedSegment) => void;
}

export interface DrainedSegment {
  readonly name: string;
  /** The incremental that owns it. */
  readonly run: string;
  readonly transactions: number;
  readonly changes: number;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly lastCommitAt: string | null;
}

export interface DrainResult {
  /** `caught_up`: all that was durable when it began is stored. */
  readonly outcome: "caught_up" | "work_left" | "busy";
  readonly chain: string | null;
  /** A chain was begun: without a new full backup nothing of it can be restored. */
  readonly begun: boolean;
  /** Why the chain before it ended. */
  readonly gap: string | null;
  readonly segments: readonly DrainedSegment[];
  /** Every commit before this moment is stored; null where the end was not reached. */
  readonly coveredUntil: string | null;
}

const defaultLeaseSeconds = 90;
const defaultIdleSeconds = 600;

/** Errors: `stream_unavailable`, `lease_lost`, those of the connection, the keys and the store. Nothing is lost by any. */
export async function drain(deps: BackupDeps, options: DrainOptions): Promise<DrainResult> {
  const connection = await openSession(deps.database, "holdfast:drain");
  try {
    // A role's own setting could let our commits return before the log is durable.
    await connection.execute("set synchronous_commit = local");
    const token = await claimDrain(connection, options.worker, options.leaseSeconds ?? defaultLeaseSeconds);
    if (token === null) {
      return { outcome: "busy", chain: null, begun: false, gap: null, segments: [], coveredUntil: null };
    }
    let failure: HoldfastError | null = null;
    let coveredUntil: string | null = null;
    try {
      const state = await currentChain(connection, token, deps.random);
      const drainer = new Drainer(deps, connection, token, state, options);
      coveredUntil = await drainer.run();
      const outcome = coveredUntil === null ? "work_left" : "caught_up";
      const { chain, begun, gap } = state;
      return { outcome, chain: chain.id, begun, gap, segments: drainer.segments, coveredUntil };
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

/** What was taken from the slot or the spool for one segment. */
interface Taken {
  readonly records: Uint8Array;
  readonly facts: Collected;
  readonly endLsn: bigint;
  readonly part: number;
  readonly endsInTransaction: boolean;
  readonly spoolPosition: string | null;
  /** Nothing durable lies behind it. */
  readonly isEnd: boolean;
}

class Drainer {
  readonly segments: DrainedSegment[] = [];
  readonly #deps: BackupDeps;
  readonly #connection: Connection;
  readonly #token: string;
  readonly #chain: Chain;
  readonly #options: DrainOptions;
  #last: LastSegment | null;
  #epoch: Epoch | null = null;
  #uncovered: SegmentHeader["uncovered"] | null = null;

  constructor(deps: BackupDeps, connection: Connection, token: string, state: ChainState, options: DrainOptions) {
    this.#deps = deps;
    this.#connection = connection;
    this.#token = token;
    this.#chain = state.chain;
    this.#last = state.chain.last;
    this.#options = options;
  }

  /** Until the end of what is durable, or of the budget. Returns the moment up to which all is stored, or null. */
  async run(): Promise<string | null> {
    await this.#catchUp();
    for (let round = 0;; round++) {
      if (round > 0 && (this.#options.budget.spent() || this.#options.signal?.aborted === true)) return null;
      const horizon = await readHorizon(this.#connection);
      // Its commit makes everything durable that was written before it.
      await holdDrain(this.#connection, this.#token, this.#options.leaseSeconds ?? defaultLeaseSeconds);
      if (!(await isFlushed(this.#connection, horizon.endLsn))) {
        throw new HoldfastError("internal", "a commit did not make durable what was written before it");
      }
      const taken = this.#last?.endsInTransaction === true || await this.#hasSpool()
        ? await this.#fromSpool(horizon)
        : await this.#peek(horizon);
      if (taken === "spooled") continue;
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

  async #peek(horizon: Horizon): Promise<Taken | "spooled"> {
    const { limits, budget } = this.#options;
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
      if (!(error instanceof CollectorFull)) throw await this.#unreadable(error);
      full = true;
    }
    budget.spendText(rows, collector.bytes);
    const { records, facts } = collector.wholeTransactions();
    const commit = collector.lastCommit ?? filter.lastCommit;
    if (full && commit === null) {
      await this.#spool();
      return "spooled";
    }
    const cut = full || rows >= limits.peekChanges;
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

  /** Ends the chain: what the slot still has cannot follow what is stored. Returns what to throw. */
  async #over(reason: string): Promise<HoldfastError> {
    await endChain(this.#connection, this.#chain.id, reason);
    return new HoldfastError("stream_busy", `the chain ended: ${reason}`, { hint: "The next drain begins another." });
  }

  /** A publication that was not there at some change fails every reading of it for ever. */
  async #unreadable(error: unknown): Promise<unknown> {
    return sqlstateOf(error) === "42704"
      ? await this.#over("a publication was dropped and made again")
      : streamError(error);
  }

  /** The first transaction behind the slot, whole, into `backup.spool`: no leg would ever see the end of it otherwise. */
  async #spool(): Promise<void> {
    this.#deps.log.info("drain.spooling", { chain: this.#chain.id });
    await call(this.#connection, "select backup.spool_transaction($1::bigint, $2::name, $3::name[])", [
      this.#token,
      this.#chain.slot,
      `{${this.#chain.publications.join(",")}}`,
    ]).catch(async (error: unknown) => {
      throw await this.#unreadable(error);
    });
    this.#deps.log.step("drain.spooled", { chain: this.#chain.id });
  }

  async #hasSpool(): Promise<boolean> {
    const [row] = await call(this.#connection, "select exists (select from backup.spool) as yes", []);
    return row?.["yes"] === "t";
  }

  async #fromSpool(horizon: Horizon): Promise<Taken | "spooled"> {
    // An unlogged table is empty after a crash; the same transaction is decoded to the same rows.
    if (!(await this.#hasSpool())) await this.#spool();
    const goesOn = this.#last?.endsInTransaction === true ? this.#last : null;
    const from = goesOn?.spoolPosition ?? "0";
    const endLsn = await this.#spoolEnd();
    if (goesOn === null && endLsn <= this.#reached()) {
      // Stored to its end by a drainer that died before it had emptied the spool.
      await call(this.#connection, "truncate backup.spool", []);
      return "spooled";
    }
    if (goesOn !== null && endLsn !== goesOn.endLsn) {
      throw await this.#over("a transaction that was being stored is not in the slot any more");
    }
    const part = goesOn === null ? 0 : goesOn.part + 1;
    const startLsn = goesOn?.startLsn ?? this.#reached();
    const cap = await this.#sizeOfPart({ chain: this.#chain.id, startLsn, endLsn, part });
    const collector = new Collector(cap ?? this.#options.limits.segmentBytes, this.#options.ownBucket ?? null);
    await this.#copySpool(`s.position <= ${from} and pg_catalog.get_byte(s.data, 0) = 82`, (_lsn, _xid, data) => {
      collector.learn(data);
    });
    let position = BigInt(from);
    let full = false;
    try {
      await this.#copySpool(`s.position > ${from}`, (lsn, xid, data) => {
        collector.add(lsn, xid, data);
        position++;
      });
    } catch (error) {
      if (!(error instanceof CollectorFull)) throw streamError(error);
      full = true;
    }
    const { records, facts } = collector.everything();
    this.#options.budget.spendText(Number(position - BigInt(from)), records.length);
    if (full && position === BigInt(from)) {
      throw new HoldfastError("row_too_large", "a single change is larger than a segment of this drainer may be", {
        hint: "Drain with the CLI: `holdfast incremental`.",
      });
    }
    return {
      records,
      facts,
      endLsn,
      part,
      endsInTransaction: full,
      spoolPosition: String(position),
      isEnd: !full && endLsn >= horizon.endLsn,
    };
  }

  async #copySpool(where: string, onRow: (lsn: bigint, xid: number, data: Uint8Array) => void): Promise<void> {
    const reader = new PeekReader(onRow);
    await this.#connection.copyOut(
      `copy (select s.lsn, s.xid, s.data from backup.spool as s where ${where} order by s.position)
         to stdout (format binary)`,
      (bytes) => reader.push(bytes),
    );
    reader.end();
  }

  /** Bytes of the records of a part that another drainer put and did not record: its limit was perhaps another one. */
  async #sizeOfPart(segment: SegmentName): Promise<number | null> {
    if (this.segments.length > 0) return null;
    const name = segmentName(segment);
    if (await this.#deps.store.size(name) === null) return null;
    const epoch = this.#epoch ??= await newestEpoch(this.#deps);
    const openDeps = { compressor: this.#deps.compressor, epochOf: () => Promise.resolve(epoch) };
    return (await openSegment(openDeps, name, await this.#deps.store.read(name))).records.length;
  }

  /** The end of the last commit in the spool. */
  async #spoolEnd(): Promise<bigint> {
    const [row] = await call(
      this.#connection,
      `select pg_catalog.encode(s.data, 'hex') as data from backup.spool as s
        where pg_catalog.get_byte(s.data, 0) = 67 order by s.position desc limit 1`,
      [],
    );
    const hex = row?.["data"] ?? "";
    // Commit: 'C', flags, position of the commit, end of the transaction.
    if (hex.length < 36) throw new HoldfastError("internal", "the spool holds no commit");
    return BigInt(`0x${hex.slice(20, 36)}`);
  }

  async #store(taken: Taken, horizon: Horizon): Promise<void> {
    const epoch = this.#epoch ??= await newestEpoch(this.#deps);
    const header = await this.#header(taken, horizon, epoch);
    const sealed = await sealSegment(this.#deps, epoch, header, taken.records);
    this.#deps.log.step("drain.sealed", { name: sealed.name });
    const openDeps = { compressor: this.#deps.compressor, epochOf: () => Promise.resolve(epoch) };
    const put = await putAndReadBack(this.#deps.store, sealed.name, sealed.bytes, async (stored) => {
      // A drainer that died after its put: the same range of the same log. Its moment is another, so bytes differ.
      const found = await openSegment(openDeps, sealed.name, stored);
      return sameRecords(found.records, taken.records) && found.header.previous?.hash === header.previous?.hash;
    });
    this.#deps.log.step("drain.put", { name: sealed.name });
    this.#options.budget.spendCalls(4);
    const { facts } = taken;
    const run = await recordSegment(this.#connection, this.#token, {
      chain_id: header.chain,
      start_lsn: header.startLsn,
      end_lsn: header.endLsn,
      part: header.part,
      spool_position: taken.spoolPosition,
      name: sealed.name,
      raw_bytes: sealed.rawBytes,
      stored_bytes: put.storedBytes,
      hash: sealed.hash,
      stored_hash: put.storedHash,
      epoch: epoch.id,
      transactions: facts.transactions,
      changes: facts.changes,
      ddl: facts.ddl,
      first_commit_at: header.firstCommitAt,
      last_commit_at: header.lastCommitAt,
      taken_at: header.takenAt,
      ends_in_transaction: header.endsInTransaction,
    });
    this.#deps.log.step("drain.recorded", { name: sealed.name });
    this.#last = {
      name: sealed.name,
      storedHash: put.storedHash,
      startLsn: parseLsn(header.startLsn),
      endLsn: taken.endLsn,
      part: taken.part,
      endsInTransaction: taken.endsInTransaction,
      spoolPosition: taken.spoolPosition,
      ageSeconds: 0,
    };
    const segment: DrainedSegment = {
      name: sealed.name,
      run,
      transactions: facts.transactions,
      changes: facts.changes,
      rawBytes: sealed.rawBytes,
      storedBytes: put.storedBytes,
      lastCommitAt: header.lastCommitAt,
    };
    this.segments.push(segment);
    this.#options.onSegment?.(segment);
  }

  async #header(taken: Taken, horizon: Horizon, epoch: Epoch): Promise<SegmentHeader> {
    const last = this.#last;
    const { facts } = taken;
    this.#uncovered = await publishTables(this.#connection, this.#chain.publications);
    return {
      format: segmentFormat,
      version: segmentVersion,
      repositoryId: epoch.repositoryId,
      chain: this.#chain.id,
      startLsn: formatLsn(taken.part > 0 && last !== null ? last.startLsn : this.#reached()),
      endLsn: formatLsn(taken.endLsn),
      part: taken.part,
      previous: last === null ? null : { name: last.name, hash: last.storedHash },
      startsInTransaction: last?.endsInTransaction === true,
      endsInTransaction: taken.endsInTransaction,
      transactions: facts.transactions,
      changes: facts.changes,
      ddl: facts.ddl,
      firstCommitAt: momentOf(facts.firstCommitAt),
      lastCommitAt: momentOf(facts.lastCommitAt),
      takenAt: horizon.takenAt,
      nextXid: horizon.nextXid,
      server: await serverOf(this.#connection),
      sequences: await readSequenceValues(this.#connection),
      definitions: await readDefinitions(this.#connection),
      uncovered: this.#uncovered,
    };
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
    if (taken.spoolPosition !== null) await call(this.#connection, "truncate backup.spool", []);
  }
}

function peekStatement(chain: Chain, upto: bigint, atMost: number): string {
  const names = chain.publications.map((name) => `"${name}"`).join(",");
  return `copy (
    select c.lsn, c.xid, c.data from pg_catalog.pg_logical_slot_peek_binary_changes(
      '${chain.slot}', '${formatLsn(upto)}', ${atMost}, 'proto_version', '1', 'publication_names', '${names}'
    ) as c
  ) to stdout (format binary)`;
}

async function serverOf(connection: Connection): Promise<SegmentHeader["server"]> {
  const [row] = await connection.query(
    "select c.system_identifier, pg_catalog.current_database() as database from pg_catalog.pg_control_system() as c",
  );
  return {
    systemIdentifier: text(row ?? {}, "system_identifier"),
    database: text(row ?? {}, "database"),
    versionNum: connection.serverVersion,
  };
}

function sameRecords(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return false;
  return true;
}
