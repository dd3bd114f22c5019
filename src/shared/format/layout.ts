/** Every name that can be in a store. docs/format.md, "Names". */
import { epochIdPattern } from "../crypto/epoch.ts";
import { HoldfastError } from "../errors.ts";

/** First part of every name of this format. */
export const root = "v1/";
export const repositoryName = "v1/repository.json";

/** Prefixes for listings. */
export const prefixes = {
  keys: "v1/keys/",
  objects: "v1/objects/",
  blobs: "v1/blobs/",
  changes: "v1/changes/",
  backups: "v1/backups/",
  anchors: "v1/anchors/",
  claims: "v1/claims/",
  erasures: "v1/erasures/",
  terms: "v1/terms/",
} as const;

/** All blobs in steps that a leg can list, by the first digit of their names. */
export const blobPrefixes: readonly string[] = [..."0123456789abcdef"].map((digit) => `${prefixes.blobs}${digit}`);

export const tierPattern = /^[a-z][a-z0-9_]{0,30}$/;
export const idPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const hashPattern = /^[0-9a-f]{64}$/;
/** Of a chain's id. */
export const chainPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

/** What the name of a manifest says, before it is opened. */
export interface BackupName {
  /** Whole seconds. */
  readonly createdAt: Date;
  readonly tier: string;
  readonly id: string;
}

export function epochName(epochId: string): string {
  return `${prefixes.keys}${must(epochId, epochIdPattern, "epoch id")}.jwe.json`;
}

export function parseEpochName(name: string): string | null {
  const id = name.startsWith(prefixes.keys) && name.endsWith(".jwe.json") ? name.slice(prefixes.keys.length, -9) : "";
  return epochIdPattern.test(id) ? id : null;
}

/** Objects that are named by what they hold. */
export type ContentKind = "chunk" | "schema" | "files" | "blob";

/** `hash` is the keyed hash of the plaintext in hex. */
export function contentName(kind: ContentKind, hash: string): string {
  const prefix = kind === "blob" ? prefixes.blobs : prefixes.objects;
  return `${prefix}${must(hash, hashPattern, "hash").slice(0, 2)}/${hash}`;
}

/** What a segment's name says. */
export interface SegmentName {
  readonly chain: string;
  readonly startLsn: bigint;
  readonly endLsn: bigint;
  /** A transaction too large for one segment stands in several of the same range, from 0 on. */
  readonly part: number;
}

/** Positions become 16 hex digits, so that names sort as positions do; parts past the first are counted after a dot. */
export function segmentName({ chain, startLsn, endLsn, part }: SegmentName): string {
  const range = `${prefixes.changes}${must(chain, chainPattern, "chain")}/${lsnHex(startLsn)}-${lsnHex(endLsn)}`;
  return part === 0 ? range : `${range}.${String(part).padStart(6, "0")}`;
}

/** Null for a name that no segment has. */
export function parseSegmentName(name: string): SegmentName | null {
  const found = /^v1\/changes\/([a-z0-9-]+)\/([0-9a-f]{16})-([0-9a-f]{16})(?:\.(\d{6}))?$/.exec(name);
  if (found === null || !chainPattern.test(found[1] ?? "") || found[4] === "000000") return null;
  return {
    chain: found[1] ?? "",
    startLsn: BigInt(`0x${found[2]}`),
    endLsn: BigInt(`0x${found[3]}`),
    part: Number(found[4] ?? 0),
  };
}

/** What the name of a list of copied files says, which lies beside the segments of a chain. */
export interface FileListName {
  readonly chain: string;
  /** Where the log was once all that it lists was copied. */
  readonly lsn: bigint;
  /** Keyed hash of the list in hex. */
  readonly hash: string;
}

export function fileListName({ chain, lsn, hash }: FileListName): string {
  const place = `${prefixes.changes}${must(chain, chainPattern, "chain")}/files-${lsnHex(lsn)}`;
  return `${place}-${must(hash, hashPattern, "hash")}`;
}

