/** A whole database, as a drill brings it back: into a new one, in steps that a leg may end between, proven, and thrown away. */
import { z } from "zod";
import { openSession } from "../backup/session.ts";
import { countChanges } from "../changes/plan/count_changes.ts";
import { planPoint, type PointPlan, restorePoint } from "../changes/replay/restore_point.ts";
import { readChain } from "../changes/segments/chain_reader.ts";
import { snapshotView } from "../changes/segments/visibility.ts";
import { keepErased, reapplyLedger } from "../erase/reapply.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { filesOfFull, filesOfMoment } from "../files/files_by_list.ts";
import type { Manifest } from "../format/manifest.ts";
import type { Database } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import { isReplaying, readRestoreRecord } from "../restore/state.ts";
import { noProof, proveInSteps } from "../restore/prove_steps.ts";
import { restoreBackup, type RestoreProgress } from "../restore/run.ts";
import type { Validation } from "../restore/validate.ts";
import { bucketColumnOf } from "../schema/own_objects.ts";
import { quoteQualified, splitQualified, unquoteIdent } from "../schema/quote.ts";
import { openBackup, type ReadDeps } from "../verify/find_backup.ts";
import { recordedPart } from "../verify/read_file_list.ts";
import { readObject } from "../verify/read_object.ts";
import { drillDatabaseName, makeDrillDatabase, requirePlace } from "./database.ts";
import type { DrillDeps, DrillOptions } from "./deps.ts";
import type { DrillFacts, DrillRow } from "./drill_queries.ts";
import { noFilesYet, proveFiles, provenFilesFormat } from "./prove_files.ts";

const rowHash = z.object({ rows: z.string(), sum: z.string(), xor: z.string() });

/** What is known of it by now; a leg goes on from there. */
export const recoveryFormat = z.object({
  step: z.enum(["make", "restore", "files", "prove", "proven"]),
  store: z.string(),
  backup: z.object({ id: z.string(), consistentAt: z.string(), rows: z.number(), rawBytes: z.number() }),
  database: z.string(),
  /** Up to where the change stream is replayed; null: the backup alone. */
  stream: z.object({
    coveredUntil: z.string(),
    transactions: z.number(),
    asOfBackup: z.array(z.string()),
  }).nullable(),
  /** What the stream did since the backup, once it was counted; null: not yet, or the database shows the backup itself. */
  changed: z.object({
    tables: z.record(z.string(), z.number().nullable()),
    definitions: z.array(z.string()),
    unnamed: z.boolean(),
  }).nullable().default(null),
  /** Null: the backup says nothing of files. */
  files: provenFilesFormat.nullable().default(null),
  proof: z.object({
    tables: z.record(z.string(), z.object({ backup: rowHash.nullable(), target: rowHash })),
    part: z.object({ identity: z.string(), chunk: z.number(), hash: rowHash }).nullable(),
  }).nullable(),
});
export type Recovery = z.infer<typeof recoveryFormat>;

export interface RecoveryStep {
  readonly state: Recovery;
  /** Once it is proven. */
  readonly proof: Validation | null;
  readonly facts: DrillFacts;
}

/** Bytes of text in a sealed byte of a segment; rows of applications were seen to take 2.9. */
const textPerSealed = 4;

type Deps = Pick<DrillDeps, "connection" | "server" | "clock" | "log" | "source">;

/**
 * The newest backup, and with `stream` what the change stream has after it. Nothing is made yet. Errors: those of `openBackup` and
 * `planPoint`, `drill_database_exists`, `setting_missing`, `space_missing`.
 */
export async function beginRecovery(
  deps: Deps,
  read: ReadDeps,
  drill: DrillRow,
  install: string,
  withStream: boolean,
): Promise<RecoveryStep> {
  const { manifest } = await openBackup(read, "latest");
  const stream = withStream && manifest.chain != null ? await streamAfter(deps, read, manifest) : null;
  const full = stream?.plan.full.manifest ?? manifest;
  const database = drillDatabaseName(install, drill.id, new Date(drill.startedAt));
  const rawBytes = full.tables.reduce((sum, table) => sum + table.rawBytes, 0);
  const sealedBytes = stream?.plan.segments.reduce((sum, segment) => sum + segment.size, 0) ?? 0;
  await requirePlace(deps.connection, deps.server, database, rawBytes + textPerSealed * sealedBytes);
  return {
    state: {
      step: "make",
      store: read.store.label,
      backup: { id: full.id, consistentAt: full.consistentAt, rows: full.totals.rows, rawBytes },
      database,
      stream: stream === null ? null : {
        coveredUntil: stream.coveredUntil,
        transactions: stream.plan.survey.transactions,
        asOfBackup: [...stream.plan.choices.atFull],
      },
      changed: null,
      files: (full.files ?? null) === null ? null : noFilesYet,
      proof: null,
    },
    proof: null,
    facts: { backup: full.id, database },
  };
}

