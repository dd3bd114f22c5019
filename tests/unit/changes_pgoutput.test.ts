import { Buffer } from "node:buffer";
import process from "node:process";
import { describe, expect, it } from "vitest";
import { type Message, unchanged } from "../../src/shared/changes/decode/messages.ts";
import { decodeMessage, messageKind, relationOf } from "../../src/shared/changes/decode/pgoutput.ts";
import { type ErrorCode, HoldfastError } from "../../src/shared/errors.ts";
import { numbersFrom } from "./backup_numbers.ts";
import { bytesOf, encode, int16, int32, int64, samples, tuple, zeroEnded } from "./changes_encoder.ts";

/** What came of it: a message, or a failure's code; a foreign error is thrown on. */
function outcome(bytes: Uint8Array): Message | ErrorCode {
  try {
    return decodeMessage(bytes);
  } catch (error) {
    if (error instanceof HoldfastError) return error.code;
    throw error;
  }
}

/** Any bytes: refused, or a message that stands for these bytes and no others. */
function expectRefusedOrExact(bytes: Uint8Array, where: string): void {
  let got: Message | ErrorCode;
  try {
    got = outcome(bytes);
  } catch (error) {
    throw new Error(`${where}: a foreign error`, { cause: error });
  }
  if (typeof got === "string") {
    if (got !== "object_damaged") throw new Error(`${where}: ${got}`);
    return;
  }
  const originLsn = got.kind === "origin" ? new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(1) : 0n;
  const again = encode(got, originLsn);
  const same = again.length === bytes.length && again.every((byte, index) => byte === bytes[index]);
  if (!same) throw new Error(`${where}: a ${got.kind} that says something else than the bytes`);
}

const encoded = samples.map((message) => encode(message));
const named = samples.map((message, index) => ({ title: `${index} ${message.kind}`, message }));

describe("a change message", () => {
  it.each(named)("says what the server wrote: $title", ({ message }) => {
    const bytes = encode(message);
    expect(outcome(bytes)).toEqual(message);
    const inside = bytesOf([1, 2, 3], bytes, [4, 5]);
    expect(outcome(inside.subarray(3, 3 + bytes.length))).toEqual(message);
  });

  it("has the server's own catalog for a schema without a name", () => {
    const bytes = bytesOf("Y", int32(25), [0], zeroEnded("text"));
    expect(outcome(bytes)).toEqual({ kind: "type", oid: 25, schema: "pg_catalog", name: "text" });
  });

  it("gives text of every length and mixture as it is", () => {
    const letters = ["a", "~", "\x7f", "\x80", "é", "日", "\u{1F600}", "\ufeff", "\x00", '"', "\\", "\n"];
    for (let length = 0; length < 70; length++) {
      const plain = "x".repeat(length);
      for (const odd of letters) {
        for (const text of [plain, odd + plain, plain + odd, plain.slice(length >> 1) + odd + plain]) {
          expect(outcome(encode({ kind: "insert", relation: 1, row: [text, text] }))).toEqual({
            kind: "insert",
            relation: 1,
            row: [text, text],
          });
        }
      }
    }
  });

  it("keeps nothing of the bytes that it was read from", () => {
    for (const message of samples) {
      for (const bytes of [encode(message), Buffer.from(encode(message))]) {
        const decoded = outcome(bytes);
        bytes.fill(0xee);
        expect(decoded).toEqual(message);
      }
    }
  });

  it("tells its kind and its table without being decoded", () => {
    for (const message of samples) {
      const bytes = encode(message);
      expect(messageKind(bytes)).toBe(message.kind);
      const table = message.kind === "relation"
        ? message.relation.oid
        : "relation" in message
        ? message.relation
        : null;
      expect(relationOf(bytes)).toBe(table);
    }
    for (const bytes of [bytesOf(), bytesOf("S"), bytesOf([0]), bytesOf([255])]) {
      expect(() => messageKind(bytes)).toThrow(expect.objectContaining({ code: "object_damaged" }));
      expect(() => relationOf(bytes)).toThrow(expect.objectContaining({ code: "object_damaged" }));
    }
    expect(() => relationOf(bytesOf("I", [0, 0, 1]))).toThrow(expect.objectContaining({ code: "object_damaged" }));
  });
});

