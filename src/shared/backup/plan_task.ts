/** The task that begins an attempt: keeper, definitions, plan. */
import type { Epoch } from "../crypto/epoch.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import { open, seal } from "../format/container.ts";
import { objectName } from "../format/object_name.ts";
import { addTasks, beginAttempt, recordSnapshot, renewLease, type Task } from "../jobs/queries.ts";
import type { Connection } from "../postgres/connection.ts";
import { captureSchema } from "../schema/capture.ts";
import { quoteIdent } from "../schema/quote.ts";
import type { SchemaCapture, TableShape } from "../schema/capture_format.ts";
import { planFiles } from "../files/plan_files.ts";
import { tableFingerprints } from "../schema/fingerprint.ts";
import { bucketColumnOf, notOfOwnBuckets } from "../schema/own_objects.ts";
import { putAndReadBack } from "../store/put.ts";
import type { Budget } from "./budget.ts";
import { markSeen, readBase } from "./base_chunks.ts";
import type { ObjectRecord } from "./chunks_task.ts";
import type { BackupDeps } from "./deps.ts";
import { type KeeperOptions, openKeeper } from "./keeper.ts";
import type { Limits } from "./limits.ts";
import { type PlannedTable, planTasks } from "./plan.ts";
import { inSnapshot, openSession, textVersion } from "./session.ts";
import { leftOutSchemas, readNamesakes, readTableFacts, type TableFacts } from "./tables.ts";
import { encodeRanges } from "./task_detail.ts";

export interface PlanContext {
  readonly deps: BackupDeps;
  readonly connection: Connection;
  readonly epoch: Epoch;
  /** Where `deps.store` is below the store that is set. */
  readonly storePrefix: string;
  readonly limits: Limits;
  readonly keeper: KeeperOptions;
  readonly budget: Budget;
  readonly leaseSeconds: number;
}

/** A plan costs as much CPU as so many calls, and one more for every so many definitions (measured: 100 ms and 0.1 ms). */
const planCalls = 200;
const definitionsOfACall = 5;

/** Heap that one counting task scans: some seconds, far below a function's wall time. */
const countBytes = 1024 * 1024 * 1024;

/** Errors: those of `openKeeper`, `captureSchema` and the store; `keeper_lost` when it goes while we plan. */
export async function doPlan(context: PlanContext, task: Task): Promise<void> {
  const { deps, connection } = context;
  const attempt = await beginAttempt(connection, task);
  const keeper = await openKeeper(deps, context.keeper);
  try {
    await recordSnapshot(connection, task, keeper.facts);
  } catch (error) {
    await keeper.release();
    throw error;
  }
  keeper.hold(task.run, attempt);
  const reader = await openSession(deps.database, "holdfast:plan");
  try {
    const leaveOutSchemas = await leftOutSchemas(reader);
    const fingerprints = await tableFingerprints(reader, { leaveOutSchemas });
    const plan = await inSnapshot(reader, keeper.facts.name, [], async () => {
      const capture = withNamesakes(
        await captureSchema(reader, { leaveOutSchemas }),
        await readNamesakes(reader),
      );
      checkLocked(capture, new Set(keeper.tables.map((table) => table.oid)));
      const facts = await readTableFacts(reader, capture.tables.map((table) => table.oid));
      const base = await readBase(reader, task.run, attempt);
      return { capture, facts, base };
    });
    context.budget.spendCalls(planCalls + plan.capture.definitions.length / definitionsOfACall);
    await renewLease(connection, task, context.leaseSeconds);
    const schemaObject = await putCapture(context, plan.capture);
    const chunks = await markSeen(connection, deps.store, context.epoch.id, plan.base.chunks);
    await renewLease(connection, task, context.leaseSeconds);
    const tables = plannedTables(plan.capture, plan.facts, fingerprints);
    const tasks = planTasks(tables, chunks, { chunkBytes: context.limits.chunkBytes, countBytes });
    const { capture } = plan;
    const files = await planFiles(reader, {
      run: task.run,
      epoch: context.epoch.id,
      snapshotName: keeper.facts.name,
      canRead: deps.files !== undefined && deps.files !== null,
    });
    await addTasks(connection, task, {
      tables: runTables(capture, plan.facts, fingerprints),
      tasks: [...files.tasks, ...tasks].map((each) => ({
        kind: each.kind,
        detail: each.kind === "manifest"
          ? {
            schemaObject,
            server: capture.server,
            sequences: capture.sequences.map(({ schema, name, lastValue, isCalled }) => ({
              schema,
              name,
              lastValue,
              isCalled,
            })),
            notCaptured: capture.notCaptured,
            files: files.files,
          }
          : "detail" in each
          ? each.detail
          : encodeRanges(each.ranges),
        estimated_bytes: Math.round(each.estimatedBytes),
      })),
      base_run: plan.base.run,
      epoch: context.epoch.id,
      store_prefix: context.storePrefix,
      bytes_total: Math.round([...files.tasks, ...tasks].reduce((sum, each) => sum + each.estimatedBytes, 0)),
      warnings: [...warningsOf(capture), ...files.warnings],
    });
    deps.log.step("attempt.planned", { run: task.run, attempt, tasks: tasks.length });
  } finally {
    await reader.close();
  }
}

