/** All calls of the SQL functions of `files` and `filing`. docs/architecture.md, "Files". */
import type { ObjectRecord } from "../backup/chunks_task.ts";
import { HoldfastError } from "../errors.ts";
import type { FilePart, ListedFile } from "../format/file_list.ts";
import { call } from "../jobs/call.ts";
import type { Task } from "../jobs/queries.ts";
import { text } from "../jobs/run_row.ts";
import type { Connection, Row } from "../postgres/connection.ts";

export interface FileBuckets {
  readonly copied: readonly string[];
  /** By the settings. */
  readonly leftOut: readonly string[];
}

/** Null where there is no Storage. */
export async function readFileBuckets(connection: Connection): Promise<FileBuckets | null> {
  const [row] = await call(
    connection,
    `select pg_catalog.to_jsonb(b.copied) as copied, pg_catalog.to_jsonb(b.left_out) as left_out from backup.file_buckets() as b`,
    [],
  );
  const { copied, left_out: leftOut } = row ?? {};
  if (typeof copied !== "string" || typeof leftOut !== "string") return null;
  return { copied: JSON.parse(copied) as string[], leftOut: JSON.parse(leftOut) as string[] };
}

/** Files in these buckets now. There is a Storage. */
export async function countFiles(connection: Connection, buckets: readonly string[]): Promise<number> {
  const [row] = await call(
    connection,
    `select count(*) as files from storage.objects as o
      where o.bucket_id in (select b.id from pg_catalog.jsonb_array_elements_text($1::jsonb) as b (id))`,
    [JSON.stringify(buckets)],
  );
  return Number(row?.["files"]);
}

/** Rows of storage.buckets as JSON text, of the project's own buckets. There is a Storage. */
export async function readBucketRows(connection: Connection, buckets: readonly string[]): Promise<string[]> {
  const rows = await call(
    connection,
    `select pg_catalog.to_jsonb(b) as bucket from storage.buckets as b
      where b.id in (select x.id from pg_catalog.jsonb_array_elements_text($1::jsonb) as x (id)) order by b.id`,
    [JSON.stringify(buckets)],
  );
  return rows.map((row) => text(row, "bucket"));
}

/** In a transaction that sees the run's snapshot. How many files it shows. */
export async function listFiles(connection: Connection, run: string, epoch: string): Promise<number> {
  const [row] = await call(connection, "select backup.list_files($1::uuid, $2) as files", [run, epoch]);
  return Number(row?.["files"]);
}

/** Files of a run whose ids begin alike. */
export interface FileGroup {
  /** Hex digits; a dash after eight of them. */
  readonly prefix: string;
  /** Bytes that have to be copied. */
  readonly bytes: number;
}

export async function readFileGroups(connection: Connection, run: string): Promise<FileGroup[]> {
  const rows = await call(connection, "select g.prefix, g.bytes from backup.file_groups($1::uuid) as g", [run]);
  return rows.map((row) => ({ prefix: text(row, "prefix"), bytes: Number(row["bytes"]) }));
}

/** Objects that hold files under that epoch. */
export async function countBlobs(connection: Connection, epoch: string): Promise<number> {
  const [row] = await call(
    connection,
    "select count(*) as blobs from backup.objects as o where o.kind = 'blob' and o.epoch = $1",
    [epoch],
  );
  return Number(row?.["blobs"]);
}

/** A version of a file that has to be copied. */
export interface FileToCopy {
  readonly id: string;
  readonly version: string;
  readonly bucket: string;
  readonly name: string;
  readonly size: number | null;
  readonly etag: string | null;
  /** Parts and bytes that are copied already. */
  readonly parts: number;
  readonly done: number;
}

/** What became of a stretch of a file: its parts from `first` on, and whether these were the last; or that Storage does not give it. */
export type CopiedFile =
  & { readonly object_id: string; readonly version: string }
  & (
    | { readonly first: number; readonly parts: readonly ObjectRecord[]; readonly complete: boolean }
    | { readonly unreadable: true }
  );

