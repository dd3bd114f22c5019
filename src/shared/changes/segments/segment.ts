/** A segment: what it says of itself, and its bytes. docs/format.md, "Segments". */
import { z } from "zod";
import { sha256Hex } from "../../crypto/digest.ts";
import type { Epoch } from "../../crypto/epoch.ts";
import { HoldfastError } from "../../errors.ts";
import { open, type OpenDeps, seal, type SealDeps } from "../../format/container.ts";
import { rewrittenFormat } from "../../format/manifest.ts";
import { chainPattern, idPattern, parseSegmentName, segmentName } from "../../format/layout.ts";
import { isLsn, parseLsn } from "../decode/lsn.ts";

export const segmentFormat = "holdfast/segment";
export const segmentVersion = 1;

/** Most plaintext of one segment that a reader takes: a single row of a gigabyte, with what is around it. */
export const maxSegmentBytes = 1_200 * 1024 * 1024;

const count = z.int().nonnegative();
const lsn = z.string().refine(isLsn);
const moment = z.iso.datetime({ precision: 6 });
const xid = z.string().regex(/^\d{1,20}$/);

export const segmentHeaderSchema = z.object({
  format: z.literal(segmentFormat),
  version: z.literal(segmentVersion),
  repositoryId: z.string().regex(idPattern),
  chain: z.string().regex(chainPattern),
  startLsn: lsn,
  endLsn: lsn,
  /** 0, or which part of a transaction that is too large for one segment. */
  part: count,
  /** The segment before it in its chain; null for the first. */
  previous: z.object({ name: z.string(), hash: z.string().regex(/^[0-9a-f]{64}$/) }).nullable(),
  /** Its first change goes on with a transaction of the segment before; its last one is continued in the next. */
  startsInTransaction: z.boolean(),
  endsInTransaction: z.boolean(),
  /** Transactions that commit in it. */
  transactions: count,
  /** Row changes and truncates. */
  changes: count,
  /** Rows of the DDL log. */
  ddl: count,
  firstCommitAt: moment.nullable(),
  lastCommitAt: moment.nullable(),
  /** When the server was asked: every commit before its end was made before this moment, by the server's clock. */
  takenAt: moment,
  /** The next transaction id at that moment, 64 bits wide: what widens the ids of the records. */
  nextXid: xid,
  server: z.object({ systemIdentifier: z.string(), database: z.string(), versionNum: z.int() }),
  /** As they stood when the server was asked: at or ahead of every value that a change of this segment has used. */
  sequences: z.array(
    z.object({
      schema: z.string(),
      name: z.string(),
      lastValue: z.string().regex(/^-?\d{1,19}$/),
      isCalled: z.boolean(),
    }),
  ),
  /** Sequences of which nobody could read the value, since a transaction held them: they stood at or ahead of an earlier one. */
  heldSequences: z.array(z.object({ schema: z.string(), name: z.string() })).optional(),
  /**
   * A hash of the columns of all tables when the server was asked, and whether changes of definitions were logged then; where
   * they were not, one of the whole catalog too. One that differs from the segment before while they were not logged is a
   * change that no replay knows.
   */
  definitions: z.object({
    hash: z.string().regex(/^[0-9a-f]{32}$/),
    logged: z.boolean(),
    catalog: z.string().regex(/^[0-9a-f]{64}$/).optional(),
  }).optional(),
  /** What no replay can do, the newest of this chain: a full backup at `lsn` holds it, moments before `at` can be restored. */
  obstacles: z.array(z.object({ lsn, at: z.string(), what: z.string(), why: z.string() })).optional(),
  /** Since when the server has counted: another text than in the segment before, and what was counted until then is lost. */
  countedSince: z.string().optional(),
  /** The next transaction id right after the counters were read. */
  countedNextXid: xid.optional(),
  /** Every commit before this moment was in the counters; null: the drain could not know. */
  countedUntil: moment.nullable().optional(),
  /** Absent: as it was first written. */
  rewritten: rewrittenFormat.optional(),
  /** Tables whose changes are not all in the stream, with the server's counters of what happened to them. */
  uncovered: z.array(
    z.object({
      /** Absent in the first versions. */
      oid: z.int().positive().optional(),
      schema: z.string(),
      name: z.string(),
      /** It belongs to an extension: where it always did, no backup has its rows. */
      ofExtension: z.literal(true).optional(),
      /** Of an unlogged one, its file: TRUNCATE makes another, and counts nothing. */
      file: count.optional(),
      missing: z.enum(["everything", "updates and deletes"]),
      reason: z.string(),
      updated: count,
      deleted: count,
      inserted: count,
    }),
  ),
});

export type SegmentHeader = z.infer<typeof segmentHeaderSchema>;

/** One message of the output plugin, with where the server gave it. */
export interface SegmentRecord {
  readonly lsn: bigint;
  /** The lower 32 bits; 0 outside of transactions. */
  readonly xid: number;
  /** As `pgoutput` wrote it. A view into the segment where it was read from one. */
  readonly data: Uint8Array;
}

const recordHead = 16;

