/** What a manifest says. docs/format.md, "Manifest", explains each field; this schema is the form of version 1. */
import { z } from "zod";
import { epochIdPattern } from "../crypto/epoch.ts";
import { chainPattern, idPattern, parseManifestName, tierPattern } from "./layout.ts";

export const manifestFormat = "holdfast/manifest";
export const manifestVersion = 1;

/** Whole numbers up to 2^53 - 1, exact in JSON. */
const count = z.int().nonnegative();
/** `pg_class.oid` and its like. */
const oid = z.int().nonnegative().max(0xffffffff);
const hash = z.string().regex(/^[0-9a-f]{64}$/);
const id = z.string().regex(idPattern);
const lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/);
const moment = z.iso.datetime();
const backupName = z.string().refine((name) => parseManifestName(name) !== null);
const contentObject = z.string().regex(/^v1\/objects\/([0-9a-f]{2})\/\1[0-9a-f]{62}$/);

const chunk = z.object({
  object: contentObject,
  rows: count,
  rawBytes: count,
  storedBytes: count,
  /** SHA-256 of the plaintext. */
  hash,
  /** SHA-256 of the sealed bytes in the store. */
  storedHash: hash,
  /** First block of the range, and the first block past it; null: up to the end of the table. */
  fromBlock: count,
  toBlock: count.nullable(),
  /** First line pointer within `fromBlock`, and the first one past the range within `toBlock`; for split pages. */
  fromItem: count.optional(),
  toItem: count.optional(),
  /** Id of the backup whose chunk was taken over without reading the range again. */
  takenFrom: id.nullable(),
});

/** Of an object that lawful erasures have put in the place of another one of its name. docs/format.md, F-34. */
export const rewrittenFormat = z.object({
  /** How often it was rewritten. */
  revision: z.int().positive(),
  /** SHA-256 of the sealed bytes that were there first: what links name. */
  original: hash,
  /** Number of the newest entry of the erasure ledger that was applied. */
  through: z.int().positive(),
});

const fileList = z.object({
  object: contentObject,
  rawBytes: count,
  storedBytes: count,
  hash,
  storedHash: hash,
  /** Entries in the list, and those of them whose content is missed. */
  files: count,
  missed: count,
  /** Parts that the list names, with repetitions, and their bytes. */
  parts: count,
  partBytes: count,
  partStoredBytes: count,
});

const table = z.object({
  schema: z.string(),
  name: z.string(),
  oid,
  /** 0 for a partitioned table, which has no storage. */
  relfilenode: oid,
  /** In the order of the fields of the COPY text. */
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  rows: count,
  rawBytes: count,
  /** Of all that shapes the text. */
  fingerprint: z.string(),
  /** Whose rows: `user`, or the platform's service, such as `auth`. */
  dataOwner: z.string(),
  chunks: z.array(chunk),
});

export const manifestSchema = z.object({
  format: z.literal(manifestFormat),
  version: z.literal(manifestVersion),
  id,
  tiers: z.array(z.string().regex(tierPattern)).min(1),
  repositoryId: id,
  project: z.object({ ref: z.string().nullable(), systemIdentifier: z.string(), database: z.string() }),
  previousManifest: z.object({ name: backupName, hash }).nullable(),
  generation: z.int().positive(),
  createdAt: moment,
  consistentAt: moment,
  snapshot: z.object({ text: z.string(), walInsertLsn: lsn }),
  /** The chain of the change stream that was open when the snapshot was taken; null or absent: none. */
  chain: z.string().regex(chainPattern).nullable().optional(),
  server: z.object({ versionNum: z.int(), encoding: z.string(), collate: z.string(), ctype: z.string() }),
  holdfastVersion: z.string(),
  epoch: z.string().regex(epochIdPattern),
  schemaObject: z.object({
    name: contentObject,
    rawBytes: count,
    storedBytes: count,
    hash,
    storedHash: hash.optional(),
  }),
  tables: z.array(table),
  sequences: z.array(
    z.object({
      schema: z.string(),
      name: z.string(),
      lastValue: z.string().regex(/^-?\d{1,19}$/),
      isCalled: z.boolean(),
    }),
  ),
  /** Reserved; a later version may fill it. */
  largeObjects: z.array(z.never()),
  warnings: z.array(z.object({ code: z.string(), message: z.string() })),
  notCaptured: z.array(z.object({ catalog: z.string(), identity: z.string(), reason: z.string() })),
  /** The content of the project's files; null or absent: there is no Storage, or it was not copied, which a warning says. */
  files: z.object({
    /** Buckets whose files are not in it, by the settings. */
    leftOut: z.array(z.string()),
    /** Rows of storage.buckets as JSON text. */
    buckets: z.array(z.string()),
    lists: z.array(fileList),
  }).nullable().optional(),
  /** Absent: as it was first written. */
  rewritten: rewrittenFormat.optional(),
  totals: z.object({
    tables: count,
    rows: count,
    rawBytes: count,
    storedBytes: count,
    newStoredBytes: count,
    objects: count,
  }),
});

