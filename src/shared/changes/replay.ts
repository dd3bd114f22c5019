/** Transactions of a chain's segments into a restored target, in commit order, exactly once. */
import { HoldfastError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { quoteLiteral, quoteQualified } from "../schema/quote.ts";
import { RowGroup } from "./apply_rows.ts";
import { DdlTransaction, readDdlRow } from "./ddl_replay.ts";
import { momentOf } from "./moment.ts";
import { formatLsn } from "./lsn.ts";
import type { Begin, Insert, Relation } from "./messages.ts";
import { decodeMessage } from "./pgoutput.ts";
import { type OpenedSegment, readRecords } from "./segment.ts";
import { ddlLog } from "./streamed.ts";
import { type SnapshotView, widenXid } from "./visibility.ts";

/** Where a replay ends. */
export type Point =
  /** Microseconds since 1970, UTC: the last commit before the first one that is later. */
  | { readonly by: "time"; readonly at: bigint }
  /** The last commit whose record begins before it. */
  | { readonly by: "lsn"; readonly lsn: bigint }
  /** The last commit before that of this transaction, 64 bits. */
  | { readonly by: "before_xid"; readonly xid: bigint }
  /** All that the segments hold. */
  | { readonly by: "end" };

export interface ReplayOptions {
  readonly point: Point;
  readonly snapshot: SnapshotView;
  /** End of the last transaction that an earlier call has committed to the target. */
  readonly from: bigint | null;
  /** Tables (`schema.name`, quoted where needed) of which no change is applied. */
  readonly leaveOut: ReadonlySet<string>;
  readonly signal?: AbortSignal;
  /** Called after each transaction of the target. */
  readonly onGroup?: (done: { readonly transactions: number; readonly changes: number }) => void;
  /** The statement that notes, in the same transaction of the target, how far it is. */
  readonly markPosition: (endLsn: bigint, committedAt: string) => string;
}

export interface Replayed {
  readonly reachedLsn: string | null;
  readonly reachedAt: string | null;
  /** Applied by this call. */
  readonly transactions: number;
  readonly inserted: number;
  readonly updated: number;
  readonly deleted: number;
  /** A commit behind the point was seen, so that nothing before it can be missing. */
  readonly passedPoint: boolean;
  /** Tables that were left out because their rows could not be known from some place on. */
  readonly closed: ReadonlyMap<string, string>;
}

/** Some 10 MB of values in memory; larger groups are hardly faster. */
const groupChanges = 20_000;
const groupBytes = 24 * 1024 * 1024;

/**
 * `segments` come in the order of the chain, each opened and checked against the one before, and end with a whole
 * transaction. `connection`: a session of
 * `openSession` with `session_replication_role = replica`, in no transaction.
 * Errors: `ddl_not_replayable`, `tables_uncovered`, `counts_differ`, `cancelled`, those of the connection; the target then
 * holds whole transactions up to its mark, and the same call goes on.
 */
export async function replay(
  connection: Connection,
  segments: AsyncIterable<OpenedSegment>,
  log: Log,
  options: ReplayOptions,
): Promise<Replayed> {
  const replayer = new Replayer(connection, log, options);
  for await (const segment of segments) {
    if (!(await replayer.take(segment))) break;
  }
  await replayer.finish();
  return replayer.result();
}

class Replayer {
  readonly #connection: Connection;
  readonly #log: Log;
  readonly #options: ReplayOptions;
  readonly #relations = new Map<number, Relation>();
  readonly #group = new RowGroup();
  readonly #closed = new Map<string, string>();
  #inTransaction = false;
  #begin: Begin | null = null;
  #skips = false;
  #ddl: DdlTransaction | null = null;
  #pending: { readonly endLsn: bigint; readonly committedAt: bigint } | null = null;
  #reached: { readonly endLsn: bigint; readonly committedAt: bigint } | null = null;
  #pendingTransactions = 0;
  #transactions = 0;
  #counts = { inserted: 0, updated: 0, deleted: 0 };
  #passed = false;

  constructor(connection: Connection, log: Log, options: ReplayOptions) {
    this.#connection = connection;
    this.#log = log;
    this.#options = options;
  }

  /** False once the point is passed. */
  async take(segment: OpenedSegment): Promise<boolean> {
    const nextXid = BigInt(segment.header.nextXid);
    for (const { data } of readRecords(segment.name, segment.records)) {
      const message = decodeMessage(data);
      switch (message.kind) {
        case "begin":
          this.#begin = message;
          this.#skips = this.#isDone(message, widenXid(message.xid, nextXid));
          if (!this.#skips && this.#isPast(message, widenXid(message.xid, nextXid))) {
            this.#passed = true;
            return false;
          }
          break;
        case "relation":
          if (this.#columnsChange(message.relation)) await this.#apply();
          this.#relations.set(message.relation.oid, message.relation);
          break;
        case "insert":
        case "update":
        case "delete": {
          if (this.#skips) break;
          const relation = this.#relationOf(message.relation, segment.name);
          if (relation.schema === ddlLog.schema && relation.name === ddlLog.name) {
            if (message.kind === "insert") await this.#applyDdl(relation, message);
          } else if (!this.#isLeftOut(relation)) {
            this.#group.add(relation, message);
            // A transaction may be larger than memory; it is committed as one all the same.
            if (this.#group.bytes >= groupBytes) await this.#apply();
          }
          break;
        }
        case "truncate": {
          if (this.#skips) break;
          const relations = message.relations.map((oid) => this.#relations.get(oid))
            .filter((one): one is Relation => one !== undefined && !this.#isLeftOut(one));
          if (relations.length > 0) this.#group.truncate(relations, message);
          break;
        }
        case "commit":
          await this.#commit(message.endLsn, message.committedAt);
          break;
        default:
          break;
      }
    }
    return true;
  }

  async finish(): Promise<void> {
    await this.#commitGroup();
  }

  result(): Replayed {
    return {
      reachedLsn: this.#reached === null ? null : formatLsn(this.#reached.endLsn),
      reachedAt: this.#reached === null ? null : momentOf(this.#reached.committedAt),
      transactions: this.#transactions,
      ...this.#counts,
      passedPoint: this.#passed,
      closed: this.#closed,
    };
  }

  #isDone(begin: Begin, xid: bigint): boolean {
    const { from, snapshot } = this.#options;
    return (from !== null && begin.commitLsn < from) || snapshot.sees(xid);
  }

  #isPast(begin: Begin, xid: bigint): boolean {
    const { point } = this.#options;
    switch (point.by) {
      case "time":
        return begin.committedAt > point.at;
      case "lsn":
        return begin.commitLsn >= point.lsn;
      case "before_xid":
        return xid === point.xid;
      case "end":
        return false;
    }
  }

  #relationOf(oid: number, segment: string): Relation {
    const relation = this.#relations.get(oid);
    if (relation === undefined) {
      throw new HoldfastError("object_damaged", `segment ${segment} names an unknown relation`);
    }
    return relation;
  }

  #isLeftOut(relation: Relation): boolean {
    const name = quoteQualified(relation.schema, relation.name);
    if (this.#options.leaveOut.has(name)) return true;
    const reason = this.#closed.get(name);
    if (reason === undefined) return false;
    throw new HoldfastError("tables_uncovered", `${name} cannot be followed past ${this.#place()}: ${reason}`);
  }

  #columnsChange(relation: Relation): boolean {
    const known = this.#relations.get(relation.oid);
    return known !== undefined && JSON.stringify(known) !== JSON.stringify(relation);
  }

  async #commit(endLsn: bigint, committedAt: bigint): Promise<void> {
    const hadDdl = this.#ddl !== null;
    this.#ddl = null;
    this.#begin = null;
    if (this.#skips) return;
    this.#pending = { endLsn, committedAt };
    this.#pendingTransactions++;
    // A label that was added to an enum can be used by the next transaction only.
    if (hadDdl || this.#group.changes >= groupChanges || this.#group.bytes >= groupBytes) await this.#commitGroup();
  }

  async #open(): Promise<void> {
    if (this.#inTransaction) return;
    await this.#connection.execute("begin");
    this.#inTransaction = true;
  }

  /** What is gathered, into the target's open transaction. */
  async #apply(): Promise<void> {
    if (this.#group.changes === 0) return;
    await this.#open();
    const counts = await this.#guarded(() => this.#group.apply(this.#connection));
    this.#group.clear();
    this.#counts = {
      inserted: this.#counts.inserted + counts.inserted,
      updated: this.#counts.updated + counts.updated,
      deleted: this.#counts.deleted + counts.deleted,
    };
  }

  async #commitGroup(): Promise<void> {
    const pending = this.#pending;
    if (pending === null) return;
    if (this.#options.signal?.aborted === true) {
      await this.#rollback();
      throw new HoldfastError("cancelled", "the replay was cancelled");
    }
    const changes = this.#group.changes;
    await this.#apply();
    await this.#open();
    await this.#guarded(async () => {
      await this.#connection.execute(
        this.#options.markPosition(pending.endLsn, momentOf(pending.committedAt) ?? ""),
      );
      await this.#connection.execute("commit");
    });
    this.#inTransaction = false;
    this.#log.step("replay.group", { transactions: this.#pendingTransactions });
    this.#transactions += this.#pendingTransactions;
    this.#pendingTransactions = 0;
    this.#reached = pending;
    this.#pending = null;
    this.#options.onGroup?.({ transactions: this.#transactions, changes });
  }

  async #applyDdl(relation: Relation, message: Insert): Promise<void> {
    const values = new Map(relation.columns.map((column, index) => {
      const value = message.row[index];
      return [column.name, typeof value === "string" ? value : null] as const;
    }));
    const row = readDdlRow(values);
    const step = (this.#ddl ??= new DdlTransaction()).next(row);
    switch (step.do) {
      case "nothing":
        return;
      case "close":
        for (const table of step.tables) this.#closed.set(table, `${step.names} computed its values anew`);
        return;
      case "refuse":
        throw new HoldfastError(
          "ddl_not_replayable",
          `${step.names} at ${this.#place()} cannot be replayed: ${step.why}`,
        );
      case "run":
        await this.#apply();
        await this.#open();
        await this.#runDdl(step.statements, step.names);
        this.#log.step("replay.ddl", { tag: row.tag });
    }
  }

  async #runDdl(statements: readonly string[], names: string): Promise<void> {
    try {
      for (const statement of statements) await this.#connection.execute(statement);
    } catch (error) {
      await this.#rollback();
      const sqlstate = sqlstateOf(error);
      if (sqlstate === null) throw error;
      throw new HoldfastError(
        "ddl_not_replayable",
        `${names} at ${this.#place()} was refused by the target (SQLSTATE ${sqlstate})`,
        { cause: error },
      );
    }
  }

  async #guarded<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      await this.#rollback();
      throw error;
    }
  }

  async #rollback(): Promise<void> {
    this.#inTransaction = false;
    // A session that is gone has rolled back already.
    await this.#connection.execute("rollback").catch(() => {});
  }

  #place(): string {
    const begin = this.#begin;
    return begin === null ? "its start" : `${formatLsn(begin.commitLsn)} (${momentOf(begin.committedAt)})`;
  }
}

/** For `markPosition`: the one row of a target's replay. */
export function positionStatement(table: string): ReplayOptions["markPosition"] {
  return (endLsn, committedAt) =>
    `update ${table} set position = ${quoteLiteral(formatLsn(endLsn))}, reached_at = ${quoteLiteral(committedAt)}`;
}
