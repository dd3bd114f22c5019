/** Whether a database is what a backup says, read from the backup itself: the source may be gone. */
import type { Clock } from "../clock.ts";
import { HoldfastError } from "../errors.ts";
import { leftOutSchemas } from "../backup/tables.ts";
import type { Connection, Database } from "../postgres/connection.ts";
import { platformTreatments } from "../rows/ownership/auth_map.ts";
import { applySettings } from "../schema/apply_settings.ts";
import type { SchemaCapture } from "../schema/capture_format.ts";
import { arrayText } from "../schema/quote.ts";
import { stableJobs } from "../schema/unnamed_jobs.ts";
import { openBackup, type ReadDeps } from "../verify/find_backup.ts";
import { readObject } from "../verify/read_object.ts";
import { platformAccessNotes } from "./in_place/compare/compared_only.ts";
import { staysAlthoughExtra } from "./in_place/compare/judge_extra.ts";
import { hashChunks } from "./chunk_hashes.ts";
import type { BackupContents } from "./contents.ts";
import { platformMark } from "./judge_definition.ts";
import type { ChunkReader, TableLoad } from "./load.ts";
import { historyColumn, historyTable, isOwnMigration } from "./migration_history.ts";
import { needsOf } from "./needs.ts";
import { checkForeignKeys } from "./orphans.ts";
import { planRestore, type RestorePlan } from "./plan.ts";
import { beginSide, type Difference, differencesOf, type ProveExpectations } from "./prove.ts";
import { readContents } from "./read_contents.ts";
import { hashRows, type RowHash } from "./row_hash.ts";
import { checkSignal } from "./sessions.ts";
import type { TargetFacts } from "./target.ts";
import { readTargetFacts } from "./target_facts.ts";

export interface ValidateDeps extends ReadDeps {
  readonly target: Database;
  readonly clock: Clock;
}

export interface ValidateOptions {
  /** The backup was put back where it was taken: what a restore in place leaves as it is, is not compared. */
  readonly inPlace: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: ValidateProgress) => void;
}

export interface ValidateProgress {
  readonly rows: number;
  readonly rowsTotal: number;
}

export interface Validation {
  /** Of the backup. */
  readonly id: string;
  readonly ok: boolean;
  readonly differences: readonly Difference[];
  /** What nothing is said about, each with its reason. */
  readonly notCompared: readonly { readonly identity: string; readonly reason: string }[];
  readonly tables: number;
  readonly rows: number;
  readonly foreignKeys: number;
  readonly durationMs: number;
}

/**
 * Compares definitions, owners, privileges, policies, counts, row hashes, sequences and foreign keys of the target with the
 * backup that `wanted` names. The target is read in one snapshot; the backup's rows pass through temporary tables there, so it
 * is not changed, and what is written in it meanwhile shows as a difference or not, but never as a mixture.
 * Errors: those of `openBackup`, `readContents` and of the connection; `object_missing`, `object_damaged`, `cancelled`.
 */
export async function validateBackup(
  deps: ValidateDeps,
  wanted: string,
  options: ValidateOptions,
): Promise<Validation> {
  const startMs = deps.clock.monotonicMs();
  const backup = await openBackup(deps, wanted);
  const contents = await readContents(deps, backup);
  const reader = { store: deps.store, compressor: deps.compressor, epochOf: backup.epochOf };
  const read: ChunkReader = ({ object, rawBytes, hash }) =>
    readObject(reader, { kind: "chunk", name: object, rawBytes, hash });
  const reading = await deps.target.connect("holdfast:validate");
  const loading = await deps.target.connect("holdfast:validate").catch(async (error: unknown) => {
    await reading.close();
    throw error;
  });
  try {
    const leaveOut = await leftOutSchemas(reading);
    const plan = planRestore(contents, await factsAsBefore(reading, contents));
    const target = await beginSide(reading, leaveOut);
    const scope = scopeOf(plan, target, options.inPlace);
    await prepareLoading(loading);
    const hashes = await hashBoth(reading, loading, scope.loads, { ...options, read });
    const keys = { ...await checkForeignKeys(reading, leaveOut), off: await foreignKeysOff(reading, leaveOut) };
    await reading.execute("commit");
    const found = differencesOf(
      { capture: contents.capture, hashes: hashes.backup },
      { capture: target, hashes: hashes.target },
      scope.expected,
    );
    const stayed = options.inPlace ? stayingExtras(found, contents.capture, target) : [];
    const differences = [...found.filter((one) => !stayed.includes(one)), ...hashes.unfit, ...keys.differences];
    return {
      id: contents.backupId,
      ok: differences.length === 0,
      differences,
      notCompared: [
        ...scope.notCompared,
        ...stayed.map(({ name }) => ({ identity: name, reason: "it came after the backup" })),
        ...(plan.kind === "project" ? platformAccessNotes(contents.capture, target) : [])
          .map(({ identity, reason }) => ({ identity, reason })),
        ...keys.off.map((identity) => ({ identity, reason: "its triggers are switched off, of which no backup says" })),
        ...keys.unread.map((identity) => ({ identity, reason: "this role may not read both of its tables" })),
      ],
      tables: scope.loads.length,
      rows: plan.rows,
      foreignKeys: keys.checked,
      durationMs: Math.round(deps.clock.monotonicMs() - startMs),
    };
  } finally {
    await Promise.all([reading.close(), loading.close()]);
  }
}

