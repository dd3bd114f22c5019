/**
 * `validateBackup` for a database that nobody else works in, in steps that may lie hours and processes apart: what is hashed by now is
 * a value that the caller keeps. After a replay it also says what the change stream did since the backup.
 */
import { leftOutSchemas } from "../backup/tables.ts";
import type { Connection } from "../postgres/connection.ts";
import { applySettings } from "../schema/apply_settings.ts";
import type { Definition } from "../schema/capture_format.ts";
import { quoteQualified, splitQualified, unquoteIdent } from "../schema/quote.ts";
import { openBackup, type OpenedBackup } from "../verify/find_backup.ts";
import { readObject } from "../verify/read_object.ts";
import { hashChunks } from "./chunk_hashes.ts";
import type { BackupContents } from "./contents.ts";
import type { TableLoad } from "./load.ts";
import { checkForeignKeys } from "./orphans.ts";
import { otherWords } from "./other_words.ts";
import { planRestore, type RestorePlan } from "./plan.ts";
import { beginSide, type Difference, differencesOf, type ProveExpectations } from "./prove.ts";
import { readContents } from "./read_contents.ts";
import { hashRows, type RowHash } from "./row_hash.ts";
import { checkSignal } from "./sessions.ts";
import {
  factsAsBefore,
  filterOf,
  foreignKeysOff,
  prepareLoading,
  scopeOf,
  type ValidateDeps,
  type Validation,
} from "./validate.ts";

/** A table of which every row was hashed on both sides; `backup` is null where its rows do not fit the target's types. */
interface HashedTable {
  readonly backup: RowHash | null;
  readonly target: RowHash;
}

/** How far a proof is. Plain data. */
export interface ProofState {
  /** By the table's identity. */
  readonly tables: Readonly<Record<string, HashedTable>>;
  /** The table that is under way: its chunks before `chunk` have this hash together. */
  readonly part: { readonly identity: string; readonly chunk: number; readonly hash: RowHash } | null;
}

export const noProof: ProofState = { tables: {}, part: null };

/** What happened between the backup and the moment that the target shows. */
export interface ChangedSince {
  /** Rows that each table must have; null: nobody can say. By `schema.name`, quoted where needed; others are as in the backup. */
  readonly tables: ReadonlyMap<string, number | null>;
  /** Objects whose definitions changed, as the log of definitions names them. */
  readonly definitions: readonly string[];
  /** A change of definitions of which the log has no name, such as a GRANT. */
  readonly unnamed: boolean;
}

export interface ProofOptions {
  /** Null: the target shows the backup itself. */
  readonly changed: ChangedSince | null;
  readonly state: ProofState;
  readonly signal?: AbortSignal;
  /** After each chunk and each table; `true` ends this step. At least one chunk a step is done. */
  readonly onStep: (done: { readonly rows: number; readonly bytes: number; readonly rowsTotal: number }) => boolean;
}

/**
 * `proof` is null while steps are left. The target is not changed; the backup's rows pass through temporary tables there.
 * Errors: those of `validateBackup`.
 */
export async function proveInSteps(
  deps: ValidateDeps,
  id: string,
  options: ProofOptions,
): Promise<{ readonly state: ProofState; readonly proof: Validation | null }> {
  const startMs = deps.clock.monotonicMs();
  const backup = await openBackup(deps, id);
  const contents = await readContents(deps, backup);
  const reading = await deps.target.connect("holdfast:validate");
  const loading = await deps.target.connect("holdfast:validate").catch(async (error: unknown) => {
    await reading.close();
    throw error;
  });
  try {
    await reading.execute(applySettings.join(";\n"));
    await prepareLoading(loading);
    const plan = planRestore(contents, await factsAsBefore(reading, contents));
    const loads = await thereOf(reading, plan, options.changed);
    const { state, over } = await hashLeft(deps, backup, { reading, loading }, loads, options);
    if (!over) return { state, proof: null };
    const leaveOut = await leftOutSchemas(reading);
    const capture = await beginSide(reading, leaveOut);
    const scope = scopeOf(plan, capture, false);
    const seen = differencesOf(
      { capture: contents.capture, hashes: hashesOf(state, "backup") },
      { capture, hashes: hashesOf(state, "target") },
      // Sequences went on with the stream.
      { ...scope.expected, inPlace: options.changed !== null },
    );
    const counted = await countChanged(reading, options.changed, plan.kind);
    const keys = await checkForeignKeys(reading, leaveOut);
    const off = await foreignKeysOff(reading, leaveOut);
    await reading.execute("commit");
    const same = await otherWords(reading, contents.capture, capture, seen);
    const found = seen.filter(({ kind, name }) => kind !== "definition" || !same.has(name));
    const isChanged = changedBy(options.changed, [...contents.capture.definitions, ...capture.definitions]);
    const accessOf = otherAccess(contents, scope.expected);
    const isOther = (one: Difference) => accessOf(one) !== null;
    const unfit = Object.entries(state.tables).filter(([, { backup: hash }]) => hash === null).map(([name]) => ({
      kind: "rows" as const,
      name,
      detail: "rows of the backup do not fit the target's types",
    }));
    const differences = [
      ...found.filter((one) => !isChanged(one) && !isOther(one)),
      ...counted.differences,
      ...unfit,
      ...keys.differences,
    ];
    return {
      state,
      proof: {
        id: contents.backupId,
        ok: differences.length === 0,
        differences,
        notCompared: [
          ...scope.notCompared,
          ...found.filter(isChanged).map(({ name }) => ({ identity: name, reason: "its definition changed since" })),
          ...found.flatMap((one) => {
            const reason = accessOf(one);
            return reason === null || isChanged(one) ? [] : [{ identity: `privileges of ${one.name}`, reason }];
          }),
          ...counted.notCompared,
          ...off.map((identity) => ({ identity, reason: "its triggers are switched off, of which no backup says" })),
          ...keys.unread.map((identity) => ({ identity, reason: "this role may not read both of its tables" })),
        ],
        tables: loads.length + counted.tables,
        rows: loads.reduce((sum, load) => sum + load.rows, 0) + counted.rows,
        foreignKeys: keys.checked,
        durationMs: Math.round(deps.clock.monotonicMs() - startMs),
      },
    };
  } finally {
    await Promise.all([reading.close(), loading.close()]);
  }
}

