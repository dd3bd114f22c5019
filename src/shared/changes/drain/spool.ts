/** A transaction larger than a leg can hold: spooled whole by one statement of the server, drained part by part. */
import type { Budget } from "../../backup/budget.ts";
import { HoldfastError } from "../../errors.ts";
import type { SegmentName } from "../../format/layout.ts";
import type { Log } from "../../log.ts";
import type { Connection } from "../../postgres/connection.ts";
import { chainOver, unreadable } from "./chain_end.ts";
import { Collector, CollectorFull } from "./collect.ts";
import { PeekReader } from "./peek_reader.ts";
import { call, type Chain, type LastSegment, streamError } from "./stream_queries.ts";
import type { Taken } from "./taken.ts";

export interface SpoolDeps {
  readonly connection: Connection;
  readonly log: Log;
  /** The drain's lease. */
  readonly token: string;
  readonly chain: Chain;
  /** Records of one part. */
  readonly segmentBytes: number;
  readonly ownBucket: string | null;
  readonly budget: Budget;
  /** Bytes of the records of a part that another drainer put and did not record; null where there is none. */
  readonly sizeOfPart: (segment: SegmentName) => Promise<number | null>;
}

export class Spool {
  readonly #deps: SpoolDeps;

  constructor(deps: SpoolDeps) {
    this.#deps = deps;
  }

  async hasRows(): Promise<boolean> {
    const [row] = await call(this.#deps.connection, "select exists (select from backup.spool) as yes", []);
    return row?.["yes"] === "t";
  }

  async clear(): Promise<void> {
    await call(this.#deps.connection, "truncate backup.spool", []);
  }

  /** The first transaction behind the slot, whole, into `backup.spool`: no leg would ever see the end of it otherwise. */
  async fill(): Promise<void> {
    const { connection, log, token, chain } = this.#deps;
    log.info("drain.spooling", { chain: chain.id });
    await call(connection, "select backup.spool_transaction($1::bigint, $2::name, $3::name[])", [
      token,
      chain.slot,
      `{${chain.publications.join(",")}}`,
    ]).catch(async (error: unknown) => {
      throw await unreadable(connection, chain, error);
    });
    log.step("drain.spooled", { chain: chain.id });
  }

  /**
   * The next part behind `last`; null where all of it is stored, and the spool empty now. `horizonLsn`: what lies before
   * it is durable. Errors: `stream_busy` where the chain had to end, `row_too_large`, those of the connection.
   */
  async take(last: LastSegment | null, horizonLsn: bigint): Promise<Taken | null> {
    const { connection, chain } = this.#deps;
    // An unlogged table is empty after a crash; the same transaction is decoded to the same rows.
    if (!(await this.hasRows())) await this.fill();
    const goesOn = last?.endsInTransaction === true ? last : null;
    const reached = last?.endLsn ?? chain.startLsn;
    const from = goesOn?.spoolPosition ?? "0";
    const endLsn = await this.#endLsn();
    if (goesOn === null && endLsn <= reached) {
      // Stored to its end by a drainer that died before it had emptied the spool.
      await this.clear();
      return null;
    }
    if (goesOn !== null && endLsn !== goesOn.endLsn) {
      throw await chainOver(connection, chain, "a transaction that was being stored is not in the slot any more");
    }
    const part = goesOn === null ? 0 : goesOn.part + 1;
    const startLsn = goesOn?.startLsn ?? reached;
    const cap = await this.#deps.sizeOfPart({ chain: chain.id, startLsn, endLsn, part });
    const { records, facts, position, full } = await this.#collect(from, cap ?? this.#deps.segmentBytes);
    return {
      records,
      facts,
      endLsn,
      part,
      endsInTransaction: full,
      spoolPosition: String(position),
      isEnd: !full && endLsn >= horizonLsn,
    };
  }

  /** What follows a row of the spool, up to the cap; `position`: the last row that is in it. */
  async #collect(from: string, capBytes: number) {
    const { ownBucket, budget } = this.#deps;
    const collector = new Collector(capBytes, ownBucket);
    await this.#copy(`s.position <= ${from} and pg_catalog.get_byte(s.data, 0) = 82`, (_lsn, _xid, data) => {
      collector.learn(data);
    });
    let position = BigInt(from);
    let full = false;
    try {
      await this.#copy(`s.position > ${from}`, (lsn, xid, data) => {
        collector.add(lsn, xid, data);
        position++;
      });
    } catch (error) {
      if (!(error instanceof CollectorFull)) throw streamError(error);
      full = true;
    }
    const { records, facts } = collector.everything();
    budget.spendText(Number(position - BigInt(from)), records.length);
    if (full && position === BigInt(from)) {
      throw new HoldfastError("row_too_large", "a single change is larger than a segment of this drainer may be", {
        hint: "Drain with the CLI: `holdfast incremental`.",
      });
    }
    return { records, facts, position, full };
  }

  async #copy(where: string, onRow: (lsn: bigint, xid: number, data: Uint8Array) => void): Promise<void> {
    const reader = new PeekReader(onRow);
    await this.#deps.connection.copyOut(
      `copy (select s.lsn, s.xid, s.data from backup.spool as s where ${where} order by s.position)
         to stdout (format binary)`,
      (bytes) => reader.push(bytes),
    );
    reader.end();
  }

  /** The end of the last commit in the spool. */
  async #endLsn(): Promise<bigint> {
    const [row] = await call(
      this.#deps.connection,
      `select pg_catalog.encode(s.data, 'hex') as data from backup.spool as s
        where pg_catalog.get_byte(s.data, 0) = 67 order by s.position desc limit 1`,
      [],
    );
    const hex = row?.["data"] ?? "";
    // Commit: 'C', flags, position of the commit, end of the transaction.
    if (hex.length < 36) throw new HoldfastError("internal", "the spool holds no commit");
    return BigInt(`0x${hex.slice(20, 36)}`);
  }
}
