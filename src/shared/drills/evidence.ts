/**
 * What a drill did, measured and proved, as one JSON document that is signed by a key derived from BACKUP_KEYS. docs/format.md,
 * "Evidence of drills".
 */
import { z } from "zod";
import type { KeyRing } from "../crypto/key_ring.ts";
import { isSigned, signatureFormat, signatureOf } from "../crypto/signed_document.ts";
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
  /** Files of Storage; null: the backup says nothing of them, or they were not asked for. Older evidence does not know of them. */
  files: z.object({
    /** That the moment has, and of them those whose version was gone before it was copied. */
    files: z.number(),
    withoutContent: z.number(),
    /** Read back whole, each part by its hash; all, or a sample where there are many. */
    checked: z.number(),
    bytes: z.number(),
    sameMd5: z.number(),
  }).nullable().optional(),
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

export const signedFormat = evidenceFormat.extend({ signature: signatureFormat });
export type SignedEvidence = z.infer<typeof signedFormat>;

/** HKDF: what the derived key is for. Another purpose is another key, so that nothing else verifies as evidence. */
const purpose = "holdfast drill evidence v1";

/** Errors: `key_missing` where no key of the ring opens anything. */
export async function signEvidence(evidence: Evidence, ring: KeyRing): Promise<SignedEvidence> {
  const plain = evidenceFormat.parse(evidence);
  return { ...plain, signature: await signatureOf(plain, ring, purpose) };
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
  return await isSigned(plain, signature, ring, purpose);
}
