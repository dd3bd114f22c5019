/**
 * A store in a folder of a local file system. For the CLI: Edge Functions have no rename and no lasting disk.
 *
 * A name appears by `link()` of a finished, synced file, so that it is there whole or not at all, and never over another.
 * Unfinished files are called `~…`, which no object can be; a listing leaves them out and sweeps those older than a day.
 */
// Whole modules: the edge runtime, which loads this file too, lacks some of the calls that are made here.
import * as descriptors from "node:fs";
import * as disk from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Clock, systemClock } from "../clock.ts";
import { toHex } from "../crypto/digest.ts";
import { HoldfastError } from "../errors.ts";
import { type Random, webCryptoRandom } from "../random.ts";
import { errno, fileFailure } from "./file_errors.ts";
import { checkName, checkPrefix } from "./names.ts";
import type { Store, StoredObject } from "./store.ts";

/** No put takes a day; what is older was left by a process that died. */
const unfinishedLifeMs = 24 * 60 * 60 * 1000;

/** A remover may take the folder away between our making it and our use of it; that often in a row it cannot. */
const maxFolderTries = 5;

/** The system calls a store makes. Tests put failures in their place. */
export interface FileSystem {
  readonly write: (path: string, bytes: Uint8Array) => Promise<void>;
  readonly link: (from: string, to: string) => Promise<void>;
  readonly rename: (from: string, to: string) => Promise<void>;
  readonly syncFolder: (path: string) => Promise<void>;
}

export interface FileStoreDeps {
  readonly clock?: Clock;
  readonly random?: Random;
  readonly fileSystem?: FileSystem;
  /** Everybody on this machine may read what is put there, such as a web server. Default: this user only. */
  readonly isPublic?: boolean;
}

/** Makes the folder (and those above it) where it is missing, readable for this user only, or for everybody. */
export async function createFolder(folder: string, isPublic = false): Promise<void> {
  try {
    if (isPublic) await createPublicFolder(folder);
    else await disk.mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw fileFailure(error, "make the folder", `file://${folder}`);
  }
}

/** Whatever the process keeps to itself (umask); a folder that is there stays as it is. */
async function createPublicFolder(folder: string): Promise<void> {
  if ((await disk.stat(folder).catch(() => null))?.isDirectory()) return;
  await createPublicFolder(dirname(folder));
  await disk.mkdir(folder);
  await disk.chmod(folder, 0o755);
}

/** `folder` is absolute and exists; while it does not, every call is `store_missing`, so that an unmounted disk shows. */
export function createFileStore(folder: string, deps: FileStoreDeps = {}): Store {
  const { clock = systemClock, random = webCryptoRandom, fileSystem = localFileSystem, isPublic = false } = deps;
  const label = `file://${folder}`;
  const pathOf = (name: string) => {
    checkName(name);
    return join(folder, name);
  };

  async function checkRoot(): Promise<void> {
    const root = await disk.stat(folder).catch((error) => {
      if (errno(error) !== "ENOENT" && errno(error) !== "ENOTDIR") {
        throw fileFailure(error, "look at the folder", label);
      }
      return null;
    });
    if (!root?.isDirectory()) throw new HoldfastError("store_missing", `there is no folder ${label}`);
  }

  /** Writes beside the target, then hands both paths to `place`, which makes the name appear. */
  async function put<Result>(
    name: string,
    bytes: Uint8Array,
    place: (unfinished: string, path: string) => Promise<Result>,
  ): Promise<Result> {
    const path = pathOf(name);
    await checkRoot();
    for (let tries = 1;; tries++) {
      const unfinished = join(dirname(path), `~${toHex(random(12))}`);
      try {
        await makeFolders(folder, dirname(path), fileSystem);
        await fileSystem.write(unfinished, bytes);
        if (isPublic) await disk.chmod(unfinished, 0o644);
        const result = await place(unfinished, path);
        await fileSystem.syncFolder(dirname(path));
        return result;
      } catch (error) {
        if (errno(error) !== "ENOENT" || tries >= maxFolderTries) throw fileFailure(error, `write ${name}`, label);
      } finally {
        await disk.unlink(unfinished).catch(() => {});
      }
    }
  }

  async function* walk(path: string, base: string, prefix: string): AsyncGenerator<StoredObject> {
    const entries = await disk.readdir(path, { withFileTypes: true }).catch((error) => {
      if (errno(error) === "ENOENT" || errno(error) === "ENOTDIR") return [];
      throw fileFailure(error, `list ${base}`, label);
    });
    for (const entry of entries) {
      const name = base + entry.name;
      const inside = join(path, entry.name);
      if (entry.name.startsWith("~")) await sweep(inside);
      else if (entry.isDirectory() && (`${name}/`.startsWith(prefix) || prefix.startsWith(`${name}/`))) {
        yield* walk(inside, `${name}/`, prefix);
      } else if (entry.isFile() && name.startsWith(prefix)) {
        const size = await sizeOf(inside, name);
        if (size !== null) yield { name, size };
      }
    }
  }

  async function sweep(path: string): Promise<void> {
    const found = await disk.stat(path).catch(() => null);
    if (found !== null && clock.now().getTime() - found.mtimeMs > unfinishedLifeMs) {
      await disk.unlink(path).catch(() => {});
    }
  }

  async function sizeOf(path: string, name: string): Promise<number | null> {
    try {
      const found = await disk.stat(path);
      return found.isFile() ? found.size : null;
    } catch (error) {
      if (errno(error) === "ENOENT" || errno(error) === "ENOTDIR") return null;
      throw fileFailure(error, `look at ${name}`, label);
    }
  }

  return {
    kind: "file",
    label,
    lock: null,

    create: (name, bytes) =>
      put(name, bytes, async (unfinished, path) => {
        try {
          await fileSystem.link(unfinished, path);
          return "created";
        } catch (error) {
          if (errno(error) === "EEXIST") return "existed";
          throw error;
        }
      }),

    replace: (name, bytes) => put(name, bytes, (unfinished, path) => fileSystem.rename(unfinished, path)),

    async read(name) {
      const path = pathOf(name);
      try {
        return await readWhole(path);
      } catch (error) {
        if (!["ENOENT", "ENOTDIR", "EISDIR"].includes(errno(error))) throw fileFailure(error, `read ${name}`, label);
        await checkRoot();
        throw new HoldfastError("object_missing", `${name} is not in ${label}`);
      }
    },

    async size(name) {
      const size = await sizeOf(pathOf(name), name);
      if (size === null) await checkRoot();
      return size;
    },

    async *list(prefix) {
      checkPrefix(prefix);
      await checkRoot();
      yield* walk(folder, "", prefix);
    },

    async remove(names) {
      const paths = names.map(pathOf);
      await checkRoot();
      const touched = new Set<string>();
      for (const [index, path] of paths.entries()) {
        try {
          await disk.unlink(path);
          touched.add(dirname(path));
        } catch (error) {
          if (["ENOENT", "ENOTDIR", "EISDIR"].includes(errno(error))) continue;
          throw fileFailure(error, `remove ${names[index]}`, label);
        }
      }
      for (const path of touched) {
        await removeEmptied(folder, path, fileSystem).catch((error) => {
          throw fileFailure(error, "remove objects", label);
        });
      }
    },
  };
}

