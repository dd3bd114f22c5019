/**
 * What a thread does of a rewriting: opens an object, takes out what goes, seals the rest under a name of its own and reads it back.
 * Nothing is removed or replaced here.
 */
import type { EpochSource } from "../../crypto/epoch.ts";
import { sha256Hex } from "../../crypto/digest.ts";
import { decodeMessage, messageKind } from "../../changes/decode/pgoutput.ts";
import { openSegment, readRecords, sealSegment } from "../../changes/segments/segment.ts";
import { type OpenDeps, type Plain, seal, type SealDeps } from "../../format/container.ts";
import { open } from "../../format/container.ts";
import { decodeHeader } from "../../format/container_header.ts";
import { listFacts } from "../../format/file_list.ts";
import { parseFileListName } from "../../format/layout.ts";
import type { ManifestFileList } from "../../format/manifest.ts";
import { objectName, streamListName } from "../../format/object_name.ts";
import type { TableName } from "../../restore/project_rows.ts";
import type { Random } from "../../random.ts";
import type { Compressor } from "../../format/compressor.ts";
import { putAndReadBack, type PutResult } from "../../store/put.ts";
import type { Store } from "../../store/store.ts";
import { checkFileList } from "../../verify/read_file_list.ts";
import { readObject, readPacked, type RecordedObject } from "../../verify/read_object.ts";
import { openStreamList } from "../../verify/stream_lists.ts";
import type { Identity } from "../entry.ts";
import type { HashKey } from "../hashes.ts";
import { ErasedKeys, type ReadColumn } from "../judge_row.ts";
import { release } from "../../memory.ts";
import type { RemovalTable } from "../removal_plan.ts";
import { rewriteRecords, StreamTables } from "../rewrite_records.ts";
import { rewriteText } from "../rewrite_text.ts";
import { TableRewriter } from "../table_rewriter.ts";
import { repack } from "./repack.ts";
import { rewriteList } from "./rewrite_list.ts";
import { standingOf, type StandingSegment } from "./standing.ts";
import { type FoundTerm, termsIn } from "./terms.ts";

export interface HandsDeps {
  readonly store: Store;
  readonly compressor: Compressor;
  readonly random: Random;
  readonly epochOf: EpochSource;
}

/** What is gone for sure, for the objects that come next. Plain data. */
export interface Scope {
  readonly keys: readonly HashKey[];
  readonly hashes: readonly string[];
  readonly identities: readonly Identity[];
}

export interface ChunkTask {
  readonly object: RecordedObject;
  readonly epoch: string;
  readonly table: RemovalTable;
  readonly columns: readonly string[];
  readonly alsoBy: readonly (readonly string[])[];
  /** Nothing is put: what goes in it is asked for. */
  readonly looksOnly: boolean;
}

/** As a manifest records it. */
export interface NewObject {
  readonly name: string;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly hash: string;
  readonly storedHash: string;
}

export interface ChunkDone {
  /** Null: nothing of it changes, or no row is left, which `rows` tells. */
  readonly object: NewObject | null;
  readonly rows: number;
  readonly removed: number;
  readonly changed: number;
  readonly gone: readonly string[];
  readonly terms: readonly FoundTerm[];
}

export interface ListTask {
  readonly list: ManifestFileList;
  readonly epoch: string;
  readonly table: RemovalTable;
}

export interface ListDone {
  /** Null: nothing of it changes. */
  readonly list: ManifestFileList | null;
  readonly removed: number;
  /** Parts that files which go were made of. */
  readonly parts: readonly string[];
  readonly terms: readonly FoundTerm[];
}

/** A list beside the segments of a chain. */
export interface StreamListTask {
  readonly name: string;
  readonly table: RemovalTable;
}

export interface StreamListDone {
  readonly name: string;
  /** False: nothing of it changes. */
  readonly changes: boolean;
  /** What is left of it, in the store and read back; null: nothing. */
  readonly left: {
    readonly name: string;
    readonly files: number;
    readonly stored_bytes: number;
    readonly stored_hash: string;
  } | null;
  readonly epoch: string;
  readonly removed: number;
  readonly parts: readonly string[];
  readonly terms: readonly FoundTerm[];
}

/** Rules of tables by name, of a leaf of a partitioned table too. */
export interface StreamRules {
  readonly tables: readonly { readonly name: TableName; readonly table: RemovalTable }[];
}

