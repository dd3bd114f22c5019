import { Buffer } from "node:buffer";
import { createDecipheriv, createECDH, createHash, createHmac, hkdfSync } from "node:crypto";
import { describe, expect, it } from "vitest";
import {
  currentEpoch,
  epochSource,
  listEpochs,
  newEpoch,
  openEpoch,
  rewrap,
  rewrapSecond,
} from "../../src/shared/crypto/epochs.ts";
import { generateKey, parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import { objectName } from "../../src/shared/format/object_name.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { faulty } from "../support/faulty_store.ts";
import { failureOf, pick, seeded, world } from "./format_fixture.ts";

const decode = (text: string) => Buffer.from(text, "base64url");

/** docs/format.md, "To open it by hand", by node:crypto alone. */
function openByHand(file: string, kid: string, key: Uint8Array): Buffer {
  const jwe = JSON.parse(file);
  const gcm = (secret: Uint8Array, iv: string, text: string, tag: string, aad?: string) => {
    const decipher = createDecipheriv("aes-256-gcm", secret, decode(iv));
    decipher.setAuthTag(decode(tag));
    if (aad !== undefined) decipher.setAAD(Buffer.from(aad, "ascii"));
    return Buffer.concat([decipher.update(decode(text)), decipher.final()]);
  };
  const recipient = jwe.recipients.find((each: { header: { kid: string } }) => each.header.kid === kid);
  const parameters = { ...JSON.parse(decode(jwe.protected).toString()), ...recipient.header };
  const contentKey = gcm(key, parameters.iv, recipient.encrypted_key, parameters.tag);
  return gcm(contentKey, jwe.iv, jwe.ciphertext, jwe.tag, jwe.protected);
}

/** The same for a recovery pair: `half` is the private half's text. */
function openByPair(file: string, kid: string, half: string): Buffer {
  const jwe = JSON.parse(file);
  const { header, encrypted_key } = jwe.recipients.find((each: { header: { kid: string } }) => each.header.kid === kid);
  const ecdh = createECDH("prime256v1");
  ecdh.setPrivateKey(decode(half.replace(/^prv\./, "")).subarray(0, 32));
  const shared = ecdh.computeSecret(Buffer.concat([Buffer.from([4]), decode(header.epk.x), decode(header.epk.y)]));
  const info = [
    Buffer.from("0000000e", "hex"),
    Buffer.from("ECDH-ES+A256KW"),
    Buffer.from("000000000000000000000100", "hex"),
  ];
  const wrapping = createHash("sha256").update(Buffer.concat([Buffer.from("00000001", "hex"), shared, ...info]))
    .digest();
  const unwrap = createDecipheriv("id-aes256-wrap", wrapping, Buffer.alloc(8, 0xa6));
  const contentKey = Buffer.concat([unwrap.update(decode(encrypted_key)), unwrap.final()]);
  const decipher = createDecipheriv("aes-256-gcm", contentKey, decode(jwe.iv));
  decipher.setAuthTag(decode(jwe.tag));
  decipher.setAAD(Buffer.from(jwe.protected, "ascii"));
  return Buffer.concat([decipher.update(decode(jwe.ciphertext)), decipher.final()]);
}

describe("an epoch (docs/format.md)", () => {
  it("opens by the steps of the document, with one key and with three, and gives the documented names", async () => {
    const { store, random, clock, repository } = await world();
    for (const count of [1, 3]) {
      const keys = Array.from({ length: count }, () => generateKey(random));
      const ring = parseKeyRing(keys.map(({ entry }) => entry).join(","));
      const epoch = await newEpoch({ store, ring, clock, random }, repository.id);
      const file = Buffer.from(await store.read(`v1/keys/${epoch.id}.jwe.json`)).toString();
      for (const { id } of keys) {
        const secret = openByHand(file, id, ring.secretOf(id) ?? new Uint8Array());
        const nameKey = Buffer.from(hkdfSync("sha256", secret, repository.id, "holdfast/v1/name", 32));
        const digest = Buffer.from("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "hex");
        const hash = createHmac("sha256", nameKey).update("chunk\0").update(digest).digest("hex");
        const named = await objectName(epoch, "chunk", new TextEncoder().encode("test"));
        expect(named).toEqual({ name: `v1/objects/${hash.slice(0, 2)}/${hash}`, hash: digest.toString("hex") });
      }
    }
  });

  it("opens by a recovery pair's private half, kept offline, and by no public half", async () => {
    const { store, random, clock, repository, key } = await world();
    const pair = await generateRecoveryKey(random);
    const ring = parseKeyRing(`${key.entry},${pair.publicEntry}`);
    const epoch = await newEpoch({ store, ring, clock, random }, repository.id);
    const file = Buffer.from(await store.read(`v1/keys/${epoch.id}.jwe.json`)).toString();
    const byHand = openByPair(file, pair.id, pair.privateEntry.split(":")[1] ?? "");
    expect(byHand).toEqual(openByHand(file, key.id, ring.secretOf(key.id) ?? new Uint8Array()));

    const opened = await openEpoch(store, parseKeyRing(pair.privateEntry), repository.id, epoch.id);
    const bytes = new Uint8Array([1, 2, 3]);
    expect(await objectName(opened, "chunk", bytes)).toEqual(await objectName(epoch, "chunk", bytes));
    const stranger = generateKey(random);
    const wrong = parseKeyRing(`${stranger.entry},${pair.publicEntry}`);
    const error = await failureOf(openEpoch(store, wrong, repository.id, epoch.id));
    expect(error).toMatchObject({ code: "key_wrong" });
    expect(error.message).toContain(pair.id);
    const impostor = await generateRecoveryKey(random);
    const named = parseKeyRing(impostor.privateEntry.replace(impostor.id, pair.id));
    expect((await failureOf(openEpoch(store, named, repository.id, epoch.id))).code).toBe("key_wrong");
  });

  it("has an id of 26 characters that sorts by time, and no secret that leaves it", async () => {
    const { epoch } = await world();
    expect(epoch.id).toMatch(/^e20261121T184500Z-[0-9a-f]{8}$/);
    await expect(crypto.subtle.exportKey("raw", epoch.dataKey)).rejects.toThrow();
    await expect(crypto.subtle.exportKey("raw", epoch.nameKey)).rejects.toThrow();
  });

  it("is taken again for 30 days, and a new one after that", async () => {
    const { store, ring, clock, random, repository, epoch } = await world();
    const current = () => currentEpoch({ store, ring, clock, random }, repository.id);
    clock.set("2026-12-21T18:44:59Z");
    expect((await current()).id).toBe(epoch.id);
    clock.set("2026-12-21T18:45:00Z");
    const next = await current();
    expect(next.id).toMatch(/^e20261221T184500Z-/);
    expect((await current()).id).toBe(next.id);
    expect(await listEpochs(store)).toEqual([epoch.id, next.id]);
  });

  it("is one and the same for two that start at once, from their second use on", async () => {
    const { store, ring, clock, random, repository } = await world();
    await store.remove((await listEpochs(store)).map((id) => `v1/keys/${id}.jwe.json`));
    const current = () => currentEpoch({ store, ring, clock, random }, repository.id);
    await Promise.all([current(), current(), current()]);
    const [a, b] = [await current(), await current()];
    expect(a.id).toBe(b.id);
    expect(a.id).toBe((await listEpochs(store)).at(-1));
  });

  it("that another made at the same moment, and that is newer, is taken in place of the own", async () => {
    const { store, ring, clock, random, repository, epoch } = await world();
    await store.remove([`v1/keys/${epoch.id}.jwe.json`]);
    const rival = { ...clock, now: () => new Date("2026-11-21T18:45:01Z") };
    let theirs = "";
    const raced = {
      ...store,
      async create(name: string, bytes: Uint8Array) {
        theirs = (await newEpoch({ store, ring, clock: rival, random }, repository.id)).id;
        return await store.create(name, bytes);
      },
    };
    expect((await currentEpoch({ store: raced, ring, clock, random }, repository.id)).id).toBe(theirs);
    expect(await listEpochs(store)).toHaveLength(2);
  });

  it("that the ring cannot open is key_wrong, names the key needed, and is never replaced by a new one", async () => {
    const { store, clock, random, repository, key, epoch } = await world();
    const wrong = generateKey(random);
    for (const now of ["2026-11-21T18:45:00Z", "2027-11-21T18:45:00Z"]) {
      clock.set(now);
      const ring = parseKeyRing(wrong.entry);
      const error = await failureOf(currentEpoch({ store, ring, clock, random }, repository.id));
      expect(error.code).toBe("key_wrong");
      expect(error.message).toContain(key.id);
      expect(error.message).toContain(wrong.id);
      for (const { entry } of [key, wrong]) expect(error.message + error.hint).not.toContain(entry.split(":")[1]);
    }
    expect(await listEpochs(store)).toEqual([epoch.id]);
  });

  it("under a key of the right name with other bytes is key_wrong and names it", async () => {
    const { store, random, repository, key, epoch } = await world();
    const impostor = parseKeyRing(`${key.id}:${generateKey(random).entry.split(":")[1]}`);
    const error = await failureOf(openEpoch(store, impostor, repository.id, epoch.id));
    expect(error.code).toBe("key_wrong");
    expect(error.message).toContain(key.id);
  });

  it("of another repository, or under another's name, is refused (F-6)", async () => {
    const { store, ring, clock, random, repository, epoch } = await world();
    expect((await failureOf(openEpoch(store, ring, crypto.randomUUID(), epoch.id))).code).toBe("object_damaged");
    const second = await newEpoch({ store, ring, clock, random }, repository.id);
    await store.replace(`v1/keys/${second.id}.jwe.json`, await store.read(`v1/keys/${epoch.id}.jwe.json`));
    expect((await failureOf(openEpoch(store, ring, repository.id, second.id))).code).toBe("object_damaged");
  });

  it("of a newer version is format_newer and names both versions", async () => {
    const { store, ring, repository, epoch } = await world();
    const name = `v1/keys/${epoch.id}.jwe.json`;
    const file = JSON.parse(Buffer.from(await store.read(name)).toString());
    const header = JSON.parse(decode(file.protected).toString());
    header.holdfast = { version: 2, somethingNew: true };
    file.protected = Buffer.from(JSON.stringify(header)).toString("base64url");
    await store.replace(name, Buffer.from(JSON.stringify(file)));
    const error = await failureOf(openEpoch(store, ring, repository.id, epoch.id));
    expect(error.code).toBe("format_newer");
    expect(error.message).toMatch(/version 2.*up to 1/);
  });

  it("whose key file has any byte flipped either gives the same epoch or is refused, by our own error", async () => {
    const { store, ring, repository, epoch } = await world();
    const name = `v1/keys/${epoch.id}.jwe.json`;
    const bytes = await store.read(name);
    const genuine = (await objectName(epoch, "chunk", new Uint8Array(3))).name;
    let refused = 0;
    for (let at = 0; at < bytes.byteLength; at++) {
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at % 7));
      await store.replace(name, flipped);
      try {
        const opened = await openEpoch(store, ring, repository.id, epoch.id);
        expect((await objectName(opened, "chunk", new Uint8Array(3))).name).toBe(genuine);
      } catch (error) {
        expect(error).toMatchObject({ name: "HoldfastError" });
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(bytes.byteLength * 0.95); // white space and unused bits of base64url may differ
  });

  it("fuzzed in any way throws nothing but our own error", async () => {
    const { store, ring, repository, epoch } = await world();
    const random = seeded(77);
    const name = `v1/keys/${epoch.id}.jwe.json`;
    const bytes = await store.read(name);
    for (let round = 0; round < 1000; round++) {
      const fuzzed = bytes.slice(0, round % 3 === 0 ? pick(random, bytes.byteLength) : undefined);
      for (let edits = 1 + pick(random, 4); edits > 0 && fuzzed.byteLength > 0; edits--) {
        fuzzed[pick(random, fuzzed.byteLength)] = pick(random, 256);
      }
      await store.replace(name, fuzzed);
      await openEpoch(store, ring, repository.id, epoch.id).catch((error) => {
        expect(error).toMatchObject({ name: "HoldfastError" });
      });
    }
  });
});

describe("rotation of keys (F-8)", () => {
  it("moves every epoch from an old key to a new one without touching an object", async () => {
    const { store, ring, clock, random, repository, key, epoch } = await world();
    clock.set("2027-02-01T00:00:00Z");
    const second = await currentEpoch({ store, ring, clock, random }, repository.id);
    await store.create("v1/objects/aa/x", new Uint8Array(5));
    const fresh = generateKey(random);
    const both = parseKeyRing(`${fresh.entry},${key.entry}`);
    const alone = parseKeyRing(fresh.entry);

    expect(await rewrap({ store, ring: both, random }, repository.id)).toEqual(
      [epoch.id, second.id].map((epochId) => ({ epochId, wrappedFor: [fresh.id, key.id], dropped: [] })),
    );
    for (const each of [ring, alone]) await openEpoch(store, each, repository.id, epoch.id);

    expect(await rewrap({ store, ring: alone, random }, repository.id)).toEqual(
      [epoch.id, second.id].map((epochId) => ({ epochId, wrappedFor: [fresh.id], dropped: [key.id] })),
    );
    expect((await failureOf(openEpoch(store, ring, repository.id, epoch.id))).code).toBe("key_wrong");
    const reopened = await openEpoch(store, alone, repository.id, epoch.id);
    const bytes = new Uint8Array([1, 2, 3]);
    expect(await objectName(reopened, "chunk", bytes)).toEqual(await objectName(epoch, "chunk", bytes));
    expect(await store.read("v1/objects/aa/x")).toEqual(new Uint8Array(5));
  });

  it("reaches a second store too: the same bytes, and what the first one has lost", async () => {
    const { store, ring, clock, random, repository, key, epoch } = await world();
    clock.set("2027-02-01T00:00:00Z");
    const newer = await currentEpoch({ store, ring, clock, random }, repository.id);
    clock.set("2027-04-01T00:00:00Z");
    const newest = await currentEpoch({ store, ring, clock, random }, repository.id);
    const nameOf = (id: string) => `v1/keys/${id}.jwe.json`;
    const second = createMemoryStore();
    for (const { id } of [epoch, newer]) await second.create(nameOf(id), await store.read(nameOf(id)));
    await store.remove([nameOf(epoch.id)]);
    const fresh = generateKey(random);
    const [both, alone] = [parseKeyRing(`${fresh.entry},${key.entry}`), parseKeyRing(fresh.entry)];
    for (const keys of [both, alone]) {
      await rewrap({ store, ring: keys, random }, repository.id);
      expect(await rewrapSecond({ store, ring: keys, random }, second, repository.id)).toEqual([epoch.id]);
    }
    expect(await second.read(nameOf(newer.id))).toEqual(await store.read(nameOf(newer.id)));
    for (const { id } of [epoch, newer]) {
      await openEpoch(second, alone, repository.id, id);
      expect((await failureOf(openEpoch(second, ring, repository.id, id))).code, "the old key").toBe("key_wrong");
    }
    expect(await listEpochs(second), "a new epoch comes by replication").not.toContain(newest.id);
  });

  it("replaces no file that it could not open", async () => {
    const { store, random, repository, epoch } = await world();
    const before = await store.read(`v1/keys/${epoch.id}.jwe.json`);
    const stranger = parseKeyRing(generateKey(random).entry);
    expect((await failureOf(rewrap({ store, ring: stranger, random }, repository.id))).code).toBe("key_wrong");
    expect(await store.read(`v1/keys/${epoch.id}.jwe.json`)).toEqual(before);
  });
});

describe("an epoch source", () => {
  it("opens each epoch once, and a failure again", async () => {
    const { store, ring, repository, epoch } = await world();
    const shaky = faulty(store, [{ call: "read", kind: "store_unreachable" }]);
    let reads = 0;
    const counted = { ...shaky, read: (name: string) => (reads++, shaky.read(name)) };
    const epochOf = epochSource(counted, ring, repository.id);
    expect((await failureOf(epochOf(epoch.id))).code).toBe("store_unreachable");
    await Promise.all([epochOf(epoch.id), epochOf(epoch.id)]);
    await epochOf(epoch.id);
    expect(reads).toBe(2);
    shaky.assertAllFired();
  });
});