/** What came after the backup and a restore in place leaves: what stands alone, and what hangs on that. Pure. */
function stayingExtras(found: readonly Difference[], was: SchemaCapture, is: SchemaCapture): Difference[] {
  const definitions = stableJobs(is.definitions);
  const wasBy = new Set(stableJobs(was.definitions).map((one) => one.identity));
  const isBy = new Map(definitions.map((one) => [one.identity, one]));
  const platform = new Set(definitions.filter((one) => one.platform !== null).map((one) => one.identity));
  const owned = definitions.filter((one) => one.kind === "sequence ownership" && wasBy.has(one.table ?? ""));
  const sequences = new Set(owned.flatMap((one) => one.dependsOn));
  const former = { wasBy, isPlatform: (identity: string) => platform.has(identity) };
  return found.filter(({ kind, name }) => {
    const one = isBy.get(name);
    return kind === "extra" && one !== undefined && staysAlthoughExtra(former, one, sequences);
  });
}

/** Foreign keys that a superuser switched off with all triggers of a table. */
export async function foreignKeysOff(connection: Connection, leaveOut: readonly string[]): Promise<string[]> {
  const rows = await connection.query(
    `select distinct pg_catalog.format('foreign key %I on %s', k.conname, k.conrelid::regclass) as identity
       from pg_catalog.pg_constraint as k
       join pg_catalog.pg_class as c on c.oid = k.conrelid
       join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
       join pg_catalog.pg_trigger as t on t.tgconstraint = k.oid and t.tgisinternal and t.tgenabled in ('D', 'R')
      where k.contype = 'f' and n.nspname <> all ($1::text[]) order by 1`,
    [arrayText(leaveOut)],
  );
  return rows.map((row) => row["identity"] ?? "");
}

/**
 * The target as a plan saw it before anything was restored, so that the plan says again what could not be had there. A bare
 * PostgreSQL has the platform's schemas by now, with the restore's mark.
 */
export async function factsAsBefore(connection: Connection, contents: BackupContents): Promise<TargetFacts> {
  const facts = await readTargetFacts(connection, { ...needsOf(contents), rowsInto: [] });
  const [row] = await connection.query(
    "select exists (select from pg_catalog.pg_namespace as n where pg_catalog.obj_description(n.oid, 'pg_namespace') = $1) as marked",
    [platformMark],
  );
  const bare = { kind: "bare", tables: [], sequences: [] } as const;
  return { ...facts, publications: [], eventTriggers: [], ...(row?.["marked"] === "t" ? bare : {}) };
}

/** Event triggers of the database do not see the temporary tables, where this role may say so. */
export async function prepareLoading(connection: Connection): Promise<void> {
  await connection.execute(applySettings.join(";\n"));
  await connection.execute("set client_encoding = 'UTF8'");
  await connection.execute("set session_replication_role = replica").catch(() => {});
}

interface Scope {
  readonly loads: readonly TableLoad[];
  readonly expected: ProveExpectations;
  readonly notCompared: Validation["notCompared"];
}

