import { execFileSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ensureAge } from "../../src/local/packages.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { parseIdentities } from "../../src/shared/crypto/age.ts";
import { webCryptoRandom as random } from "../../src/shared/random.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { withIdentities } from "../../src/shared/store/layered.ts";
import { bucketFacts } from "../../src/shared/store/open_store.ts";
import { openSecondary } from "../../src/shared/store/secondary.ts";
import { failureOf } from "../unit/format_fixture.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import type { BucketLocks } from "../support/versioned_bucket.ts";
import { describeStore, noise } from "./store.ts";

const deps = { fetch: (url: string, init: RequestInit) => fetch(url, init), clock: systemClock, random };
const objectName = "v1/objects/aa/aa11";

/** Settings of a second store on that server, in the words of its own variables. */
function settingsOf(server: S3Server, recipients: string): Record<string, string> {
  const endpoint = encodeURIComponent(server.endpoint);
  return {
    BACKUP_SECONDARY: `s3://${server.bucket}/copy?endpoint=${endpoint}&region=${server.region}`,
    BACKUP_SECONDARY_S3_ACCESS_KEY_ID: server.accessKeyId,
    BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
    BACKUP_RECIPIENTS: recipients,
  };
}

const open = (settings: Record<string, string>) => openSecondary((name) => settings[name], deps);

describeStore("a folder, read with identities", async () => {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-layered-"));
  const identities = parseIdentities(await generateX25519Identity());
  return {
    store: withIdentities(createFileStore(folder), identities),
    nowhere: withIdentities(createFileStore(join(folder, "not-there")), identities),
    stranger: null,
    secrets: [],
    createIsAtomic: true,
    listed: 5,
    close: () => rm(folder, { recursive: true }),
  };
});

describe("the second store", () => {
  let server: S3Server;
  let [identity, recipient] = ["", ""];
  beforeAll(async () => {
    server = await startS3Server();
    identity = await generateX25519Identity();
    recipient = await identityToRecipient(identity);
  });
  afterAll(() => server.close());

  it("is none while it has no address", () => {
    expect(open({})).toBeNull();
    expect(open({ BACKUP_SECONDARY: " ", BACKUP_RECIPIENTS: recipient })).toBeNull();
  });

  it("is refused without recipients, and without credentials of its own: the first store's are never taken", async () => {
    const { BACKUP_RECIPIENTS: _, ...bare } = settingsOf(server, recipient);
    expect(await failureOf(() => open(bare))).toMatchObject({
      code: "setting_missing",
      message: expect.stringContaining("BACKUP_RECIPIENTS"),
    });
    for (const name of ["BACKUP_SECONDARY_S3_ACCESS_KEY_ID", "BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY"]) {
      const { [name]: value = "", ...lacking } = settingsOf(server, recipient);
      const first = { BACKUP_S3_ACCESS_KEY_ID: value, BACKUP_S3_SECRET_ACCESS_KEY: value, AWS_ACCESS_KEY_ID: value };
      const error = await failureOf(() => open({ ...first, AWS_SECRET_ACCESS_KEY: value, ...lacking }));
      expect(error).toMatchObject({ code: "setting_missing", message: expect.stringContaining(name) });
    }
  });

  it("holds objects, segments and files in an age layer, and all else as it is", async () => {
    const second = open(settingsOf(server, recipient));
    if (second === null) throw new Error("it is set");
    const bytes = noise(200_000, 1);
    for (const name of [objectName, "v1/changes/c/0-1", "v1/blobs/aa/x"]) {
      await second.store.create(name, await second.wrap(name, bytes));
      const lying = await second.store.read(name);
      expect(new TextDecoder().decode(lying.slice(0, 21))).toBe("age-encryption.org/v1");
      expect(await withIdentities(second.store, parseIdentities(identity)).read(name)).toEqual(bytes);
      expect((await failureOf(withIdentities(second.store, parseIdentities("")).read(name))).code)
        .toBe("identity_missing");
    }
    for (const name of ["v1/keys/e.jwe.json", "v1/repository.json", "v1/backups/b/manifest", "v1/anchors/i/h"]) {
      expect(await second.wrap(name, bytes)).toBe(bytes);
    }
  });

  it("is opened by the stock age program, and opens what that wrote", async () => {
    const age = ensureAge();
    const second = open(
      settingsOf(server, `${recipient} ${await identityToRecipient(await generateX25519Identity())}`),
    );
    const folder = await mkdtemp(join(tmpdir(), "holdfast-age-"));
    try {
      const [plain, wrapped, keyFile] = ["plain", "wrapped.age", "key.txt"].map((name) => join(folder, name));
      if (second === null || plain === undefined || wrapped === undefined || keyFile === undefined) throw new Error();
      await writeFile(keyFile, `# a comment\n${identity}\n`);
      for (const length of [0, 1, 65_535, 65_536, 65_537, 200_000]) {
        const bytes = noise(length, length + 1);
        await writeFile(wrapped, await second.wrap(objectName, bytes));
        const opened = execFileSync(age, ["--decrypt", "--identity", keyFile, wrapped], { maxBuffer: 2 ** 24 });
        expect(new Uint8Array(opened), `${length} bytes`).toEqual(bytes);
        await writeFile(plain, bytes);
        const theirs = execFileSync(age, ["--encrypt", "--recipient", recipient, plain], { maxBuffer: 2 ** 24 });
        expect(await parseIdentities(identity).open(objectName, new Uint8Array(theirs))).toEqual(bytes);
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe("what a bucket tells of itself", () => {
  const told = async (locks: BucketLocks | undefined) => {
    const server = await startS3Server(locks === undefined ? {} : { locks });
    try {
      const address = `s3://${server.bucket}/p?endpoint=${encodeURIComponent(server.endpoint)}&region=${server.region}`;
      const credentials = { s3AccessKeyId: server.accessKeyId, s3SecretAccessKey: server.secretAccessKey };
      const facts = await bucketFacts(address, credentials, deps);
      const stranger = await failureOf(bucketFacts(address, { ...credentials, s3SecretAccessKey: "x" }, deps));
      expect(stranger.code).toBe("store_denied");
      const elsewhere = address.replace(server.bucket, "not-there");
      if (locks === undefined) {
        expect((await failureOf(bucketFacts(elsewhere, credentials, deps))).code).toBe("store_missing");
      }
      return facts;
    } finally {
      await server.close();
    }
  };
  const preset = { mode: "GOVERNANCE", days: 14 };

  it.each<[string, BucketLocks | undefined, unknown]>([
    ["nothing", { versioning: null, lock: null }, { versioning: "off", lock: "off" }],
    ["suspended versions", { versioning: "Suspended", lock: null }, { versioning: "suspended", lock: "off" }],
    ["a lock that nothing has", { versioning: "Enabled", lock: { preset: null } }, {
      versioning: "on",
      lock: { preset: null },
    }],
    ["a lock", { versioning: "Enabled", lock: { preset } }, { versioning: "on", lock: { preset } }],
    ["that it does not say", { versioning: null, lock: null, denied: ["ask"] }, {
      versioning: "unknown",
      lock: "unknown",
    }],
  ])("is %s", async (_what, locks, expected) => expect(await told(locks)).toEqual(expected));

  it("is unknown where the server does not know the question", async () => {
    expect(await told(undefined)).toMatchObject({ lock: "unknown" });
  });

  it("is nothing for a folder", async () => {
    expect(await bucketFacts("file:///nowhere", {}, deps)).toBeNull();
  });
});
