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
} as const;

export const tierPattern = /^[a-z][a-z0-9_]{0,30}$/;
export const idPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const hashPattern = /^[0-9a-f]{64}$/;
const lsnPattern = /^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/;
const chainPattern = /^[a-z0-9][a-z0-9-]{0,62}$/;

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

/** `hash` is the keyed hash of the plaintext in hex. */
export function contentName(kind: "chunk" | "schema" | "blob", hash: string): string {
  const prefix = kind === "blob" ? prefixes.blobs : prefixes.objects;
  return `${prefix}${must(hash, hashPattern, "hash").slice(0, 2)}/${hash}`;
}

/** LSNs in the server's text (`16/B374D848`) become 16 hex digits, so that names sort as positions do. */
export function segmentName(chain: string, startLsn: string, endLsn: string): string {
  return `${prefixes.changes}${must(chain, chainPattern, "chain")}/${lsnHex(startLsn)}-${lsnHex(endLsn)}`;
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

/** `20261121T184500Z`; parts of a second are cut off. */
export function utcStamp(moment: Date): string {
  return moment.toISOString().slice(0, 19).replace(/[-:]/g, "") + "Z";
}

export function parseUtcStamp(stamp: string): Date | null {
  const iso = stamp.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z");
  const moment = new Date(iso);
  return iso !== stamp && !Number.isNaN(moment.getTime()) && utcStamp(moment) === stamp ? moment : null;
}

function lsnHex(lsn: string): string {
  const [high = "", low = ""] = must(lsn, lsnPattern, "LSN").toLowerCase().split("/");
  return high.padStart(8, "0") + low.padStart(8, "0");
}

function must(value: string, pattern: RegExp, what: string): string {
  if (!pattern.test(value)) {
    throw new HoldfastError("internal", `a name was asked for with a ${what} of the wrong form`);
  }
  return value;
}