export type Manifest = z.infer<typeof manifestSchema>;
export type ManifestTable = Manifest["tables"][number];
export type ManifestChunk = ManifestTable["chunks"][number];
export type ManifestFileList = NonNullable<Manifest["files"]>["lists"][number];

/** The lists of files of a backup; none where it holds no files. */
export function fileListsOf(manifest: Manifest): readonly ManifestFileList[] {
  return manifest.files?.lists ?? [];
}

/**
 * What does not add up, in sentences without names or values from the database; empty for a sound manifest.
 * Written manifests are checked before they are sealed, read ones before they are used.
 */
export function contradictions(manifest: Manifest): string[] {
  const found: string[] = [];
  const sum = (numbers: readonly number[]) => numbers.reduce((total, each) => total + each, 0);
  const objects = new Set<string>([manifest.schemaObject.name]);
  for (const [index, each] of manifest.tables.entries()) {
    const place = `table ${index + 1} of ${manifest.tables.length}`;
    if (sum(each.chunks.map((part) => part.rows)) !== each.rows) {
      found.push(`${place}: its chunks hold another number of rows`);
    }
    if (sum(each.chunks.map((part) => part.rawBytes)) !== each.rawBytes) {
      found.push(`${place}: its chunks hold another number of bytes`);
    }
    for (const part of each.chunks) {
      objects.add(part.object);
      if (part.toBlock !== null && part.toBlock < part.fromBlock) found.push(`${place}: a chunk ends before it starts`);
    }
  }
  for (const list of fileListsOf(manifest)) {
    objects.add(list.object);
    if (list.missed > list.files) found.push("a list of files lacks more files than it has");
  }
  const { totals } = manifest;
  if (totals.tables !== manifest.tables.length) found.push("the total of tables is another");
  if (totals.rows !== sum(manifest.tables.map((each) => each.rows))) found.push("the total of rows is another");
  if (totals.objects !== objects.size) found.push("the total of objects is another");
  const tableNames = new Set(manifest.tables.map((each) => JSON.stringify([each.schema, each.name])));
  if (tableNames.size !== manifest.tables.length) found.push("a table is listed twice");
  if (manifest.generation === 1 && manifest.previousManifest !== null) {
    found.push("a first generation names a previous one");
  }
  if (manifest.generation > 1 && manifest.previousManifest === null) {
    found.push("a later generation names no previous one");
  }
  return found;
}

/**
 * Every object that the manifest names, with what is recorded of it, each once; the schema capture first, lists of files last. What
 * these name in turn is theirs alone: `file_list.ts` reads them.
 */
export interface ManifestObject {
  readonly kind: "schema" | "chunk" | "files";
  readonly name: string;
  readonly rawBytes: number;
  readonly storedBytes: number;
  readonly hash: string;
  /** Undefined where the manifest records none. */
  readonly storedHash: string | undefined;
}

export function objectsOf(manifest: Manifest): ManifestObject[] {
  const { schemaObject } = manifest;
  const objects = new Map<string, ManifestObject>();
  objects.set(schemaObject.name, { kind: "schema", ...schemaObject, storedHash: schemaObject.storedHash });
  for (const part of manifest.tables.flatMap((each) => each.chunks)) {
    const { object: name, rawBytes, storedBytes, hash, storedHash } = part;
    if (!objects.has(name)) objects.set(name, { kind: "chunk", name, rawBytes, storedBytes, hash, storedHash });
  }
  for (const { object: name, rawBytes, storedBytes, hash, storedHash } of fileListsOf(manifest)) {
    if (!objects.has(name)) objects.set(name, { kind: "files", name, rawBytes, storedBytes, hash, storedHash });
  }
  return [...objects.values()];
}

/** Code of the warning that marks a backup as quarantined, so that the store alone tells. An acceptance is not in it. */
export const quarantinedCode = "quarantined";

/** Why the backup was quarantined when it was taken, or null. */
export function quarantineOf(manifest: Manifest): string | null {
  return manifest.warnings.find((warning) => warning.code === quarantinedCode)?.message ?? null;
}
