import { Buffer } from "node:buffer";
import type { Client, Connection } from "pg";

export type Value = string | number | null;

const bytesAtOnce = 4 * 1024 * 1024;

/** Sends rows by COPY in statements of about 4 MiB, which also bounds the memory they take here. */
export async function copyRows(
  client: Client,
  table: string,
  columns: readonly string[],
  rows: Iterable<readonly Value[]>,
): Promise<number> {
  const statement = `copy ${table} (${columns.join(", ")}) from stdin`;
  let text = "";
  let count = 0;
  for (const row of rows) {
    text += row.map(field).join("\t") + "\n";
    count++;
    if (text.length >= bytesAtOnce) {
      await copyText(client, statement, text);
      text = "";
    }
  }
  if (text !== "") await copyText(client, statement, text);
  return count;
}

function field(value: Value): string {
  if (value === null) return "\\N";
  if (typeof value === "number") return String(value);
  return value.replace(/[\\\t\n\r]/g, (sign) => escapes[sign] ?? sign);
}

const escapes: Readonly<Record<string, string>> = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r" };

/** The protocol messages of a COPY that `pg` has but its types leave out. */
interface CopyConnection extends Connection {
  query(text: string): void;
  sendCopyFromChunk(bytes: Buffer): void;
  endCopyFrom(): void;
}

/** One `COPY … FROM STDIN`, in the shape that `pg` asks of a query object. */
function copyText(client: Client, statement: string, text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    let failure: Error | undefined;
    client.query({
      submit: (connection: Connection) => (connection as CopyConnection).query(statement),
      handleCopyInResponse: (connection: CopyConnection) => {
        connection.sendCopyFromChunk(Buffer.from(text));
        connection.endCopyFrom();
      },
      handleCommandComplete: () => {},
      handleError: (error: Error) => {
        failure = error;
        reject(error);
      },
      handleReadyForQuery: () => {
        if (failure === undefined) resolve();
      },
    });
  });
}
