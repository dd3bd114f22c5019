/** What a drain took, into the store: seal → put → read back → record. */
import type { Budget } from "../../backup/budget.ts";
import type { BackupDeps } from "../../backup/deps.ts";
import { newestEpoch } from "../../backup/repository_epoch.ts";
import type { Epoch } from "../../crypto/epoch.ts";
import { epochSource } from "../../crypto/epochs.ts";
import { type SegmentName, segmentName } from "../../format/layout.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection } from "../../postgres/connection.ts";
import { putAndReadBack, type PutResult } from "../../store/put.ts";
import { formatLsn, parseLsn } from "../decode/lsn.ts";
import { momentOf } from "../decode/moment.ts";
import { sameBytes } from "../../crypto/digest.ts";
import { chainOver } from "./chain_end.ts";
import { type KnownDefinitions, obstaclesIn, toldObstacles, unloggedObstacle } from "./obstacles.ts";
import { putBack } from "./store_look.ts";
import {
  type OpenedSegment,
  openSegment,
  sealSegment,
  segmentFormat,
  type SegmentHeader,
  segmentVersion,
} from "../segments/segment.ts";
import {
  publishTables,
  readCountedUntil,
  readCounting,
  readDefinitions,
  readSequenceValues,
} from "./header_queries.ts";
import { type Chain, type Horizon, type LastSegment, recordSegment } from "./stream_queries.ts";
import type { Taken } from "./taken.ts";

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

/** Puts what `put` does under `name`, unless the place turns out to be another database's. Errors: `place_changed`. */
export type GuardedPut = (name: string, put: () => Promise<PutResult>) => Promise<PutResult>;

export class SegmentWriter {
  readonly #deps: BackupDeps;
  readonly #connection: Connection;
  /** The drain's lease. */
  readonly #token: string;
  readonly #chain: Chain;
  readonly #budget: Budget;
  readonly #guarded: GuardedPut;
  #epoch: Epoch | null = null;
  #definitions: KnownDefinitions | null;
  #obstacles: NonNullable<SegmentHeader["obstacles"]>;

  constructor(
    deps: BackupDeps,
    connection: Connection,
    token: string,
    chain: Chain,
    budget: Budget,
    guarded: GuardedPut,
  ) {
    this.#deps = deps;
    this.#connection = connection;
    this.#token = token;
    this.#chain = chain;
    this.#budget = budget;
    this.#guarded = guarded;
    this.#definitions = chain.definitions;
    this.#obstacles = chain.obstacles;
  }

  /**
   * Stores and records what follows `last`; the segment, and what the next one follows. Errors: `lease_lost`,
   * `run_state`, those of the connection, the keys and the store.
   */
  async store(
    taken: Taken,
    last: LastSegment | null,
    horizon: Horizon,
  ): Promise<{ readonly segment: DrainedSegment; readonly last: LastSegment }> {
    const epoch = this.#epoch ??= await newestEpoch(this.#deps);
    const plain = await this.#header(taken, last, horizon, epoch);
    const found = [
      ...unloggedObstacle(this.#definitions, plain),
      ...taken.facts.ddl > 0 ? obstaclesIn("that is drained", taken.records) : [],
    ];
    this.#obstacles = toldObstacles(this.#obstacles, found);
    const header = this.#obstacles.length === 0 ? plain : { ...plain, obstacles: this.#obstacles };
    const sealed = await sealSegment(this.#deps, epoch, header, taken.records);
    this.#deps.log.step("drain.sealed", { name: sealed.name });
    const put = await this.#guarded(
      sealed.name,
      () =>
        putAndReadBack(this.#deps.store, sealed.name, sealed.bytes, async (stored) => {
          // A drainer that died after its put: the same range of the same log. Its moment is another, so bytes differ.
          const there = await this.#open(sealed.name, stored);
          const isOurs = sameBytes(there.records, taken.records) &&
            there.header.previous?.hash === header.previous?.hash;
          if (!isOurs) throw await chainOver(this.#connection, this.#chain, putBack);
          return true;
        }),
    );
    this.#deps.log.step("drain.put", { name: sealed.name });
    this.#budget.spendCalls(4);
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
      definitions: this.#definitions = definitionsOf(header),
      obstacles: toldObstacles([], found),
      files: facts.files,
    });
    this.#deps.log.step("drain.recorded", { name: sealed.name });
    return {
      segment: {
        name: sealed.name,
        run,
        transactions: facts.transactions,
        changes: facts.changes,
        rawBytes: sealed.rawBytes,
        storedBytes: put.storedBytes,
        lastCommitAt: header.lastCommitAt,
      },
      last: {
        name: sealed.name,
        linkHash: put.storedHash,
        startLsn: parseLsn(header.startLsn),
        endLsn: taken.endLsn,
        part: taken.part,
        endsInTransaction: taken.endsInTransaction,
        spoolPosition: taken.spoolPosition,
        ageSeconds: 0,
      },
    };
  }

  /** Bytes of the records of a segment that is in the store; null where it is not. */
  async sizeOf(segment: SegmentName): Promise<number | null> {
    const name = segmentName(segment);
    if (await this.#deps.store.size(name) === null) return null;
    return (await this.open(name)).records.length;
  }

  /** Errors: those of `openSegment` and the store. */
  async open(name: string): Promise<OpenedSegment> {
    return await this.#open(name, await this.#deps.store.read(name));
  }

  async #open(name: string, stored: Uint8Array): Promise<OpenedSegment> {
    const { store, ring, compressor } = this.#deps;
    const { repositoryId } = this.#epoch ??= await newestEpoch(this.#deps);
    return await openSegment({ compressor, epochOf: epochSource(store, ring, repositoryId) }, name, stored);
  }

  async #header(taken: Taken, last: LastSegment | null, horizon: Horizon, epoch: Epoch): Promise<SegmentHeader> {
    const { facts } = taken;
    const countedUntil = await readCountedUntil(this.#connection);
    const uncovered = await publishTables(this.#connection, this.#chain.publications);
    return {
      format: segmentFormat,
      version: segmentVersion,
      repositoryId: epoch.repositoryId,
      chain: this.#chain.id,
      startLsn: formatLsn(taken.part > 0 && last !== null ? last.startLsn : last?.endLsn ?? this.#chain.startLsn),
      endLsn: formatLsn(taken.endLsn),
      part: taken.part,
      previous: last === null ? null : { name: last.name, hash: last.linkHash },
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
      ...await readSequenceValues(this.#connection),
      definitions: await readDefinitions(this.#connection),
      countedUntil,
      ...await readCounting(this.#connection),
      uncovered,
    };
  }
}

function definitionsOf({ definitions, takenAt }: SegmentHeader): KnownDefinitions | null {
  return definitions === undefined ? null : { ...definitions, takenAt };
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