/** Null where the stream ends before the backup: there is nothing to replay over it. */
async function streamAfter(deps: Deps, read: ReadDeps, manifest: Manifest) {
  const plan = await planAt(deps, read, { by: "end" });
  const { coveredUntil } = plan.survey;
  const isBehind = coveredUntil === null || microsOf(coveredUntil) <= microsOf(manifest.consistentAt);
  return isBehind ? null : { plan, coveredUntil };
}

async function planAt(
  { server, clock, log, source }: Deps,
  read: ReadDeps,
  point: Parameters<typeof planPoint>[1],
  full?: string,
): Promise<PointPlan> {
  return await planPoint({ ...read, target: server.database, clock, log }, point, {
    uncoveredAtFull: true,
    ...(source === undefined ? {} : { source }),
    ...(full === undefined ? {} : { full }),
  });
}

/** The same plan in every leg: up to the moment until which everything was there when the drill began. */
async function planAgain(deps: Deps, read: ReadDeps, { stream, backup }: Recovery): Promise<PointPlan | null> {
  if (stream === null) return null;
  return await planAt(deps, read, { by: "time", at: microsOf(stream.coveredUntil) }, backup.id);
}

/** Microseconds since 1970, of ISO 8601 with up to six digits behind the second. */
export function microsOf(moment: string): bigint {
  const digits = (/\.(\d{1,6})/.exec(moment)?.[1] ?? "").padEnd(6, "0");
  return BigInt(Math.floor(new Date(moment).getTime() / 1000)) * 1_000_000n + BigInt(digits);
}

/** The next step. Errors: those of the step; `cancelled` once the budget is spent: what was done stays, and the same step goes on. */
export async function recoverOn(
  deps: Deps,
  read: ReadDeps,
  state: Recovery,
  options: Pick<DrillOptions, "budget" | "parallel" | "signal" | "progress">,
): Promise<RecoveryStep> {
  switch (state.step) {
    case "make": {
      const { manifest } = await openBackup(read, state.backup.id);
      await makeDrillDatabase(deps.server, state.database, manifest.server);
      return { state: { ...state, step: "restore" }, proof: null, facts: {} };
    }
    case "restore":
      await restore(deps, read, state, options);
      return {
        state: { ...state, step: state.files === null ? "prove" : "files", proof: noProof },
        proof: null,
        facts: {},
      };
    case "files": {
      const files = await filesOn(deps, read, state, options);
      const step = files === null || files.done ? "prove" : "files";
      return { state: { ...state, step, files }, proof: null, facts: {} };
    }
    case "prove":
    case "proven": {
      // A step of its own: all segments are read for it, and none after it.
      if (state.stream !== null && state.changed === null) {
        return { state: { ...state, changed: await changedSince(deps, read, state, options) }, proof: null, facts: {} };
      }
      const changed = state.changed === null
        ? null
        : { ...state.changed, tables: new Map(Object.entries(state.changed.tables)) };
      const target = deps.server.inDatabase(state.database);
      let rows = 0;
      const proven = await proveInSteps({ ...read, target, clock: deps.clock }, state.backup.id, {
        changed,
        state: state.proof ?? noProof,
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        onStep: (done) => {
          rows += done.rows;
          deps.log.step("drill.proving", { rows });
          options.budget.spendText(2 * done.rows, 2 * done.bytes);
          options.budget.spendCalls(8);
          options.progress?.({ label: "proving", done: rows, total: done.rowsTotal, unit: "rows" });
          return options.budget.spent();
        },
      });
      if (proven.proof !== null) await takeOutErased(target, read);
      const next = { ...state, step: proven.proof === null ? "prove" : "proven", proof: proven.state } as const;
      return { state: recoveryFormat.parse(next), proof: proven.proof, facts: {} };
    }
  }
}

