/** The signature at the end of a document: over hashes of its blocks, so that it is made part by part, and checked with stock tools. */
import { z } from "zod";
import { sha256Hex } from "../crypto/digest.ts";
import type { KeyRing } from "../crypto/key_ring.ts";
import { HoldfastError } from "../errors.ts";
import { blockBytes, documentFormat, documentVersion, exportDocument, signatureFormat } from "./document_format.ts";
import { type ExportKey, exportKey } from "./export_key.ts";

type Signature = z.output<typeof signatureFormat>;

export interface VerifiedSignature extends Signature {
  /** SHA-256 in hexadecimal of each block of what is signed. */
  readonly hashes: readonly string[];
}

/** Before the signature; no value of a row is in the last bytes of a document, so its last occurrence is the one. */
const mark = ',"signature":';
/** More than a signature has. */
const mostBytes = 4096;

/** The bytes behind the last that is signed. `blocks`: hashes in hex of all blocks of `signedBytes`, in their order. */
export async function signatureText(
  key: ExportKey,
  id: string,
  signedBytes: number,
  blocks: readonly string[],
): Promise<Uint8Array> {
  const root = await rootOf(blocks);
  const facts = { signedBytes, blockBytes, root };
  const value = await key.sign(signedText(id, facts));
  const signature: Signature = { algorithm: "Ed25519", keyId: key.id, publicKey: key.publicKey, ...facts, value };
  return new TextEncoder().encode(`${mark}${JSON.stringify(signature)}}\n`);
}

/** Bytes of a document, from and to. */
export type ReadBytes = (from: number, to: number) => Promise<Uint8Array>;

/**
 * Reads the document once, block by block. `id` and `install`: as the document says. Errors: `export_unsigned` where a byte is another one,
 * `key_missing` where the ring does not hold the key.
 */
export async function verifySignature(
  ring: KeyRing,
  { id, install, bytes, read }: {
    readonly id: string;
    readonly install: string;
    readonly bytes: number;
    readonly read: ReadBytes;
  },
): Promise<VerifiedSignature> {
  const signature = readSignature(await read(Math.max(0, bytes - mostBytes), bytes));
  const wrong = (why: string) => new HoldfastError("export_unsigned", why);
  const { signedBytes, keyId, publicKey, root, value } = signature;
  if (signature.blockBytes !== blockBytes || signedBytes > bytes) throw wrong("the signature is of another document");
  const key = await exportKey(ring, keyId, install);
  if (key.publicKey !== publicKey || !await key.verify(signedText(id, signature), value)) {
    throw wrong("the signature does not hold");
  }
  const blocks: string[] = [];
  for (let at = 0; at < signedBytes; at += blockBytes) {
    blocks.push(await sha256Hex(await read(at, Math.min(signedBytes, at + blockBytes))));
  }
  if (await rootOf(blocks) !== root) throw wrong("the document is not as it was signed");
  const tail = await read(signedBytes, bytes);
  if (new TextDecoder().decode(tail) !== `${mark}${JSON.stringify(signature)}}\n`) {
    throw wrong("something stands behind what was signed");
  }
  return { ...signature, hashes: blocks };
}

/** What a document says of itself before its first table. Errors: `export_unsigned` where it is none of ours. */
export async function documentFacts(read: ReadBytes, bytes: number): Promise<z.output<typeof headFormat>> {
  const text = new TextDecoder().decode(await read(0, Math.min(bytes, mostBytes)));
  const head = text.slice(0, Math.max(0, text.indexOf(',\n "tables": [')));
  let value: unknown = null;
  try {
    value = JSON.parse(`${head}}`);
  } catch {
    // Said below.
  }
  const parsed = headFormat.safeParse(value);
  if (parsed.success) return parsed.data;
  const newer = z.object({ format: z.literal(documentFormat), version: z.int() }).safeParse(value);
  if (newer.success && newer.data.version > documentVersion) {
    throw new HoldfastError("format_newer", `the document has version ${newer.data.version} of its format`);
  }
  throw new HoldfastError("export_unsigned", "the file is no export's document");
}

const headFormat = exportDocument.pick({ format: true, version: true, id: true, install: true, user: true }).strip();

function readSignature(tail: Uint8Array): Signature {
  const text = new TextDecoder().decode(tail);
  const at = text.lastIndexOf(mark);
  const wrong = () => new HoldfastError("export_unsigned", "the document ends without a signature");
  if (at < 0) throw wrong();
  let value: unknown;
  try {
    value = JSON.parse(text.slice(at + mark.length).replace(/\}\n$/, ""));
  } catch {
    throw wrong();
  }
  const parsed = signatureFormat.safeParse(value);
  if (!parsed.success) throw wrong();
  return parsed.data;
}

async function rootOf(blocks: readonly string[]): Promise<string> {
  return await sha256Hex(new TextEncoder().encode(blocks.map((block) => `${block}\n`).join("")));
}

function signedText(id: string, facts: Pick<Signature, "signedBytes" | "blockBytes" | "root">): Uint8Array {
  const lines = [`${documentFormat} ${documentVersion}`, id, facts.signedBytes, facts.blockBytes, facts.root];
  return new TextEncoder().encode(lines.map((line) => `${line}\n`).join(""));
}
