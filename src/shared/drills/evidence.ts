/**
 * What a drill did, measured and proved, as one JSON document that is signed by a key derived from BACKUP_KEYS. docs/format.md,
 * "Evidence of drills".
 */
import { base64url } from "jose";
import { z } from "zod";
import { toHex } from "../crypto/digest.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { HoldfastError } from "../errors.ts";

const failure = z.object({ code: z.string(), message: z.string(), hint: z.string().optional() });

export const evidenceFormat = z.object({
  version: z.literal(1),
  id: z.string(),
  drill: z.string(),
  title: z.string(),
  holdfast: z.string(),
  /** Whose backups they are. */
  install: z.string(),
  source: z.string(),
  orderedBy: z.string(),
  orderedAt: z.string(),
  endedAt: z.string(),
  store: z.string().nullable(),
  /** Ids of the keys that opened it; no key. */
  keys: z.array(z.string()),
  backup: z.object({ id: z.string(), consistentAt: z.string(), rows: z.number(), rawBytes: z.number() }).nullable(),
  /** Of the change stream: every commit before `coveredUntil` was there. */
  stream: z.object({
    coveredUntil: z.string(),
    transactions: z.number(),
    /** Tables whose changes are not all in the stream: as of the backup. */
    asOfBackup: z.array(z.string()),
  }).nullable(),
  /** The database that was made for it, or where rows were laid beside. */
  target: z.string().nullable(),
  subject: z.string().nullable(),
  steps: z.array(z.object({ step: z.string(), at: z.string() })),
  proof: z.object({
    tables: z.number(),
    rows: z.number(),
    foreignKeys: z.number(),
    differences: z.array(z.object({ kind: z.string(), name: z.string(), detail: z.string() })),
    /** How many there are; `differences` holds the first of them. */
    differencesTotal: z.number(),
    /** What nothing is said about, or cannot be had in such a database. */
    notCompared: z.array(z.object({ identity: z.string(), reason: z.string() })),
    notComparedTotal: z.number(),
  }).nullable(),
  measured: z.object({ rtoSeconds: z.number().nullable(), rpoSeconds: z.number().nullable() }),
  objectives: z.object({
    recoverySeconds: z.number().nullable(),
    lossSeconds: z.number().nullable(),
    /** Null: nothing was measured, or nothing is promised. */
    met: z.boolean().nullable(),
  }),
  ok: z.boolean(),
  notes: z.string(),
  failure: failure.nullable(),
});
/** Before it is signed. */
export type Evidence = z.infer<typeof evidenceFormat>;

const signatureFormat = z.object({ algorithm: z.literal("HMAC-SHA256"), key: z.string(), value: z.string() });
export const signedFormat = evidenceFormat.extend({ signature: signatureFormat });
export type SignedEvidence = z.infer<typeof signedFormat>;

/** HKDF: what the derived key is for. Another purpose is another key, so that nothing else verifies as evidence. */
const purpose = "holdfast drill evidence v1";

/** Errors: `key_missing` where no key of the ring opens anything. */
export async function signEvidence(evidence: Evidence, ring: KeyRing): Promise<SignedEvidence> {
  const opening = ring.opening;
  const key = opening.includes(ring.currentId) ? ring.currentId : opening[0];
  if (key === undefined) throw new HoldfastError("key_missing", "no key is here to sign the evidence with");
  const plain = evidenceFormat.parse(evidence);
  return { ...plain, signature: { algorithm: "HMAC-SHA256", key, value: await macOf(plain, ring, key) } };
}

/**
 * Is the document as it was signed? Errors: `evidence_unsigned` for what carries no signature, `key_missing` where the key that
 * signed it is not in the ring.
 */
export async function verifyEvidence(document: unknown, ring: KeyRing): Promise<boolean> {
  const parsed = z.looseObject({ signature: signatureFormat }).safeParse(document);
  if (!parsed.success) {
    throw new HoldfastError("evidence_unsigned", "this evidence carries no signature", {
      hint: "A drill whose worker was killed has nobody to sign for it; its row and the audit say so.",
    });
  }
  const { signature, ...plain } = parsed.data;
  if (!ring.opening.includes(signature.key)) {
    throw new HoldfastError(
      "key_missing",
      `the evidence was signed with key ${signature.key}, which is not in BACKUP_KEYS`,
    );
  }
  return signature.value === await macOf(plain, ring, signature.key);
}

async function macOf(plain: unknown, ring: KeyRing, id: string): Promise<string> {
  const secret = ring.secretOf(id) ?? base64url.decode(ring.pairOf(id)?.d ?? "");
  const base = await crypto.subtle.importKey("raw", new Uint8Array(secret), "HKDF", false, ["deriveKey"]);
  const key = await crypto.subtle.deriveKey(
    { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: new TextEncoder().encode(purpose) },
    base,
    { name: "HMAC", hash: "SHA-256", length: 256 },
    false,
    ["sign"],
  );
  const mac = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(canonical(plain)));
  return toHex(new Uint8Array(mac));
}

/** JSON with the names of every object in order and no blanks: the same text whoever wrote the document down in between. */
export function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const entries = Object.entries(value).filter(([, one]) => one !== undefined).sort(([a], [b]) => a < b ? -1 : 1);
  return `{${entries.map(([name, one]) => `${JSON.stringify(name)}:${canonical(one)}`).join(",")}}`;
}
