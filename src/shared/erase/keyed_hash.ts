/** The keyed hashes of the ledger, made row by row without the server: the same as hashes.ts has it make. */
import type { Identity } from "./entry.ts";
import type { HashKey } from "./hashes.ts";
import { finish, stateAfter } from "./sha256.ts";

/** What stands before each value of the message of an identity. */
export interface PreparedIdentity {
  /** Schema, table and the name of the first column; then the name of each further one. */
  readonly parts: readonly Uint8Array[];
}

const encoder = new TextEncoder();

export function prepareIdentity({ schema, name, columns }: Identity): PreparedIdentity {
  const netstring = (text: string) => `${[...text].length}:${text},`;
  const [first = "", ...others] = columns.map(netstring);
  return { parts: [netstring(schema) + netstring(name) + first, ...others].map((text) => encoder.encode(text)) };
}

const room = 72;

/** Hashes under one key. One buffer is used again and again: the words are valid until the next call. */
export class KeyedHasher {
  readonly words = new Int32Array(8);
  readonly #inner: Int32Array;
  readonly #outer: Int32Array;
  readonly #digest = new Uint8Array(32 + room);
  #buffer = new Uint8Array(1024);

  constructor({ inner, outer }: HashKey) {
    this.#inner = stateAfter(inner);
    this.#outer = stateAfter(outer);
  }

  /** `values`: UTF-8, in the order of the identity's columns. The first four words are the hash. */
  hash({ parts }: PreparedIdentity, values: readonly Uint8Array[]): void {
    let length = 0;
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i] as Uint8Array;
      const value = values[i] as Uint8Array;
      this.#reserve(length, length + part.length + value.length + 24);
      const buffer = this.#buffer;
      buffer.set(part, length);
      length += part.length;
      length = writeDecimal(buffer, length, characters(value));
      buffer[length++] = 0x3a;
      buffer.set(value, length);
      length += value.length;
      buffer[length++] = 0x2c;
    }
    this.words.set(this.#inner);
    finish(this.words, this.#buffer, length);
    const digest = this.#digest;
    for (let i = 0; i < 8; i++) {
      const word = this.words[i] as number;
      digest[i * 4] = word >>> 24;
      digest[i * 4 + 1] = word >>> 16;
      digest[i * 4 + 2] = word >>> 8;
      digest[i * 4 + 3] = word;
    }
    this.words.set(this.#outer);
    finish(this.words, digest, 32);
  }

  #reserve(used: number, needed: number): void {
    if (needed + room + 64 <= this.#buffer.length) return;
    const larger = new Uint8Array((needed + room + 64) * 2);
    larger.set(this.#buffer.subarray(0, used));
    this.#buffer = larger;
  }
}

/** Code points of UTF-8: bytes that go on with one are not counted. */
function characters(value: Uint8Array): number {
  let count = 0;
  for (let i = 0; i < value.length; i++) if (((value[i] as number) & 0xc0) !== 0x80) count++;
  return count;
}

function writeDecimal(buffer: Uint8Array, at: number, number: number): number {
  const digits = String(number);
  for (let i = 0; i < digits.length; i++) buffer[at + i] = digits.charCodeAt(i);
  return at + digits.length;
}

/** The hash as the ledger has it: 16 bytes in hex. */
export function hexOf(words: Int32Array): string {
  let text = "";
  for (let i = 0; i < 4; i++) text += ((words[i] as number) >>> 0).toString(16).padStart(8, "0");
  return text;
}

/** Hashes by their first 48 bits, then whole. */
export class HashSet {
  readonly #first = new Set<number>();
  readonly #whole = new Set<string>();
  #revision = 0;

  get size(): number {
    return this.#whole.size;
  }

  /** Another one whenever something came or went. */
  get revision(): number {
    return this.#revision;
  }

  add(hex: string): boolean {
    if (this.#whole.has(hex)) return false;
    this.#first.add(parseInt(hex.slice(0, 12), 16));
    this.#whole.add(hex);
    this.#revision++;
    return true;
  }

  delete(hex: string): void {
    // The first bits may be another's too: what is whole decides.
    if (this.#whole.delete(hex)) this.#revision++;
  }

  clear(): void {
    this.#first.clear();
    this.#whole.clear();
    this.#revision++;
  }

  has(words: Int32Array): boolean {
    const first = ((words[0] as number) >>> 0) * 0x10000 + ((words[1] as number) >>> 16);
    return this.#first.has(first) && this.#whole.has(hexOf(words));
  }

  hasHex(hex: string): boolean {
    return this.#whole.has(hex);
  }

  values(): IterableIterator<string> {
    return this.#whole.values();
  }
}