/** Pure: what a restore of this backup would have brought to this target, and what not. */
export function scopeOf(plan: RestorePlan, target: SchemaCapture, inPlace: boolean): Scope {
  const there = new Map(target.tables.map((shape) => [shape.identity, new Set(shape.columns.map(({ name }) => name))]));
  const present = new Set(target.definitions.map((one) => one.identity));
  const notCompared: { identity: string; reason: string }[] = [];
  // What was left out when it was restored may be there all the same: then it is compared.
  const skipped = plan.skipped.filter(({ identity }) => !present.has(identity));
  notCompared.push(...skipped);
  const loads: TableLoad[] = [];
  for (const load of plan.loads) {
    const columns = there.get(load.identity);
    if (columns === undefined) continue; // A definition that is missing.
    const treatment = inPlace ? platformTreatments[`${load.schema}.${load.name}`] : undefined;
    if (treatment !== undefined && treatment.restore !== "rows") {
      notCompared.push({ identity: `rows of ${load.identity}`, reason: `not restored in place: ${treatment.why}` });
      continue;
    }
    const own = new Set([...treatment?.credentials ?? [], ...treatment?.tokens ?? []]);
    const keep = load.keep.filter((index) => {
      const name = load.columns[index] ?? "";
      return columns.has(name) && !own.has(name);
    });
    if (own.size > 0) notCompared.push({ identity: `credentials in ${load.identity}`, reason: "they stay in place" });
    loads.push({ ...load, keep });
  }
  return {
    loads,
    notCompared,
    expected: {
      target: plan.kind,
      skipped,
      rolesCreated: plan.rolesCreated,
      ownersKept: plan.ownersKept,
      settingsLost: plan.settingsLost,
      inPlace,
    },
  };
}

interface BothHashes {
  readonly backup: ReadonlyMap<string, RowHash>;
  readonly target: ReadonlyMap<string, RowHash>;
  readonly unfit: readonly Difference[];
}

/** One session hashes the target's tables in its snapshot while the other one hashes the backup's chunks. */
async function hashBoth(
  reading: Connection,
  loading: Connection,
  loads: readonly TableLoad[],
  options: Pick<ValidateOptions, "signal" | "onProgress"> & { readonly read: ChunkReader },
): Promise<BothHashes> {
  const [backup, target] = [new Map<string, RowHash>(), new Map<string, RowHash>()];
  const unfit: Difference[] = [];
  const rowsTotal = loads.reduce((sum, load) => sum + load.rows, 0);
  let rows = 0;
  let failure: { readonly error: unknown } | null = null;
  const ofTarget = async () => {
    for (const load of loads) {
      checkSignal(options.signal);
      if (failure !== null) return;
      const columns = load.keep.map((index) => load.columns[index] ?? "");
      const { identity, schema, name } = load;
      target.set(identity, await hashRows(reading, { schema, name, columns, rowFilter: filterOf(load) }));
    }
  };
  const ofBackup = async () => {
    for (const load of loads) {
      const onChunk = (chunk: { readonly rows: number }) => {
        checkSignal(options.signal);
        if (failure !== null) throw new HoldfastError("cancelled", "the other session failed");
        options.onProgress?.({ rows: rows += chunk.rows, rowsTotal });
      };
      const rowFilter = load.identity === historyTable ? filterOf(load) : null;
      const hash = await hashChunks(loading, load, { rowFilter, read: options.read, onChunk });
      if (hash !== null) backup.set(load.identity, hash);
      else {unfit.push({
          kind: "rows",
          name: load.identity,
          detail: "rows of the backup do not fit the target's types",
        });}
    }
  };
  const remember = (error: unknown) => {
    failure ??= { error };
  };
  await Promise.all([ofTarget().catch(remember), ofBackup().catch(remember)]);
  throwFirst(failure);
  return { backup, target, unfit };
}

function throwFirst(failure: { readonly error: unknown } | null): void {
  if (failure !== null) throw failure.error;
}

/** Records of our own migrations never come back. */
export function filterOf(load: TableLoad): string | null {
  const forgets = load.identity === historyTable && load.columns.includes(historyColumn);
  return forgets ? `not ${isOwnMigration}` : load.rowFilter;
}
