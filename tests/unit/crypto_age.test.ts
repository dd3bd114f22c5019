import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { describe, expect, it } from "vitest";
import { ageFileBytes, Identities, isAgeFile, parseIdentities, parseRecipients } from "../../src/shared/crypto/age.ts";
import { sameBytes } from "../../src/shared/crypto/digest.ts";
import { noise } from "../contract/store.ts";
import { failureOf } from "./format_fixture.ts";

const piece = 64 * 1024;

async function pair(): Promise<{ identity: string; recipient: string }> {
  const identity = await generateX25519Identity();
  return { identity, recipient: await identityToRecipient(identity) };
}

describe("an age file", () => {
  it("opens to exactly what was wrapped, and has the size that is foretold, around every boundary of its pieces", async () => {
    const pairs = await Promise.all([pair(), pair(), pair()]);
    const lengths = [0, 1, piece - 1, piece, piece + 1, 2 * piece - 1, 2 * piece, 2 * piece + 1, 5 * piece];
    for (let count = 1; count <= pairs.length; count++) {
      const recipients = parseRecipients(pairs.slice(0, count).map((one) => one.recipient).join("\n"));
      for (const length of [...lengths, ...randomLengths(6)]) {
        const plain = noise(length, length + count);
        const wrapped = await recipients.wrap(plain);
        expect(wrapped.length, `${length} bytes for ${count}`).toBe(ageFileBytes(length, count));
        expect(isAgeFile(wrapped)).toBe(true);
        for (const { identity } of pairs.slice(0, count)) {
          expect(sameBytes(await parseIdentities(identity).open("x", wrapped), plain)).toBe(true);
        }
      }
    }
  });

  it("is another one each time", async () => {
    const { recipient } = await pair();
    const recipients = parseRecipients(recipient);
    expect(await recipients.wrap(noise(10, 1))).not.toEqual(await recipients.wrap(noise(10, 1)));
  });

  it("is refused when any of its bytes is flipped, the header's included", async () => {
    const { identity, recipient } = await pair();
    const identities = parseIdentities(identity);
    const wrapped = await parseRecipients(recipient).wrap(noise(300, 3));
    for (let at = 0; at < wrapped.length; at++) {
      const flipped = Uint8Array.from(wrapped);
      flipped[at] = (flipped[at] ?? 0) ^ 1;
      const { code } = await failureOf(identities.open("v1/objects/aa/x", flipped));
      expect(["object_damaged", "identity_wrong"], `byte ${at}`).toContain(code);
      if (at >= ageFileBytes(0, 1) - 32) expect(code, `byte ${at} of the contents`).toBe("object_damaged");
    }
  });

  it("is refused when it is cut or lengthened, also where a piece ends", async () => {
    const { identity, recipient } = await pair();
    const identities = parseIdentities(identity);
    const wrapped = await parseRecipients(recipient).wrap(noise(3 * piece, 4));
    const headBytes = ageFileBytes(0, 1) - 16;
    const ends = [0, 1, 100, headBytes - 1, headBytes, headBytes + piece + 16, headBytes + 2 * (piece + 16)];
    for (const end of [...ends, wrapped.length - 1]) {
      const { code } = await failureOf(identities.open("x", wrapped.slice(0, end)));
      expect(code, `${end} of ${wrapped.length} bytes`).toBe("object_damaged");
    }
    const longer = new Uint8Array(wrapped.length + 1);
    longer.set(wrapped);
    expect((await failureOf(identities.open("x", longer))).code).toBe("object_damaged");
    const swapped = Uint8Array.from(wrapped);
    swapped.copyWithin(headBytes, headBytes + piece + 16, headBytes + 2 * (piece + 16));
    expect((await failureOf(identities.open("x", swapped))).code).toBe("object_damaged");
  });

  it("says for whom it was not wrapped, and never shows an identity", async () => {
    const [mine, others] = [await pair(), await pair()];
    const wrapped = await parseRecipients(others.recipient).wrap(noise(10, 5));
    const error = await failureOf(parseIdentities(mine.identity).open("v1/objects/aa/x", wrapped));
    expect(error).toMatchObject({ code: "identity_wrong", message: expect.stringContaining(mine.recipient) });
    expect(error.message).toContain("v1/objects/aa/x");
    const none = await failureOf(parseIdentities(undefined).open("v1/objects/aa/x", wrapped));
    expect(none).toMatchObject({ code: "identity_missing", hint: expect.stringContaining("BACKUP_IDENTITIES") });
    const identities = parseIdentities(mine.identity);
    const shown = [error.message, error.hint, String(error.cause), JSON.stringify(identities), String(identities)];
    for (const text of shown) expect(text).not.toContain("AGE-SECRET-KEY-1");
  });

  it("opens with one of several identities", async () => {
    const [old, current] = [await pair(), await pair()];
    const both = parseIdentities(`${old.identity}, ${current.identity}`);
    expect(await both.recipients()).toEqual([old.recipient, current.recipient]);
    for (const { recipient } of [old, current]) {
      expect(await both.open("x", await parseRecipients(recipient).wrap(noise(9, 6)))).toEqual(noise(9, 6));
    }
  });
});

