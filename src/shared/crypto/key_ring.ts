/**
 * The key-encryption keys of `BACKUP_KEYS`: `id:key`, several separated by commas, the first is current. docs/format.md,
 * "Key-encryption keys": a secret of 32 bytes, or half of a recovery pair.
 *
 * A key never leaves this object by printing or JSON: it sits in a private field.
 */
import { base64url, type JWK } from "jose";
import { decodeHalf, isHalf } from "./recovery_key.ts";
import { HoldfastError } from "../errors.ts";
import type { Random } from "../random.ts";
import { toHex } from "./digest.ts";

export const keyBytes = 32;

/** Shorter than the text of a key, so that an entry with its parts swapped is never echoed as an id. */
const keyIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/;
const keyTextPattern = /^[A-Za-z0-9_-]{43}$/;

/** More than any rotation needs; bounds the work on each key file. */
const maxKeys = 32;

export class KeyRing {
  /** The key that is named first wherever something new is wrapped. */
  readonly currentId: string;
  /** All ids, the current one first. */
  readonly ids: readonly string[];
  readonly #keys: ReadonlyMap<string, Uint8Array | JWK>;
  readonly #used = new Set<string>();

  /** `keys` has at least one entry that opens something; the first is current. Use `parseKeyRing` for what people give. */
  constructor(keys: ReadonlyMap<string, Uint8Array | JWK>) {
    const [first] = keys.keys();
    if (first === undefined) throw new HoldfastError("key_missing", "no key was given");
    this.currentId = first;
    this.ids = [...keys.keys()];
    this.#keys = keys;
  }

  /** The 32 bytes of the key, or undefined when the ring holds none of that id. The caller does not keep or change them. */
  secretOf(id: string): Uint8Array | undefined {
    const key = this.#keys.get(id);
    return key instanceof Uint8Array ? key : undefined;
  }

  /** Keys that open something: not those of which only the public half is there. */
  get opening(): string[] {
    return this.ids.filter((id) => this.secretOf(id) !== undefined || this.pairOf(id)?.d !== undefined);
  }

  /** Ids of the keys of this ring that have opened an epoch, in the order in which they first did. */
  get used(): string[] {
    return [...this.#used];
  }

  /** To be said by whoever opened an epoch with it. */
  noteUsed(id: string): void {
    this.#used.add(id);
  }

  /** A ring of this one key. Errors: `key_missing` where it is not here. */
  alone(id: string): KeyRing {
    const key = this.#keys.get(id);
    return new KeyRing(new Map(key === undefined ? [] : [[id, key]]));
  }

  /** The recovery pair, with its private half where the ring holds that, or undefined. */
  pairOf(id: string): JWK | undefined {
    const key = this.#keys.get(id);
    return key instanceof Uint8Array ? undefined : key;
  }
}

/** Errors: `key_missing` for nothing at all, `key_malformed` for anything else; no message holds any part of a key. */
export function parseKeyRing(text: string | undefined): KeyRing {
  if (text === undefined || text.trim() === "") throw new HoldfastError("key_missing", "BACKUP_KEYS is not set");
  const entries = text.split(",");
  if (entries.length > maxKeys) {
    throw malformed(`BACKUP_KEYS has ${entries.length} entries, at most ${maxKeys} are taken`);
  }
  const keys = new Map<string, Uint8Array | JWK>();
  for (const [index, entry] of entries.entries()) {
    const place = `entry ${index + 1} of BACKUP_KEYS`;
    const colon = entry.indexOf(":");
    if (colon < 0) throw malformed(`${place} has no colon between id and key`);
    const id = entry.slice(0, colon).trim();
    if (!keyIdPattern.test(id)) {
      throw malformed(`${place} has no usable id; an id is 1 to 31 letters, digits, dots, dashes or underscores`);
    }
    if (keys.has(id)) throw malformed(`BACKUP_KEYS holds two keys with the id ${id}`);
    const key = entry.slice(colon + 1).trim();
    keys.set(id, isHalf(key) ? decodeHalf(id, key) : decodeKey(id, key));
  }
  if ([...keys.values()].every((key) => !(key instanceof Uint8Array) && key.d === undefined)) {
    throw malformed("BACKUP_KEYS holds public halves alone: nothing could be opened with it");
  }
  return new KeyRing(keys);
}

/** A new key under an id of its own. `entry` is the text for BACKUP_KEYS: show it once, store it nowhere else. */
export function generateKey(random: Random): { readonly id: string; readonly entry: string } {
  const id = `k-${toHex(random(4))}`;
  return { id, entry: `${id}:${base64url.encode(random(keyBytes))}` };
}

function decodeKey(id: string, text: string): Uint8Array {
  if (!keyTextPattern.test(text)) {
    const why = /^[A-Za-z0-9_-]*$/.test(text)
      ? `has ${text.length} characters, 43 (32 bytes in base64url) are needed`
      : "is not base64url without padding";
    throw malformed(`the key ${id} in BACKUP_KEYS ${why}`);
  }
  const bytes = base64url.decode(text);
  if (bytes.byteLength !== keyBytes || base64url.encode(bytes) !== text) {
    throw malformed(`the key ${id} in BACKUP_KEYS is not 32 bytes of canonical base64url; was it cut or mistyped?`);
  }
  return bytes;
}

function malformed(message: string): HoldfastError {
  return new HoldfastError("key_malformed", message);
}
