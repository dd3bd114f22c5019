/** Puts a download into its bucket, part by part, and goes on with one that another process began. */
import type { Budget } from "../backup/budget.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import {
  type DownloadLease,
  type DownloadPart,
  type DownloadRow,
  failDownload,
  recordDownload,
} from "../jobs/download_queries.ts";
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import type { DownloadBucket } from "./bucket.ts";
import type { Contents, Step } from "./contents.ts";

export interface LayOutDeps {
  readonly connection: Connection;
  readonly bucket: Pick<DownloadBucket, "prepare" | "put">;
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
 * Lays out `contents` from the row's mark on; parts are cut where they are full, so that all of them, one after the other,
 * are the file. What was put and not recorded is put again under the same name.
 * `rest`: the budget is spent and work is left. `whole`: all of it lies there, and the caller says so.
 * Errors: `lease_lost`, `cancelled`, those of the contents and of Storage.
 */
export async function layOut(
  { connection, bucket, log }: LayOutDeps,
  lease: DownloadLease,
  row: Pick<DownloadRow, "id" | "parts" | "mark" | "bytes">,
  contents: Contents,
  options: LayOutOptions,
): Promise<"whole" | "rest"> {
  await bucket.prepare();
  const parts = new Parts(bucket, row.id, row.parts.length, options.partBytes);
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
    options.budget.spendCalls(2 * put.length + 1);
    await recordDownload(connection, lease, put, step.mark(), options.leaseSeconds);
    log.step("download.recorded", { download: row.id, parts: put.length });
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

class Parts {
  readonly #bucket: Pick<DownloadBucket, "put">;
  readonly #folder: string;
  readonly #buffer: Uint8Array;
  #length = 0;
  #number: number;
  #put: DownloadPart[] = [];

  constructor(bucket: Pick<DownloadBucket, "put">, folder: string, before: number, partBytes: number) {
    this.#bucket = bucket;
    this.#folder = folder;
    this.#number = before;
    this.#buffer = new Uint8Array(partBytes);
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

  /** Puts what is left; returns all that was put since the last time. */
  async flush(): Promise<DownloadPart[]> {
    if (this.#length > 0) await this.#putPart();
    const put = this.#put;
    this.#put = [];
    return put;
  }

  /** The last of them. A file without a byte is a part too: there is something to link to. */
  async finish(): Promise<DownloadPart[]> {
    if (this.#number === 0 && this.#length === 0) await this.#putPart();
    return await this.flush();
  }

  async #putPart(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#length);
    const object = `${this.#folder}/${String(++this.#number).padStart(6, "0")}`;
    const sha256 = await sha256Hex(bytes);
    await this.#bucket.put(object, bytes);
    this.#put.push({ object, bytes: bytes.byteLength, sha256 });
    this.#length = 0;
  }
}
