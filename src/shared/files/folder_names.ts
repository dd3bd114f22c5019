/** What files of Storage are called in a folder or an archive: their own names, where no file system makes another of them. Pure. */

/** For names that cannot stand in a folder; each is in it alone, whatever it is. */
export const oddFolder = "odd-names";
/** Below the 255 bytes that file systems take for one name. */
const longestNameBytes = 200;

interface Named {
  readonly id: string;
  readonly bucket: string;
  readonly name: string;
}

/**
 * `bucket/name`; for a name that leads out of its folder, is empty in a part, has signs that a terminal or a file system takes for its own,
 * or is too long: `odd-names/` and all of it as one name, written as in an address, or the file's id where that is too long. Two files never
 * get the same, but on a file system that folds case: `folderNames`.
 */
export function folderName(file: Named): string {
  const parts = [file.bucket, ...file.name.split("/")];
  return file.bucket !== oddFolder && parts.every(isPlain) ? parts.join("/") : oddName(file);
}

export function oddName({ id, bucket, name }: Named): string {
  const escaped = encodeURIComponent(`${bucket}/${name}`.toWellFormed());
  return `${oddFolder}/${escaped.length <= longestNameBytes ? escaped : id}`;
}

/** For files that all go into one folder: those that a file system may take for each other, or one for the folder of another, are odd too. */
export function folderNames(files: readonly Named[]): string[] {
  const folders = new Set(files.flatMap((file) => foldersOf(folded(folderName(file)))));
  const taken = new Set<string>();
  return files.map((file) => {
    const isFree = (path: string) => !taken.has(folded(path)) && !folders.has(folded(path));
    const path = [folderName(file), oddName(file)].find(isFree) ?? `${oddFolder}/${file.id}`;
    taken.add(folded(path));
    return path;
  });
}

/** As file systems that fold case or compose letters see it. */
function folded(path: string): string {
  return path.normalize("NFKC").toLowerCase();
}

function foldersOf(path: string): string[] {
  const parts = path.split("/");
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"));
}

function isPlain(part: string): boolean {
  if (part === "" || part === "." || part === "..") return false;
  if ([...part].some((sign) => sign < " " || sign === "\x7f" || sign === "\\")) return false;
  return new TextEncoder().encode(part).byteLength <= longestNameBytes;
}
