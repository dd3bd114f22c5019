/** A tar archive (POSIX 1003.1, ustar), written from the front: whoever has files of known sizes needs no more. */
import { HoldfastError } from "../errors.ts";

const block = 512;

/** What ends the archive. */
export const tarEnd: Uint8Array = new Uint8Array(2 * block);

/** Bytes that the file takes in the archive, header and padding included. */
export function tarBytes(size: number): number {
  return block + size + padding(size);
}

/** What comes behind a file's bytes. */
export function tarPadding(size: number): Uint8Array {
  return new Uint8Array(padding(size));
}

function padding(size: number): number {
  return (block - size % block) % block;
}

/**
 * What comes before a file's bytes, whatever its name is: an extended header (POSIX 1003.1, pax) with its path, where a plain one has no
 * place for it. `size`: below 8 GiB.
 */
export function tarHeaders(path: string, size: number, at: Date): Uint8Array[] {
  if (isPlain(path)) return [tarHeader(path, size, at)];
  const record = new TextEncoder().encode(paxRecord("path", path));
  const plain = "extended";
  return [
    tarHeader(`PaxHeaders/${plain}`, record.byteLength, at, "x"),
    record,
    tarPadding(record.byteLength),
    tarHeader(plain, size, at),
  ];
}

function isPlain(path: string): boolean {
  if (!/^[\x20-\x7e]+$/.test(path)) return false;
  if (path.length <= 100) return true;
  const slash = path.indexOf("/", path.length - 101);
  return slash > 0 && slash <= 155;
}

/** The length counts itself. */
function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`;
  const bytes = new TextEncoder().encode(rest).byteLength;
  let length = bytes + String(bytes).length;
  length = bytes + String(length).length;
  return `${length}${rest}`;
}

/** As `tarHeaders`, for ASCII of at most 100 bytes behind a slash and 155 before it; `at`: when it was changed; `type`: a file's. */
export function tarHeader(name: string, size: number, at: Date, type: "0" | "x" = "0"): Uint8Array {
  const header = new Uint8Array(block);
  const write = (text: string, offset: number) => header.set(new TextEncoder().encode(text), offset);
  const octal = (value: number, digits: number, offset: number) =>
    write(`${value.toString(8).padStart(digits, "0")}\0`, offset);
  const [prefix, rest] = split(name);
  write(rest, 0);
  octal(0o644, 7, 100);
  octal(0, 7, 108);
  octal(0, 7, 116);
  octal(size, 11, 124);
  octal(Math.floor(at.getTime() / 1000), 11, 136);
  write("        ", 148);
  write(type, 156);
  write("ustar\0" + "00", 257);
  write(prefix, 345);
  write(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}

function split(name: string): readonly [string, string] {
  if (name.length <= 100) return ["", name];
  const slash = name.indexOf("/", name.length - 101);
  if (slash < 0 || slash > 155) throw new HoldfastError("internal", "a name is too long for an archive");
  return [name.slice(0, slash), name.slice(slash + 1)];
}