describe("a change message is refused", () => {
  const text = (bytes: readonly number[] | string) => {
    const content = bytesOf(bytes);
    return bytesOf("t", int32(content.length), content);
  };
  const insert = (...values: Uint8Array[]) => bytesOf("I", int32(1), "N", int16(values.length), ...values);
  const refused: Readonly<Record<string, Uint8Array>> = {
    "without a byte": bytesOf(),
    "of an unknown type": bytesOf("Z", int32(1)),
    "of a type of a later protocol": bytesOf("S", int32(1), [1]),
    "with a binary value": insert(bytesOf("b", int32(1), [1])),
    "with an unknown kind of value": insert(bytesOf("x")),
    "with a value of negative length": insert(bytesOf("t", int32(-1))),
    "with a value longer than the message": insert(bytesOf("t", int32(2), "x")),
    "with a value far longer than the message": insert(bytesOf("t", int32(0x7fffffff), "x")),
    "with a negative number of values": bytesOf("I", int32(1), "N", int16(-1)),
    "with a negative number of values, though as many follow": bytesOf(
      ...["I", int32(1), "N", int16(-1), "n".repeat(0xffff)],
    ),
    "with more values than it has": bytesOf("I", int32(1), "N", int16(2), "n"),
    "with a row that is not the new one": bytesOf("I", int32(1), "O", tuple(["1"])),
    "with an unchanged value in an insert": bytesOf("I", int32(1), "N", tuple([unchanged])),
    "with an unchanged value in an old row": bytesOf("U", int32(1), "O", tuple([unchanged]), "N", tuple(["1"])),
    "with an unchanged value in a deleted key": bytesOf("D", int32(1), "K", tuple([unchanged])),
    "with an update that has no new row": bytesOf("U", int32(1), "K", tuple(["1"])),
    "with two old rows": bytesOf("U", int32(1), "K", tuple(["1"]), "O", tuple(["1"]), "N", tuple(["1"])),
    "with a deleted row that is a new one": bytesOf("D", int32(1), "N", tuple(["1"])),
    "with a byte of no character in short text": insert(text([0x61, 0xff])),
    "with a cut character in short text": insert(text([0x61, 0xe6, 0x97])),
    "with a surrogate in short text": insert(text([0xed, 0xa0, 0x80])),
    "with a longer form than needed": insert(text([0xc0, 0x80])),
    "with a byte of no character in long text": insert(text([...Array<number>(300).fill(0x61), 0xff])),
    "with a name that is not UTF-8": bytesOf("Y", int32(1), zeroEnded("s"), [0xff, 0]),
    "with a name that does not end": bytesOf("Y", int32(1), zeroEnded("s"), "name"),
    "with an unknown replica identity": bytesOf("R", int32(1), zeroEnded("s"), zeroEnded("t"), "x", int16(0)),
    "with unknown flags of a column": bytesOf(
      ...["R", int32(1), zeroEnded("s"), zeroEnded("t"), "d", int16(1), [2], zeroEnded("c"), int32(23), int32(-1)],
    ),
    "with unknown flags of a commit": bytesOf("C", [1], int64(1n), int64(2n), int64(3n)),
    "with unknown flags of a truncate": bytesOf("T", int32(1), [4], int32(7)),
    "with unknown flags of a message": bytesOf("M", [2], int64(1n), [0], int32(0)),
    "with fewer truncated tables than it says": bytesOf("T", int32(2), [0], int32(7)),
    "with more truncated tables than it says": bytesOf("T", int32(1), [0], int32(7), int32(8)),
    "with a negative number of truncated tables": bytesOf("T", int32(-1), [0]),
    "with content of negative length": bytesOf("M", [0], int64(1n), [0], int32(-5)),
  };

  it.each(Object.keys(refused))("%s", (title) => {
    expect(outcome(refused[title] ?? bytesOf())).toBe("object_damaged");
  });

  it("when its value is longer than any string", () => {
    const bytes = new Uint8Array(12 + 2 ** 29);
    bytes.set(bytesOf("I", int32(1), "N", int16(1), "t", int32(2 ** 29 - 1)));
    expect(outcome(bytes)).toBe("row_too_large");
  });

  it("without a word of its content", () => {
    const bytes = bytesOf("Y", int32(1), zeroEnded("secret"), "secret", [0xff, 0]);
    expect(() => decodeMessage(bytes)).toThrow(expect.not.stringContaining("secret"));
    expect(() => decodeMessage(bytes)).toThrow("a change message holds text that is not UTF-8");
  });
});

describe("whatever the bytes, a message or object_damaged comes", () => {
  it("for every end that is cut, and for every byte too many", () => {
    encoded.forEach((bytes, sample) => {
      for (let end = 0; end < bytes.length; end++) {
        expect(outcome(bytes.slice(0, end)), `sample ${sample} cut at ${end}`).toBe("object_damaged");
      }
      for (const extra of [0, 0x4e, 0x6e, 255]) {
        expect(outcome(bytesOf(bytes, [extra])), `sample ${sample} and ${extra}`).toBe("object_damaged");
      }
    });
  });

  it("for every byte changed to every other", () => {
    encoded.forEach((bytes, sample) => {
      for (let at = 0; at < bytes.length; at++) {
        for (let change = 1; change < 256; change++) {
          const changed = bytes.slice();
          changed[at] = (changed[at] ?? 0) ^ change;
          expectRefusedOrExact(changed, `sample ${sample}, byte ${at} xor ${change}`);
        }
      }
    });
  });

  it("for random bytes", () => {
    const seed = Number(process.env["HOLDFAST_SEED"] ?? Date.now() % 2 ** 31);
    const next = numbersFrom(seed);
    for (let round = 0; round < 30_000; round++) {
      const bytes = Uint8Array.from({ length: next(60) }, () => next(3) === 0 ? next(256) : next(4));
      if (bytes.length > 0 && next(10) > 0) bytes[0] = "BCORYIUDTM".charCodeAt(next(10));
      expectRefusedOrExact(bytes, `HOLDFAST_SEED=${seed}, round ${round}`);
    }
  });

  it("for samples with pieces moved, doubled and left out", () => {
    const seed = Number(process.env["HOLDFAST_SEED"] ?? Date.now() % 2 ** 31);
    const next = numbersFrom(seed);
    const piece = () => {
      const bytes = encoded[next(encoded.length)] ?? bytesOf();
      const start = next(bytes.length);
      return bytes.slice(start, start + next(bytes.length - start + 1));
    };
    for (let round = 0; round < 30_000; round++) {
      const bytes = encoded[next(encoded.length)] ?? bytesOf();
      const start = 1 + next(bytes.length);
      const rest = bytes.slice(next(2) === 0 ? start : next(bytes.length));
      expectRefusedOrExact(bytesOf(bytes.slice(0, start), piece(), rest), `HOLDFAST_SEED=${seed}, round ${round}`);
    }
  });
});
