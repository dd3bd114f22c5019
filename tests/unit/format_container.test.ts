import { Buffer } from "node:buffer";
import { createDecipheriv } from "node:crypto";
import { describe, expect, it } from "vitest";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { open, seal } from "../../src/shared/format/container.ts";
import { encodeHeader } from "../../src/shared/format/container_header.ts";
import { objectName } from "../../src/shared/format/object_name.ts";
import { sameBytes } from "../../src/shared/crypto/digest.ts";
import { failureOf, pick, seeded, world } from "./format_fixture.ts";

const text = (words: string) => new TextEncoder().encode(words);
const rows = text(Array.from({ length: 40 }, (_, index) => `${index}\tcalm\tA walk by the river\n`).join(""));
const limit = { maxBytes: 1 << 20 };

async function sealed(plaintext: Uint8Array, seed = 1) {
  const here = await world(seed);
  const { name } = await objectName(here.epoch, "chunk", plaintext);
  const bytes = await seal(here.sealDeps, here.epoch, { kind: "chunk", name, plaintext });
  return { ...here, name, bytes };
}

describe("bytes that are compared", () => {
  it("are the same only where each of them is, wherever they begin and end", () => {
    const random = seeded(8);
    for (let round = 0; round < 400; round++) {
      const [start, other, length] = [pick(random, 9), pick(random, 9), pick(random, 70)];
      const a = new Uint8Array(start + length).subarray(start);
      const b = new Uint8Array(other + length).subarray(other);
      for (let at = 0; at < length; at++) a[at] = b[at] = pick(random, 256);
      expect(sameBytes(a, b)).toBe(true);
      if (length === 0) continue;
      const at = pick(random, length);
      b[at] = (b[at] ?? 0) ^ (1 << pick(random, 8));
      expect(sameBytes(a, b)).toBe(false);
      expect(sameBytes(a.subarray(1), a)).toBe(false);
    }
  });
});

