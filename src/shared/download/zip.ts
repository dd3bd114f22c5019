/**
 * A zip archive of files whose sizes are not known before they are written: each is stored as it is, with its checksum and
 * sizes behind it (general purpose bit 3). What has been written is told by a small state, so that another process can go on.
 * Source: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
 */

/** A file that has been written. */
export interface ZipEntry {
  readonly crc: number;
  readonly size: number;
  /** Where its header begins in the archive. */
  readonly offset: number;
}

const most32 = 0xffffffff;
/** UTF-8 names, and checksum and sizes behind the file. */
const flags = 0x0808;
const version = 45;

/** What comes before a file. `large`: it may have 4 GiB or more. `at`: when it was changed, from 1980 on. */
export function zipHeader(name: string, at: Date, large: boolean): Uint8Array {
  const label = new TextEncoder().encode(name);
  return joined([
    u32(0x04034b50),
    u16(version),
    u16(flags),
    u16(0),
    dosTime(at),
    u32(0),
    u32(large ? most32 : 0),
    u32(large ? most32 : 0),
    u16(label.byteLength),
    u16(large ? 20 : 0),
    label,
    // The sizes are behind the file, of 8 bytes each where this field is there.
    ...(large ? [u16(1), u16(16), u64(0), u64(0)] : []),
  ]);
}

/** What comes behind it. */
export function zipDescriptor({ crc, size }: ZipEntry, large: boolean): Uint8Array {
  const wide = large ? u64 : u32;
  return joined([u32(0x08074b50), u32(crc), wide(size), wide(size)]);
}

/** What ends the archive, at `offset`. `names` and `entries` are in the same order. */
export function zipEnd(names: readonly string[], entries: readonly ZipEntry[], offset: number, at: Date): Uint8Array {
  const directory = joined(entries.map((entry, index) => directoryEntry(names[index] ?? "", entry, at)));
  const size = directory.byteLength;
  const isLarge = offset >= most32 || size >= most32 || entries.length >= 0xffff;
  const wide = isLarge
    ? [
      u32(0x06064b50),
      u64(44),
      u16(version),
      u16(version),
      u32(0),
      u32(0),
      u64(entries.length),
      u64(entries.length),
      u64(size),
      u64(offset),
      u32(0x07064b50),
      u32(0),
      u64(offset + size),
      u32(1),
    ]
    : [];
  const count = u16(isLarge ? 0xffff : entries.length);
  const [size32, offset32] = [u32(isLarge ? most32 : size), u32(isLarge ? most32 : offset)];
  return joined([directory, ...wide, u32(0x06054b50), u16(0), u16(0), count, count, size32, offset32, u16(0)]);
}

function directoryEntry(name: string, { crc, size, offset }: ZipEntry, at: Date): Uint8Array {
  const label = new TextEncoder().encode(name);
  const [isLarge, isFar] = [size >= most32, offset >= most32];
  const more = [...(isLarge ? [u64(size), u64(size)] : []), ...(isFar ? [u64(offset)] : [])];
  const extra = more.length === 0 ? [] : [u16(1), u16(8 * more.length), ...more];
  return joined([
    u32(0x02014b50),
    // Made on Unix, a plain file that its owner may write.
    u16(version | (3 << 8)),
    u16(version),
    u16(flags),
    u16(0),
    dosTime(at),
    u32(crc),
    u32(isLarge ? most32 : size),
    u32(isLarge ? most32 : size),
    u16(label.byteLength),
    u16(extra.reduce((sum, part) => sum + part.byteLength, 0)),
    u16(0),
    u16(0),
    u16(0),
    u32((0o100644 << 16) >>> 0),
    u32(isFar ? most32 : offset),
    label,
    ...extra,
  ]);
}

/** Two seconds exact, in UTC: the format knows no zone. */
function dosTime(at: Date): Uint8Array {
  const day = (Math.max(at.getUTCFullYear(), 1980) - 1980) << 9 | (at.getUTCMonth() + 1) << 5 | at.getUTCDate();
  const time = at.getUTCHours() << 11 | at.getUTCMinutes() << 5 | at.getUTCSeconds() >> 1;
  return joined([u16(time), u16(day)]);
}

const crcTable = new Uint32Array(256).map((_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** CRC-32 of all before (0 at the beginning) and `bytes`. */
export function crc32(before: number, bytes: Uint8Array): number {
  let crc = ~before;
  for (let at = 0; at < bytes.byteLength; at++) {
    crc = (crcTable[(crc ^ (bytes[at] ?? 0)) & 0xff] ?? 0) ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

function u16(value: number): Uint8Array {
  return new Uint8Array([value & 0xff, (value >>> 8) & 0xff]);
}

function u32(value: number): Uint8Array {
  return joined([u16(value & 0xffff), u16(value >>> 16)]);
}

function u64(value: number): Uint8Array {
  return joined([u32(value % 2 ** 32), u32(Math.floor(value / 2 ** 32))]);
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
