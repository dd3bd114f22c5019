/**
 * age files for X25519 recipients, as the stock `age` program reads and writes them (C2SP, `age.md`). docs/format.md, "The
 * second store".
 *
 * Recipients are public. Identities open what was wrapped; they never leave their object by printing or JSON.
 */
import { Decrypter, Encrypter, identityToRecipient } from "age-encryption";
import { HoldfastError } from "../errors.ts";

const recipientPattern = /^age1[02-9ac-hj-np-z]{58}$/;
const identityPattern = /^AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}$/;

/** Each costs a scalar multiplication an object; more people than that share an identity or a recovery key. */
export const maxRecipients = 16;

const magic = new TextEncoder().encode("age-encryption.org/v1\n");

/** Is this an age file, by its first line? */
export function isAgeFile(bytes: Uint8Array): boolean {
  return magic.every((byte, index) => bytes[index] === byte);
}

const macLineBytes = 48;
const stanzaBytes = 98;
const nonceBytes = 16;
const pieceBytes = 64 * 1024;
const tagBytes = 16;

/** Size of the age file around so many bytes for so many X25519 recipients: nothing but these two decides it. */
export function ageFileBytes(plainBytes: number, recipients: number): number {
  const pieces = Math.max(1, Math.ceil(plainBytes / pieceBytes));
  return magic.length + recipients * stanzaBytes + macLineBytes + nonceBytes + plainBytes + pieces * tagBytes;
}

/** To whom everything is wrapped. */
export class Recipients {
  /** `age1…`, each once. */
  readonly names: readonly string[];
  readonly #encrypter: Encrypter;

  /** Use `parseRecipients`. Throws the library's own error for a name with a wrong checksum. */
  constructor(names: readonly string[]) {
    this.names = names;
    this.#encrypter = new Encrypter();
    for (const name of names) this.#encrypter.addRecipient(name);
  }

  /** An age file in a buffer of its own; never the same bytes twice. */
  async wrap(bytes: Uint8Array): Promise<Uint8Array> {
    return await this.#encrypter.encrypt(bytes);
  }
}

/**
 * The value of BACKUP_RECIPIENTS: `age1…`, several separated by commas or blanks. Errors: `setting_missing` for nothing at
 * all, `age_key_malformed` for anything else; no entry is repeated in a message, since it might be a secret.
 */
export function parseRecipients(text: string | undefined): Recipients {
  const entries = entriesOf(text);
  if (entries.length === 0) {
    throw new HoldfastError("setting_missing", "BACKUP_RECIPIENTS is not set", {
      hint: "`age-keygen` makes an identity to keep offline; its recipient (age1…) belongs into BACKUP_RECIPIENTS.",
    });
  }
  if (entries.length > maxRecipients) {
    throw malformed(`BACKUP_RECIPIENTS has ${entries.length} entries, at most ${maxRecipients} are taken`);
  }
  for (const [index, entry] of entries.entries()) {
    const place = `entry ${index + 1} of BACKUP_RECIPIENTS`;
    if (/^AGE-SECRET-KEY-/i.test(entry)) {
      throw malformed(
        `${place} is an identity, the secret half`,
        "Put its recipient (age1…) there; it is kept offline.",
      );
    }
    if (!recipientPattern.test(entry)) throw malformed(`${place} is no X25519 recipient of age (age1 and 58 letters)`);
    checked(place, () => new Recipients([entry]));
  }
  return new Recipients(entries);
}

/** What opens age files: none, one or several identities. */
export class Identities {
  readonly #texts: readonly string[];
  readonly #decrypter: Decrypter;

  /** Use `parseIdentities`. Throws the library's own error for a text with a wrong checksum. */
  constructor(texts: readonly string[]) {
    this.#texts = texts;
    this.#decrypter = new Decrypter();
    for (const text of texts) this.#decrypter.addIdentity(text);
  }

  /** Without any nothing can be opened. */
  get isEmpty(): boolean {
    return this.#texts.length === 0;
  }

  /** The recipients of the identities, which are public. */
  async recipients(): Promise<string[]> {
    return await Promise.all(this.#texts.map((text) => identityToRecipient(text)));
  }

  /**
   * What is in the age file, in a buffer of its own. `name` is for messages. Errors: `identity_missing`; `identity_wrong` when
   * none of the identities opens it (that of a damaged header looks the same); `object_damaged`.
   */
  async open(name: string, bytes: Uint8Array): Promise<Uint8Array> {
    if (this.isEmpty) {
      throw new HoldfastError("identity_missing", `${name} lies in an age layer, and no identity is given`);
    }
    try {
      return await this.#decrypter.decrypt(bytes, "uint8array");
    } catch (cause) {
      // The library has no classes of errors; its version is pinned, and a test holds the text.
      if (cause instanceof Error && cause.message.startsWith("no identity matched")) {
        const mine = (await this.recipients()).join(", ");
        throw new HoldfastError("identity_wrong", `${name} was not wrapped for ${mine}, or its header is damaged`, {
          cause,
        });
      }
      throw new HoldfastError("object_damaged", `${name} is an age file that was changed or cut`, { cause });
    }
  }
}

/**
 * The value of BACKUP_IDENTITIES: `AGE-SECRET-KEY-1…`, several separated by commas or blanks, or the text of a file that
 * `age-keygen` wrote. Nothing at all gives none. Errors: `age_key_malformed`; no message holds any part of an identity.
 */
export function parseIdentities(text: string | undefined): Identities {
  const entries = entriesOf(text);
  if (entries.length > maxRecipients) {
    throw malformed(`BACKUP_IDENTITIES has ${entries.length} entries, at most ${maxRecipients} are taken`);
  }
  for (const [index, entry] of entries.entries()) {
    const place = `entry ${index + 1} of BACKUP_IDENTITIES`;
    if (entry.startsWith("age1")) throw malformed(`${place} is a recipient, the public half, which opens nothing`);
    if (!identityPattern.test(entry)) {
      throw malformed(`${place} is no X25519 identity of age (AGE-SECRET-KEY-1 and 58 letters, capitals)`);
    }
    checked(place, () => new Identities([entry]));
  }
  return new Identities(entries);
}

/** Without comments, which `age-keygen` writes into its files; each once. */
function entriesOf(text: string | undefined): string[] {
  const lines = (text ?? "").split("\n").filter((line) => !line.trimStart().startsWith("#"));
  return [...new Set(lines.join("\n").split(/[\s,]+/).filter((entry) => entry !== ""))];
}

function checked(place: string, make: () => unknown): void {
  try {
    make();
  } catch {
    throw malformed(`${place} has a wrong checksum; was it cut or mistyped?`);
  }
}

function malformed(message: string, hint?: string): HoldfastError {
  return new HoldfastError("age_key_malformed", message, hint === undefined ? {} : { hint });
}
