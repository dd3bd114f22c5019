/** Every segment of an incremental, and every file copied for it, read, opened, hashed and counted against what was recorded of it. */
import { sha256Hex } from "../../crypto/digest.ts";
import { epochSource } from "../../crypto/epochs.ts";
import { asHoldfastError, HoldfastError } from "../../errors.ts";
import { readRepository } from "../../format/repository.ts";
import { text } from "../../jobs/run_row.ts";
import type { Connection } from "../../postgres/connection.ts";
import type { ReadDeps } from "../../verify/find_backup.ts";
import type { VerifyOptions, VerifyProblem, VerifyResult } from "../../verify/run.ts";
import { type RecordedList, verifyStreamLists } from "../../verify/verify_stream_lists.ts";
import { decodeMessage } from "../decode/pgoutput.ts";
import { type OpenedSegment, openSegment, readRecords } from "./segment.ts";

/** As the database has recorded it. */
export interface RecordedSegment {
  readonly name: string;
  readonly rawBytes: number;
  readonly storedBytes: number;
  /** SHA-256 of the sealed bytes in hex. */
  readonly storedHash: string;
  readonly transactions: number;
  /** Row changes and truncates. */
  readonly changes: number;
}

/** In order; only the database knows which segments an incremental owns. */
export async function segmentsOf(connection: Connection, run: string): Promise<RecordedSegment[]> {
  const rows = await connection.query(
    `select s.name, s.raw_bytes, s.stored_bytes, s.stored_hash, s.transactions, s.changes
       from backup.segments as s where s.run_id = $1::uuid order by s.end_lsn, s.part`,
    [run],
  );
  return rows.map((row) => ({
    name: text(row, "name"),
    rawBytes: Number(row["raw_bytes"]),
    storedBytes: Number(row["stored_bytes"]),
    storedHash: text(row, "stored_hash"),
    transactions: Number(row["transactions"]),
    changes: Number(row["changes"]),
  }));
}

/**
 * Lists of the files that were copied between its first segment and the one behind its last: a list is made once its segment is recorded.
 * Each list of a chain is of one incremental. In the order of the log.
 */
export async function listsOf(connection: Connection, run: string): Promise<RecordedList[]> {
  const rows = await connection.query(
    `with own as (
       select s.chain_id, min(s.end_lsn) as first_end, max(s.end_lsn) as last_end from backup.segments as s
       where s.run_id = $1::uuid group by s.chain_id
     )
     select l.name, l.files, l.stored_bytes, l.stored_hash
     from own join backup.file_lists as l on l.chain_id = own.chain_id and l.lsn > own.first_end
     where l.lsn <= coalesce(
       (select min(n.end_lsn) from backup.segments as n where n.chain_id = own.chain_id and n.end_lsn > own.last_end),
       l.lsn
     )
     order by l.lsn, l.name`,
    [run],
  );
  return rows.map((row) => ({
    name: text(row, "name"),
    files: Number(row["files"]),
    storedBytes: Number(row["stored_bytes"]),
    storedHash: text(row, "stored_hash"),
  }));
}

/**
 * One segment in memory at a time, then a list and some parts of its files. `rows` of the result are changes. What is wrong is in
 * `problems`; thrown is what keeps every segment from being read: `object_missing` of the repository, `cancelled`.
 */
export async function verifyIncremental(
  deps: ReadDeps,
  id: string,
  { segments, lists }: { readonly segments: readonly RecordedSegment[]; readonly lists: readonly RecordedList[] },
  options: VerifyOptions = {},
): Promise<VerifyResult> {
  const repository = await readRepository(deps.store);
  if (repository === null) throw new HoldfastError("object_missing", `${deps.store.label} has no v1/repository.json`);
  const openDeps = { compressor: deps.compressor, epochOf: epochSource(deps.store, deps.ring, repository.id) };
  const problems: VerifyProblem[] = [];
  const totals = { objects: 0, rows: 0, rawBytes: 0, storedBytes: 0 };
  const storedBytesTotal = [...segments, ...lists].reduce((sum, one) => sum + one.storedBytes, 0);
  let before: OpenedSegment | null = null;
  for (const recorded of segments) {
    if (options.signal?.aborted === true) throw new HoldfastError("cancelled", "the verification was cancelled");
    try {
      const bytes = await deps.store.read(recorded.name);
      if (await sha256Hex(bytes) !== recorded.storedHash) {
        throw new HoldfastError("object_damaged", `${recorded.name} is not what was stored`);
      }
      const opened: OpenedSegment = await openSegment(openDeps, recorded.name, bytes);
      checkAgainst(opened, recorded, before);
      before = opened;
      totals.rows += recorded.changes;
    } catch (error) {
      const { code, message } = asHoldfastError(error);
      if (code === "identity_missing") throw error;
      problems.push({ object: recorded.name, code, message });
      before = null;
    }
    totals.objects++;
    totals.rawBytes += recorded.rawBytes;
    totals.storedBytes += recorded.storedBytes;
    options.onProgress?.({
      objects: totals.objects,
      objectsTotal: segments.length + lists.length,
      storedBytes: totals.storedBytes,
      storedBytesTotal,
    });
  }
  const copied = await verifyStreamLists({ ...openDeps, store: deps.store }, lists, {
    ...options.signal === undefined ? {} : { signal: options.signal },
    onRead: (at) =>
      options.onProgress?.({
        objects: totals.objects + at.objects,
        objectsTotal: segments.length + at.objectsTotal,
        storedBytes: totals.storedBytes + at.storedBytes,
        storedBytesTotal: totals.storedBytes + at.storedBytesTotal,
      }),
  });
  problems.push(...copied.problems);
  return {
    id,
    ok: problems.length === 0,
    objects: totals.objects + copied.objects,
    rows: totals.rows,
    rawBytes: totals.rawBytes + copied.rawBytes,
    storedBytes: totals.storedBytes + copied.storedBytes,
    files: { rows: copied.files, withoutContent: 0, withoutRow: 0 },
    problems,
  };
}

function checkAgainst(opened: OpenedSegment, recorded: RecordedSegment, before: OpenedSegment | null): void {
  if (before !== null && opened.header.previous?.hash !== before.linkHash) {
    throw new HoldfastError("chain_broken", `${opened.name} does not follow ${before.name}`);
  }
  let [transactions, changes, ddl] = [0, 0, 0];
  const logs = new Set<number>();
  for (const { data } of readRecords(opened.name, opened.records)) {
    const message = decodeMessage(data);
    if (message.kind === "relation" && message.relation.schema === "backup") logs.add(message.relation.oid);
    else if (message.kind === "commit") transactions++;
    else if (message.kind === "truncate") changes++;
    else if (message.kind === "insert" || message.kind === "update" || message.kind === "delete") {
      if (logs.has(message.relation)) ddl++;
      else changes++;
    }
  }
  // The parts of one transaction share the descriptions of their tables: only all changes together can be told there.
  const whole = opened.header.part === 0;
  const counted = whole ? changes : changes + ddl;
  const expected = whole ? recorded.changes : recorded.changes + opened.header.ddl;
  if (transactions !== recorded.transactions || counted !== expected) {
    throw new HoldfastError(
      "counts_differ",
      `${opened.name} holds ${counted} changes in ${transactions} transactions, ${expected} in ${recorded.transactions} were recorded`,
    );
  }
}
