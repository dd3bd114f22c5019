/**
 * Where a restore keeps its place in the target: schema `holdfast`. Each step's marker commits with the step.
 * Once all is done the markers go; the list of what is held stays until `release` has emptied it, then the schema goes.
 */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { Connection } from "../postgres/connection.ts";
import { inTransaction } from "../postgres/in_transaction.ts";
import { heldKinds } from "../schema/capture_format.ts";
import { quoteLiteral } from "../schema/quote.ts";
import { keepQuietEvents, quietEventTriggers, wakeEventTriggers } from "./quiet_event_triggers.ts";
import { stateSchema, type TargetFacts } from "./target.ts";

/** Something that came back switched off. */
export interface HeldObject {
  readonly identity: string;
  readonly kind: (typeof heldKinds)[number];
  /** Statements that switch it on; empty when a person must supply something first, such as a password. */
  readonly release: readonly string[];
}

/** What the target remembers of a restore. */
export interface RestoreRecord {
  readonly backupId: string;
  /** SHA-256 of the manifest in hex. */
  readonly manifestHash: string;
  /** SHA-256 of the plan in hex: the same program plans the same from the same facts. */
  readonly planHash: string;
  readonly facts: TargetFacts;
  /** UTC, in ISO 8601; null while it is unfinished. */
  readonly finishedAt: string | null;
}

/** Any number; the same for every restore, so that two cannot work on one database. */
const lockKey = 4_127_031;

const createStatements = [
  `create schema ${stateSchema}`,
  `revoke all on schema ${stateSchema} from public`,
  `comment on schema ${stateSchema} is ${
    quoteLiteral("Kept by Holdfast for a restore: its place, and what it holds back until `holdfast release`.")
  }`,
  `create table ${stateSchema}.restore (
     backup_id uuid not null, manifest_hash text not null, plan_hash text not null, facts text not null,
     started_at timestamptz not null default pg_catalog.now(), finished_at timestamptz)`,
  `create table ${stateSchema}.done (step text primary key)`,
  `create table ${stateSchema}.held (identity text primary key, kind text not null, release text not null)`,
];

/** Takes the one lock of restores into this database, held until the session ends. `run_state` when another has it. */
export async function takeRestoreLock(connection: Connection): Promise<void> {
  const [row] = await connection.query(`select pg_catalog.pg_try_advisory_lock(${lockKey}) as taken`);
  if (row?.["taken"] !== "t") {
    throw new HoldfastError("run_state", "another restore or release is at work on the target", {
      hint: "Wait for it to end; a session that was killed ends with its statement.",
    });
  }
}

/** Gives it back before the session ends, since whoever comes next does not wait for the end of a session. Never throws. */
export async function releaseRestoreLock(connection: Connection): Promise<void> {
  await connection.query(`select pg_catalog.pg_advisory_unlock(${lockKey})`).catch(() => {});
}

/** Null where no restore ever began. */
export async function readRestoreRecord(connection: Connection): Promise<RestoreRecord | null> {
  const [exists] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [
    `${stateSchema}.restore`,
  ]);
  if (exists?.["yes"] !== "t") return null;
  const [row] = await connection.query(
    `select backup_id, manifest_hash, plan_hash, facts,
            pg_catalog.to_char(finished_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as finished_at
       from ${stateSchema}.restore`,
  );
  if (row === undefined) return null;
  const facts: TargetFacts = JSON.parse(row["facts"] ?? "null");
  return {
    backupId: row["backup_id"] ?? "",
    manifestHash: row["manifest_hash"] ?? "",
    planHash: row["plan_hash"] ?? "",
    facts,
    finishedAt: row["finished_at"] ?? null,
  };
}

/** Where a restore to a moment keeps its place, from the end of its full backup on until it is done. */
export const replayTable = `${stateSchema}.replay`;

export async function isReplaying(connection: Connection): Promise<boolean> {
  const [row] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [replayTable]);
  return row?.["yes"] === "t";
}

/** Writes the record of a restore that begins, in place of one that had ended. */
export async function beginRestore(
  connection: Connection,
  record: Omit<RestoreRecord, "finishedAt">,
  held: readonly HeldObject[],
): Promise<void> {
  const values = [record.backupId, record.manifestHash, record.planHash, JSON.stringify(record.facts)].map(
    quoteLiteral,
  );
  const rows = held.map((one) =>
    `insert into ${stateSchema}.held values (${
      [one.identity, one.kind, JSON.stringify(one.release)].map(quoteLiteral).join(", ")
    })`
  );
  await transaction(connection, [
    `drop schema if exists ${stateSchema} cascade`,
    ...createStatements,
    `insert into ${stateSchema}.restore (backup_id, manifest_hash, plan_hash, facts) values (${values.join(", ")})`,
    ...rows,
  ]);
}

export async function readDoneSteps(connection: Connection): Promise<Set<string>> {
  const rows = await connection.query(`select step from ${stateSchema}.done`);
  return new Set(rows.map((row) => row["step"] ?? ""));
}

/** The statement that marks a step. It fails with 23505 where the step is done already, and waits for one under way. */
export function markStep(key: string): string {
  return `insert into ${stateSchema}.done (step) values (${quoteLiteral(key)})`;
}

/**
 * Ends the restore durably, after `before` and `statements`. Without `keepState` nothing of ours stays behind. `keepQuiet`: the
 * event triggers of users stay off for what follows.
 */
export async function finishRestore(
  connection: Connection,
  statements: readonly string[],
  { keepState, keepQuiet }: { readonly keepState: boolean; readonly keepQuiet: boolean },
  before?: () => Promise<void>,
): Promise<void> {
  const state = keepState
    ? [`update ${stateSchema}.restore set finished_at = pg_catalog.now()`, `drop table ${stateSchema}.done`]
    : [`drop schema ${stateSchema} cascade`];
  await inTransaction(connection, async () => {
    await before?.();
    const awake = keepQuiet ? keepQuietEvents : [wakeEventTriggers];
    await connection.execute(
      ["set local synchronous_commit = on", quietEventTriggers, ...statements, ...state, ...awake].join("\n;\n"),
    );
  });
}

const heldRow = z.object({ identity: z.string(), kind: z.enum(heldKinds), release: z.array(z.string()) });

/** What is still held, in order of identity; empty where no restore left anything. */
export async function readHeld(connection: Connection): Promise<HeldObject[]> {
  const [exists] = await connection.query("select pg_catalog.to_regclass($1) is not null as yes", [
    `${stateSchema}.held`,
  ]);
  if (exists?.["yes"] !== "t") return [];
  const rows = await connection.query(
    `select identity, kind, release from ${stateSchema}.held order by identity collate "C"`,
  );
  return rows.map((row) => heldRow.parse({ ...row, release: JSON.parse(row["release"] ?? "[]") }));
}

/** Runs the statements as one transaction; nothing of them stays when one fails. */
export async function transaction(connection: Connection, statements: readonly string[]): Promise<void> {
  try {
    await connection.execute(["begin", ...statements, "commit"].join("\n;\n"));
  } catch (error) {
    // A session that is gone has rolled back already; the first error is the one that tells.
    await connection.execute("rollback").catch(() => {});
    throw error;
  }
}
