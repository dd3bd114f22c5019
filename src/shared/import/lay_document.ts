/** Rows of a document beside the live ones: the server reads each value from its JSON, as the server has written it. */
import { removeFromSides } from "../erase/remove_erased.ts";
import type { Ledger } from "../erase/ledger.ts";
import { HoldfastError } from "../errors.ts";
import type { ExportDocument } from "../export/document_format.ts";
import type { Connection } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import type { TableName } from "../restore/project_rows.ts";
import type { PairDeps } from "../rows/beside/beside.ts";
import { type Condition, keepFitting, typeConditions } from "../rows/beside/conditions.ts";
import { fitTable, isUnfit } from "../rows/beside/fit.ts";
import type { Laid, LaidTable } from "../rows/beside/laid.ts";
import { readLiveTables } from "../rows/beside/live_tables.ts";
import { keptColumns } from "../rows/beside/service_tables.ts";
import { makeSideSchema, makeSideTable, sideNames, type SideTable } from "../rows/beside/side_tables.ts";
import { treatmentOf } from "../rows/ownership/auth_map.ts";
import { liveGraph } from "../rows/ownership/live_graph.ts";
import { nameOf } from "../rows/past/fold_partitions.ts";
import type { PastTable } from "../rows/past/past.ts";
import { dataOf } from "../schema/platform.ts";
import { quoteIdent, quoteLiteral } from "../schema/quote.ts";
import { type DocumentTable, readDocument, type SignedDocument } from "./read_document.ts";

/** Which rows of a document are wanted. */
export interface Selection {
  /** Null: all tables. */
  readonly only: readonly TableName[] | null;
  /** On rows of the one table of `only`; empty: all of them. */
  readonly where: readonly Condition[];
}

export interface LaidDocument {
  readonly document: ExportDocument;
  readonly laid: Laid;
  /** Tables whose rows no import brings, with the reason. */
  readonly leftOut: readonly { readonly table: string; readonly rows: number; readonly reason: string }[];
  /** Values that were taken out when the export was made, by table: they stay empty. */
  readonly redacted: readonly { readonly table: string; readonly values: number }[];
}

export interface LayDocumentDeps extends PairDeps {
  /** Of the store: whose rows do not come back. */
  readonly ledger: Ledger;
  readonly onRows: (rows: number) => Promise<void>;
}

/** JSON that is sent at a time; a single row may have more. */
const batchBytes = 4 * 1024 * 1024;
const lines = "pg_temp.holdfast_lines";

/**
 * Reads the document once. Errors: those of `readDocument`; `table_not_found` for one that is asked for and not in it;
 * `value_unfit`; `usage` for a condition on a column that is not there; those of the connection.
 */
export async function layDocument(
  deps: LayDocumentDeps,
  source: SignedDocument,
  selection: Selection,
  comment: string,
): Promise<LaidDocument> {
  const { connection, schema } = deps;
  await makeSideSchema(connection, schema, comment);
  await connection.execute(
    `drop table if exists ${lines}; create temporary table ${
      lines.slice(8)
    } (line json not null) on commit delete rows`,
  );
  const laying: Laying[] = [];
  const leftOut: { table: string; rows: number; reason: string }[] = [];
  let current: Laying | null = null;
  let rows = 0;
  let batch: Uint8Array[] = [];
  let bytes = 0;
  const flush = async () => {
    if (current !== null && batch.length > 0) await current.load(connection, batch);
    rows += batch.length;
    if (batch.length > 0) await deps.onRows(rows);
    batch = [];
    bytes = 0;
  };
  const document = await readDocument(source, {
    table: async (table) => {
      await flush();
      const reason = whyNot(table);
      const wanted = isWanted(selection, table);
      if (wanted && reason !== null) leftOut.push({ table: nameOfTable(table), rows: table.rowCount, reason });
      current = wanted && reason === null ? await Laying.begin(deps, table, laying) : null;
    },
    row: async (row) => {
      if (current === null) return;
      batch.push(row);
      bytes += row.byteLength;
      if (bytes >= batchBytes) await flush();
    },
  });
  await flush();
  requireFound(selection, document);
  const redacted: { table: string; values: number }[] = [];
  for (const { table, redactedValues } of laying) {
    if (redactedValues > 0) redacted.push({ table: nameOfTable(table), values: redactedValues });
  }
  const laid = await settle(deps, selection, laying);
  await connection.execute(`drop table ${lines}`);
  return { document, laid, leftOut, redacted };
}

function isWanted({ only }: Selection, { schema, table }: DocumentTable): boolean {
  return only === null || only.some((one) => one.schema === schema && one.name === table);
}

function nameOfTable({ schema, table }: { readonly schema: string; readonly table: string }): string {
  return nameOf({ schema, name: table });
}

/** Errors: `table_not_found`. */
function requireFound({ only }: Selection, { tables }: ExportDocument): void {
  for (const { schema, name } of only ?? []) {
    if (tables.some((table) => table.schema === schema && table.table === name)) continue;
    throw new HoldfastError("table_not_found", `the document has no rows of ${nameOf({ schema, name })}`, {
      hint: `It has rows of ${tables.map(nameOfTable).join(", ")}.`,
    });
  }
}

/** Null: its rows can come back. */
function whyNot({ schema, table }: DocumentTable): string | null {
  const { restore, why } = treatmentOf({ schema, name: table });
  if (restore === "rows") return null;
  return restore === "credentials" ? `${why} are in no export with what makes them work` : why;
}

/** One table of the document on its way into its side table. */
class Laying {
  readonly table: DocumentTable;
  readonly side: SideTable;
  redactedValues = 0;
  readonly #statement: string;

