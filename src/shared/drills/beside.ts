/** A table or a record, as a drill brings it back: beside the live rows by the restore that people use, compared, and dropped. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { dropSide, readRestore } from "../jobs/restore_queries.ts";
import { hashChunks } from "../restore/chunk_hashes.ts";
import type { BackupContents } from "../restore/contents.ts";
import type { TableLoad } from "../restore/load.ts";
import { hashLeft, noProof, type ProofState } from "../restore/prove_steps.ts";
import { readContents } from "../restore/read_contents.ts";
import { hashRows, type RowHash } from "../restore/row_hash.ts";
import type { Validation } from "../restore/validate.ts";
import { applySettings } from "../schema/apply_settings.ts";
import { quoteQualified } from "../schema/quote.ts";
import { openBackup, type OpenedBackup, type ReadDeps } from "../verify/find_backup.ts";
import { readObject } from "../verify/read_object.ts";
import { conditionsOf, inTurn, keyOf, rowAt } from "./choose_rows.ts";
import type { BesideRequest, DrillDeps, DrillOptions } from "./deps.ts";
import { type DrillFacts, type DrillRow, earlierSubjects } from "./drill_queries.ts";

const rowHash = z.object({ rows: z.string(), sum: z.string(), xor: z.string() });

export const besideFormat = z.object({
  step: z.enum(["lay", "prove", "proven"]),
  store: z.string(),
  backup: z.object({ id: z.string(), consistentAt: z.string(), rows: z.number(), rawBytes: z.number() }),
  table: z.object({ schema: z.string(), name: z.string() }),
  /** Of the row that is wanted: its chunk, and its place there. Null: the whole table. No value stands here. */
  row: z.object({ chunk: z.number(), index: z.number() }).nullable(),
  key: z.array(z.string()),
  restore: z.string().nullable(),
  proof: z.object({
    tables: z.record(z.string(), z.object({ backup: rowHash.nullable(), target: rowHash })),
    part: z.object({ identity: z.string(), chunk: z.number(), hash: rowHash }).nullable(),
  }).nullable(),
});
export type BesideState = z.infer<typeof besideFormat>;

export interface BesideStep {
  readonly state: BesideState;
  readonly proof: Validation | null;
  readonly facts: DrillFacts;
  /** Somebody else works on it: look again after so long. */
  readonly waitSeconds?: number;
}

type Deps = Pick<DrillDeps, "connection" | "database" | "beside" | "log">;

/** Errors: those of `openBackup`; `table_not_found` where no table of the user's has rows, or for a record a primary key. */
export async function beginBeside(
  deps: Deps,
  read: ReadDeps,
  drill: DrillRow,
  scope: BesideRequest["scope"],
): Promise<BesideStep> {
  const backup = await openBackup(read, "latest");
  const { manifest } = backup;
  const contents = await readContents(read, backup);
  const shapes = new Map(contents.capture.tables.map((shape) => [shape.identity, shape]));
  const candidates = contents.tables.flatMap((content) => {
    const shape = shapes.get(content.identity);
    return shape === undefined || shape.dataOwner !== "user" || !shape.restoreData || content.rows === 0
      ? []
      : [{ shape, content }];
  });
  for (
    const { shape: { schema, name }, content } of inTurn(
      candidates,
      await earlierSubjects(deps.connection, drill.drill),
    )
  ) {
    const key = scope === "record" ? await keyOf(deps.connection, schema, name) : [];
    if (scope === "record" && (key.length === 0 || key.some((column) => !content.columns.includes(column)))) continue;
    const there = await deps.connection.query("select pg_catalog.to_regclass($1) is not null as yes", [
      quoteQualified(schema, name),
    ]);
    if (there[0]?.["yes"] !== "t") continue;
    const filled = content.chunks.flatMap((chunk, at) => chunk.rows > 0 ? [{ chunk: at, rows: chunk.rows }] : []);
    const turn = Number.parseInt(drill.id.slice(0, 8), 16);
    const chosen = filled[turn % filled.length];
    if (chosen === undefined) continue;
    return {
      state: {
        step: "lay",
        store: read.store.label,
        backup: {
          id: manifest.id,
          consistentAt: manifest.consistentAt,
          rows: manifest.totals.rows,
          rawBytes: manifest.tables.reduce((sum, table) => sum + table.rawBytes, 0),
        },
        table: { schema, name },
        row: scope === "record" ? { chunk: chosen.chunk, index: turn % chosen.rows } : null,
        key,
        restore: null,
        proof: null,
      },
      proof: null,
      facts: { backup: manifest.id, subject: quoteQualified(schema, name) },
    };
  }
  throw new HoldfastError(
    "table_not_found",
    scope === "record" ? "no table of the backup has rows and a primary key" : "no table of the backup has rows",
    { hint: "A drill of rows needs some: it takes another table each time." },
  );
}

