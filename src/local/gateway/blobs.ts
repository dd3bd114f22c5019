import { createHash } from "node:crypto";
import { join } from "node:path";

/** Bytes that lie on disk, with what was seen while they came in. */
export interface StoredBytes {
  /** Their name; never used twice. */
  readonly version: string;
  readonly size: number;
  readonly md5: string;
}

export class TooManyBytes extends Error {}

/** Piece in which files are read and sent: what is shorter goes in one, which is several times as fast as a stream. */
const pieceBytes = 8 * 1024 * 1024;

/** The bytes of Storage objects, one immutable file a version; rows name versions, nothing else does. */
export class Blobs {
  readonly #folder: string;
  readonly #durable: boolean;

  constructor(folder: string, durable: boolean) {
    this.#folder = folder;
    this.#durable = durable;
  }

  /** Writes a stream; what comes back is on the disk for good. Nothing is left of a stream that broke or was too long. */
  async put(source: ReadableStream<Uint8Array> | null, atMost: number): Promise<StoredBytes> {
    const version = crypto.randomUUID();
    const path = await this.#make(version);
    const hash = createHash("md5");
    let size = 0;
    using file = await Deno.open(path, { write: true, createNew: true, mode: 0o600 });
    try {
      for await (const bytes of source ?? []) {
        size += bytes.byteLength;
        if (size > atMost) throw new TooManyBytes();
        hash.update(bytes);
        for (let at = 0; at < bytes.byteLength;) at += file.writeSync(bytes.subarray(at));
      }
      if (this.#durable) await file.sync();
      await this.#syncFolder(version);
      return { version, size, md5: hash.digest("hex") };
    } catch (error) {
      await this.remove(version);
      throw error;
    }
  }

  /** A second version with the same bytes, or null when there is no such version. Files never change, so it is a link. */
  async copy(from: string): Promise<string | null> {
    const version = crypto.randomUUID();
    try {
      await Deno.link(this.#path(from), await this.#make(version));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return null;
      throw error;
    }
    await this.#syncFolder(version);
    return version;
  }

  /** `length` bytes from `start`, or null when there is no such version (or it is shorter, where one piece shows it). */
  async read(version: string, start: number, length: number): Promise<Uint8Array | ReadableStream<Uint8Array> | null> {
    let file: Deno.FsFile;
    try {
      file = await Deno.open(this.#path(version));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return null;
      throw error;
    }
    if (start > 0) await file.seek(start, Deno.SeekMode.Start);
    if (length <= pieceBytes) {
      using whole = file;
      return await readExactly(whole, length);
    }
    let left = length;
    return new ReadableStream<Uint8Array>({
      async pull(controller) {
        const piece = await readExactly(file, Math.min(pieceBytes, left));
        if (piece === null) {
          file.close();
          return controller.error(new Error("the file is shorter than its row says"));
        }
        left -= piece.byteLength;
        controller.enqueue(piece);
        if (left > 0) return;
        file.close();
        controller.close();
      },
      cancel: () => file.close(),
    }, { highWaterMark: 0 });
  }

  /** No error when it is gone already. */
  async remove(version: string): Promise<void> {
    await Deno.remove(this.#path(version)).catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
  }

  #path(version: string): string {
    if (!/^[0-9a-f-]{36}$/.test(version)) return join(this.#folder, "none"); // a row that was written by hand
    return join(this.#folder, version.slice(0, 2), version);
  }

  async #make(version: string): Promise<string> {
    const path = this.#path(version);
    await Deno.mkdir(join(path, ".."), { recursive: true, mode: 0o700 });
    return path;
  }

  /** A new file's name is durable only once its folder is. */
  async #syncFolder(version: string): Promise<void> {
    if (!this.#durable) return;
    for (const path of [join(this.#path(version), ".."), this.#folder]) {
      using folder = await Deno.open(path);
      await folder.sync();
    }
  }
}

/** The next `length` bytes, or null when there are fewer. */
async function readExactly(file: Deno.FsFile, length: number): Promise<Uint8Array | null> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const read = await file.read(bytes.subarray(at));
    if (read === null) return null;
    at += read;
  }
  return bytes;
}
