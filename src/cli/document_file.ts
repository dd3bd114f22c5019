/** The document of an export in a file of this machine, and what lies beside it. */
import { type FileHandle, open } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { KeyRing } from "../shared/crypto/key_ring.ts";
import { HoldfastError } from "../shared/errors.ts";
import { documentFacts, verifySignature } from "../shared/export/signature.ts";
import type { ReadBeside } from "../shared/import/import_files.ts";
import type { DocumentIdentity } from "../shared/import/import_queries.ts";
import type { SignedDocument } from "../shared/import/read_document.ts";

export interface DocumentFile {
  readonly source: SignedDocument;
  readonly identity: DocumentIdentity;
  readonly readBeside: ReadBeside;
}

/** As exports name what lies beside a document: nothing else is opened. */
const besidePattern = /^files\/[0-9]{6,}-[A-Za-z0-9._-]*$/;

/**
 * Opens and verifies it, then works with it. Errors: `usage` for a file that cannot be read; `export_unsigned`, `format_newer`,
 * `key_missing`; those of `work`.
 */
export async function withDocument<T>(
  path: string,
  ring: KeyRing,
  work: (document: DocumentFile) => Promise<T>,
): Promise<T> {
  const file = await opened(path);
  try {
    const { size: bytes } = await file.stat();
    const read = async (from: number, to: number) => await readAt(file, from, to, "the document");
    const facts = await documentFacts(read, bytes);
    const signature = await verifySignature(ring, { ...facts, bytes, read });
    return await work({
      source: { bytes, read, signature },
      identity: { document: signature.root, export: facts.id, install: facts.install, user: facts.user },
      readBeside: async (name, from, to) => {
        if (!besidePattern.test(name)) throw new HoldfastError("export_unsigned", "a file has a strange name");
        const beside = await open(join(dirname(path), name), "r").catch((cause: unknown) => {
          throw new HoldfastError("object_missing", `${name} is not beside the document`, {
            hint: "Put the files beside it as the export has them, or leave them out with --without-files.",
            cause,
          });
        });
        try {
          return await readAt(beside, from, to, name);
        } finally {
          await beside.close();
        }
      },
    });
  } finally {
    await file.close();
  }
}

async function opened(path: string): Promise<FileHandle> {
  try {
    return await open(path, "r");
  } catch (cause) {
    throw new HoldfastError("usage", `${path} cannot be read`, { cause });
  }
}

async function readAt(file: FileHandle, from: number, to: number, what: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.max(0, to - from));
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesRead } = await file.read(bytes, done, bytes.byteLength - done, from + done);
    if (bytesRead === 0) throw new HoldfastError("export_unsigned", `${what} is shorter than it was`);
    done += bytesRead;
  }
  return bytes;
}
