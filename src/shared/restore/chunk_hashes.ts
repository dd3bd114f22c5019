/** What a table held by its backup: the chunks' rows, hashed by a server without a table of its own being changed. */
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { quoteIdent, quoteQualified } from "../schema/quote.ts";
import { projectCopyFields } from "../verify/copy_rows.ts";
import type { ContentChunk } from "./contents.ts";
import type { ChunkReader, TableLoad } from "./load.ts";
import { hashRows, type RowHash } from "./row_hash.ts";

const scratch = "holdfast_chunk";

/**
 * Loads chunk after chunk into a temporary table with the types of the target's columns, and hashes what is there: so text is
 * read as the target reads it, and at most one chunk takes room. Sums and exclusive ors of the chunks are those of the whole.
 * `rowFilter`: rows of the backup that count. Null: the rows do not fit the target's types.
 * Errors: those of `read`; `counts_differ` for a chunk with another number of rows; those of the connection.
 */
export async function hashChunks(
  connection: Connection,
  load: TableLoad,
  options: {
    readonly rowFilter: string | null;
    readonly read: ChunkReader;
    readonly onChunk: (chunk: ContentChunk) => void;
  },
): Promise<RowHash | null> {
  const columns = load.keep.map((index) => load.columns[index] ?? "");
  const names = columns.map(quoteIdent).join(", ");
  await connection.execute(
    `create temporary table ${scratch} on commit delete rows as
       select ${names} from only ${quoteQualified(load.schema, load.name)} where false`,
  );
  try {
    let [rows, sum, xor] = [0n, 0n, 0n];
    let following = readAhead(load.chunks[0], options.read);
    for (const [index, chunk] of load.chunks.entries()) {
      const bytes = await following;
      if (!(bytes instanceof Uint8Array)) throw bytes.error;
      following = readAhead(load.chunks[index + 1], options.read);
      const text = load.keep.length === load.columns.length
        ? bytes
        : projectCopyFields(bytes, load.columns.length, load.keep);
      const hash = await hashChunk(connection, load, { columns, text, chunk, rowFilter: options.rowFilter });
      if (hash === null) {
        await following;
        return null;
      }
      rows += BigInt(hash.rows);
      sum += BigInt(hash.sum);
      xor ^= BigInt(hash.xor);
      options.onChunk(chunk);
    }
    return { rows: String(rows), sum: String(sum), xor: String(xor) };
  } finally {
    await connection.execute(`drop table if exists pg_temp.${scratch}`).catch(() => {});
  }
}

/** Never rejects, since nobody may be waiting yet. */
async function readAhead(
  chunk: ContentChunk | undefined,
  read: ChunkReader,
): Promise<Uint8Array | { readonly error: unknown }> {
  if (chunk === undefined) return new Uint8Array();
  return await read(chunk).catch((error: unknown) => ({ error }));
}

async function hashChunk(
  connection: Connection,
  load: TableLoad,
  { columns, text, chunk, rowFilter }: {
    readonly columns: readonly string[];
    readonly text: Uint8Array;
    readonly chunk: ContentChunk;
    readonly rowFilter: string | null;
  },
): Promise<RowHash | null> {
  const list = columns.length === 0 ? "" : ` (${columns.map(quoteIdent).join(", ")})`;
  await connection.execute("begin");
  try {
    const { rows } = await connection.copyIn(`copy pg_temp.${scratch}${list} from stdin`, [text]);
    if (rows !== chunk.rows) {
      throw new HoldfastError("counts_differ", `${load.identity}: a chunk holds ${rows} rows, not ${chunk.rows}`);
    }
    const hash = await hashRows(connection, { schema: "pg_temp", name: scratch, columns, rowFilter });
    await connection.execute("commit");
    return hash;
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    if (/^(22|23)/.test(sqlstateOf(error) ?? "")) return null;
    throw error;
  }
}
