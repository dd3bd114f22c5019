import { mkdtemp, readdir, rm, rmdir, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import { createFileStore, type FileSystem, localFileSystem } from "../../src/shared/store/file.ts";
import { describeStore } from "./store.ts";

const folders: string[] = [];
async function freshFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-file-"));
  folders.push(folder);
  return folder;
}
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true });
});

describeStore("file", async () => {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-file-"));
  return {
    store: createFileStore(folder),
    nowhere: createFileStore(join(folder, "not there")),
    stranger: null,
    secrets: [],
    createIsAtomic: true,
    listed: 60,
    close: () => rm(folder, { recursive: true, force: true }),
  };
});

/** Fails like the system call does. */
function failing(code: string, call: keyof FileSystem): FileSystem & { fired: number } {
  const fileSystem = {
    ...localFileSystem,
    fired: 0,
    [call]: () => {
      fileSystem.fired++;
      return Promise.reject(Object.assign(new Error(`${code}: injected`), { code }));
    },
  };
  return fileSystem;
}

async function codeOf(act: Promise<unknown>): Promise<string> {
  return await act.then(() => "no error", (error) => error instanceof HoldfastError ? error.code : String(error));
}

describe("a file store whose disk fails", () => {
  it.each(
    [
      ["ENOSPC", "write", "store_full"],
      ["EDQUOT", "write", "store_full"],
      ["EROFS", "write", "store_read_only"],
      ["EACCES", "write", "store_read_only"],
      ["EIO", "write", "store_unreachable"],
      ["EOPNOTSUPP", "link", "store_denied"],
      ["EIO", "link", "store_unreachable"],
      ["EIO", "syncFolder", "store_unreachable"],
    ] as const,
  )("turns %s in %s into %s", async (errno, call, code) => {
    const folder = await freshFolder();
    const fileSystem = failing(errno, call);
    const store = createFileStore(folder, { fileSystem });
    expect(await codeOf(store.create("one", new Uint8Array(10)))).toBe(code);
    expect(fileSystem.fired).toBeGreaterThan(0);
  });

  it("shows no part of an object whose writing failed, and leaves nothing behind", async () => {
    const folder = await freshFolder();
    const fileSystem: FileSystem = {
      ...localFileSystem,
      async write(path, bytes) {
        await localFileSystem.write(path, bytes.subarray(0, bytes.byteLength >>> 1));
        throw Object.assign(new Error("ENOSPC: injected"), { code: "ENOSPC" });
      },
    };
    const store = createFileStore(folder, { fileSystem });
    expect(await codeOf(store.create("one", new Uint8Array(1000)))).toBe("store_full");
    expect(await store.size("one")).toBeNull();
    expect(await readdir(folder)).toEqual([]);
  });

  it("never lists what a killed writer left, and sweeps it after a day", async () => {
    const folder = await freshFolder();
    await writeFile(join(folder, "~0123"), "half");
    const store = createFileStore(folder);
    const names = async () => {
      const all: string[] = [];
      for await (const { name } of store.list("")) all.push(name);
      return all;
    };
    expect(await names()).toEqual([]);
    expect(await readdir(folder)).toEqual(["~0123"]);
    const twoDaysAgo = new Date(Date.now() - 2 * 24 * 60 * 60 * 1000);
    await utimes(join(folder, "~0123"), twoDaysAgo, twoDaysAgo);
    expect(await names()).toEqual([]);
    expect(await readdir(folder)).toEqual([]);
  });

  it("syncs the bytes before the name appears, and the folder after it", async () => {
    const folder = await freshFolder();
    const order: string[] = [];
    const watched: FileSystem = {
      write: async (path, bytes) => {
        await localFileSystem.write(path, bytes);
        order.push("write and sync");
      },
      link: async (from, to) => {
        await localFileSystem.link(from, to);
        order.push("link");
      },
      rename: localFileSystem.rename,
      syncFolder: async (path) => {
        await localFileSystem.syncFolder(path);
        order.push(`sync ${path.slice(folder.length)}/`);
      },
    };
    await createFileStore(folder, { fileSystem: watched }).create("a/b/c", new Uint8Array(1));
    expect(order).toEqual(["sync /", "sync /a/", "write and sync", "link", "sync /a/b/"]);
  });

  it("makes its folder again when a remover takes it away right before the write", async () => {
    const folder = await freshFolder();
    let taken = 0;
    const fileSystem: FileSystem = {
      ...localFileSystem,
      async write(path, bytes) {
        if (taken++ < 2) await rmdir(dirname(path));
        await localFileSystem.write(path, bytes);
      },
    };
    const store = createFileStore(folder, { fileSystem });
    expect(await store.create("f/g", new Uint8Array(3))).toBe("created");
    expect(taken).toBe(3);
  });

  it("survives a remover that takes emptied folders away while others write into them", async () => {
    const store = createFileStore(await freshFolder());
    const round = async (index: number) => {
      await store.create(`f/g/${index}`, new Uint8Array(3));
      await store.remove([`f/g/${index}`]);
    };
    await Promise.all(Array.from({ length: 40 }, (_, index) => round(index)));
    await store.create("f/g/last", new Uint8Array(3));
    expect(await store.size("f/g/last")).toBe(3);
  });
});
