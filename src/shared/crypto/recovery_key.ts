/**
 * A recovery pair: its public half stands in `BACKUP_KEYS` and wraps every epoch, its private half is kept offline and opens
 * them. ECDH on P-256 (ECDH-ES+A256KW). docs/format.md, "Key-encryption keys".
 */
import { base64url, type JWK } from "jose";
import { HoldfastError } from "../errors.ts";
import type { Random } from "../random.ts";
import { toHex } from "./digest.ts";

const publicMark = "pub.";
const privateMark = "prv.";
/** An uncompressed point: 4, then 32 bytes each of x and y. */
const pointBytes = 65;
const scalarBytes = 32;

/** What has one of the marks is half of a pair, whatever comes behind it. */
export function isHalf(text: string): boolean {
  return text.startsWith(publicMark) || text.startsWith(privateMark);
}

/** The pair that the text is half of, with `d` where it is the private half. Errors: `key_malformed`, without the key. */
export function decodeHalf(id: string, text: string): JWK {
  const isPrivate = text.startsWith(privateMark);
  const wanted = isPrivate ? scalarBytes + pointBytes : pointBytes;
  let bytes: Uint8Array;
  try {
    bytes = base64url.decode(text.slice(publicMark.length));
  } catch {
    bytes = new Uint8Array(0);
  }
  const point = bytes.subarray(wanted - pointBytes);
  if (bytes.byteLength !== wanted || point[0] !== 4 || base64url.encode(bytes) !== text.slice(publicMark.length)) {
    throw new HoldfastError(
      "key_malformed",
      `the ${
        isPrivate ? "private" : "public"
      } half ${id} in BACKUP_KEYS is not ${wanted} bytes of canonical base64url; was it cut or mistyped?`,
    );
  }
  const jwk: JWK = {
    kty: "EC",
    crv: "P-256",
    x: base64url.encode(point.slice(1, 33)),
    y: base64url.encode(point.slice(33)),
  };
  return isPrivate ? { ...jwk, d: base64url.encode(bytes.slice(0, scalarBytes)) } : jwk;
}

export interface RecoveryKey {
  readonly id: string;
  /** Text for BACKUP_KEYS: with it backups can be made, and none opened. */
  readonly publicEntry: string;
  /** Text for BACKUP_KEYS of whoever restores: show it once, store it nowhere else. */
  readonly privateEntry: string;
}

/** A new pair, under an id of its own. */
export async function generateRecoveryKey(random: Random): Promise<RecoveryKey> {
  const pair = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, true, ["deriveBits"]);
  const point = new Uint8Array(await crypto.subtle.exportKey("raw", pair.publicKey));
  const { d = "" } = await crypto.subtle.exportKey("jwk", pair.privateKey);
  const both = new Uint8Array(scalarBytes + pointBytes);
  both.set(base64url.decode(d), 0);
  both.set(point, scalarBytes);
  const id = `r-${toHex(random(4))}`;
  return {
    id,
    publicEntry: `${id}:${publicMark}${base64url.encode(point)}`,
    privateEntry: `${id}:${privateMark}${base64url.encode(both)}`,
  };
}
