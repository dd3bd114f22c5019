import type pg from "pg";
import type { CopyResult } from "./connection.ts";
import { copiedRows } from "./copy_out.ts";

/** Largest CopyData message we send; the server joins them, so the size shapes nothing but the write buffer. */
const messageBytes = 256 * 1024;

type Wire = pg.Connection & { sendCopyFail(message: string): void; endCopyFrom(): void };

/**
 * One `COPY … FROM STDIN` as the driver runs it. Never more than one message over the socket's own buffer is held.
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
    for await (const bytes of this.#source) {
      for (let at = 0; at < bytes.length; at += messageBytes) {
        if (this.#over) return;
        const part = bytes.subarray(at, at + messageBytes);
        if (!connection.stream.write(copyDataMessage(part))) await this.#drained(connection);
      }
      if (this.#over) return;
    }
    if (!this.#over) connection.endCopyFrom();
  }

  /** Resolves when the socket wants more, or when the statement is over. */
  #drained(connection: Wire): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        connection.stream.off("drain", wake);
        this.#wake = null;
        resolve();
      };
      this.#wake = wake;
      connection.stream.once("drain", wake);
    });
  }

  #end(): void {
    this.#over = true;
    this.#wake?.();
  }
}

/** A message of its own, since the socket may hold it after `write` returns and the source may reuse its bytes. */
function copyDataMessage(part: Uint8Array): Uint8Array {
  const message = new Uint8Array(part.length + 5);
  message[0] = 0x64;
  new DataView(message.buffer).setUint32(1, part.length + 4);
  message.set(part, 5);
  return message;
}