/** Files that have to be copied, as a worker goes through them under its lease. Errors of all: `lease_lost`. */
export interface FilesToCopy {
  /** Empty: nothing is left to be copied. */
  readonly next: (most: number) => Promise<FileToCopy[]>;
  /** Counts for what has not changed meanwhile. Errors: `object_going`. */
  readonly record: (copied: readonly CopiedFile[]) => Promise<void>;
  /** Objects whose locks have to be renewed, by the ids of their files; a file may have none. Empty: nothing is left. */
  readonly nextHolds: (most: number) => Promise<{ readonly id: string; readonly object: string | null }[]>;
  readonly recordHolds: (ids: readonly string[]) => Promise<void>;
}

/** What a worker calls for the task that it has under its lease. */
export class FileTask implements FilesToCopy {
  readonly #connection: Connection;
  readonly #lease: readonly string[];

  constructor(connection: Connection, task: Task) {
    this.#connection = connection;
    this.#lease = [task.id, task.token];
  }

  /** All that was read in the snapshot was read, and the definitions are still the same. */
  async settle(): Promise<void> {
    await this.#call("select backup.settle_attempt($1::bigint, $2::bigint)", []);
  }

  /** Copies of which the complete listing lacks something are forgotten; how many objects it lacks. */
  async look(
    store: string,
    prefix: string,
    listed: readonly { readonly name: string; readonly size: number }[],
  ): Promise<number> {
    const [row] = await this.#call(
      "select backup.look_at_copies($1::bigint, $2::bigint, $3, $4, $5::text[], $6::bigint[]) as lost",
      [
        store,
        prefix,
        `{${listed.map((each) => each.name).join(",")}}`,
        `{${listed.map((each) => each.size).join(",")}}`,
      ],
    );
    return Number(row?.["lost"]);
  }

  async next(most: number): Promise<FileToCopy[]> {
    const rows = await this.#call("select * from backup.next_files($1::bigint, $2::bigint, $3::integer)", [
      String(most),
    ]);
    return rows.map(fileToCopy);
  }

  async record(copied: readonly CopiedFile[]): Promise<void> {
    await this.#call("select backup.record_files($1::bigint, $2::bigint, $3::jsonb)", [JSON.stringify(copied)]);
  }

  async nextHolds(most: number): Promise<{ readonly id: string; readonly object: string | null }[]> {
    const rows = await this.#call("select * from backup.next_holds($1::bigint, $2::bigint, $3::integer)", [
      String(most),
    ]);
    return rows.map(objectToHold);
  }

  async recordHolds(ids: readonly string[]): Promise<void> {
    await this.#call("select backup.record_holds($1::bigint, $2::bigint, $3::uuid[])", [`{${ids.join(",")}}`]);
  }

  /** Once nothing is left to be copied. Errors: `object_going`; `object_missing` where a copy was lost meanwhile. */
  async toList(): Promise<ListedFile[]> {
    return (await this.#call("select * from backup.files_to_list($1::bigint, $2::bigint)", [])).map(listedFile);
  }

  async #call(statement: string, values: readonly string[]) {
    return await call(this.#connection, statement, [...this.#lease, ...values]);
  }
}

/** What changed since the last full backup, for the drainer that has the drain's lease; each call renews it. */
export class FileQueue implements FilesToCopy {
  readonly #connection: Connection;
  readonly #token: string;
  readonly #epoch: string;

  constructor(connection: Connection, token: string, epoch: string) {
    this.#connection = connection;
    this.#token = token;
    this.#epoch = epoch;
  }

  async next(most: number): Promise<FileToCopy[]> {
    const rows = await call(
      this.#connection,
      "select * from backup.next_queued($1::bigint, $2, $3::integer)",
      [this.#token, this.#epoch, String(most)],
    );
    return rows.map(fileToCopy);
  }

  async record(copied: readonly CopiedFile[]): Promise<void> {
    await call(this.#connection, "select backup.record_queued($1::bigint, $2, $3::jsonb)", [
      this.#token,
      this.#epoch,
      JSON.stringify(copied),
    ]);
  }