/** Loads of tables that are there, with the columns that they have; without those that changed. */
async function thereOf(
  reading: Connection,
  { loads }: RestorePlan,
  changed: ChangedSince | null,
): Promise<readonly TableLoad[]> {
  const rows = await reading.query(
    `select n.nspname as schema, c.relname as name, a.attname as column
       from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
       left join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      where c.relkind in ('r', 'p', 'm')`,
  );
  const columns = new Map<string, Set<string>>();
  for (const { schema, name, column } of rows) {
    const key = quoteQualified(schema ?? "", name ?? "");
    const found = columns.get(key) ?? new Set<string>();
    if (column != null) found.add(column);
    columns.set(key, found);
  }
  return loads.flatMap((load) => {
    const key = quoteQualified(load.schema, load.name);
    const there = columns.get(key);
    if (there === undefined || changed?.tables.has(key) === true) return [];
    return [{ ...load, keep: load.keep.filter((index) => there.has(load.columns[index] ?? "")) }];
  });
}

/** Hashes what is left of these tables on both sides. Errors: those of `hashChunks` and of the connections. */
export async function hashLeft(
  deps: Pick<ValidateDeps, "store" | "compressor">,
  backup: Pick<OpenedBackup, "epochOf">,
  { reading, loading }: { readonly reading: Connection; readonly loading: Connection },
  loads: readonly TableLoad[],
  { state, signal, onStep }: Omit<ProofOptions, "changed">,
): Promise<{ readonly state: ProofState; readonly over: boolean }> {
  const reader = { store: deps.store, compressor: deps.compressor, epochOf: backup.epochOf };
  const rowsTotal = loads.reduce((sum, load) => sum + load.rows, 0);
  let { tables, part } = state;
  for (const load of loads) {
    if (tables[load.identity] !== undefined) continue;
    let hash: RowHash | null = part?.identity === load.identity ? part.hash : noRows;
    const first = part?.identity === load.identity ? part.chunk : 0;
    for (let at = first; at < load.chunks.length && hash !== null; at++) {
      checkSignal(signal);
      const [chunk] = load.chunks.slice(at, at + 1);
      if (chunk === undefined) break;
      const found = await hashChunks(loading, { ...load, chunks: [chunk] }, {
        rowFilter: filterOf(load),
        read: ({ object, rawBytes, hash: wanted }) =>
          readObject(reader, { kind: "chunk", name: object, rawBytes, hash: wanted }),
        onChunk: () => {},
      });
      hash = found === null ? null : together(hash, found);
      part = hash === null ? null : { identity: load.identity, chunk: at + 1, hash };
      if (onStep({ rows: chunk.rows, bytes: chunk.rawBytes, rowsTotal })) {
        return { state: { tables, part }, over: false };
      }
    }
    const keep = load.keep.map((index) => load.columns[index] ?? "");
    const { schema, name } = load;
    const target = await hashRows(reading, { schema, name, columns: keep, rowFilter: filterOf(load) });
    tables = { ...tables, [load.identity]: { backup: hash, target } };
    part = null;
    if (onStep({ rows: 0, bytes: 0, rowsTotal })) return { state: { tables, part }, over: false };
  }
  return { state: { tables, part: null }, over: true };
}

const noRows: RowHash = { rows: "0", sum: "0", xor: "0" };