function withNamesakes(capture: SchemaCapture, names: readonly string[]): SchemaCapture {
  const reason = "its name is that of a side schema, which restores of rows make and drop; give it another one";
  const named = names.map((name) => ({ catalog: "pg_namespace", identity: `schema ${quoteIdent(name)}`, reason }));
  return { ...capture, notCaptured: [...capture.notCaptured, ...named] };
}

/** Both lists are made of the same catalog in the same snapshot; a table that only one of them has is a defect of ours. */
function checkLocked(capture: SchemaCapture, locked: ReadonlySet<string>): void {
  const missing = capture.tables.find((table) => !locked.has(table.oid));
  if (missing === undefined) return;
  throw new HoldfastError("internal", `${missing.identity} is captured but was not locked`);
}

async function putCapture(
  context: PlanContext,
  capture: SchemaCapture,
): Promise<{ readonly record: ObjectRecord }> {
  const { deps, epoch } = context;
  const plaintext = new TextEncoder().encode(JSON.stringify(capture));
  const { name, hash } = await objectName(epoch, "schema", plaintext);
  const bytes = await seal(deps, epoch, { kind: "schema", name, plaintext });
  const put = await putAndReadBack(deps.store, name, bytes, async (stored) => {
    const opened = await open(
      { compressor: deps.compressor, epochOf: () => Promise.resolve(epoch) },
      { kind: "schema", name, bytes: stored, maxBytes: plaintext.byteLength },
    );
    return await sha256Hex(opened) === hash;
  });
  return {
    record: {
      name,
      kind: "schema",
      raw_bytes: plaintext.byteLength,
      stored_bytes: put.storedBytes,
      hash,
      stored_hash: put.storedHash,
      epoch: epoch.id,
      created: put.outcome === "created",
    },
  };
}

type Fingerprints = ReadonlyMap<string, string | null>;

/** Empty where text must never be taken over, and for tables without storage. */
function fingerprintOf(fingerprints: Fingerprints, table: TableShape): string {
  const hash = fingerprints.get(table.oid) ?? null;
  return hash === null ? "" : `${textVersion}-${hash}${isOwnFilter(table) ? "-without-own-buckets" : ""}`;
}

/** Leaves out by what stands in the row itself: rows that did not change are left out as before. */
function isOwnFilter(table: TableShape): boolean {
  return table.rowFilter === notOfOwnBuckets(bucketColumnOf(table) ?? "");
}

function plannedTables(
  capture: SchemaCapture,
  facts: readonly TableFacts[],
  fingerprints: Fingerprints,
): PlannedTable[] {
  const byOid = new Map(facts.map((each) => [each.oid, each]));
  return capture.tables.flatMap((table) => {
    const found = byOid.get(table.oid);
    if (found === undefined) return [];
    const fingerprint = fingerprintOf(fingerprints, table);
    // What an extension leaves out may be written in other tables.
    const reusable = fingerprint !== "" && (table.rowFilter === null || isOwnFilter(table));
    return [{ ...found, relfilenode: table.relfilenode, fingerprint, reusable }];
  });
}

function runTables(capture: SchemaCapture, facts: readonly TableFacts[], fingerprints: Fingerprints): unknown[] {
  const byOid = new Map(facts.map((each) => [each.oid, each]));
  return capture.tables.map((table) => ({
    oid: table.oid,
    schema: table.schema,
    name: table.name,
    relfilenode: table.relfilenode,
    columns: table.columns.filter((column) => !column.generated).map(({ name, type }) => ({ name, type })),
    fingerprint: fingerprintOf(fingerprints, table),
    data_owner: table.dataOwner,
    row_filter: table.rowFilter,
    statistics: byOid.get(table.oid)?.statistics ?? {},
  }));
}

function warningsOf(capture: SchemaCapture): { code: string; message: string }[] {
  const warnings = capture.warnings.map((message) => ({ code: "schema", message }));
  if (!capture.tables.some((table) => table.dataOwner === "user")) {
    warnings.push({ code: "no_tables", message: "the database has no tables of its own" });
  }
  for (const each of capture.notCaptured) {
    warnings.push({ code: "not_captured", message: `${each.catalog}: ${each.identity}: ${each.reason}` });
  }
  return warnings;
}
