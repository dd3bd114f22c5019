/** JSON documents that are signed by a key derived from BACKUP_KEYS. docs/format.md, "Evidence of drills". */
import { base64url } from "jose";
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { toHex } from "./digest.ts";
import type { KeyRing } from "./key_ring.ts";

export const signatureFormat = z.object({ algorithm: z.literal("HMAC-SHA256"), key: z.string(), value: z.string() });
export type Signature = z.infer<typeof signatureFormat>;

/**
 * `purpose`: what the derived key is for. Another purpose is another key, so that nothing else verifies as such a document. Errors:
 * `key_missing` where no key of the ring opens anything.
 */
export async function signatureOf(plain: unknown, ring: KeyRing, purpose: string): Promise<Signature> {
  const opening = ring.opening;
  const key = opening.includes(ring.currentId) ? ring.currentId : opening[0];
  if (key === undefined) throw new HoldfastError("key_missing", "no key is here to sign the document with");
  return { algorithm: "HMAC-SHA256", key, value: await macOf(plain, ring, key, purpose) };
}

/** Is it as it was signed? Errors: `key_missing` where the key that signed it is not in the ring. */
export async function isSigned(plain: unknown, signature: Signature, ring: KeyRing, purpose: string): Promise<boolean> {
  if (!ring.opening.includes(signature.key)) {
    throw new HoldfastError(
      "key_missing",
      `the document was signed with key ${signature.key}, which is not in BACKUP_KEYS`,
    );
  }
  return signature.value === await macOf(plain, ring, signature.key, purpose);
}

async function macOf(plain: unknown, ring: KeyRing, id: string, purpose: string): Promise<string> {
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
