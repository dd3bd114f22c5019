import { describe, expect, it } from "vitest";
import { fromBase32, stepAt, stepOfCode, toBase32, totpCode } from "../../src/local/gateway/totp.ts";

const ascii = (text: string) => new TextEncoder().encode(text);
const secret = toBase32(ascii("12345678901234567890"));

/** RFC 6238, appendix B, the rows of SHA-1: seconds since 1970, code of eight digits. A code of six is its end. */
const published: readonly (readonly [number, string])[] = [
  [59, "94287082"],
  [1111111109, "07081804"],
  [1111111111, "14050471"],
  [1234567890, "89005924"],
  [2000000000, "69279037"],
  [20000000000, "65353130"],
];

describe("a code by time", () => {
  it.each(published)("is the published one at %d s", async (seconds, code) => {
    expect(await totpCode(secret, stepAt(seconds * 1000))).toBe(code.slice(2));
    expect(await stepOfCode(secret, code.slice(2), seconds * 1000)).toBe(Math.floor(seconds / 30));
  });

  it("holds in its step, the one before and the one behind, and no longer", async () => {
    const step = 41_152_263;
    const code = await totpCode(secret, step);
    const at = (ms: number) => stepOfCode(secret, code, step * 30_000 + ms);
    expect(await at(-30_001)).toBeNull();
    for (const ms of [-30_000, 0, 29_999, 30_000, 59_999]) expect([ms, await at(ms)]).toEqual([ms, step]);
    expect(await at(60_000)).toBeNull();
  });

  it("is no other secret's, and nothing but six digits", async () => {
    const now = 1_234_567_890_000;
    const code = await totpCode(secret, stepAt(now));
    expect(await stepOfCode(toBase32(ascii("12345678901234567891")), code, now)).toBeNull();
    for (const wrong of ["", code.slice(1), `0${code}`, ` ${code}`, Number(code).toString(16), "000000"]) {
      expect([wrong, await stepOfCode(secret, wrong, now)]).toEqual([wrong, null]);
    }
  });
});

describe("base32", () => {
  it.each([
    ["", ""],
    ["f", "MY"],
    ["fo", "MZXQ"],
    ["foo", "MZXW6"],
    ["foob", "MZXW6YQ"],
    ["fooba", "MZXW6YTB"],
    ["foobar", "MZXW6YTBOI"],
  ])("writes and reads %j as RFC 4648 does", (text, written) => {
    expect(toBase32(ascii(text))).toBe(written);
    expect(fromBase32(written)).toEqual(ascii(text));
  });

  it("refuses what is none", () => {
    for (const text of ["MZXW6YQ=", "mzxq", "M1", "M Y"]) expect(() => fromBase32(text)).toThrow(RangeError);
  });
});
