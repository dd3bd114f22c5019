/** Codes by time: RFC 6238 with SHA-1, six digits and steps of 30 seconds, as authenticator apps take them. */
const stepMs = 30_000;
const digits = 6;
/** A code of the step before or behind the present one is taken too, since clocks differ. */
const skew = [0, 1, -1];

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** The number of the 30 seconds that `ms` (since 1970) lies in. */
export function stepAt(ms: number): number {
  return Math.floor(ms / stepMs);
}

/** The code of six digits of a secret (base32) in one step. */
export async function totpCode(secret: string, step: number): Promise<string> {
  const key = await crypto.subtle.importKey("raw", fromBase32(secret), { name: "HMAC", hash: "SHA-1" }, false, [
    "sign",
  ]);
  const counter = new DataView(new ArrayBuffer(8));
  counter.setBigUint64(0, BigInt(step));
  const mac = new DataView(await crypto.subtle.sign("HMAC", key, counter));
  const number = mac.getUint32(mac.getUint8(19) & 0xf) & 0x7fff_ffff;
  return String(number % 10 ** digits).padStart(digits, "0");
}

/** The step whose code this is, of those that hold at `nowMs`; null where it is none of theirs. */
export async function stepOfCode(secret: string, code: string, nowMs: number): Promise<number | null> {
  for (const away of skew) {
    const step = stepAt(nowMs) + away;
    if (await totpCode(secret, step) === code) return step;
  }
  return null;
}

/** RFC 4648, without padding. */
export function toBase32(bytes: Uint8Array): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  return (bits.match(/.{1,5}/g) ?? []).map((five) => alphabet[parseInt(five.padEnd(5, "0"), 2)]).join("");
}

/** The bytes of a base32 text without padding; a character of no such text throws a `RangeError`. */
export function fromBase32(text: string): Uint8Array {
  const bits = [...text].map((character) => {
    const at = alphabet.indexOf(character);
    if (at < 0) throw new RangeError("not base32");
    return at.toString(2).padStart(5, "0");
  }).join("");
  return new Uint8Array((bits.match(/.{8}/g) ?? []).map((eight) => parseInt(eight, 2)));
}
