/** A sample person's export, made as for themselves, held against its schema, its signature and what was counted, and thrown away. */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { type ExportDocument, exportDocument } from "../export/document_format.ts";
import {
  beginExport,
  endExport,
  type ExportLease,
  exportRemoved,
  type ExportRow,
  readExport,
} from "../export/export_queries.ts";
import type { ExportTarget } from "../export/export_target.ts";
import { readKeptMap } from "../export/kept_map.ts";
import { failMaking } from "../export/leg.ts";
import { makeExport } from "../export/make_export.ts";
import { documentFacts, verifySignature } from "../export/signature.ts";
import type { CheckOutcome, CheckTask } from "../jobs/check_queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { CheckDeps, CheckOptions, StepMemory, StepResult } from "./deps.ts";

/** Longer than a leg may last. */
const leaseSeconds = 180;
/** Persons who have too much for one part of a document, or order an export themselves just then: so many are passed over. */
const mostPassed = 5;

const stateFormat = z.object({ passed: z.int(), lease: z.object({ id: z.string(), token: z.string() }).nullable() })
  .catch(() => ({ passed: 0, lease: null }));

/** The person has more than one part: they are no sample that is parsed as a whole. */
class TooLarge extends Error {
  override readonly name = "TooLarge";
}

/**
 * By turns, another person each week. Null: the budget is spent before it was made. What keeps exports from being made fails the
 * check. Errors: those of the database.
 */
export async function sampleExport(
  deps: CheckDeps,
  _task: CheckTask,
  memory: StepMemory,
  options: CheckOptions,
): Promise<StepResult> {
  const state = stateFormat.parse(memory.state);
  for (; state.passed < mostPassed; state.passed++) {
    const lease = state.lease ?? await begin(deps.connection, deps.clock.now());
    if (lease === null) return nobody;
    if (lease === "busy") continue;
    state.lease = lease;
    memory.state = state;
    const made = await make(deps, lease, options);
    if (made === "rest") return null;
    state.lease = null;
    memory.state = state;
    if (made !== "passed over") return made;
  }
  return {
    outcome: "no_verdict",
    message: "every person who was tried has more than a sample, or was at an export themselves",
    evidence: { tried: mostPassed },
  };
}

const nobody: CheckOutcome = {
  outcome: "no_verdict",
  message: "there is nobody whose data could be exported",
  evidence: {},
};

/** Null: there is nobody; `busy`: they are just exporting their data themselves. */
async function begin(connection: Connection, now: Date): Promise<ExportLease | "busy" | null> {
  const [there] = await connection.query("select pg_catalog.to_regclass('auth.users') is not null as yes");
  if (there?.["yes"] !== "t") return null;
  const week = String(Math.floor(now.getTime() / (7 * 24 * 3600 * 1000)));
  const [row] = await connection.query(
    `select u.id from auth.users as u
      where u.deleted_at is null and not exists (
        select from backup.exports as e
        where e.user_id = u.id and (
          e.status in ('queued', 'making') or e.origin = 'check' and e.created_at > backup.clock_now() - interval '1 hour'
        )
      )
      order by pg_catalog.md5(u.id::text || $1) limit 1`,
    [week],
  );
  const user = row?.["id"] ?? null;
  if (user === null) return null;
  const { lease } = await beginExport(connection, { user, origin: "check", worker: "check", leaseSeconds });
  return lease ?? "busy";
}

async function make(
  deps: CheckDeps,
  lease: ExportLease,
  { budget, signal }: CheckOptions,
): Promise<CheckOutcome | "rest" | "passed over"> {
  const { connection, database, ring, clock, log } = deps;
  const parts: Uint8Array[] = [];
  const readFile = () => Promise.resolve(null);
  try {
    const map = await readKeptMap(connection);
    const end = await makeExport({ connection, database, ring, target: inMemory(parts), readFile, clock, log }, lease, {
      map,
      files: false,
      budget,
      leaseSeconds,
      ...(signal === undefined ? {} : { signal }),
    });
    const [document] = parts;
    // A leg that was ended behind the put has not what the next would need.
    if (end === "rest") return "rest";
    const row = await readExport(connection, lease.id);
    await remove(connection, lease.id);
    if (document === undefined) return "passed over";
    budget.spendText(row.rows ?? 0, document.byteLength);
    return await judge(deps, row, document);
  } catch (error) {
    if (error instanceof TooLarge || error instanceof HoldfastError && error.code === "lease_lost") {
      await remove(connection, lease.id);
      return "passed over";
    }
    throw await failMaking(connection, lease, error);
  }
}

async function remove(connection: Connection, id: string): Promise<void> {
  await endExport(connection, id);
  await exportRemoved(connection, id);
}

function inMemory(parts: Uint8Array[]): ExportTarget {
  return {
    prepare: () => Promise.resolve(),
    putDocument: (number, bytes) => {
      if (number > 0) return Promise.reject(new TooLarge());
      parts[0] = bytes.slice();
      return Promise.resolve();
    },
    putFile: () => Promise.resolve(),
    missing: () => Promise.resolve({ document: false, files: [] }),
  };
}

/** What lets somebody in, by the name of its column: never in a document. */
const secret = /password|token|secret/;

async function judge({ ring }: CheckDeps, row: ExportRow, bytes: Uint8Array): Promise<CheckOutcome> {
  const read = (from: number, to: number) => Promise.resolve(bytes.subarray(from, to));
  const failed = (message: string): CheckOutcome => ({
    outcome: "failed",
    message,
    evidence: { bytes: bytes.byteLength },
  });
  const facts = await documentFacts(read, bytes.byteLength);
  await verifySignature(ring, { ...facts, bytes: bytes.byteLength, read });
  let document: ExportDocument;
  try {
    document = exportDocument.parse(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
  } catch {
    return failed("the document of a sample export is not of its own schema");
  }
  const { tables, leftOut, files } = document;
  const rows = tables.reduce((sum, table) => sum + table.rows.length, 0);
  if (tables.some((table) => table.rows.length !== table.rowCount) || rows !== row.rows) {
    return failed("a sample export holds another number of rows than were found");
  }
  const account = tables.find(({ schema, table }) => schema === "auth" && table === "users");
  if (account?.rows[0]?.row["id"] !== row.user) return failed("a sample export does not hold its person's account");
  if (account.columns.some(({ name }) => secret.test(name) && !/_(at|ip)$/.test(name))) {
    return failed("a sample export holds what lets somebody in");
  }
  return {
    outcome: "passed",
    message:
      `the export of a sample person was made: ${rows} rows of ${tables.length} tables, and ${files.length} files were named`,
    evidence: {
      tables: tables.length,
      rows,
      files: files.length,
      bytes: bytes.byteLength,
      noPath: leftOut.noPath.length,
      suspects: leftOut.suspects.length,
    },
  };
}