/** Hashes of parts of a table are put together as one of the whole. */
export function together(a: RowHash, b: RowHash): RowHash {
  return {
    rows: String(BigInt(a.rows) + BigInt(b.rows)),
    sum: String(BigInt(a.sum) + BigInt(b.sum)),
    xor: String(BigInt(a.xor) ^ BigInt(b.xor)),
  };
}

function hashesOf({ tables }: ProofState, side: keyof HashedTable): Map<string, RowHash> {
  return new Map(
    Object.entries(tables).flatMap(([identity, table]) => {
      const hash = table[side];
      return hash === null || table.backup === null ? [] : [[identity, hash] as const];
    }),
  );
}

const serviceSchemas: readonly string[] = ["auth", "storage"];

interface Counted {
  readonly differences: readonly Difference[];
  readonly notCompared: Validation["notCompared"];
  readonly tables: number;
  readonly rows: number;
}

/** Tables that the stream changed: as many rows as the backup and the stream say. */
async function countChanged(
  reading: Connection,
  changed: ChangedSince | null,
  target: RestorePlan["kind"],
): Promise<Counted> {
  const differences: Difference[] = [];
  const notCompared: { identity: string; reason: string }[] = [];
  let [tables, rows] = [0, 0];
  for (const [name, expected] of changed?.tables ?? []) {
    const [schema = ""] = splitQualified(name) ?? [];
    // Of a project's services a replay takes what fits the target.
    if (expected === null || (target === "project" && serviceSchemas.includes(unquoteIdent(schema)))) {
      notCompared.push({
        identity: `rows of table ${name}`,
        reason: "it changed since, in ways that cannot be counted",
      });
      continue;
    }
    const [there] = await reading.query(
      "select c.relkind in ('r', 'm') as is_there from pg_catalog.pg_class as c where c.oid = pg_catalog.to_regclass($1)",
      [name],
    );
    if (there?.["is_there"] !== "t") {
      differences.push({ kind: "missing", name: `table ${name}`, detail: "the target does not have it" });
      continue;
    }
    const [row] = await reading.query(`select count(*)::text as rows from only ${name}`);
    tables++;
    rows += expected;
    if (row?.["rows"] !== String(expected)) {
      const detail = `backup and change stream: ${expected} rows | target: ${row?.["rows"] ?? "?"}`;
      differences.push({ kind: "rows", name: `table ${name}`, detail });
    }
    notCompared.push({
      identity: `contents of table ${name}`,
      reason: "it changed since the backup: its rows are counted",
    });
  }
  return { differences, notCompared, tables, rows };
}

/**
 * Is a difference from the backup what the log of definitions says? Of an object that it names, of what is part of one, and of what
 * hangs on one. The value of a sequence is its own alone. Pure.
 */
export function changedBy(
  changed: Pick<ChangedSince, "definitions" | "unnamed"> | null,
  definitions: readonly Pick<Definition, "identity" | "table" | "dependsOn">[],
): (one: Difference) => boolean {
  const names = (changed?.definitions ?? []).filter((name) => name !== "");
  const isNamed = (identity: string) => names.some((name) => namedIn(name, identity));
  const around = new Map<string, string[]>();
  for (const { identity, table, dependsOn } of definitions) {
    around.set(identity, [...around.get(identity) ?? [], ...dependsOn, ...(table === null ? [] : [table])]);
  }
  return ({ kind, name }) => {
    if (kind === "rows" || kind === "foreign key") return false;
    if (isNamed(name)) return true;
    if (kind === "sequence") return false;
    const isAccess = kind === "privileges" || kind === "owner";
    return (changed?.unnamed === true && isAccess) || (around.get(name) ?? []).some(isNamed);
  };
}

/** As a whole name: `public.t` does not stand in `public.tags`. */
function namedIn(name: string, identity: string): boolean {
  for (let at = identity.indexOf(name); at >= 0; at = identity.indexOf(name, at + 1)) {
    const [before, after] = [identity[at - 1] ?? "", identity[at + name.length] ?? ""];
    if (!/[\w$".]/.test(before) && !/[\w$"]/.test(after)) return true;
  }
  return false;
}

/**
 * Why privileges differ in a database that was made for the proof; null: for nothing that is known. It is closed to everybody, and
 * what belongs to roles that the restoring one may not act for belongs to that one there, so that its grants read otherwise.
 */
function otherAccess(
  { capture }: BackupContents,
  { target, ownersKept }: ProveExpectations,
): (one: Difference) => string | null {
  const platform = target === "bare" ? capture.definitions.filter((one) => one.platform !== null) : [];
  const others = new Set([...ownersKept, ...platform.map(({ identity }) => identity)]);
  return ({ kind, name }) => {
    if (kind !== "privileges") return null;
    if (name === "database") return "the database is closed to everybody else";
    return others.has(name) ? "its owner could not be kept" : null;
  };
}
