import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { beforeAll, describe, expect, it } from "vitest";
import { ageFileBytes, parseIdentities, parseRecipients } from "../../src/shared/crypto/age.ts";
import { isLayered, withIdentities, withoutNewObjects } from "../../src/shared/store/layered.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { createMemoryStore, type MemoryStore } from "../contract/memory_store.ts";
import { noise } from "../contract/store.ts";
import { failureOf } from "./format_fixture.ts";
import { makeSmallBackup, type SmallBackup } from "./verify_fixture.ts";

let [identity, recipient, otherIdentity] = ["", "", ""];
beforeAll(async () => {
  identity = await generateX25519Identity();
  recipient = await identityToRecipient(identity);
  otherIdentity = await generateX25519Identity();
});

/** What replication makes of a store. */
async function copyInLayer(from: MemoryStore): Promise<MemoryStore> {
  const copy = createMemoryStore();
  const recipients = parseRecipients(recipient);
  for (const [name, bytes] of from.objects) {
    copy.objects.set(name, isLayered(name) ? await recipients.wrap(bytes) : bytes);
  }
  return copy;
}

async function verified(backup: SmallBackup, store: Store): Promise<string> {
  const { ok, problems } = await verifyBackup({ ...backup.deps, store }, backup.manifest.id);
  return ok ? "ok" : problems.map(({ object, code }) => `${object} ${code}`).join();
}

describe("which names lie in the age layer", () => {
  it.each([
    ["v1/objects/aa/x", true],
    ["v1/changes/c/0-1", true],
    ["v1/blobs/aa/x", true],
    ["v1/keys/e.jwe.json", false],
    ["v1/repository.json", false],
    ["v1/backups/x/manifest", false],
    ["v1/anchors/i/1-x", false],
    ["v1/probe/x", false],
    ["v1/objects", false],
  ])("%s: %s", (name, expected) => expect(isLayered(name)).toBe(expected));
});

describe("a second store that is read with identities", () => {
  it("verifies a whole backup, by the sizes and hashes that the manifest has of the seals", async () => {
    const backup = await makeSmallBackup();
    const copy = await copyInLayer(backup.store);
    expect(await verified(backup, withIdentities(copy, parseIdentities(`${otherIdentity} ${identity}`)))).toBe("ok");
    const raw = await verified(backup, copy);
    expect(raw.split(",")).toHaveLength(4);
    expect(raw).toContain("object_damaged");
  });

  it("names an object that was cut, cut inside and wrapped again, exchanged, or flipped", async () => {
    const backup = await makeSmallBackup();
    const [name = "", other = ""] = backup.chunks;
    const recipients = parseRecipients(recipient);
    const sealed = backup.store.objects.get(name) ?? new Uint8Array();
    const changes: Record<string, (copy: MemoryStore, wrapped: Uint8Array) => Promise<Uint8Array | undefined>> = {
      cut: (_copy, wrapped) => Promise.resolve(wrapped.slice(0, -1)),
      "cut inside": () => recipients.wrap(sealed.slice(0, -1)),
      exchanged: (copy) => Promise.resolve(copy.objects.get(other)),
      "of other bytes": () => recipients.wrap(noise(sealed.length, 1)),
      flipped: (_copy, wrapped) => Promise.resolve(wrapped.map((byte, at) => at === 250 ? byte ^ 4 : byte)),
      "neither age nor seal": () => Promise.resolve(noise(500, 2)),
    };
    for (const [what, change] of Object.entries(changes)) {
      const copy = await copyInLayer(backup.store);
      const wrapped = copy.objects.get(name) ?? new Uint8Array();
      copy.objects.set(name, await change(copy, wrapped) ?? new Uint8Array());
      expect(await verified(backup, withIdentities(copy, parseIdentities(identity))), what)
        .toBe(`${name} object_damaged`);
    }
  });

  it("gives an object without a layer as it is: the seal says whether it is genuine", async () => {
    const backup = await makeSmallBackup();
    expect(await verified(backup, withIdentities(backup.store, parseIdentities(identity)))).toBe("ok");
    expect(await verified(backup, withIdentities(backup.store, parseIdentities(undefined)))).toBe("ok");
  });

  it("says that an identity is missing, once and by the setting's name", async () => {
    const backup = await makeSmallBackup();
    const store = withIdentities(await copyInLayer(backup.store), parseIdentities(undefined));
    const error = await failureOf(verifyBackup({ ...backup.deps, store }, "latest"));
    expect(error).toMatchObject({ code: "identity_missing", hint: expect.stringContaining("BACKUP_IDENTITIES") });
  });

  it("says of each object that the identity is another one's", async () => {
    const backup = await makeSmallBackup();
    const store = withIdentities(await copyInLayer(backup.store), parseIdentities(otherIdentity));
    const found = await verified(backup, store);
    expect(found.match(/identity_wrong/g)).toHaveLength(4);
  });

  it("tells sizes as they lie there, which follow from the seal's and the number of recipients", async () => {
    const backup = await makeSmallBackup();
    const store = withIdentities(await copyInLayer(backup.store), parseIdentities(identity));
    for await (const { name, size } of store.list("v1/")) {
      const inside = (await store.read(name)).length;
      expect(size).toBe(isLayered(name) ? ageFileBytes(inside, 1) : inside);
      expect(await store.size(name)).toBe(size);
    }
  });
});

describe("a second store that is known as one", () => {
  it("takes no object that would lie there without its layer, and all else", async () => {
    const store = withoutNewObjects(createMemoryStore());
    for (const name of ["v1/objects/aa/x", "v1/changes/c/0-1", "v1/blobs/aa/x"]) {
      expect((await failureOf(store.create(name, noise(3, 1)))).code).toBe("store_read_only");
      expect((await failureOf(store.replace(name, noise(3, 1)))).code).toBe("store_read_only");
      expect(await store.size(name)).toBeNull();
    }
    expect(await store.create("v1/keys/e.jwe.json", noise(3, 1))).toBe("created");
    await store.replace("v1/keys/e.jwe.json", noise(3, 2));
    expect(await store.read("v1/keys/e.jwe.json")).toEqual(noise(3, 2));
    await store.remove(["v1/keys/e.jwe.json"]);
    expect(await store.size("v1/keys/e.jwe.json")).toBeNull();
  });
});
