/** An epoch: the span in which one secret seals and names new objects. docs/format.md, "Epochs". */
import { HoldfastError } from "../errors.ts";
import type { Random } from "../random.ts";
import { toHex } from "./digest.ts";
import { keyBytes } from "./key_ring.ts";

/** `e<utc>-<8 hex>`, always 26 ASCII characters, so that ids sort by time and fit a fixed field of the header. */
export const epochIdPattern = /^e\d{8}T\d{6}Z-[0-9a-f]{8}$/;
export const epochIdLength = 26;

/** After this an epoch seals nothing new. */
export const epochLifeMs = 30 * 24 * 60 * 60 * 1000;

/** Who an epoch belongs to; public, and bound to its secret by the key file. */
export interface EpochFacts {
  readonly id: string;
  readonly repositoryId: string;
  /** Whole seconds; the same moment as in the id. */
  readonly createdAt: Date;
}

/** An epoch that can be used. The keys cannot be exported, so an epoch may be kept for a process's life. */
export interface Epoch extends EpochFacts {
  /** AES-256-GCM. */
  readonly dataKey: CryptoKey;
  /** HMAC-SHA256. */
  readonly nameKey: CryptoKey;
}

/** Gives the epoch of that id, or throws `key_wrong` naming the keys that are needed. */
export type EpochSource = (epochId: string) => Promise<Epoch>;

/** `now` cut to whole seconds, and the id made of it. */
export function newEpochFacts(repositoryId: string, now: Date, random: Random): EpochFacts {
  const createdAt = new Date(Math.floor(now.getTime() / 1000) * 1000);
  const utc = createdAt.toISOString().replace(/[-:]|\.000/g, "");
  const id = `e${utc}-${toHex(random(4))}`;
  if (!epochIdPattern.test(id)) throw new HoldfastError("internal", `the clock gives a year that no epoch can carry`);
  return { id, repositoryId, createdAt };
}

/** HKDF-SHA256 with the repository id as salt; one info string for each use. */
export async function deriveEpoch(facts: EpochFacts, secret: Uint8Array): Promise<Epoch> {
  if (secret.byteLength !== keyBytes) {
    throw new HoldfastError("object_damaged", `the secret of epoch ${facts.id} has a wrong length`);
  }
  const root = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveKey"]);
  const hkdf = (info: string) => ({
    name: "HKDF",
    hash: "SHA-256",
    salt: new TextEncoder().encode(facts.repositoryId),
    info: new TextEncoder().encode(info),
  });
  const dataKey = await crypto.subtle.deriveKey(
    hkdf("holdfast/v1/data"),
    root,
    { name: "AES-GCM", length: 256 },
    false,
    ["encrypt", "decrypt"],
  );
  const nameKey = await crypto.subtle.deriveKey(
    hkdf("holdfast/v1/name"),
    root,
    { name: "HMAC", hash: "SHA-256", length: 256 },
    false,
    ["sign"],
  );
  return { ...facts, dataKey, nameKey };
}
