import { Buffer } from "node:buffer";
import { describe, expect, it } from "vitest";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import { failureOf, seeded } from "./format_fixture.ts";

const good = Buffer.from(Uint8Array.from({ length: 32 }, (_, index) => index * 7)).toString("base64url");
const other = Buffer.alloc(32, 9).toString("base64url");

describe("the key ring", () => {
  it("takes several keys, the first being current", () => {
    const ring = parseKeyRing(` a:${good} , b.2-x:${other}`);
    expect(ring.currentId).toBe("a");
    expect(ring.ids).toEqual(["a", "b.2-x"]);
    expect(ring.secretOf("b.2-x")).toEqual(new Uint8Array(32).fill(9));
    expect(ring.secretOf("c")).toBeUndefined();
  });

  it("says key_missing for nothing at all", async () => {
    for (const text of [undefined, "", "  "]) {
      expect((await failureOf(() => parseKeyRing(text))).code).toBe("key_missing");
    }
  });

  it.each([
    ["no colon", good],
    ["a key for an id", `${good}:a`],
    ["an empty id", `:${good}`],
    ["a short key", `a:${good.slice(0, 42)}`],
    ["a long key", `a:${good}A`],
    ["padding", `a:${good}=`],
    ["base64 that is not base64url", `a:${"+/".repeat(21)}A`],
    ["a last letter that no 32 bytes give", `a:${good.slice(0, 42)}B`],
    ["two keys of one id", `a:${good},a:${other}`],
    ["an entry with nothing in it", `a:${good},,b:${other}`],
    ["an id with a sign", `a b:${good}`],
    ["forty keys", Array.from({ length: 40 }, (_, index) => `k${index}:${good}`).join(",")],
  ])("refuses %s as key_malformed without showing any of it", async (_, text) => {
    const error = await failureOf(() => parseKeyRing(text));
    expect(error.code).toBe("key_malformed");
    for (const secret of [good, other, good.slice(0, 42), good.slice(0, 8)]) {
      expect(`${error.message} ${error.hint} ${error.stack} ${JSON.stringify(error)}`).not.toContain(secret);
    }
  });

  it("takes halves of recovery pairs, and refuses what is none without showing any of it", async () => {
    const { id, publicEntry, privateEntry } = await generateRecoveryKey(seeded(7));
    const ring = parseKeyRing(`a:${good},${publicEntry}`);
    expect(ring.ids).toEqual(["a", id]);
    expect(ring.secretOf(id)).toBeUndefined();
    expect(ring.pairOf(id)).toMatchObject({ kty: "EC", crv: "P-256" });
    expect(ring.pairOf(id)).not.toHaveProperty("d");
    expect(parseKeyRing(privateEntry).pairOf(id)).toHaveProperty("d");
    const secret = privateEntry.split(":")[1] ?? "";
    const half = publicEntry.split(":")[1] ?? "";
    const spoiled = [
      publicEntry,
      `r:${secret.slice(0, -1)}`,
      `r:${secret}A`,
      `r:${secret.replace("prv.", "pub.")}`,
      `r:${half.replace("pub.", "prv.")}`,
      `r:prv.`,
      `r:pub.${"+".repeat(87)}`,
      `r:${half.replace("pub.B", "pub.A")}`,
    ];
    for (const text of spoiled) {
      const error = await failureOf(() => parseKeyRing(text));
      expect(error.code, text.slice(0, 8)).toBe("key_malformed");
      expect(`${error.message} ${error.hint} ${error.stack}`).not.toContain(secret.slice(8, 20));
    }
    const { inspect } = await import("node:util");
    const shown = parseKeyRing(privateEntry);
    expect(inspect(shown, { depth: 9, showHidden: true }) + JSON.stringify(shown)).not.toContain(secret.slice(8, 20));
  });

  it("names the two keys of one id by that id", async () => {
    expect((await failureOf(() => parseKeyRing(`a:${good},a:${other}`))).message).toContain(" a");
  });

  it("shows no key when it is printed, spread or made JSON", async () => {
    const ring = parseKeyRing(`a:${good}`);
    const { inspect } = await import("node:util");
    const shown = inspect(ring, { depth: 9, showHidden: true }) + JSON.stringify(ring) + JSON.stringify({ ...ring });
    expect(shown).not.toContain(good);
    expect(shown).not.toContain("Uint8Array");
  });

  it("makes keys that it takes, each with an id of its own", () => {
    const random = seeded(5);
    const [first, second] = [generateKey(random), generateKey(random)];
    expect(first.id).not.toBe(second.id);
    expect(parseKeyRing(`${first.entry},${second.entry}`).ids).toEqual([first.id, second.id]);
    expect(parseKeyRing(first.entry).secretOf(first.id)?.byteLength).toBe(32);
  });
});