/** Records as they come, in memory that grows to what they need. */
export class RecordBuffer {
  #bytes: Uint8Array = new Uint8Array(256 * 1024);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  append(lsn: bigint, xid: number, data: Uint8Array): void {
    const end = this.#length + recordHead + data.length;
    if (end > this.#bytes.length) this.#grow(end);
    this.#view.setBigUint64(this.#length, lsn);
    this.#view.setUint32(this.#length + 8, xid);
    this.#view.setUint32(this.#length + 12, data.length);
    this.#bytes.set(data, this.#length + recordHead);
    this.#length = end;
  }

  /** Valid until the next `append`. */
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #grow(needed: number): void {
    const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    larger.set(this.bytes());
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

/** The plaintext: length of the header (4 bytes, big-endian), the header as JSON, the records. */
export function encodeSegment(header: SegmentHeader, records: Uint8Array): Uint8Array {
  const parsed = segmentHeaderSchema.safeParse(header);
  if (!parsed.success) {
    const where = parsed.error.issues[0]?.path.map(String).join(".") ?? "";
    throw new HoldfastError("internal", `a segment was to be written that no reader would take: ${where}`);
  }
  const head = new TextEncoder().encode(JSON.stringify(parsed.data));
  const plaintext = new Uint8Array(4 + head.length + records.length);
  new DataView(plaintext.buffer).setUint32(0, head.length);
  plaintext.set(head, 4);
  plaintext.set(records, 4 + head.length);
  return plaintext;
}

/** Errors: `format_newer`, decided before anything else is looked at; `object_damaged`. */
export function decodeSegment(name: string, plaintext: Uint8Array): { header: SegmentHeader; records: Uint8Array } {
  const damaged = (why: string, cause?: unknown) =>
    new HoldfastError("object_damaged", `segment ${name} ${why}`, cause === undefined ? {} : { cause });
  const view = new DataView(plaintext.buffer, plaintext.byteOffset, plaintext.byteLength);
  if (plaintext.length < 4) throw damaged("is cut short");
  const headLength = view.getUint32(0);
  if (4 + headLength > plaintext.length) throw damaged("is cut short");
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(plaintext.subarray(4, 4 + headLength)));
  } catch (cause) {
    throw damaged("has a header that is no JSON text", cause);
  }
  const head = z.object({ format: z.literal(segmentFormat), version: z.int() }).safeParse(json);
  if (!head.success) throw damaged("is no segment");
  if (head.data.version > segmentVersion) {
    throw new HoldfastError("format_newer", `segment ${name} has version ${head.data.version}`);
  }
  const parsed = segmentHeaderSchema.safeParse(json);
  if (!parsed.success) throw damaged("has a header that does not hold together");
  const header = parsed.data;
  if (nameOf(header) !== name) throw damaged("stands under another's name");
  return { header, records: plaintext.subarray(4 + headLength) };
}

/** In order. Errors: `object_damaged` for records that are cut or run over the end. */
export function* readRecords(name: string, records: Uint8Array): Generator<SegmentRecord> {
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  for (let at = 0; at < records.length;) {
    if (at + recordHead > records.length) throw new HoldfastError("object_damaged", `segment ${name} is cut short`);
    const end = at + recordHead + view.getUint32(at + 12);
    if (end > records.length) throw new HoldfastError("object_damaged", `segment ${name} is cut short`);
    yield { lsn: view.getBigUint64(at), xid: view.getUint32(at + 8), data: records.subarray(at + recordHead, end) };
    at = end;
  }
}

export interface SealedSegment {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly rawBytes: number;
  /** SHA-256 of the plaintext in hex. */
  readonly hash: string;
}

export async function sealSegment(
  deps: SealDeps,
  epoch: Epoch,
  header: SegmentHeader,
  records: Uint8Array,
): Promise<SealedSegment> {
  if (epoch.repositoryId !== header.repositoryId) {
    throw new HoldfastError("internal", "a segment was to be sealed under the epoch of another repository");
  }
  const name = nameOf(header);
  const plaintext = encodeSegment(header, records);
  const bytes = await seal(deps, epoch, { kind: "segment", name, plaintext });
  return { name, bytes, rawBytes: plaintext.length, hash: await sha256Hex(plaintext) };
}

function nameOf({ chain, startLsn, endLsn, part }: SegmentHeader): string {
  return segmentName({ chain, startLsn: parseLsn(startLsn), endLsn: parseLsn(endLsn), part });
}

export interface OpenedSegment {
  readonly name: string;
  /** SHA-256 of the sealed bytes in hex. */
  readonly storedHash: string;
  /** As its successor names it: of the bytes that were there first, where lawful erasures have rewritten it. */
  readonly linkHash: string;
  readonly header: SegmentHeader;
  readonly records: Uint8Array;
}

/** Opens and checks one. Errors: those of `open` and `decodeSegment`. */
export async function openSegment(deps: OpenDeps, name: string, bytes: Uint8Array): Promise<OpenedSegment> {
  if (parseSegmentName(name) === null) throw new HoldfastError("internal", `${name} is no segment's name`);
  const plaintext = await open(deps, { kind: "segment", name, bytes, maxBytes: maxSegmentBytes });
  const storedHash = await sha256Hex(bytes);
  const decoded = decodeSegment(name, plaintext);
  return { name, storedHash, linkHash: decoded.header.rewritten?.original ?? storedHash, ...decoded };
}