  async nextHolds(most: number): Promise<{ readonly id: string; readonly object: string | null }[]> {
    const rows = await call(this.#connection, "select * from backup.next_queued_holds($1::bigint, $2::integer)", [
      this.#token,
      String(most),
    ]);
    return rows.map(objectToHold);
  }

  async recordHolds(ids: readonly string[]): Promise<void> {
    await call(this.#connection, "select backup.record_queued_holds($1::bigint, $2::uuid[])", [
      this.#token,
      `{${ids.join(",")}}`,
    ]);
  }

  /**
   * Some of those that were copied, in the order of their ids; `lsn`: where the log is now. Null: none is left. Errors:
   * `object_going`, `object_missing` as for a task.
   */
  async toList(most: number): Promise<{ readonly files: readonly QueuedFile[]; readonly lsn: string } | null> {
    const rows = await call(this.#connection, "select * from backup.queued_to_list($1::bigint, $2::integer)", [
      this.#token,
      String(most),
    ]);
    const [first] = rows;
    if (first === undefined) return null;
    const files = rows.map((row) => ({ listed: listedFile(row), version: text(row, "version") }));
    return { files, lsn: text(first, "lsn") };
  }

  /** The list was put and read back: its files leave the queue. */
  async recordList(list: FileListRow, files: readonly QueuedFile[]): Promise<void> {
    const listed = files.map(({ listed: { id }, version }) => ({ object_id: id, version }));
    await call(this.#connection, "select backup.record_file_list($1::bigint, $2::jsonb, $3::jsonb)", [
      this.#token,
      JSON.stringify(list),
      JSON.stringify(listed),
    ]);
  }
}

export interface QueuedFile {
  readonly listed: ListedFile;
  readonly version: string;
}

/** As `record_file_list` takes it. */
export interface FileListRow {
  readonly name: string;
  readonly chain_id: string;
  readonly lsn: string;
  readonly files: number;
  readonly stored_bytes: number;
  readonly stored_hash: string;
  readonly epoch: string;
}

/** How many files wait to be copied or listed. */
export async function countQueued(connection: Connection): Promise<number> {
  const [row] = await call(connection, "select backup.queued_files() as files", []);
  return Number(row?.["files"]);
}

/** After a drain: alerts of the queue, and their ends. `failure`: what kept files from being copied. Errors: `lease_lost`. */
export async function tellQueue(connection: Connection, token: string, failure: HoldfastError | null): Promise<void> {
  await call(connection, "select backup.tell_queue($1::bigint, $2::jsonb)", [
    token,
    failure === null ? null : JSON.stringify({ code: failure.code, message: failure.message }),
  ]);
}

function fileToCopy(row: Row): FileToCopy {
  return {
    id: text(row, "object_id"),
    version: text(row, "version"),
    bucket: text(row, "bucket"),
    name: text(row, "name"),
    size: row["size"] === null ? null : Number(row["size"]),
    etag: row["etag"] ?? null,
    parts: Number(row["parts"]),
    done: Number(row["done"]),
  };
}

function objectToHold(row: Row): { readonly id: string; readonly object: string | null } {
  return { id: text(row, "object_id"), object: row["object"] ?? null };
}

function listedFile(row: Row): ListedFile {
  const parts = row["parts"] ?? null;
  const missed = (row["missed"] ?? null) as ListedFile["missed"];
  if (parts === null && missed === null) {
    throw new HoldfastError("object_missing", "the copy of a file was lost before it was listed", { retry: "backoff" });
  }
  return {
    bucket: text(row, "bucket"),
    name: text(row, "name"),
    id: text(row, "object_id"),
    size: row["size"] === null ? null : Number(row["size"]),
    inSnapshot: row["in_snapshot"] === "t",
    missed,
    parts: parts === null ? [] : JSON.parse(parts) as FilePart[],
    row: text(row, "file"),
  };
}
