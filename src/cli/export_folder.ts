/** An export in a folder of this machine, for its owner alone: the document, and the files beside it. */
import { createHash } from "node:crypto";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { HoldfastError } from "../shared/errors.ts";
import { blockBytes } from "../shared/export/document_format.ts";
import { documentName } from "../shared/export/export_link.ts";
import type { ExportTarget } from "../shared/export/export_target.ts";
import { syncFd } from "../shared/store/file.ts";
import { errno } from "../shared/store/file_errors.ts";

export interface ExportFolder {
  readonly target: ExportTarget;
  /** Its own name from now on; before, it has another one, so that a folder of this name is whole. Returns it. */
  finish(): Promise<{ readonly folder: string; readonly bytes: number; readonly sha256: string }>;
  /** Nothing is left of it. */
  discard(): Promise<void>;
}

/** `out`: a folder that is there, in which `name` is made. Errors: `usage`, `store_full`. */
export async function exportFolder(out: string, name: string): Promise<ExportFolder> {
  const above = resolve(out);
  if ((await stat(above).catch(() => null))?.isDirectory() !== true) {
    throw new HoldfastError("usage", `there is no folder ${above}`, { hint: "Make it, or name another." });
  }
  const folder = join(above, name);
  if (await stat(folder).then(() => true, () => false)) {
    throw new HoldfastError("usage", `${folder} is there already, and is not overwritten`, { hint: "Name another." });
  }
  const unfinished = join(above, `.${name}.${process.pid}.part`);
  const made = async (path: string) => await mkdir(path, { mode: 0o700, recursive: true }).catch(notWritten(path));
  await made(unfinished);
  let hash = createHash("sha256");
  let bytes = 0;
  const write = async (path: string, begins: boolean, at: number, content: Uint8Array) => {
    const file = await open(path, begins ? "w" : "r+", 0o600).catch(notWritten(path));
    try {
      for (let done = 0; done < content.byteLength;) {
        const { bytesWritten } = await file.write(content, done, content.byteLength - done, at + done)
          .catch(notWritten(path));
        done += bytesWritten;
      }
      await syncFd(file.fd);
    } finally {
      await file.close();
    }
  };
  return {
    target: {
      prepare: async () => {},
      putDocument: async (number, content) => {
        if (number === 0) [hash, bytes] = [createHash("sha256"), 0];
        await write(join(unfinished, documentName), number === 0, number * blockBytes, content);
        hash.update(content);
        bytes += content.byteLength;
      },
      putFile: async ({ path }, number, at, content) => {
        const file = join(unfinished, path);
        await made(dirname(file));
        await write(file, number === 0, at, content);
      },
      missing: () => Promise.resolve({ document: false, files: [] }),
    },
    finish: async () => {
      await rename(unfinished, folder).catch(notWritten(folder));
      return { folder, bytes, sha256: hash.digest("hex") };
    },
    discard: async () => await rm(unfinished, { recursive: true, force: true }),
  };
}

function notWritten(path: string): (cause: unknown) => never {
  return (cause) => {
    const code = errno(cause);
    if (code === "ENOSPC" || code === "EDQUOT") {
      throw new HoldfastError("store_full", `the disk has no room for ${path}`, { cause });
    }
    throw new HoldfastError("usage", `${path} cannot be written: ${code}`, { hint: "Name another folder.", cause });
  };
}
