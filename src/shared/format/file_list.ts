/** A list of files: which content each version has. docs/format.md, "Files". */
import { z } from "zod";
import { HoldfastError } from "../errors.ts";
import type { ManifestFileList } from "./manifest.ts";

export const fileListFormat = "holdfast/files";
export const fileListVersion = 1;

/** Of every part but the last of a file, which may be shorter. The same everywhere, so that equal contents have equal parts. */
export const partBytes = 2 * 1024 * 1024;

const count = z.int().nonnegative();
const hash = z.string().regex(/^[0-9a-f]{64}$/);

const part = z.object({
  object: z.string().regex(/^v1\/blobs\/([0-9a-f]{2})\/\1[0-9a-f]{62}$/),
  rawBytes: count,
  storedBytes: count,
  /** SHA-256 of the plaintext. */
  hash,
  /** SHA-256 of the sealed bytes. */
  storedHash: hash,
});

/** Why the content of a version is not there: it was overwritten or removed before it was copied, or Storage did not give it. */
export const missedReasons = ["changed", "removed", "unreadable"] as const;

const file = z.object({
  bucket: z.string(),
  name: z.string(),
  /** `storage.objects.id`. */
  id: z.string(),
  /** As Storage says; null where it does not. */
  size: count.nullable(),
  /** False: what came in the place of a version that is missed, after the snapshot. */
  inSnapshot: z.boolean(),
  missed: z.enum(missedReasons).nullable(),
  /** In order, from the file's first byte to its last; none of an empty file, and of one that is missed. */
  parts: z.array(part),
  /** The row of storage.objects as JSON text, without what Storage computes. */
  row: z.string(),
});

const fileList = z.object({
  format: z.literal(fileListFormat),
  version: z.literal(fileListVersion),
  files: z.array(file),
});

export type ListedFile = z.infer<typeof file>;
export type FilePart = z.infer<typeof part>;

/** `internal` for a list that a reader would refuse. */
export function encodeFileList(files: readonly ListedFile[]): Uint8Array {
  const parsed = fileList.safeParse({ format: fileListFormat, version: fileListVersion, files });
  const problem = parsed.success ? contradiction(parsed.data.files) : "its form is wrong";
  if (!parsed.success || problem !== null) {
    throw new HoldfastError("internal", `a list of files was to be written that does not hold together: ${problem}`);
  }
  return new TextEncoder().encode(JSON.stringify(parsed.data));
}

/** Errors: `format_newer`, decided before anything else is looked at; `object_damaged`. */
export function decodeFileList(plaintext: Uint8Array, name: string): readonly ListedFile[] {
  const damaged = (why: string) => new HoldfastError("object_damaged", `${name} ${why}`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(plaintext));
  } catch {
    throw damaged("is no JSON text");
  }
  const head = z.object({ format: z.literal(fileListFormat), version: z.int() }).safeParse(json);
  if (!head.success) throw damaged("is no list of files");
  if (head.data.version > fileListVersion) {
    throw new HoldfastError(
      "format_newer",
      `${name} is a list of files of version ${head.data.version}, this Holdfast reads up to ${fileListVersion}`,
    );
  }
  const parsed = fileList.safeParse(json);
  const problem = parsed.success ? contradiction(parsed.data.files) : "its form is wrong";
  if (!parsed.success || problem !== null) throw damaged(`does not hold together: ${problem}`);
  return parsed.data.files;
}

/** What the manifest says of a list, from the list itself. */
export function listFacts(
  files: readonly ListedFile[],
): Pick<ManifestFileList, "files" | "missed" | "parts" | "partBytes" | "partStoredBytes"> {
  const parts = files.flatMap((each) => each.parts);
  const sum = (numbers: readonly number[]) => numbers.reduce((total, each) => total + each, 0);
  return {
    files: files.length,
    missed: files.filter((each) => each.missed !== null).length,
    parts: parts.length,
    partBytes: sum(parts.map((each) => each.rawBytes)),
    partStoredBytes: sum(parts.map((each) => each.storedBytes)),
  };
}

/** In words without names: a list holds names from the project. */
function contradiction(files: readonly ListedFile[]): string | null {
  for (const { missed, parts, size } of files) {
    const bytes = parts.reduce((sum, each) => sum + each.rawBytes, 0);
    if (missed !== null && parts.length > 0) return "a missed file has parts";
    if (missed === null && size !== null && bytes !== size) return "the parts of a file hold another number of bytes";
    if (parts.slice(0, -1).some((each) => each.rawBytes !== partBytes)) return "a part in the middle is not whole";
  }
  return null;
}
