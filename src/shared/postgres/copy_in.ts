import type pg from "pg";
import type { CopyResult } from "./connection.ts";
import { copiedRows } from "./copy_out.ts";

/** Largest CopyData message we send; the server joins them, so the size shapes nothing but the write buffer. */
const messageBytes = 256 * 1024;
const copyData = 0x64;
const headerBytes = 5;

type Wire = pg.Connection & { sendCopyFail(message: string): void; endCopyFrom(): void };

/**
 * One `COPY … FROM STDIN` as the driver runs it. One message is filled and written again and again, so that a gigabyte
 * of rows leaves no garbage of its own.
 * When the source throws, the statement fails on the server and `result` rejects with the source's own error.
 */
export class CopyIn {
  readonly result: Promise<CopyResult>;
  readonly #text: string;
  readonly #source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
  readonly #map: (error: unknown) => unknown;
  #resolve: (result: CopyResult) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #rows = 0;
  #over = false;
  #sourceFailure: { readonly error: unknown } | null = null;
  #wake: (() => void) | null = null;

  constructor(
    text: string,
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    map: (error: unknown) => unknown,
  ) {
    this.#text = text;
    this.#source = source;
    this.#map = map;
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  submit(connection: pg.Connection): void {
    connection.query(this.#text);
  }

  handleCopyInResponse(connection: Wire): void {
    this.#pump(connection).catch((error) => {
      this.#sourceFailure = { error };
      if (!this.#over) connection.sendCopyFail("the source failed");
    });
  }

  handleCommandComplete(message: { readonly text: string }): void {
    this.#rows = copiedRows(message.text);
  }

  handleReadyForQuery(): void {
    this.#end();
    this.#resolve({ rows: this.#rows });
  }

  handleError(error: unknown): void {
    this.#end();
    this.#reject(this.#sourceFailure === null ? this.#map(error) : this.#sourceFailure.error);
  }

  handleCopyData(): void {}
  handleRowDescription(): void {}
  handleDataRow(): void {}
  handlePortalSuspended(): void {}
  handleEmptyQuery(): void {}

  async #pump(connection: Wire): Promise<void> {
    const message = new Uint8Array(headerBytes + messageBytes);
    for await (const bytes of this.#source) {
      for (let at = 0; at < bytes.length; at += messageBytes) {
        if (this.#over) return;
        const part = bytes.subarray(at, at + messageBytes);
        message[0] = copyData;
        new DataView(message.buffer).setUint32(1, part.length + 4);
        message.set(part, headerBytes);
        await this.#written(connection, message.subarray(0, headerBytes + part.length));
      }
      if (this.#over) return;
    }
    if (!this.#over) connection.endCopyFrom();
  }

  /** Resolves when the socket has let go of the bytes, or when the statement is over. */
  #written(connection: Wire, bytes: Uint8Array): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
      connection.stream.write(bytes, () => {
        this.#wake = null;
        resolve();
      });
    });
  }

  #end(): void {
    this.#over = true;
    this.#wake?.();
  }
}
