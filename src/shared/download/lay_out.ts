/** Puts a download into its bucket, part by part, and goes on with one that another process began. */
import type { Budget } from "../backup/budget.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import {
  type DownloadLease,
  type DownloadPart,
  type DownloadRow,
  failDownload,
  type PutParts,
  recordDownload,
} from "../jobs/download_queries.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import type { DownloadBucket } from "./bucket.ts";
import type { Contents, Step } from "./contents.ts";

export interface LayOutDeps {
  readonly connection: Connection;
  readonly bucket: Pick<DownloadBucket, "prepare" | "put" | "read">;
  readonly log: Log;
}

export interface LayOutOptions {
  readonly budget: Budget;
  readonly leaseSeconds: number;
  /** Most bytes of a part; the memory that is taken. */
  readonly partBytes: number;
  readonly signal?: AbortSignal;
  /** Bytes of the file so far. */
  readonly onProgress?: (bytes: number) => void;
  /** Sees every byte of the file in order, where it is laid out by one process. */
  readonly onBytes?: (bytes: Uint8Array) => void;
}

/**
 * Lays out `contents` from the row's mark on; all parts, one after the other, are the file. They are cut where they are full,
 * or half full where a leg ended; one that a leg left with less is gone on with, so that a small file is one part however
 * little each leg had time for. What was put and not recorded is put again under the same name.
 * `rest`: the budget is spent and work is left. `whole`: all of it lies there, and the caller says so.
 * Errors: `lease_lost`, `cancelled`, `object_damaged` where the bucket does not give what was put, those of the contents
 * and of Storage.
 */
export async function layOut(
  { connection, bucket, log }: LayOutDeps,
  lease: DownloadLease,
  row: Pick<DownloadRow, "id" | "parts" | "mark" | "bytes">,
  contents: Contents,
  options: LayOutOptions,
): Promise<"whole" | "rest"> {
  await bucket.prepare();
  const parts = await Parts.after(bucket, row, options.partBytes);
  const from = row.mark === null ? null : contents.markSchema.parse(row.mark);
  let written = row.bytes;
  for await (const step of contents.steps(from)) {
    if (options.signal?.aborted === true) throw cancelled();
    const bytes = await parts.take(step, options.onBytes);
    written += bytes;
    options.onProgress?.(written);
    options.budget.spendText(step.rows, step.read + bytes);
    const over = options.budget.spent();
    if (!over && !parts.isWorthRecording) continue;
    const put = await parts.flush();
    options.budget.spendCalls(2 * put.parts.length + 1);
    await recordDownload(connection, lease, put, step.mark(), options.leaseSeconds);
    log.step("download.recorded", { download: row.id, parts: put.parts.length });
    if (over) return "rest";
  }
  await recordDownload(connection, lease, await parts.finish(), null, options.leaseSeconds);
  return "whole";
}

function cancelled(): HoldfastError {
  return new HoldfastError("cancelled", "the download was cancelled");
}

/** Writes the failure down, unless somebody else has the download now. Returns the failure. */
export async function failLaidOut(
  connection: Connection,
  lease: DownloadLease,
  error: unknown,
): Promise<HoldfastError> {
  const failure = asHoldfastError(error);
  if (failure.code !== "lease_lost") await failDownload(connection, lease, failure);
  return failure;
}

type PartsBucket = Pick<DownloadBucket, "put" | "read">;

class Parts {
  readonly #bucket: PartsBucket;
  readonly #folder: string;
  readonly #buffer: Uint8Array;
  #length = 0;
  /** How many were recorded and stay as they are. */
  #kept: number;
  #put: DownloadPart[] = [];

  private constructor(bucket: PartsBucket, folder: string, kept: number, partBytes: number) {
    this.#bucket = bucket;
    this.#folder = folder;
    this.#kept = kept;
    this.#buffer = new Uint8Array(partBytes);
  }

  /** Behind those of the row, the last of which it goes on with where a leg left it less than half full. */
  static async after(
    bucket: PartsBucket,
    row: Pick<DownloadRow, "id" | "parts">,
    partBytes: number,
  ): Promise<Parts> {
    const last = row.parts.at(-1);
    if (last === undefined || last.bytes >= partBytes / 2) {
      return new Parts(bucket, row.id, row.parts.length, partBytes);
    }
    const parts = new Parts(bucket, row.id, row.parts.length - 1, partBytes);
    // A leg that was killed may have put more into it than it recorded.
    const begun = (await bucket.read(last.object)).subarray(0, last.bytes);
    if (await sha256Hex(begun) !== last.sha256) {
      throw new HoldfastError("object_damaged", `the part ${last.object} of the download is not what was put`);
    }
    parts.#buffer.set(begun);
    parts.#length = begun.byteLength;
    return parts;
  }

  /** Parts that lie there unrecorded, or half of one: more would be done again after a kill. */
  get isWorthRecording(): boolean {
    return this.#put.length > 0 || this.#length >= this.#buffer.byteLength / 2;
  }

  /** Returns how many bytes the step had. */
  async take(step: Step<unknown>, onBytes?: (bytes: Uint8Array) => void): Promise<number> {
    let taken = 0;
    for (const piece of step.pieces) {
      onBytes?.(piece);
      taken += piece.byteLength;
      for (let at = 0; at < piece.byteLength;) {
        const some = piece.subarray(at, at + this.#buffer.byteLength - this.#length);
        this.#buffer.set(some, this.#length);
        this.#length += some.byteLength;
        at += some.byteLength;
        if (this.#length === this.#buffer.byteLength) await this.#putPart();
      }
    }
    return taken;
  }

  /** Puts what is left; returns all that was put since the last time, and behind how many. */
  async flush(): Promise<PutParts> {
    if (this.#length > 0) await this.#putPart();
    const put = { kept: this.#kept, parts: this.#put };
    this.#kept += put.parts.length;
    this.#put = [];
    return put;
  }

  /** The last of them. A file without a byte is a part too: there is something to link to. */
  async finish(): Promise<PutParts> {
    if (this.#kept + this.#put.length === 0 && this.#length === 0) await this.#putPart();
    return await this.flush();
  }

  async #putPart(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#length);
    const number = this.#kept + this.#put.length + 1;
    const object = `${this.#folder}/${String(number).padStart(6, "0")}`;
    const sha256 = await sha256Hex(bytes);
    await this.#bucket.put(object, bytes);
    this.#put.push({ object, bytes: bytes.byteLength, sha256 });
    this.#length = 0;
  }
}
