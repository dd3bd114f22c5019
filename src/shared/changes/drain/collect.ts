/** Messages of the slot → the records of one segment: what nobody needs is left out, and the end lies behind a commit. */
import { decodeMessage, messageKind, relationOf } from "../decode/pgoutput.ts";
import type { Commit, Relation } from "../decode/messages.ts";
import { RecordBuffer } from "../segments/segment.ts";
import { ddlLog, isStreamedSchema } from "../segments/streamed.ts";

/** Thrown by `add` when the cap is reached. It never leaves this folder. */
export class CollectorFull extends Error {
  override readonly name = "CollectorFull";
}

/** What stands in the records up to some message. */
export interface Collected {
  readonly bytes: number;
  readonly transactions: number;
  readonly changes: number;
  /** Of them, rows of `storage.objects` that came from our own puts. */
  readonly ownObjects: number;
  /** Ids of rows of `storage.objects` that came or changed otherwise, with repetitions. */
  readonly files: readonly string[];
  readonly ddl: number;
  readonly firstCommitAt: bigint | null;
  readonly lastCommitAt: bigint | null;
}

const nothing: Collected = {
  bytes: 0,
  transactions: 0,
  changes: 0,
  ownObjects: 0,
  files: [],
  ddl: 0,
  firstCommitAt: null,
  lastCommitAt: null,
};

/** What becomes of the rows of a relation. */
type Fate = "kept" | "ddl" | "left_out";

export class Collector {
  readonly #records = new RecordBuffer();
  readonly #capBytes: number;
  readonly #fates = new Map<number, Fate>();
  readonly #ownBucket: string | null;
  #storageObjects: Relation | null = null;
  #now: Collected = nothing;
  #atCommit: Collected = nothing;
  /** Those of `Collected`, behind the last commit too. */
  readonly #files: string[] = [];
  #filesAtCommit = 0;
  #lastCommit: Commit | null = null;
  #begin: { readonly lsn: bigint; readonly xid: number; readonly data: Uint8Array } | null = null;

  /** `ownBucket`: where backups go in this project's own Storage; null: they go elsewhere. */
  constructor(capBytes: number, ownBucket: string | null) {
    this.#capBytes = capBytes;
    this.#ownBucket = ownBucket;
  }

  /** The last commit that was seen, left out or not; null: none yet. */
  get lastCommit(): Commit | null {
    return this.#lastCommit;
  }

  /** Bytes of all records, those behind the last commit too. */
  get bytes(): number {
    return this.#records.length;
  }

  /** Up to the last commit. */
  wholeTransactions(): { readonly records: Uint8Array; readonly facts: Collected } {
    const facts = { ...this.#atCommit, files: this.#files.slice(0, this.#filesAtCommit) };
    return { records: this.#records.bytes().subarray(0, this.#atCommit.bytes), facts };
  }

  /** All of it, where a transaction is cut on purpose. */
  everything(): { readonly records: Uint8Array; readonly facts: Collected } {
    return { records: this.#records.bytes(), facts: { ...this.#now, files: this.#files } };
  }

  /** A relation that was told before: only what becomes of its rows is noted. */
  learn(data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind !== "relation") return;
    this.#fates.set(message.relation.oid, fateOf(message.relation));
    this.#knowFiles(message.relation);
  }

  /** Takes the view's bytes. `CollectorFull` once there is more than the cap; that message is not taken. */
  add(lsn: bigint, xid: number, data: Uint8Array): void {
    if (this.#records.length > 0 && this.#records.length + data.length > this.#capBytes) throw new CollectorFull();
    switch (messageKind(data)) {
      case "begin":
        // Kept only once a change of it is: most transactions of the platform leave nothing behind here.
        this.#begin = { lsn, xid, data: new Uint8Array(data) };
        return;
      case "commit":
        return this.#commit(lsn, xid, data);
      case "relation":
        return this.#relation(lsn, xid, data);
      case "insert":
      case "update":
      case "delete":
        return this.#change(lsn, xid, data);
      case "truncate":
        return this.#truncate(lsn, xid, data);
      default:
        // Types are the target's own; origins and messages of others mean nothing to a restore.
        return;
    }
  }

  #commit(lsn: bigint, xid: number, data: Uint8Array): void {
    const commit = decodeMessage(data);
    if (commit.kind !== "commit") return;
    this.#lastCommit = commit;
    const empty = this.#begin !== null;
    this.#begin = null;
    if (!empty) {
      this.#append(lsn, xid, data);
      this.#now = {
        ...this.#now,
        transactions: this.#now.transactions + 1,
        firstCommitAt: this.#now.firstCommitAt ?? commit.committedAt,
        lastCommitAt: commit.committedAt,
      };
    }
    this.#atCommit = this.#now;
    this.#filesAtCommit = this.#files.length;
  }

  #relation(lsn: bigint, xid: number, data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind !== "relation") return;
    const fate = fateOf(message.relation);
    this.#fates.set(message.relation.oid, fate);
    this.#knowFiles(message.relation);
    // Sent once a session: it has to stand before the first change of the table, in whichever transaction that is.
    if (fate !== "left_out") this.#keep(lsn, xid, data);
  }

  #knowFiles(relation: Relation): void {
    if (relation.schema === "storage" && relation.name === "objects") this.#storageObjects = relation;
  }

  #change(lsn: bigint, xid: number, data: Uint8Array): void {
    const fate = this.#fates.get(relationOf(data) ?? -1);
    if (fate === "left_out") return;
    this.#keep(lsn, xid, data);
    this.#now = fate === "ddl" ? { ...this.#now, ddl: this.#now.ddl + 1 } : {
      ...this.#now,
      changes: this.#now.changes + 1,
      ownObjects: this.#now.ownObjects + (this.#noteFile(data) ? 1 : 0),
    };
  }

  /** True for a put into our own bucket: it makes a row, which is a change, which would make a put: for ever. */
  #noteFile(data: Uint8Array): boolean {
    const relation = this.#storageObjects;
    if (relation === null || relationOf(data) !== relation.oid) return false;
    const message = decodeMessage(data);
    if (message.kind !== "insert" && message.kind !== "update") return false;
    const valueOf = (column: string) => message.row[relation.columns.findIndex(({ name }) => name === column)];
    if (this.#ownBucket !== null && valueOf("bucket_id") === this.#ownBucket) return true;
    const id = valueOf("id");
    if (typeof id === "string") this.#files.push(id);
    return false;
  }

  #truncate(lsn: bigint, xid: number, data: Uint8Array): void {
    const message = decodeMessage(data);
    if (message.kind !== "truncate") return;
    if (message.relations.every((oid) => this.#fates.get(oid) === "left_out")) return;
    this.#keep(lsn, xid, data);
    this.#now = { ...this.#now, changes: this.#now.changes + 1 };
  }

  #keep(lsn: bigint, xid: number, data: Uint8Array): void {
    if (this.#begin !== null) {
      this.#append(this.#begin.lsn, this.#begin.xid, this.#begin.data);
      this.#begin = null;
    }
    this.#append(lsn, xid, data);
  }

  #append(lsn: bigint, xid: number, data: Uint8Array): void {
    this.#records.append(lsn, xid, data);
    this.#now = { ...this.#now, bytes: this.#records.length };
  }
}

function fateOf({ schema, name }: { readonly schema: string; readonly name: string }): Fate {
  if (schema === ddlLog.schema && name === ddlLog.name) return "ddl";
  return isStreamedSchema(schema) ? "kept" : "left_out";
}