export interface SegmentTask {
  /** Parts of one range, in order. */
  readonly names: readonly string[];
  /** So many of the first of them are done: they only tell what tables the others speak of. */
  readonly told: number;
  /** Number of the newest entry that is applied. */
  readonly through: number;
  /** Of rows that are gone where the first of the others begins, beside those that the ledger names. */
  readonly gone: readonly string[];
}

export interface SegmentDone {
  readonly name: string;
  /** Null: nothing of it changes. */
  readonly sealed: Uint8Array | null;
  readonly rawBytes: number;
  readonly hash: string;
  readonly changes: number;
  readonly revision: number;
  readonly original: string;
  readonly removed: number;
  readonly changed: number;
  /** As `gone` of the task, where it ends. */
  readonly gone: readonly string[];
  readonly terms: readonly FoundTerm[];
  /** Where the one that was read was rewritten before: what it is. */
  readonly standing: StandingSegment | null;
}

/** What a rewriting asks of its threads; the answers come in any order. */
export interface Hands {
  begin(scope: Scope, rules: StreamRules | null): Promise<void>;
  learn(gone: readonly string[], identities: readonly Identity[]): Promise<void>;
  chunk(task: ChunkTask): Promise<ChunkDone>;
  list(task: ListTask): Promise<ListDone>;
  streamList(task: StreamListTask): Promise<StreamListDone>;
  segment(task: SegmentTask): Promise<SegmentDone[]>;
  /** How many tasks are worth being under way at once. */
  readonly atOnce: number;
}

const sameName = (a: TableName, b: TableName): boolean => a.schema === b.schema && a.name === b.name;

export class OwnHands implements Hands {
  readonly atOnce = 2;
  readonly #deps: HandsDeps;
  #erased = new ErasedKeys([], [], []);
  #rules: StreamRules | null = null;

  constructor(deps: HandsDeps) {
    this.#deps = deps;
  }

  begin({ keys, hashes, identities }: Scope, rules: StreamRules | null): Promise<void> {
    this.#erased = new ErasedKeys(keys, hashes, identities);
    this.#rules = rules;
    return Promise.resolve();
  }

  learn(gone: readonly string[], identities: readonly Identity[]): Promise<void> {
    this.#erased.learn(gone, identities);
    return Promise.resolve();
  }

