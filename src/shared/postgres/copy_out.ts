import type pg from "pg";
import type { CopyResult } from "./connection.ts";

/** One `COPY … TO STDOUT` as the driver runs it. Its data never comes here: the framer takes it before the parser. */
export class CopyOut {
  /** Resolves when the session is ready again; rejects with the driver's error. */
  readonly result: Promise<CopyResult>;
  readonly #text: string;
  #resolve: (result: CopyResult) => void = () => {};
  #reject: (error: unknown) => void = () => {};
  #rows = 0;

  constructor(text: string) {
    this.#text = text;
    this.result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  submit(connection: pg.Connection): void {
    connection.query(this.#text);
  }

  handleCommandComplete(message: { readonly text: string }): void {
    this.#rows = copiedRows(message.text);
  }

  handleReadyForQuery(): void {
    this.#resolve({ rows: this.#rows });
  }

  handleError(error: unknown): void {
    this.#reject(error);
  }

  handleCopyData(): void {}
  handleRowDescription(): void {}
  handleDataRow(): void {}
  handlePortalSuspended(): void {}
  handleEmptyQuery(): void {}
  handleCopyInResponse(connection: pg.Connection & { sendCopyFail(message: string): void }): void {
    connection.sendCopyFail("COPY TO was expected");
  }
}

/** Rows from a command tag such as `COPY 12`. */
export function copiedRows(tag: string): number {
  return Number(/^COPY (\d+)$/.exec(tag)?.[1] ?? 0);
}
