/** Rows of a quiet table of a server, in pieces of a bounded size. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { quoteIdent } from "../../schema/quote.ts";
import type { MomentTable } from "./moment_tables.ts";
import type { PastPiece, RowFilter } from "./past.ts";
import { exactPart } from "./row_filter_condition.ts";

/** A piece is no larger, unless it is one row. */
const pieceBytes = 16 * 1024 * 1024;

/** Places of rows in a heap as one number: a block has fewer line pointers than this, whatever its size. */
const itemsPerBlock = 4096;
const mostBlocks = 1024;

/**
 * The rows that may fit `filter`, which the server applies. `connection`: of `openSession`; nobody writes to
 * the table meanwhile. Errors: those of the connection.
 */
export async function* readMoment(
  connection: Connection,
  { table, columns, heaps }: MomentTable,
  filter: RowFilter,
  after: string | null = null,
): AsyncGenerator<PastPiece> {
  const [firstHeap = 0, firstPlace = 0] = after === null ? [] : after.split(":").map(Number);
  const condition = await prepareFilter(connection, table.columns, columns, filter);
  if (condition === null) return;
  const list = columns.map(({ name }) => `t.${quoteIdent(name)}`).join(", ");
  for (const [index, heap] of heaps.entries()) {
    if (index < firstHeap) continue;
    const [size] = await connection.query(
      `select (pg_catalog.pg_relation_size($1::pg_catalog.regclass)
         / pg_catalog.current_setting('block_size')::bigint)::text as blocks`,
      [heap],
    );
    const end = Number(size?.["blocks"]) * itemsPerBlock;
    let step = mostBlocks * itemsPerBlock;
    for (let from = index === firstHeap ? firstPlace : 0; from < end;) {
      const to = Math.min(end, from + step);
      const range = `t.ctid >= '${tid(from)}' and t.ctid < '${tid(to)}'`;
      const piece = await copyPiece(
        connection,
        `copy (select ${list} from only ${heap} as t where ${range} and (${condition})) to stdout`,
        step === 1 ? Number.POSITIVE_INFINITY : pieceBytes,
      );
      if (piece === null) {
        step = Math.max(1, Math.floor(step / 4));
        continue;
      }
      from = to;
      yield { rows: piece, end: `${index}:${from}`, looked: piece.byteLength };
      if (piece.byteLength < pieceBytes / 8) step = Math.min(step * 2, mostBlocks * itemsPerBlock);
    }
  }
}

function tid(place: number): string {
  return `(${Math.floor(place / itemsPerBlock)},${place % itemsPerBlock})`;
}

class TooMuch extends Error {}

/** Null: it is more than `most` bytes. */
async function copyPiece(connection: Connection, statement: string, most: number): Promise<Uint8Array | null> {
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    await connection.copyOut(statement, (bytes) => {
      length += bytes.byteLength;
      if (length > most) throw new TooMuch();
      parts.push(bytes.slice());
    });
  } catch (error) {
    if (error instanceof TooMuch) return null;
    throw error;
  }
  const [only] = parts;
  if (only !== undefined && parts.length === 1) return only;
  const piece = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    piece.set(part, at);
    at += part.byteLength;
  }
  return piece;
}

/**
 * The condition in SQL, on `t`; null: no row can fit. What is looked for goes into temporary tables of the session, as
 * text: a value of another type is no error then.
 */
async function prepareFilter(
  connection: Connection,
  types: readonly { readonly type: string }[],
  columns: MomentTable["columns"],
  filter: RowFilter,
): Promise<string | null> {
  if (filter === null) return "true";
  const parts = filter.map((condition) => exactPart(columns, condition)).filter(({ tuples }) => tuples.length > 0);
  if (parts.length === 0) return null;
  if (parts.some(({ fields }) => fields.length === 0)) return "true";
  // Sets that are hashed have to fit; a value takes some 100 bytes.
  await connection.execute("set work_mem = '256MB'");
  const conditions: string[] = [];
  for (const [index, { fields, tuples }] of parts.entries()) {
    const wanted = `pg_temp.wanted_${index}`;
    const names = fields.map((_, at) => `v${at}`);
    await connection.execute(
      `create temporary table wanted_${index} (${names.map((name) => `${name} text`).join(", ")})`,
    );
    await connection.copyIn(`copy ${wanted} from stdin`, encodeTuples(tuples));
    const texts = fields.map((field) => textOf(columns[field]?.name, types[field]?.type));
    conditions.push(`(${texts.join(", ")}) in (select ${names.join(", ")} from ${wanted})`);
  }
  return conditions.join(" or ");
}

/** Values at once in memory, as text. */
const tuplesPerPart = 10_000;

function* encodeTuples(tuples: readonly (readonly string[])[]): Generator<Uint8Array> {
  const encoder = new TextEncoder();
  for (let at = 0; at < tuples.length; at += tuplesPerPart) {
    yield encoder.encode(tuples.slice(at, at + tuplesPerPart).map((parts) => `${parts.join("\t")}\n`).join(""));
  }
}

/** As COPY writes it, before escapes. */
function textOf(name: string | undefined, type: string | undefined): string {
  if (name === undefined) throw new HoldfastError("internal", "a filter looks at a field that is not there");
  const column = `t.${quoteIdent(name)}`;
  return type === "boolean" ? `case ${column} when true then 't' when false then 'f' end` : `${column}::text`;
}