const waitSeconds = 20;

/** The next step. Errors: those of the restore, as they are recorded with it. */
export async function besideOn(
  deps: Deps,
  read: ReadDeps,
  state: BesideState,
  keep: (state: BesideState) => Promise<void>,
  { budget, signal }: Pick<DrillOptions, "budget" | "signal">,
): Promise<BesideStep> {
  const { connection } = deps;
  const backup = await openBackup(read, state.backup.id);
  const contents = await readContents(read, backup);
  if (state.step === "lay") {
    const request = await requestOf(read, backup, contents, state);
    const restore = state.restore ?? await deps.beside.begin(connection, request);
    const begun = { ...state, restore };
    if (state.restore === null) await keep(begun);
    await deps.beside.work(connection, restore, request);
    const { status, errorCode, errorMessage } = await readRestore(connection, restore);
    if (status === "failed" || status === "cancelled") {
      throw new HoldfastError(
        "run_state",
        `restore ${restore} was ${status}: ${errorMessage ?? ""} (${errorCode ?? status})`,
      );
    }
    return status === "beside"
      ? { state: { ...begun, step: "prove", proof: noProof }, proof: null, facts: {} }
      : { state: begun, proof: null, facts: {}, waitSeconds };
  }
  const { proof, hashes } = await prove(deps, read, backup, contents, state, {
    budget,
    ...(signal === undefined ? {} : { signal }),
  });
  return { state: { ...state, step: proof === null ? "prove" : "proven", proof: hashes }, proof, facts: {} };
}

/** Nothing where it is gone already. Errors: `run_state` while it is in use. */
export async function dropBeside({ connection }: Pick<Deps, "connection">, { restore }: BesideState): Promise<void> {
  if (restore !== null) await dropSide(connection, restore);
}

function contentOf(contents: BackupContents, { schema, name }: BesideState["table"]) {
  const shape = contents.capture.tables.find((one) => one.schema === schema && one.name === name);
  const content = contents.tables.find((one) => one.identity === shape?.identity);
  if (content === undefined) throw new HoldfastError("internal", "the backup has lost a table");
  return content;
}

/** The key of the wanted row, read from its chunk: values stand nowhere but in the side schema. */
async function requestOf(
  read: ReadDeps,
  backup: OpenedBackup,
  contents: BackupContents,
  state: BesideState,
): Promise<BesideRequest> {
  const { table, row, key } = state;
  const request = { backup: state.backup.id, table };
  if (row === null) return { ...request, scope: "table", where: [] };
  const where = conditionsOf(contentOf(contents, table).columns, await wantedRow(read, backup, contents, state), key);
  if (where === null) throw new HoldfastError("object_damaged", "a primary key without a value stands in the backup");
  return { ...request, scope: "record", where };
}

async function wantedRow(
  read: ReadDeps,
  backup: OpenedBackup,
  contents: BackupContents,
  { table, row }: BesideState,
): Promise<Uint8Array> {
  const chunk = contentOf(contents, table).chunks[row?.chunk ?? 0];
  if (chunk === undefined || row === null) throw new HoldfastError("internal", "a drill has lost its row");
  const { object, rawBytes, hash } = chunk;
  return rowAt(
    await readObject({ ...read, epochOf: backup.epochOf }, { kind: "chunk", name: object, rawBytes, hash }),
    row.index,
  );
}