async function restore(
  deps: Deps,
  read: ReadDeps,
  state: Recovery,
  { budget, parallel = 1, signal, progress }: Pick<DrillOptions, "budget" | "parallel" | "signal" | "progress">,
): Promise<void> {
  const { clock, log, server } = deps;
  const target = server.inDatabase(state.database);
  const plan = await planAgain(deps, read, state);
  const over = new AbortController();
  const spent = () => {
    if (budget.spent()) over.abort(new HoldfastError("cancelled", "the leg is over"));
  };
  let seen: RestoreProgress | null = null;
  const restoring = {
    parallel,
    signal: signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]),
    onProgress: (at: RestoreProgress) => {
      budget.spendText(at.rows - (seen?.rows ?? at.rows), at.rawBytes - (seen?.rawBytes ?? at.rawBytes));
      budget.spendCalls(2 * (at.steps - (seen?.steps ?? at.steps)));
      const isStep = seen !== null && (at.rawBytes > seen.rawBytes || at.steps > seen.steps);
      seen = at;
      progress?.({ label: `restoring ${at.phase}`, done: at.rows, total: at.rowsTotal, unit: "rows" });
      // At least one step a leg: else it would stand still.
      if (isStep) spent();
    },
  };
  if (plan !== null) budget.spendText(plan.survey.changes, 2 * plan.segments.reduce((sum, one) => sum + one.size, 0));
  // Erased people are taken out once the copy was compared with the backup.
  const into = { ...read, target, clock, log, beforeCommit: keepErased };
  try {
    if (plan === null) await restoreBackup(into, state.backup.id, restoring);
    else {
      await restorePoint(into, plan, {
        ...restoring,
        onReplay: ({ transactions, of, changes }) => {
          budget.spendText(2 * changes, 100 * changes);
          budget.spendCalls(20);
          progress?.({ label: "replaying", done: transactions, total: of, unit: "transactions" });
          spent();
        },
      });
    }
  } catch (error) {
    // The leg that ended the restore was killed before it could say so: nobody else works in this database.
    if (asHoldfastError(error).code === "target_not_empty" && await isRestored(deps, state.database)) return;
    throw error;
  }
}

/** Null where the database has no table of theirs. */
async function filesOn(
  deps: Deps,
  read: ReadDeps,
  state: Recovery,
  { budget, signal, progress }: Pick<DrillOptions, "budget" | "signal" | "progress">,
): Promise<Recovery["files"]> {
  const plan = await planAgain(deps, read, state);
  const full = plan?.full ?? await openBackup(read, state.backup.id);
  if (plan !== null) budget.spendText(plan.survey.changes, 2 * plan.segments.reduce((sum, one) => sum + one.size, 0));
  const source = plan === null ? filesOfFull(read, full) : await filesOfMoment(read, plan);
  const session = await openSession(deps.server.inDatabase(state.database), "holdfast:drill");
  try {
    const [there] = await session.query("select pg_catalog.to_regclass('storage.objects') is not null as yes");
    if (there?.["yes"] !== "t") return null;
    return await proveFiles({
      drill: state.database,
      session,
      manifest: full.manifest,
      source,
      readPart: (part) => readObject({ ...read, epochOf: full.epochOf }, recordedPart(part)),
      budget,
      ...(signal === undefined ? {} : { signal }),
      onFile: ({ checked }) => progress?.({ label: "reading files back", done: checked, total: null, unit: "files" }),
    }, state.files ?? noFilesYet);
  } finally {
    await session.close();
  }
}

/** The copy may be kept for somebody to look at: nobody who was erased is in it. */
async function takeOutErased(target: Database, read: ReadDeps): Promise<void> {
  const connection = await openSession(target, "holdfast:drill");
  try {
    await inTransaction(connection, () => reapplyLedger(read)(connection));
  } finally {
    await connection.close();
  }
}

async function isRestored({ server }: Deps, database: string): Promise<boolean> {
  const session = await server.inDatabase(database).connect("holdfast:drill");
  try {
    const record = await readRestoreRecord(session);
    return (record === null || record.finishedAt !== null) && !(await isReplaying(session));
  } finally {
    await session.close();
  }
}

/** What the stream did up to the point, read anew. */
async function changedSince(
  deps: Deps,
  read: ReadDeps,
  state: Recovery,
  { budget }: Pick<DrillOptions, "budget">,
): Promise<Recovery["changed"]> {
  const plan = await planAgain(deps, read, state);
  if (plan === null) return null;
  const { full, survey, segments, point, choices } = plan;
  budget.spendText(survey.changes, 2 * segments.reduce((sum, one) => sum + one.size, 0));
  const reader = { store: read.store, compressor: read.compressor, epochOf: full.epochOf };
  const counted = await countChanges(readChain(reader, segments), point, snapshotView(full.manifest.snapshot.text));
  const asOfBackup = new Set(choices.atFull);
  const before = new Map(full.manifest.tables.map(({ oid, rows }) => [oid, rows]));
  const tables: Record<string, number | null> = {};
  for (const [oid, { emptied, added }] of counted.tables) {
    const name = survey.tables.get(oid);
    if (name === undefined || asOfBackup.has(name)) continue;
    const [schema = "", table = ""] = (splitQualified(name) ?? []).map(unquoteIdent);
    const hasOwnRows = bucketColumnOf({ schema, name: table }) !== null;
    tables[quoteQualified(schema, table)] = hasOwnRows ? null : added + (emptied ? 0 : before.get(oid) ?? 0);
  }
  return { tables, definitions: [...counted.definitions], unnamed: counted.unnamed };
}
