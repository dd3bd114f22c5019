/**
 * The key that signs exports: Ed25519, derived from a key of BACKUP_KEYS and the install's id (HKDF-SHA256), so that it lies nowhere
 * and a document stays provable as long as the ring holds that key. docs/decisions/0037-exports.md.
 */
import { base64url } from "jose";
import type { KeyRing } from "../crypto/key_ring.ts";
import { HoldfastError } from "../errors.ts";

export interface ExportKey {
  /** Of BACKUP_KEYS. */
  readonly id: string;
  /** base64url. */
  readonly publicKey: string;
  /** base64url. */
  sign(bytes: Uint8Array): Promise<string>;
  verify(bytes: Uint8Array, signature: string): Promise<boolean>;
}

/** A private key of Ed25519 in PKCS #8 (RFC 8410) up to its 32 bytes. */
const pkcs8Head = Uint8Array.from([0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20]);

/** Of the current key, or the first that is a secret: a public half signs nothing. Errors: `key_missing`. */
export async function signingKey(ring: KeyRing, install: string): Promise<ExportKey> {
  const id = ring.ids.find((one) => ring.secretOf(one) !== undefined);
  if (id !== undefined) return await exportKey(ring, id, install);
  throw new HoldfastError("key_missing", "BACKUP_KEYS holds no key that could sign an export");
}

/** Errors: `key_missing` where the ring does not hold it. */
export async function exportKey(ring: KeyRing, id: string, install: string): Promise<ExportKey> {
  const secret = ring.secretOf(id);
  if (secret === undefined) throw new HoldfastError("key_missing", `BACKUP_KEYS does not hold the key ${id}`);
  const { subtle } = crypto;
  const seed = await subtle.deriveBits(
    {
      name: "HKDF",
      hash: "SHA-256",
      salt: new TextEncoder().encode(install),
      info: new TextEncoder().encode("holdfast export signing key 1"),
    },
    await subtle.importKey("raw", new Uint8Array(secret), "HKDF", false, ["deriveBits"]),
    256,
  );
  const pkcs8 = new Uint8Array([...pkcs8Head, ...new Uint8Array(seed)]);
  const key = await subtle.importKey("pkcs8", pkcs8, { name: "Ed25519" }, true, ["sign"]);
  const { x = "" } = await subtle.exportKey("jwk", key);
  const point = new Uint8Array(base64url.decode(x));
  const publicKey = await subtle.importKey("raw", point, { name: "Ed25519" }, false, ["verify"]);
  return {
    id,
    publicKey: x,
    sign: async (bytes) =>
      base64url.encode(new Uint8Array(await subtle.sign({ name: "Ed25519" }, key, new Uint8Array(bytes)))),
    verify: async (bytes, signature) => {
      try {
        const value = new Uint8Array(base64url.decode(signature));
        return await subtle.verify({ name: "Ed25519" }, publicKey, value, new Uint8Array(bytes));
      } catch {
        return false;
      }
    },
  };
}