/** The rows beside against those of the backup: as many, and with the same contents. */
async function prove(
  { connection, database }: Deps,
  read: ReadDeps,
  backup: OpenedBackup,
  contents: BackupContents,
  state: BesideState,
  { budget, signal }: Pick<DrillOptions, "budget" | "signal">,
): Promise<{ readonly proof: Validation | null; readonly hashes: ProofState }> {
  const { sideSchema } = await readRestore(connection, state.restore ?? "");
  const content = contentOf(contents, state.table);
  const reading = await database.connect("holdfast:validate");
  const loading = await database.connect("holdfast:validate").catch(async (error: unknown) => {
    await reading.close();
    throw error;
  });
  try {
    for (const session of [reading, loading]) await session.execute(applySettings.join(";\n"));
    const found = await reading.query(
      `select c.relname as name, a.attname as column
         from pg_catalog.pg_class as c join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = pg_catalog.to_regnamespace($1) and c.relname in ($2, $3)`,
      [sideSchema, state.table.name, `${state.table.schema}.${state.table.name}`],
    );
    const name = found[0]?.["name"];
    if (name == null || sideSchema === null) {
      throw new HoldfastError("run_state", "the rows that were laid beside are gone");
    }
    const columns = new Set(found.map((row) => row["column"] ?? ""));
    const keep = content.columns.flatMap((column, index) => columns.has(column) ? [index] : []);
    const load: TableLoad = { ...content, schema: sideSchema, name, keep, rowFilter: null };
    const both = state.row === null
      ? await hashLeft(read, backup, { reading, loading }, [load], {
        state: state.proof ?? noProof,
        ...(signal === undefined ? {} : { signal }),
        onStep: ({ rows, bytes }) => {
          budget.spendText(2 * rows, 2 * bytes);
          return budget.spent();
        },
      })
      : await hashOne(load, await wantedRow(read, backup, contents, state), { reading, loading });
    if (!both.over) return { proof: null, hashes: both.state };
    const hashed = both.state.tables[load.identity];
    const [was, is] = [hashed?.backup ?? null, hashed?.target];
    const isSame = was !== null && was.rows === is?.rows && was.sum === is.sum && was.xor === is.xor;
    const differences = isSame ? [] : [{
      kind: "rows" as const,
      name: load.identity,
      detail: `backup: ${was?.rows ?? "unreadable"} rows | beside: ${is?.rows ?? "0"}${
        was?.rows === is?.rows ? ", with other contents" : ""
      }`,
    }];
    const lost = content.columns.filter((column) => !columns.has(column)).map((column) => ({
      identity: `column ${column} of ${load.identity}`,
      reason: "the live table does not have it any more",
    }));
    return {
      hashes: both.state,
      proof: {
        id: state.backup.id,
        ok: isSame,
        differences,
        notCompared: lost,
        tables: 1,
        rows: Number(is?.rows ?? 0),
        foreignKeys: 0,
        durationMs: 0,
      },
    };
  } finally {
    await Promise.all([reading.close(), loading.close()]);
  }
}

async function hashOne(
  load: TableLoad,
  row: Uint8Array,
  { reading, loading }: Parameters<typeof hashLeft>[2],
): Promise<{ readonly state: ProofState; readonly over: true }> {
  const chunk = { object: "", hash: "", rows: 1, rawBytes: row.byteLength };
  const backup: RowHash | null = await hashChunks(loading, { ...load, chunks: [chunk] }, {
    rowFilter: null,
    read: () => Promise.resolve(row),
    onChunk: () => {},
  });
  const columns = load.keep.map((index) => load.columns[index] ?? "");
  const target = await hashRows(reading, { schema: load.schema, name: load.name, columns, rowFilter: null });
  return { state: { tables: { [load.identity]: { backup, target } }, part: null }, over: true };
}