  private constructor(table: DocumentTable, side: SideTable, tokens: readonly string[]) {
    this.table = table;
    this.side = side;
    this.#statement = insertSql(table, side, tokens);
  }

  /** Makes the side table, and puts it behind the `others`. */
  static async begin(deps: PairDeps, table: DocumentTable, others: Laying[]): Promise<Laying> {
    const tokens = treatmentOf({ schema: table.schema, name: table.table }).tokens;
    const [live] = await readLiveTables(deps.connection, [{ schema: table.schema, name: table.table, oid: "0" }]);
    // What opens something once is in no export, and a service that finds nothing at all there fails.
    const empty = (live?.columns ?? []).filter(({ name }) =>
      tokens.includes(name) && !table.columns.some((column) => column.name === name)
    );
    const past = pastTableOf(table, empty);
    const fit = fitTable(past, live === undefined ? [] : [live], false);
    const types = new Map(isUnfit(fit) ? [] : fit.columns.map((column) => [column.past, column.liveType]));
    const name = sideNames([...others.map(({ side }) => side.past), past]).get(past) ?? past.name;
    const side = await makeSideTable(deps.connection, deps.schema, past, name, types);
    const laying = new Laying(table, side, empty.map(({ name: token }) => token));
    others.push(laying);
    return laying;
  }

  async load(connection: Connection, rows: readonly Uint8Array[]): Promise<void> {
    const counted = await inTransaction(connection, async () => {
      await connection.copyIn(`copy ${lines} (line) from stdin`, [copyText(rows)]);
      await connection.execute(this.#statement);
      const [row] = await connection.query(
        `select count(*) as n from ${lines} as l, pg_catalog.json_each_text(coalesce(l.line -> 'marks', '{}')) as m where m.value = 'redacted'`,
      );
      return Number(row?.["n"]);
    }).catch((error: unknown) => {
      throw unfit(error, this.table);
    });
    this.redactedValues += counted;
  }
}

function pastTableOf(
  { schema, table, columns, key, rowCount }: DocumentTable,
  tokens: readonly { readonly name: string; readonly type: string }[],
): PastTable {
  return {
    schema,
    name: table,
    oid: "0",
    columns: [
      ...[...columns, ...tokens].map(({ name, type }) => ({ name, type, attnum: 0 })),
    ],
    key,
    dataOwner: dataOf(schema, table, null).dataOwner,
    rows: rowCount,
    rawBytes: 0,
  };
}

/** SQL alone knows JSON's null from its own by the mark. */
function insertSql({ columns }: DocumentTable, side: SideTable, tokens: readonly string[]): string {
  const types = new Map(side.columns.map(({ name, type }) => [name, type]));
  const values = columns.map(({ name, form }) => {
    const value = `p.${quoteIdent(name)}`;
    if (form !== "json") return value;
    const mark = `l.line -> 'marks' ->> ${quoteLiteral(name)}`;
    return `case when ${mark} = 'json null' then 'null'::${types.get(name) ?? "text"} else ${value} end`;
  });
  const names = [...columns.map(({ name }) => name), ...tokens].map(quoteIdent);
  if (names.length === 0) return `insert into ${side.sql} select from ${lines}`;
  return `insert into ${side.sql} (${names.join(", ")})
    select ${[...values, ...tokens.map(() => "''")].join(", ")}
      from ${lines} as l, pg_catalog.json_populate_record(null::${side.sql}, l.line -> 'row') as p`;
}

const newline = 0x0a;
/** What COPY's text has to have written otherwise. Source: PostgreSQL documentation, COPY, "Text Format". */
const escapes: ReadonlyMap<number, number> = new Map([[0x5c, 0x5c], [newline, 0x6e], [0x0d, 0x72], [0x09, 0x74]]);

/** One line each. */
export function copyText(rows: readonly Uint8Array[]): Uint8Array {
  let size = rows.length;
  for (const row of rows) {
    size += row.byteLength;
    for (const byte of row) if (escapes.has(byte)) size++;
  }
  const text = new Uint8Array(size);
  let at = 0;
  for (const row of rows) {
    for (const byte of row) {
      const letter = escapes.get(byte);
      if (letter !== undefined) text[at++] = 0x5c;
      text[at++] = letter ?? byte;
    }
    text[at++] = newline;
  }
  return text;
}

/** Without the value, which the server's message may hold. */
function unfit(error: unknown, table: DocumentTable): unknown {
  if (!/^(22|23514|23502)/.test(sqlstateOf(error) ?? "")) return error;
  return new HoldfastError(
    "value_unfit",
    `a value of ${nameOfTable(table)} does not fit the type that its column has in this database`,
    { cause: error },
  );
}

/** What the ledger names goes, and of the rest what the conditions do not mean. */
async function settle(deps: LayDocumentDeps, { where }: Selection, laying: readonly Laying[]): Promise<Laid> {
  const { connection, ledger } = deps;
  const tables: LaidTable[] = [];
  await inTransaction(connection, async () => {
    await removeFromSides(connection, await liveGraph(connection), laying.map(({ side }) => side), ledger);
    for (const { side } of laying) {
      if (where.length > 0) {
        const types = new Map(side.columns.map(({ name, type }) => [name, type]));
        await keepFitting(connection, side, await typeConditions(connection, side.past, types, where));
      }
      const [row] = await connection.query(`select count(*) as n from ${side.sql}`);
      tables.push({ side, rows: Number(row?.["n"]), keep: keptColumns(treatmentOf(side.past), false) });
    }
  });
  return { tables, user: null };
}
