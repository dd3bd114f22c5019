/** Which files somebody means: one, those of a bucket, or all. Pure. */

export interface FilesNamed {
  /** Null: of every bucket. */
  readonly bucket: string | null;
  /** Null: all of them. */
  readonly name: string | null;
}

/** `bucket/name`, `bucket/` or `all`; null for anything else. */
export function parseFilesNamed(text: string): FilesNamed | null {
  if (text === "all") return { bucket: null, name: null };
  const slash = text.indexOf("/");
  if (slash < 1) return null;
  return { bucket: text.slice(0, slash), name: slash === text.length - 1 ? null : text.slice(slash + 1) };
}

export function isNamed(
  { bucket, name }: FilesNamed,
  file: { readonly bucket: string; readonly name: string },
): boolean {
  return (bucket ?? file.bucket) === file.bucket && (name ?? file.name) === file.name;
}

/** Of a download, without the name of a file, which may tell of a person: `file-8f14e45f.webm`, `files-voice-notes-8f14e45f.tar`. */
export function filesFileName({ bucket, name }: FilesNamed, backup: string): string {
  const id = backup.slice(0, 8);
  if (name !== null) return `file-${id}${/\.[A-Za-z0-9]{1,5}$/.exec(name)?.[0] ?? ""}`;
  return `files-${(bucket ?? "all").replaceAll(/[^A-Za-z0-9_-]/g, "_").slice(0, 100)}-${id}.tar`;
}
