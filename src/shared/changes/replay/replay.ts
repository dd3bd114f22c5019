/** Transactions of a chain's segments into a restored target, in commit order, exactly once. */
import { HoldfastError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { quoteQualified } from "../../schema/quote.ts";
import { type Counts, RowGroup, type TargetRules } from "./apply_rows.ts";
import { type DdlRow, type DdlStep, DdlTransaction, readDdlRow } from "../definitions/ddl_replay.ts";
import { momentOf } from "../decode/moment.ts";
import { formatLsn } from "../decode/lsn.ts";
import type { Begin, Insert, Relation, Truncate } from "../decode/messages.ts";
import { decodeMessage } from "../decode/pgoutput.ts";
import { type DefinitionOptions, DefinitionReplayer, type DefinitionRules } from "../definitions/replay_definitions.ts";
import { type OpenedSegment, readRecords } from "../segments/segment.ts";
import { ddlLog } from "../segments/streamed.ts";
import { type SnapshotView, widenXid } from "../segments/visibility.ts";
import { type LabelRename, RenamedLabels } from "../plan/renamed_labels.ts";
import { LabelNames } from "./label_names.ts";
import { TargetRelations } from "./target_relations.ts";

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

export interface ReplayOptions extends DefinitionOptions {
  readonly point: Point;
  readonly snapshot: SnapshotView;
  /** Of the full backup, as they were called in it. */
  readonly tables: Iterable<{ readonly oid: number; readonly schema: string; readonly name: string }>;
  /** End of the last transaction that an earlier call has committed to the target. */
  readonly from: bigint | null;
  /** Tables of which no change is applied: by their oids at the source, and by name (`schema.name`, quoted where needed). */
  readonly leaveOut: { readonly oids: ReadonlySet<number>; readonly names: ReadonlySet<string> };
  /** Default: the target takes everything as the stream has it. */
  readonly rules?: ReplayRules;
  readonly signal?: AbortSignal;
  /** Called after each transaction of the target. */
  readonly onGroup?: (done: { readonly transactions: number; readonly changes: number }) => void;
  /** The statement that notes, in the same transaction of the target, how far it is and what came with it. */
  readonly markPosition: (endLsn: bigint, committedAt: string, done: ReplayedGroup) => string;
}

export interface ReplayedGroup extends Counts {
  readonly transactions: number;
}

export interface ReplayRules extends TargetRules, DefinitionRules {}

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
  readonly #relations: TargetRelations;
  readonly #labels = new RenamedLabels();
  readonly #labelNames = new LabelNames(this.#labels);
  readonly #group: RowGroup;
  /** By oid, or by name where the log does not tell it. */
  readonly #closed = new Map<number | string, string>();
  #inTransaction = false;
  #begin: Begin | null = null;
  #skips = false;
  /** The full backup has it. */
  #isInFull = false;
  #ddl: DdlTransaction | null = null;
  readonly #definitions: DefinitionReplayer;
  #pending: { readonly endLsn: bigint; readonly committedAt: bigint } | null = null;
  #reached: { readonly endLsn: bigint; readonly committedAt: bigint } | null = null;
  #pendingTransactions = 0;
  #transactions = 0;
  #counts = noCounts;
  #pendingCounts = noCounts;
  #passed = false;

  constructor(connection: Connection, log: Log, options: ReplayOptions) {
    this.#connection = connection;
    this.#log = log;
    this.#options = options;
    this.#relations = new TargetRelations(options.tables);
    this.#group = new RowGroup(options.rules);
    this.#definitions = new DefinitionReplayer(connection, log, options);
  }

  /** False once the point is passed. */
  async take(segment: OpenedSegment): Promise<boolean> {
    const nextXid = BigInt(segment.header.nextXid);
    for (const { data, lsn } of readRecords(segment.name, segment.records)) {
      const message = decodeMessage(data);
      switch (message.kind) {
        case "begin":
          this.#begin = message;
          this.#isInFull = this.#options.snapshot.sees(widenXid(message.xid, nextXid));
          this.#skips = this.#isInFull || this.#isDone(message);
          if (!this.#skips && this.#isPast(message, widenXid(message.xid, nextXid))) {
            this.#passed = true;
            return false;
          }
          this.#definitions.begin(message.commitLsn);
          break;
        case "relation":
          if (this.#relations.tell(message.relation)) await this.#apply();
          break;
        case "insert":
        case "update":
        case "delete": {
          if (this.#skips) {
            if (message.kind === "insert") this.#passDdl(message);
            break;
          }
          const relation = this.#relationOf(message.relation, segment.name);
          if (isDdlLog(relation)) {
            if (message.kind === "insert") await this.#applyDdl(relation, message);
          } else if (!this.#isLeftOut(relation)) {
            await this.#makeEarly(relation.oid);
            await this.#callLabels(this.#labels.unseenBy(relation, lsn, this.#begin?.commitLsn ?? 0n));
            this.#group.add(relation, message);
            // A transaction may be larger than memory; it is committed as one all the same.
            if (this.#group.bytes >= groupBytes) await this.#apply();
          }
          break;
        }
        case "truncate": {
          if (!this.#skips) this.#truncate(message);
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
    };
  }

  #isDone(begin: Begin): boolean {
    const { from } = this.#options;
    return from !== null && begin.commitLsn < from;
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
    const { oids, names } = this.#options.leaveOut;
    if (oids.has(relation.oid) || names.has(name)) return true;
    const reason = this.#closed.get(relation.oid) ?? this.#closed.get(name);
    if (reason === undefined) return false;
    throw new HoldfastError("tables_uncovered", `${name} cannot be followed past ${this.#place()}: ${reason}`);
  }

  #truncate(message: Truncate): void {
    // Relations that are not known are of schemas that do not travel.
    const known = message.relations.map((oid) => this.#relations.get(oid)).filter((one) => one !== undefined);
    const relations = known.filter((one) => !this.#isLeftOut(one));
    if (relations.length === 0) return;
    this.#group.truncate(relations, message, relations.length === known.length);
  }

  /** Of a transaction that the target has already: what tables are called since, where the full backup does not know it. */
  #passDdl(message: Insert): void {
    const relation = this.#relations.get(message.relation);
    if (relation === undefined || !isDdlLog(relation)) return;
    const row = readDdlRow(valuesOf(relation, message));
    const step = (this.#ddl ??= new DdlTransaction()).next(row);
    this.#labels.follow(row, step, this.#begin?.commitLsn ?? 0n);
    if (!this.#isInFull) this.#relations.follow(row, step);
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
    const onTable = (table: string) => this.#log.step("replay.table", { table });
    const counts = await this.#guarded(() => this.#group.apply(this.#connection, onTable));
    this.#group.clear();
    this.#pendingCounts = sumOf(this.#pendingCounts, counts);
  }

  /** What is gathered has the labels of before. `unseen`: renames that what comes next does not know. */
  async #callLabels(unseen: readonly LabelRename[]): Promise<void> {
    if (this.#labelNames.areWithout(unseen)) return;
    await this.#apply();
    await this.#open();
    await this.#guarded(() => this.#labelNames.goWithout(this.#connection, unseen));
  }

  async #commitGroup(): Promise<void> {
    const pending = this.#pending;
    if (pending === null) return;
    if (this.#options.signal?.aborted === true) {
      await this.#rollback();
      throw new HoldfastError("cancelled", "the replay was cancelled");
    }
    const changes = this.#group.changes;
    await this.#callLabels([]);
    await this.#apply();
    await this.#open();
    await this.#guarded(async () => {
      await this.#connection.execute(
        this.#options.markPosition(pending.endLsn, momentOf(pending.committedAt) ?? "", {
          transactions: this.#pendingTransactions,
          ...this.#pendingCounts,
        }),
      );
      await this.#connection.execute("commit");
    });
    this.#inTransaction = false;
    this.#log.step("replay.group", { transactions: this.#pendingTransactions });
    this.#transactions += this.#pendingTransactions;
    this.#pendingTransactions = 0;
    this.#counts = sumOf(this.#counts, this.#pendingCounts);
    this.#pendingCounts = noCounts;
    this.#reached = pending;
    this.#pending = null;
    this.#options.onGroup?.({ transactions: this.#transactions, changes });
  }

  /** A table whose changes come before the row of the log that makes it. */
  async #makeEarly(oid: number): Promise<void> {
    const row = this.#definitions.takeUnborn(oid);
    if (row !== null) await this.#runDdl(row, { do: "define", dropped: new Set(), names: row.tag });
  }

  async #applyDdl(relation: Relation, message: Insert): Promise<void> {
    const row = readDdlRow(valuesOf(relation, message));
    const step = (this.#ddl ??= new DdlTransaction()).next(row);
    if (this.#definitions.takes(row)) await this.#take(row, step);
    this.#labels.follow(row, step, this.#begin?.commitLsn ?? 0n);
    // What is gathered goes by the names of before.
    if (this.#relations.follow(row, step)) await this.#apply();
  }

  async #take(row: DdlRow, step: DdlStep): Promise<void> {
    switch (step.do) {
      case "nothing":
        return;
      case "close":
        for (const { name, oid } of step.tables) {
          this.#closed.set(oid ?? name, `${step.names} computed its values anew`);
        }
        return;
      case "refuse":
        throw new HoldfastError(
          "ddl_not_replayable",
          `${step.names} at ${this.#place()} cannot be replayed: ${step.why}`,
        );
      case "define":
      case "run":
        await this.#runDdl(row, step);
    }
  }

  async #runDdl(row: DdlRow, step: Extract<DdlStep, { do: "run" | "define" }>): Promise<void> {
    await this.#callLabels([]);
    await this.#apply();
    await this.#open();
    try {
      await this.#definitions.apply(row, step);
    } catch (error) {
      await this.#rollback();
      const sqlstate = sqlstateOf(error);
      // Of class 53 are a full disk, a lack of memory or of sessions: no fault of the definition.
      if (sqlstate === null || sqlstate.startsWith("53")) throw error;
      throw new HoldfastError(
        "ddl_not_replayable",
        `${step.names} at ${this.#place()} was refused by the target (SQLSTATE ${sqlstate})`,
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
    this.#labelNames.rolledBack();
    // A session that is gone has rolled back already.
    await this.#connection.execute("rollback").catch(() => {});
  }

  #place(): string {
    const begin = this.#begin;
    return begin === null ? "its start" : `${formatLsn(begin.commitLsn)} (${momentOf(begin.committedAt)})`;
  }
}

function isDdlLog({ schema, name }: Relation): boolean {
  return schema === ddlLog.schema && name === ddlLog.name;
}

function valuesOf(relation: Relation, { row }: Insert): ReadonlyMap<string, string | null> {
  return new Map(relation.columns.map((column, index) => {
    const value = row[index];
    return [column.name, typeof value === "string" ? value : null] as const;
  }));
}

const noCounts: Counts = { inserted: 0, updated: 0, deleted: 0 };

function sumOf(a: Counts, b: Counts): Counts {
  return { inserted: a.inserted + b.inserted, updated: a.updated + b.updated, deleted: a.deleted + b.deleted };
}