describe("BACKUP_RECIPIENTS and BACKUP_IDENTITIES", () => {
  it("are taken with commas, blanks and lines, each entry once, and as age-keygen writes its file", async () => {
    const [one, other] = [await pair(), await pair()];
    const text = ` ${one.recipient},${other.recipient}\n${one.recipient} `;
    expect(parseRecipients(text).names).toEqual([one.recipient, other.recipient]);
    const file = `# created: 2026-11-21T18:45:00Z\n# public key: ${one.recipient}\n${one.identity}\n`;
    expect(await parseIdentities(file).recipients()).toEqual([one.recipient]);
    expect(parseIdentities(undefined).isEmpty && parseIdentities(" # nothing\n").isEmpty).toBe(true);
  });

  it("are never left out in silence", async () => {
    for (const text of [undefined, "", " ,\n"]) {
      expect((await failureOf(() => parseRecipients(text))).code).toBe("setting_missing");
    }
  });

  it("are told by their place when they are cut, mistyped, of another kind or in each other's place", async () => {
    const { identity, recipient } = await pair();
    const other = recipient.endsWith("q") ? "p" : "q";
    const wrongRecipients = [
      recipient.slice(0, -1),
      recipient.slice(0, -1) + other,
      recipient.toUpperCase(),
      `age1pq1${"q".repeat(1900)}`,
      "age1yubikey1qwl0h6y6r8r6m",
      "ssh-ed25519",
      identity,
    ];
    for (const wrong of wrongRecipients) {
      const error = await failureOf(() => parseRecipients(`${recipient} ${wrong}`));
      expect(error.code, wrong).toBe("age_key_malformed");
      expect(error.message).toContain("entry 2 of BACKUP_RECIPIENTS");
      expect(error.message + error.hint).not.toContain(wrong);
    }
    const end = identity.endsWith("Q") ? "P" : "Q";
    for (const wrong of [identity.slice(0, -1), identity.slice(0, -1) + end, identity.toLowerCase(), recipient, "x"]) {
      const error = await failureOf(() => parseIdentities(`${identity},${wrong}`));
      expect(error.code, wrong).toBe("age_key_malformed");
      expect(error.message).toContain("entry 2 of BACKUP_IDENTITIES");
      expect(error.message + error.hint).not.toMatch(/AGE-SECRET-KEY-1[A-Z0-9]/i);
    }
    expect((await failureOf(() => parseRecipients(`${recipient} `.repeat(2) + "age1 ".repeat(20)))).code)
      .toBe("age_key_malformed");
  });

  it("hold so many recipients at most that an object stays cheap to wrap", async () => {
    const many = await Promise.all(Array.from({ length: 17 }, pair));
    expect((await failureOf(() => parseRecipients(many.map((one) => one.recipient).join()))).code)
      .toBe("age_key_malformed");
    expect(new Identities([]).isEmpty).toBe(true);
  });
});

function randomLengths(count: number): number[] {
  return Array.from({ length: count }, () => Math.floor(Math.random() * 4 * piece));
}