  /** Errors: those of `readObject` and the store. */
  async chunk({ object, epoch, table, columns, alsoBy, looksOnly }: ChunkTask): Promise<ChunkDone> {
    const { plaintext: text, packed } = await readPacked(this.#deps, object);
    const terms: FoundTerm[] = [];
    const { bytes, kept, ...rest } = rewriteText(
      text,
      new TableRewriter(this.#erased, table, columns, alsoBy),
      (read) => terms.push(...termsIn(table, columns, read)),
    );
    const fresh = rest.rows === 0 || looksOnly ? null : bytes;
    const repacked = fresh === null || packed === null
      ? undefined
      : repack(this.#deps.compressor, { text, packed }, fresh, kept);
    release(text);
    if (packed !== null) release(packed);
    return { ...rest, terms, object: fresh === null ? null : await this.#put("chunk", epoch, fresh, repacked) };
  }

  /** Errors: those of `readObject` and the store. */
  async list({ list, epoch, table }: ListTask): Promise<ListDone> {
    const { object: name, rawBytes, storedBytes, hash, storedHash } = list;
    const stored = { bytes: storedBytes, hash: storedHash };
    const files = checkFileList(await readObject(this.#deps, { kind: "files", name, rawBytes, hash, stored }), list);
    const { kept, plaintext, ...found } = rewriteList(files, table, this.#erased);
    if (plaintext === null) return { list: null, ...found };
    const { name: object, ...facts } = await this.#put("files", epoch, plaintext);
    return { list: { object, ...facts, ...listFacts(kept) }, ...found };
  }

  /** Under the epoch of the one before it, at the same place. Errors: those of `openStreamList` and the store. */
  async streamList({ name, table }: StreamListTask): Promise<StreamListDone> {
    const stored = await this.#deps.store.read(name);
    const { kept, plaintext, ...found } = rewriteList(
      await openStreamList(this.#deps, name, stored),
      table,
      this.#erased,
    );
    const { epochId } = decodeHeader(stored, name);
    const facts = { name, epoch: epochId, changes: plaintext !== null, ...found };
    const place = parseFileListName(name);
    if (plaintext === null || place === null || kept.length === 0) return { ...facts, left: null };
    const fresh = await streamListName(await this.#deps.epochOf(epochId), place, plaintext);
    const { storedBytes, storedHash } = await putSealed(this.#deps, epochId, {
      kind: "files",
      name: fresh,
      plaintext,
      hash: await sha256Hex(plaintext),
    });
    return {
      ...facts,
      left: { name: fresh, files: kept.length, stored_bytes: storedBytes, stored_hash: storedHash },
    };
  }

  /** Errors: those of `openSegment` and the store. */
  async segment({ names, told, through, gone }: SegmentTask): Promise<SegmentDone[]> {
    this.#erased.gone.clear();
    this.#erased.learn(gone, this.#rules?.tables.flatMap(({ table }) => table.identities) ?? []);
    const tables = new StreamTables((name, columns, keys) => {
      const found = this.#rules?.tables.find((one) => sameName(one.name, name));
      if (found === undefined) return null;
      const rewriter = new TableRewriter(this.#erased, found.table, columns, keys.length === 0 ? [] : [keys]);
      this.#erased.learn([], rewriter.identities);
      return rewriter;
    });
    const done: SegmentDone[] = [];
    for (const name of names.slice(0, told)) await this.#note(name, tables);
    for (const name of names.slice(told)) done.push(await this.#segment(name, through, tables));
    return done;
  }

  async #note(name: string, tables: StreamTables): Promise<void> {
    const { records } = await openSegment(this.#deps, name, await this.#deps.store.read(name));
    for (const { data } of readRecords(name, records)) {
      const message = messageKind(data) === "relation" ? decodeMessage(data) : null;
      if (message?.kind === "relation") tables.note(message.relation);
    }
  }

  async #segment(name: string, through: number, tables: StreamTables): Promise<SegmentDone> {
    const stored = await this.#deps.store.read(name);
    const segment = await openSegment(this.#deps, name, stored);
    const { header, records, storedHash } = segment;
    const terms: FoundTerm[] = [];
    const onGone = (table: TableName, columns: readonly string[], read: ReadColumn) =>
      terms.push(...termsIn(table, columns, read));
    const { records: fresh, ...found } = rewriteRecords(name, records, tables, this.#erased, onGone);
    const revision = (header.rewritten?.revision ?? 0) + 1;
    const original = header.rewritten?.original ?? storedHash;
    // A change in place keeps the number of changes: what is left out is told apart from what the log of DDL holds.
    const changes = header.changes - found.removed;
    const standing = await standingOf(segment, stored.byteLength);
    const facts = {
      name,
      changes,
      revision,
      original,
      ...found,
      gone: [...this.#erased.gone.values()],
      terms,
      standing,
    };
    if (fresh === null) return { ...facts, sealed: null, rawBytes: 0, hash: "" };
    const epoch = await this.#deps.epochOf(decodeHeader(stored, name).epochId);
    const rewritten = { revision, original, through };
    const sealed = await sealSegment(this.#deps, epoch, { ...header, changes, rewritten }, fresh);
    return { ...facts, sealed: sealed.bytes, rawBytes: sealed.rawBytes, hash: sealed.hash };
  }

  /** Errors: `object_conflict`, `store_lied`, those of the store. */
  async #put(
    kind: "chunk" | "files",
    epochId: string,
    plaintext: Uint8Array,
    packed?: Uint8Array,
  ): Promise<NewObject> {
    const { name, hash } = await objectName(await this.#deps.epochOf(epochId), kind, plaintext);
    const content = { kind, name, plaintext, hash, ...(packed === undefined ? {} : { packed }) };
    const put = await putSealed(this.#deps, epochId, content);
    return { name, rawBytes: plaintext.byteLength, storedBytes: put.storedBytes, hash, storedHash: put.storedHash };
  }
}

async function putSealed(
  deps: HandsDeps & SealDeps & OpenDeps,
  epochId: string,
  { hash, ...plain }: Plain & { readonly hash: string },
): Promise<PutResult> {
  const { kind, name, plaintext } = plain;
  const sealed = await seal(deps, await deps.epochOf(epochId), plain);
  const put = await putAndReadBack(deps.store, name, sealed, async (bytes) => {
    const there = await open(deps, { kind, name, bytes, maxBytes: plaintext.byteLength });
    return await sha256Hex(there) === hash;
  });
  // Another backup's lock may end before this one's.
  await deps.store.lock?.hold(name);
  return put;
}