describe("a sealed object", () => {
  it.each(
    [["rows", rows], ["one byte", text("x")], ["nothing", new Uint8Array(0)], ["noise", seeded(3)(5000)]] as const,
  )(
    "gives back %s exactly",
    async (_, plaintext) => {
      const { openDeps, name, bytes } = await sealed(plaintext);
      expect(sameBytes(await open(openDeps, { kind: "chunk", name, bytes, ...limit }), plaintext)).toBe(true);
    },
  );

  it("is compressed only where that makes it smaller", async () => {
    expect((await sealed(rows)).bytes[10]).toBe(1);
    expect((await sealed(rows)).bytes.byteLength).toBeLessThan(rows.byteLength);
    const noise = await sealed(seeded(3)(5000));
    expect(noise.bytes[10]).toBe(0);
    expect(noise.bytes.byteLength).toBe(5000 + 74);
  });

  it("holds content of files as it is where samples of it do not get smaller, and whole either way", async () => {
    const { sealDeps, openDeps, epoch } = await world(1);
    const noise = seeded(3)(512 * 1024);
    const text = new Uint8Array(512 * 1024).fill(65);
    const mixed = noise.slice();
    mixed.fill(65, 200 * 1024, 300 * 1024);
    const compressions: number[] = [];
    for (const plaintext of [noise, text, mixed]) {
      const { name } = await objectName(epoch, "blob", plaintext);
      const bytes = await seal(sealDeps, epoch, { kind: "blob", name, plaintext });
      expect(sameBytes(await open(openDeps, { kind: "blob", name, bytes, ...limit }), plaintext)).toBe(true);
      compressions.push(bytes[10] ?? -1);
    }
    expect(compressions).toEqual([0, 1, 1]);
    const sealer = { ...sealDeps, compressor: { ...sealDeps.compressor, compress: () => new Uint8Array(40_000) } };
    const { name } = await objectName(epoch, "blob", text);
    expect((await seal(sealer, epoch, { kind: "blob", name, plaintext: text }))[10], "nothing but samples").toBe(0);
  });

  it("has the layout of docs/format.md, byte by byte", async () => {
    const { bytes, epoch } = await sealed(rows);
    const buffer = Buffer.from(bytes);
    expect(buffer.toString("ascii", 0, 8)).toBe("HOLDFAST");
    expect([...buffer.subarray(8, 12)]).toEqual([1, 1, 1, 0]);
    expect(buffer.toString("ascii", 12, 38)).toBe(epoch.id);
    expect(buffer.readBigUInt64BE(50)).toBe(BigInt(rows.byteLength));
  });

  it("binds header, repository and name as additional data, by node:crypto as the witness", async () => {
    const { name, bytes, repository } = await sealed(seeded(3)(100));
    // The data key cannot be exported, so the witness checks that the tag covers what the document says: without the
    // key it can only check lengths; with a key of its own it checks the whole construction.
    const raw = Buffer.alloc(32, 7);
    const dataKey = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["encrypt", "decrypt"]);
    const here = await world();
    const own = await seal(here.sealDeps, { ...here.epoch, dataKey }, {
      kind: "chunk",
      name,
      plaintext: text("hello"),
    });
    const decipher = createDecipheriv("aes-256-gcm", raw, own.subarray(38, 50));
    decipher.setAAD(Buffer.concat([own.subarray(0, 58), Buffer.from(repository.id + name, "ascii")]));
    decipher.setAuthTag(own.subarray(own.byteLength - 16));
    const clear = Buffer.concat([decipher.update(own.subarray(58, own.byteLength - 16)), decipher.final()]);
    expect(clear.toString()).toBe("hello");
    expect(bytes.byteLength).toBe(100 + 74);
  });

  it("never uses a nonce twice (F-12)", async () => {
    const { sealDeps, epoch, name } = await sealed(rows);
    const nonces = new Set<string>();
    for (let round = 0; round < 50; round++) {
      const bytes = await seal(sealDeps, epoch, { kind: "chunk", name, plaintext: rows });
      nonces.add(Buffer.from(bytes.subarray(38, 50)).toString("hex"));
    }
    expect(nonces.size).toBe(50);
  });

  it.each([["compressed", rows], ["stored as it is", seeded(3)(300)]] as const)(
    "that is %s is refused when any one byte of it is flipped (F-9)",
    async (_, plaintext) => {
      const { openDeps, name, bytes } = await sealed(plaintext);
      for (let at = 0; at < bytes.byteLength; at++) {
        const flipped = bytes.slice();
        flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 8));
        const error = await failureOf(open(openDeps, { kind: "chunk", name, bytes: flipped, ...limit }));
        expect(["object_damaged", "format_newer", "key_wrong"]).toContain(error.code);
        if (at < 8 || at >= 38) expect(error.code).toBe("object_damaged");
      }
    },
  );

  it("is refused when cut at any length, or with anything after its end (F-9)", async () => {
    const { openDeps, name, bytes } = await sealed(rows);
    for (let length = 0; length < bytes.byteLength; length++) {
      const error = await failureOf(
        open(openDeps, { kind: "chunk", name, bytes: bytes.subarray(0, length), ...limit }),
      );
      expect(error.code).toBe("object_damaged");
    }
    const longer = new Uint8Array(bytes.byteLength + 1);
    longer.set(bytes);
    expect((await failureOf(open(openDeps, { kind: "chunk", name, bytes: longer, ...limit }))).code).toBe(
      "object_damaged",
    );
  });

  it("is refused under another name, and two that were swapped are both refused (F-9)", async () => {
    const { sealDeps, openDeps, epoch, name, bytes } = await sealed(rows);
    const other = await objectName(epoch, "chunk", text("other"));
    const otherBytes = await seal(sealDeps, epoch, { kind: "chunk", name: other.name, plaintext: text("other") });
    for (const [at, found] of [[name, otherBytes], [other.name, bytes]] as const) {
      const error = await failureOf(open(openDeps, { kind: "chunk", name: at, bytes: found, ...limit }));
      expect(error.code).toBe("object_damaged");
      expect(error.message).toContain(at);
    }
  });

  it("is refused as another kind, even when its header is changed to say so (F-9)", async () => {
    const { openDeps, name, bytes } = await sealed(rows);
    expect((await failureOf(open(openDeps, { kind: "schema", name, bytes, ...limit }))).code).toBe("object_damaged");
    const changed = bytes.slice();
    changed[9] = 2;
    expect((await failureOf(open(openDeps, { kind: "schema", name, bytes: changed, ...limit }))).code).toBe(
      "object_damaged",
    );
  });

  it("from another repository is key_wrong: its epoch is not ours", async () => {
    const here = await sealed(rows, 1);
    const there = await sealed(rows, 2);
    const error = await failureOf(
      open(here.openDeps, { kind: "chunk", name: there.name, bytes: there.bytes, ...limit }),
    );
    expect(error.code).toBe("key_wrong");
    expect(error.message).toContain(there.epoch.id);
  });

  it("does not open under another repository's id although the keys are the same (F-9)", async () => {
    const { openDeps, epoch, name, bytes } = await sealed(rows);
    const epochOf = () => Promise.resolve({ ...epoch, repositoryId: crypto.randomUUID() });
    const error = await failureOf(open({ ...openDeps, epochOf }, { kind: "chunk", name, bytes, ...limit }));
    expect(error.code).toBe("object_damaged");
  });

  it("with a wrong key names the key that is needed, and no key stands in any message", async () => {
    const { store, random, repository, compressor, key, name, bytes } = await sealed(rows);
    const wrong = generateKey(random);
    const epochOf = epochSource(store, parseKeyRing(wrong.entry), repository.id);
    const error = await failureOf(open({ compressor, epochOf }, { kind: "chunk", name, bytes, ...limit }));
    expect(error.code).toBe("key_wrong");
    expect(error.message).toContain(key.id);
    for (const { entry } of [key, wrong]) {
      expect(`${error.message} ${error.hint} ${error.stack}`).not.toContain(entry.split(":")[1]);
    }
  });

  it("of a newer version is format_newer and names both, whatever else it holds (F-10)", async () => {
    const { openDeps, name } = await sealed(rows);
    const newer = seeded(9)(200);
    newer.set(text("HOLDFAST\x02"));
    const error = await failureOf(open(openDeps, { kind: "chunk", name, bytes: newer, ...limit }));
    expect(error.code).toBe("format_newer");
    expect(error.message).toMatch(/version 2.*up to 1/);
  });

  it("larger than the reader takes is refused before memory is taken (F-11)", async () => {
    const { compressor, openDeps, name, bytes } = await sealed(rows);
    let unpacked = 0;
    const counting = { compress: compressor.compress, decompress: () => (unpacked++, new Uint8Array()) };
    const maxBytes = rows.byteLength - 1;
    const error = await failureOf(
      open({ ...openDeps, compressor: counting }, { kind: "chunk", name, bytes, maxBytes }),
    );
    expect(unpacked).toBe(0);
    expect(error.code).toBe("object_damaged");
  });

  it("whose header lies about the length is refused although its seal holds, and the key is not even asked for (F-9)", async () => {
    const { random, repository, epoch, openDeps, name } = await sealed(rows);
    const clear = random(100);
    for (const rawLength of [0, 99, 101, 2 ** 40]) {
      const header = encodeHeader({
        kind: "chunk",
        compression: "none",
        epochId: epoch.id,
        nonce: random(12),
        rawLength,
      });
      const additionalData = Buffer.concat([header, text(repository.id + name)]);
      const parameters = { name: "AES-GCM", iv: header.subarray(38, 50), additionalData };
      const inside = new Uint8Array(await crypto.subtle.encrypt(parameters, epoch.dataKey, clear));
      const bytes = new Uint8Array(Buffer.concat([header, inside]));
      let asked = 0;
      const epochOf = (id: string) => (asked++, openDeps.epochOf(id));
      const sealedObject = { kind: "chunk", name, bytes, maxBytes: 2 ** 41 } as const;
      expect((await failureOf(open({ ...openDeps, epochOf }, sealedObject))).code).toBe("object_damaged");
      expect(asked).toBe(0);
    }
  });

  it("fuzzed in any way gives the plaintext or our own error, never anything else", async () => {
    const { openDeps, name, bytes } = await sealed(rows);
    const random = seeded(4711);
    let refused = 0;
    for (let round = 0; round < 3000; round++) {
      const length = round % 4 === 0 ? pick(random, bytes.byteLength + 40) : bytes.byteLength;
      const fuzzed = new Uint8Array(length);
      fuzzed.set(bytes.subarray(0, length));
      for (let edits = pick(random, 6); edits > 0 && length > 0; edits--) {
        fuzzed[pick(random, Math.min(length, round % 2 === 0 ? 64 : length))] = pick(random, 256);
      }
      try {
        const clear = await open(openDeps, { kind: "chunk", name, bytes: fuzzed, ...limit });
        expect(sameBytes(clear, rows) && sameBytes(fuzzed, bytes)).toBe(true);
      } catch (error) {
        expect(error).toMatchObject({ name: "HoldfastError" });
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(2000);
  });
});
