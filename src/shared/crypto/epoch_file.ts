/**
 * The file that keeps an epoch's secret: a JWE in General JSON serialisation, one recipient for each key-encryption key.
 *
 * What is not secret stands in the protected header, which the JWE authenticates. docs/format.md, "Epochs".
 */
import { base64url, type CryptoKey, flattenedDecrypt, GeneralEncrypt, importJWK, type JWK } from "jose";
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import { type EpochFacts, epochIdPattern } from "./epoch.ts";
import type { KeyRing } from "./key_ring.ts";

export const epochFileType = "holdfast-epoch+jwe";
export const epochFileVersion = 1;
const secretAlg = "A256GCMKW";
const pairAlg = "ECDH-ES+A256KW";

/** A file with 32 recipients has about 10 kB; more is not ours. */
const maxFileBytes = 64 * 1024;
const keyIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,30}$/;

const header = z.object({
  enc: z.literal("A256GCM"),
  typ: z.literal(epochFileType),
  holdfast: z.object({
    version: z.literal(epochFileVersion),
    repository: z.uuid(),
    epoch: z.string().regex(epochIdPattern),
    createdAt: z.iso.datetime({ precision: 0 }),
  }),
});
const versionOnly = z.object({ holdfast: z.object({ version: z.number().int() }) });
const recipient = z.object({
  encrypted_key: z.string(),
  header: z.object({ alg: z.string(), kid: z.string() }).catchall(z.unknown()),
});
const file = z.object({
  protected: z.string(),
  iv: z.string(),
  ciphertext: z.string(),
  tag: z.string(),
  recipients: z.array(recipient).min(1).max(64),
});

export interface EpochFile {
  readonly facts: EpochFacts;
  readonly secret: Uint8Array;
  /** Ids of the keys that open it, whoever holds them. */
  readonly wrappedFor: readonly string[];
}

/** Wraps for every key of the ring. */
export async function encodeEpochFile(facts: EpochFacts, secret: Uint8Array, ring: KeyRing): Promise<Uint8Array> {
  const jwe = new GeneralEncrypt(secret).setProtectedHeader({
    enc: "A256GCM",
    typ: epochFileType,
    holdfast: {
      version: epochFileVersion,
      repository: facts.repositoryId,
      epoch: facts.id,
      createdAt: instant(facts.createdAt),
    },
  });
  for (const id of ring.ids) {
    const secret = ring.secretOf(id);
    if (secret !== undefined) jwe.addRecipient(secret).setUnprotectedHeader({ alg: secretAlg, kid: id });
    const pair = ring.pairOf(id);
    if (pair !== undefined) {
      const { d: _private, ...half } = pair;
      jwe.addRecipient(await imported(id, half)).setUnprotectedHeader({ alg: pairAlg, kid: id });
    }
  }
  return new TextEncoder().encode(JSON.stringify(await jwe.encrypt()) + "\n");
}

/**
 * Opens the file that was found under the name of `expected.id`.
 * Errors: `key_wrong` naming the keys that would do, `object_damaged`, `format_newer`.
 */
export async function decodeEpochFile(
  bytes: Uint8Array,
  expected: { readonly id: string; readonly repositoryId: string },
  ring: KeyRing,
): Promise<EpochFile> {
  const name = `the key file of epoch ${expected.id}`;
  const jwe = readShape(bytes, name);
  const facts = readFacts(jwe.protected, name);
  if (facts.id !== expected.id) throw damaged(`${name} belongs to another epoch`);
  if (facts.repositoryId !== expected.repositoryId) throw damaged(`${name} belongs to another repository`);
  const wrappedFor = recipientsOf(jwe);
  for (const one of jwe.recipients) {
    const key = await keyFor(one.header, ring);
    if (key === undefined) continue;
    const { recipients: _, ...shared } = jwe;
    try {
      const opened = await flattenedDecrypt({ ...shared, ...one }, key, {
        keyManagementAlgorithms: [secretAlg, pairAlg],
        contentEncryptionAlgorithms: ["A256GCM"],
      });
      ring.noteUsed(one.header.kid);
      return { facts, secret: opened.plaintext, wrappedFor };
    } catch (cause) {
      throw new HoldfastError(
        "key_wrong",
        `the key ${one.header.kid} in BACKUP_KEYS does not open epoch ${expected.id}: it has other bytes than the key of that name, or the key file is damaged`,
        { cause },
      );
    }
  }
  const needed = wrappedFor.length === 0 ? "a key that this version cannot use" : wrappedFor.join(" or ");
  throw new HoldfastError(
    "key_wrong",
    `epoch ${expected.id} needs the key ${needed}; BACKUP_KEYS has ${ring.ids.join(", ")}`,
  );
}