/** Null for a name that no such list has. */
export function parseFileListName(name: string): FileListName | null {
  const found = /^v1\/changes\/([a-z0-9-]+)\/files-([0-9a-f]{16})-([0-9a-f]{64})$/.exec(name);
  if (found === null || !chainPattern.test(found[1] ?? "")) return null;
  return { chain: found[1] ?? "", lsn: BigInt(`0x${found[2]}`), hash: found[3] ?? "" };
}

export function manifestName(backup: BackupName): string {
  const tier = must(backup.tier, tierPattern, "tier");
  const id = must(backup.id, idPattern, "backup id");
  return `${prefixes.backups}${utcStamp(backup.createdAt)}-${tier}-${id}/manifest`;
}

/** Null for a name that no manifest has. */
export function parseManifestName(name: string): BackupName | null {
  const found = /^v1\/backups\/(\d{8}T\d{6}Z)-([a-z0-9_]+)-([0-9a-f-]{36})\/manifest$/.exec(name);
  const [stamp, tier, id] = [found?.[1] ?? "", found?.[2] ?? "", found?.[3] ?? ""];
  const createdAt = parseUtcStamp(stamp);
  if (createdAt === null || !tierPattern.test(tier) || !idPattern.test(id)) return null;
  return { createdAt, tier, id };
}

/** A head of an audit's chain: its place in the chain, its hash in hex, and the install whose audit it is. */
export interface AnchorName {
  readonly install: string;
  readonly place: number;
  readonly hash: string;
}

export function anchorName({ install, place, hash }: AnchorName): string {
  const head = `${String(place).padStart(15, "0")}-${must(hash, hashPattern, "hash")}`;
  return `${prefixes.anchors}${must(install, idPattern, "install id")}/${head}`;
}

/** Null for a name that no anchor has. */
export function parseAnchorName(name: string): AnchorName | null {
  const found = /^v1\/anchors\/([0-9a-f-]{36})\/(\d{15})-([0-9a-f]{64})$/.exec(name);
  const [install, place, hash] = [found?.[1] ?? "", Number(found?.[2] ?? 0), found?.[3] ?? ""];
  return idPattern.test(install) && place > 0 ? { install, place, hash } : null;
}

/** No database that claims once an hour gets there: a claim of that number was forged. */
export const lastClaimNumber = 999_999_999_999_999;

/** Claims are counted from 1 on, so that a store which takes each name once orders the writers. */
export function claimName(number: number): string {
  const digits = String(number).padStart(15, "0");
  return `${prefixes.claims}${must(digits, /^\d{15}$/, "number")}`;
}

/** Null for a name that no claim has. */
export function parseClaimName(name: string): number | null {
  const number = Number(/^v1\/claims\/(\d{15})$/.exec(name)?.[1] ?? 0);
  return number > 0 ? number : null;
}

/** Entries of the erasure ledger are counted from 1 on: a gap tells that one was taken away. */
export function erasureName(number: number): string {
  const digits = String(number).padStart(15, "0");
  return `${prefixes.erasures}${must(digits, /^\d{15}$/, "number")}`;
}

/** Null for a name that no entry of the ledger has. */
export function parseErasureName(name: string): number | null {
  const number = Number(/^v1\/erasures\/(\d{15})$/.exec(name)?.[1] ?? 0);
  return number > 0 ? number : null;
}

/** What an erasure's certificate searches for, until there is one. */
export function termsName(erasure: string): string {
  return `${prefixes.terms}${must(erasure, idPattern, "erasure id")}`;
}

/** `20261121T184500Z`; parts of a second are cut off. */
export function utcStamp(moment: Date): string {
  return moment.toISOString().slice(0, 19).replace(/[-:]/g, "") + "Z";
}

export function parseUtcStamp(stamp: string): Date | null {
  const iso = stamp.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z");
  const moment = new Date(iso);
  return iso !== stamp && !Number.isNaN(moment.getTime()) && utcStamp(moment) === stamp ? moment : null;
}

function lsnHex(lsn: bigint): string {
  return lsn.toString(16).padStart(16, "0");
}

function must(value: string, pattern: RegExp, what: string): string {
  if (!pattern.test(value)) {
    throw new HoldfastError("internal", `a name was asked for with a ${what} of the wrong form`);
  }
  return value;
}
