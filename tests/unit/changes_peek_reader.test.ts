import { Buffer } from "node:buffer";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { PeekReader } from "../../src/shared/changes/drain/peek_reader.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { numbersFrom } from "./backup_numbers.ts";
import { bytesOf, int16, int32, int64 } from "./changes_encoder.ts";

interface Peeked {
  readonly lsn: bigint;
  readonly xid: number;
  readonly data: Uint8Array;
}

const header = bytesOf("PGCOPY\n", [0xff], "\r\n", [0], int32(0), int32(0));
const trailer = bytesOf(int16(-1));
const rowBytes = ({ lsn, xid, data }: Peeked) =>
  bytesOf(int16(3), int32(8), int64(lsn), int32(4), int32(xid), int32(data.length), data);

function streamOf(rows: readonly Peeked[]): Uint8Array {
  return bytesOf(header, ...rows.map(rowBytes), trailer);
}

/** What comes out of the pieces; each is overwritten once it was given, as a socket's buffer would be. */
function read(pieces: Iterable<Uint8Array>): Peeked[] {
  const rows: Peeked[] = [];
  const reader = new PeekReader((lsn, xid, data) => rows.push({ lsn, xid, data: data.slice() }));
  for (const piece of pieces) {
    const lent = piece.slice();
    reader.push(lent);
    lent.fill(0xee);
  }
  reader.end();
  return rows;
}

const shown = ({ lsn, xid, data }: Peeked) => `${lsn} ${xid} ${Buffer.from(data).toString("hex")}`;

function* cut(bytes: Uint8Array, size: () => number): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length;) {
    const end = at + size();
    yield bytes.subarray(at, end);
    at = end;
  }
}

const rows: readonly Peeked[] = [
  { lsn: 0xffff_ffff_8000_0001n, xid: 4_294_967_295, data: Uint8Array.of(1, 2, 3) },
  { lsn: 0n, xid: 0, data: Uint8Array.of() },
  { lsn: 0x1_8000_0000n, xid: 2_147_483_648, data: Uint8Array.of(0xff, 0xff) },
];

describe("a peek", () => {
  it("gives every row, however its bytes are cut", () => {
    const seed = Number(process.env["HOLDFAST_SEED"] ?? Date.now() % 2 ** 31);
    const next = numbersFrom(seed);
    for (let round = 0; round < 300; round++) {
      const made = Array.from({ length: next(30) }, () => ({
        lsn: BigInt(next(2 ** 32)) * 4_294_967_296n + BigInt(next(2 ** 32)),
        xid: next(2 ** 32),
        data: Uint8Array.from({ length: next(next(8) === 0 ? 9000 : 60) }, () => next(256)),
      }));
      const most = [1, 3, 30, 500, 70_000][round % 5] ?? 1;
      const got = read(cut(streamOf(made), () => 1 + next(most)));
      expect(got.map(shown), `HOLDFAST_SEED=${seed}, round ${round}`).toEqual(made.map(shown));
    }
  });

  it("gives every row for each place at which its bytes can be cut once", () => {
    const whole = streamOf(rows);
    for (let at = 0; at <= whole.length; at++) {
      expect(read([whole.subarray(0, at), bytesOf(), whole.subarray(at)]), `cut at ${at}`).toEqual(rows);
    }
  });

  it("of nothing gives nothing", () => {
    expect(read([streamOf([])])).toEqual([]);
  });

  it("lends a row that came whole from where it came", () => {
    const whole = streamOf(rows);
    const lent: boolean[] = [];
    const reader = new PeekReader((_lsn, _xid, data) => lent.push(data.buffer === whole.buffer));
    reader.push(whole.subarray(0, whole.length - trailer.length - 1));
    reader.push(whole.subarray(whole.length - trailer.length - 1));
    reader.end();
    expect(lent).toEqual([true, true, false]);
  });

  it("takes memory for bytes that came, not for those that are promised", () => {
    const before = process.memoryUsage().arrayBuffers;
    const reader = new PeekReader(() => {});
    reader.push(bytesOf(header, int16(3), int32(8), int64(1n), int32(4), int32(1), int32(0x3fffffff), "begin"));
    reader.push(new Uint8Array(10_000));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100_000_000);
  });

  it("ends with a throw of who takes the rows, and is not used again", () => {
    const reader = new PeekReader(() => {
      throw new HoldfastError("cancelled", "enough");
    });
    expect(() => reader.push(streamOf(rows))).toThrow("enough");
    expect(() => reader.push(bytesOf())).toThrow(expect.objectContaining({ code: "internal" }));
    expect(() => reader.end()).toThrow(expect.objectContaining({ code: "internal" }));
  });
});

describe("a peek is refused", () => {
  const row = (...fields: Uint8Array[]) => bytesOf(header, int16(fields.length), ...fields, trailer);
  const lsn = bytesOf(int32(8), int64(1n));
  const xid = bytesOf(int32(4), int32(1));
  const data = bytesOf(int32(1), [7]);
  const none = bytesOf(int32(-1));
  const refused: Readonly<Record<string, Uint8Array>> = {
    "without a byte": bytesOf(),
    "that is text": bytesOf("0/15D8A30\t740\t\\\\x42000000000\n"),
    "with flags": bytesOf("PGCOPY\n", [0xff], "\r\n", [0], int32(0x10000), int32(0), trailer),
    "with an extension": bytesOf("PGCOPY\n", [0xff], "\r\n", [0], int32(0), int32(1), [9], trailer),
    "with two fields": row(lsn, xid),
    "with four fields": row(lsn, xid, data, data),
    "with no field": row(),
    "with another negative count": bytesOf(header, int16(-2)),
    "with no position": row(none, xid, data),
    "with no transaction": row(lsn, none, data),
    "with no message": row(lsn, xid, none),
    "with fields in another order": row(xid, lsn, data),
    "with bytes after its end": bytesOf(streamOf(rows), [0]),
    "with a second stream": bytesOf(streamOf(rows), streamOf(rows)),
  };

  it.each(Object.keys(refused))("%s", (title) => {
    const bytes = refused[title] ?? bytesOf();
    for (const size of [1, 7, bytes.length + 1]) {
      expect(() => read(cut(bytes, () => size))).toThrow(expect.objectContaining({ code: "database_failed" }));
    }
  });

  it("with a message larger than the server makes, before it comes", () => {
    const reader = new PeekReader(() => {});
    expect(() => reader.push(row(lsn, xid, bytesOf(int32(0x40000000)))))
      .toThrow(expect.objectContaining({ code: "database_failed" }));
  });

  it("cut at any place", () => {
    const whole = streamOf(rows);
    for (let end = 0; end < whole.length; end++) {
      expect(() => read([whole.subarray(0, end)]), `cut at ${end}`)
        .toThrow(expect.objectContaining({ code: "database_failed" }));
    }
  });

  it("or, whichever byte is changed, gives rows that stand for these bytes", () => {
    const whole = streamOf(rows);
    for (let at = 0; at < whole.length; at++) {
      for (let change = 1; change < 256; change++) {
        const changed = whole.slice();
        changed[at] = (changed[at] ?? 0) ^ change;
        try {
          const same = Buffer.compare(streamOf(read([changed])), changed) === 0;
          if (!same) throw new Error(`byte ${at} xor ${change} gives rows that say something else`);
        } catch (error) {
          if (!(error instanceof HoldfastError && error.code === "database_failed")) throw error;
        }
      }
    }
  });
});