/** Ids of the keys that open the file, whoever holds them, without opening it. Errors: `object_damaged`, `format_newer`. */
export function readRecipients(bytes: Uint8Array, epochId: string): string[] {
  const name = `the key file of epoch ${epochId}`;
  const jwe = readShape(bytes, name);
  if (readFacts(jwe.protected, name).id !== epochId) throw damaged(`${name} belongs to another epoch`);
  return recipientsOf(jwe);
}

function recipientsOf({ recipients }: z.infer<typeof file>): string[] {
  return recipients.map((one) => one.header.kid).filter((id) => keyIdPattern.test(id));
}

/** What opens the recipient; undefined where the ring holds nothing that does. */
async function keyFor(
  { alg, kid }: { readonly alg: string; readonly kid: string },
  ring: KeyRing,
): Promise<Uint8Array | CryptoKey | undefined> {
  if (alg === secretAlg) return ring.secretOf(kid);
  const pair = alg === pairAlg ? ring.pairOf(kid) : undefined;
  return pair?.d === undefined ? undefined : await imported(kid, pair);
}

/** Errors: `key_malformed` for what is no point of the curve. */
async function imported(id: string, half: JWK): Promise<CryptoKey> {
  try {
    const key = await importJWK(half, pairAlg);
    if (!(key instanceof Uint8Array)) return key;
  } catch {
    // Said below, without what the library says of the key.
  }
  throw new HoldfastError("key_malformed", `the key ${id} in BACKUP_KEYS is no key of its curve; was it mistyped?`);
}

function readShape(bytes: Uint8Array, name: string): z.infer<typeof file> {
  if (bytes.byteLength > maxFileBytes) throw damaged(`${name} is too large`);
  const parsed = file.safeParse(readJson(bytes, name));
  if (!parsed.success) throw damaged(`${name} is no JWE of the kind Holdfast writes`);
  return parsed.data;
}

function readFacts(protectedHeader: string, name: string): EpochFacts {
  let text: Uint8Array;
  try {
    text = base64url.decode(protectedHeader);
  } catch (cause) {
    throw damaged(`${name} has no readable header`, cause);
  }
  const json = readJson(text, name);
  const version = versionOnly.safeParse(json);
  if (version.success && version.data.holdfast.version > epochFileVersion) {
    throw new HoldfastError(
      "format_newer",
      `${name} has version ${version.data.holdfast.version}, this Holdfast reads up to ${epochFileVersion}`,
    );
  }
  const parsed = header.safeParse(json);
  if (!parsed.success) throw damaged(`${name} has no valid header`);
  const { repository, epoch, createdAt } = parsed.data.holdfast;
  const facts = { id: epoch, repositoryId: repository, createdAt: new Date(createdAt) };
  if (!epoch.startsWith(`e${createdAt.replace(/[-:]/g, "")}-`)) throw damaged(`${name} names two times`);
  return facts;
}

function readJson(bytes: Uint8Array, name: string): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw damaged(`${name} is not readable`, cause);
  }
}

/** Whole seconds, `2026-11-21T18:45:00Z`. */
function instant(moment: Date): string {
  return moment.toISOString().replace(".000Z", "Z");
}

function damaged(message: string, cause?: unknown): HoldfastError {
  return new HoldfastError("object_damaged", message, cause === undefined ? {} : { cause });
}