/** Makes the folders from `folder` down to `path`, and syncs each that got a new entry. */
async function makeFolders(folder: string, path: string, fileSystem: FileSystem): Promise<void> {
  if (path === folder || (await disk.stat(path).catch(() => null))?.isDirectory()) return;
  await makeFolders(folder, dirname(path), fileSystem);
  await disk.mkdir(path, { mode: 0o700 }).catch((error) => {
    if (errno(error) !== "EEXIST") throw error;
  });
  await fileSystem.syncFolder(dirname(path));
}

/** Syncs `path` and takes away the folders that became empty, up to but not including `folder`. */
async function removeEmptied(folder: string, path: string, fileSystem: FileSystem): Promise<void> {
  try {
    await fileSystem.syncFolder(path);
    if (path === folder) return;
    await disk.rmdir(path);
  } catch (error) {
    if (["ENOTEMPTY", "EEXIST"].includes(errno(error))) return;
    if (errno(error) !== "ENOENT") throw error;
  }
  await removeEmptied(folder, dirname(path), fileSystem);
}

async function readWhole(path: string): Promise<Uint8Array> {
  const file = await disk.open(path, "r");
  try {
    const bytes = new Uint8Array((await file.stat()).size);
    for (let at = 0; at < bytes.byteLength;) {
      const { bytesRead } = await file.read(bytes, at, bytes.byteLength - at, at);
      if (bytesRead === 0) throw new HoldfastError("store_lied", "a file ended before its size");
      at += bytesRead;
    }
    return bytes;
  } finally {
    await file.close();
  }
}

/** Deno 2.1.4 has no `FileHandle.sync`. */
export function syncFd(fd: number): Promise<void> {
  return new Promise((resolve, reject) => descriptors.fsync(fd, (error) => error ? reject(error) : resolve()));
}

export const localFileSystem: FileSystem = {
  async write(path, bytes) {
    const file = await disk.open(path, "wx", 0o600);
    try {
      for (let at = 0; at < bytes.byteLength;) {
        const { bytesWritten } = await file.write(bytes, at, bytes.byteLength - at);
        at += bytesWritten;
      }
      await syncFd(file.fd);
    } finally {
      await file.close();
    }
  },
  link: (from, to) => disk.link(from, to),
  rename: (from, to) => disk.rename(from, to),
  async syncFolder(path) {
    const handle = await disk.open(path, "r");
    try {
      await syncFd(handle.fd);
    } finally {
      await handle.close();
    }
  },
};
