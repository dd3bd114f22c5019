import { describe, expect, it } from "vitest";
import { CopyFramer } from "../../src/shared/postgres/copy_framer.ts";
import { numbersFrom } from "./backup_numbers.ts";

function message(type: string, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(body.length + 5);
  bytes[0] = type.charCodeAt(0);
  new DataView(bytes.buffer).setUint32(1, body.length + 4);
  bytes.set(body, 5);
  return bytes;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** What came out, in order; both kinds of output are copied, as their views are only lent. */
function run(wire: Uint8Array, cut: () => number, copying = true): { copy: Uint8Array; driver: Uint8Array } {
  const copy: Uint8Array[] = [];
  const driver: Uint8Array[] = [];
  const framer = new CopyFramer((bytes) => driver.push(bytes.slice()));
  if (copying) framer.onCopyData = (bytes) => copy.push(bytes.slice());
  for (let at = 0; at < wire.length;) {
    const end = Math.min(wire.length, at + Math.max(1, cut()));
    framer.push(wire.slice(at, end));
    at = end;
  }
  return { copy: joined(copy), driver: joined(driver) };
}

describe("the framer", () => {
  it("gives COPY bytes to the reader and everything else to the driver, however the socket cuts them", () => {
    const next = numbersFrom(7);
    for (let round = 0; round < 400; round++) {
      const messages = Array.from({ length: 1 + next(40) }, () => {
        const type = ["d", "d", "d", "H", "N", "c", "C", "Z"][next(8)] ?? "d";
        const size = next(5) === 0 ? 0 : next(next(3) === 0 ? 400 : 20);
        return { type, body: Uint8Array.from({ length: size }, () => next(256)) };
      });
      const wire = joined(messages.map(({ type, body }) => message(type, body)));
      const wanted = joined(messages.filter(({ type }) => type === "d").map(({ body }) => body));
      const others = joined(messages.filter(({ type }) => type !== "d").map(({ type, body }) => message(type, body)));
      const most = [1, 3, 7, 64, 5_000][round % 5] ?? 1;
      const { copy, driver } = run(wire, () => 1 + next(most));
      expect(copy).toEqual(wanted);
      expect(driver).toEqual(others);
    }
  });

  it("leaves all bytes to the driver while nobody copies", () => {
    const wire = joined([message("d", Uint8Array.of(1, 2, 3)), message("Z", Uint8Array.of(73))]);
    expect(run(wire, () => 4, false).driver).toEqual(wire);
  });

  it("calls the reader once for a buffer of many rows", () => {
    let calls = 0;
    const framer = new CopyFramer(() => {});
    framer.onCopyData = () => calls++;
    framer.push(joined(Array.from({ length: 1_000 }, () => message("d", Uint8Array.of(49, 10)))));
    expect(calls).toBe(1);
  });
});
