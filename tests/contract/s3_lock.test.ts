/** Object lock and versions, on a bucket that has them as Amazon S3 documents them (tests/support/versioned_bucket.ts). */
import { afterEach, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import type { LockSettings } from "../../src/shared/store/lock.ts";
import { below } from "../../src/shared/store/below.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import type { BucketLocks, VersionedBucket } from "../support/versioned_bucket.ts";
import { failureOf } from "../unit/format_fixture.ts";
import { describeStore, noise } from "./store.ts";

const dayMs = 86_400_000;
const key = `v1/keys/e20261101T000000Z-0a1b2c3d.jwe.json`;
const object = "v1/objects/aa/aa11";
const locked = [
  object,
  "v1/blobs/aa/aa11",
  "v1/changes/c/0-1",
  "v1/backups/b/manifest",
  "v1/anchors/i/h",
  "v1/repository.json",
];
const free = [key, "v1/claims/000000000000001", "v1/probe/abc"];
const withLock = { versioning: "Enabled", lock: { preset: null } } as const;
const withDefault = (mode: "GOVERNANCE" | "COMPLIANCE", days = 7) =>
  ({ versioning: "Enabled", lock: { preset: { mode, days } } }) as const;

const servers: S3Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

interface Locking {
  readonly store: Store;
  readonly bucket: VersionedBucket;
  /** In the bucket's own words. */
  readonly at: (name: string) => string;
  /** Moves the clocks of both on. */
  readonly pass: (ms: number) => void;
}

async function bucketOf(locks: BucketLocks, lock?: LockSettings): Promise<Locking> {
  const server = await startS3Server({ locks });
  servers.push(server);
  const { endpoint, region, bucket: name, accessKeyId, secretAccessKey, versioned: bucket } = server;
  if (bucket === null) throw new Error("the server has no locks");
  let aheadMs = 0;
  const clock = { ...systemClock, now: () => new Date(Date.now() + aheadMs) };
  const settings = { endpoint, region, bucket: name, prefix: "p", accessKeyId, secretAccessKey };
  const deps = { fetch: (url: string, init: RequestInit) => fetch(url, init), clock };
  const store = createS3Store({ ...settings, ...(lock === undefined ? {} : { lock }) }, deps);
  return {
    store,
    bucket,
    at: (name) => `p/${name}`,
    pass: (ms) => {
      aheadMs += ms;
      bucket.aheadMs = aheadMs;
    },
  };
}

const leftDays = ({ bucket, at }: Locking, name: string): number => {
  const retention = bucket.retentionOf(at(name));
  return retention === null ? 0 : (retention.until.getTime() - bucket.now().getTime()) / dayMs;
};

describeStore("s3, in a bucket with object lock and a default", async () => {
  const server = await startS3Server({ locks: withDefault("GOVERNANCE") });
  const { endpoint, region, bucket, accessKeyId, secretAccessKey } = server;
  const settings = { endpoint, region, bucket, prefix: "p", accessKeyId, secretAccessKey };
  const deps = { fetch: (url: string, init: RequestInit) => fetch(url, init), clock: systemClock };
  return {
    store: createS3Store(settings, deps),
    nowhere: null,
    stranger: createS3Store({ ...settings, secretAccessKey: `${secretAccessKey}x` }, deps),
    secrets: [accessKeyId, secretAccessKey],
    createIsAtomic: true,
    listed: 90,
    close: () => server.close(),
  };
});

describe("what is put into a bucket with object lock", () => {
  it.each<[string, BucketLocks]>([
    ["without a default", withLock],
    ["with one that is shorter", withDefault("GOVERNANCE", 1)],
    ["with one that is longer, and stricter", withDefault("COMPLIANCE", 29)],
  ])("is locked for two weeks, but for what has to go: %s", async (_what, locks) => {
    const world = await bucketOf(locks);
    for (const name of [...locked, ...free]) await world.store.create(name, noise(50, 1));
    for (const name of locked) {
      expect(leftDays(world, name), name).toBeCloseTo(14, 2);
      expect(world.bucket.retentionOf(world.at(name))?.mode).toBe("GOVERNANCE");
    }
    for (const name of free) expect(leftDays(world, name), name).toBeLessThan(1 / 48);
    expect(await world.store.lock?.inForce()).toEqual({ days: 14, mode: "GOVERNANCE" });
    expect(await world.store.lock?.retentionOf(object)).toMatchObject({ mode: "GOVERNANCE" });
  });

  it("is locked as the address says, below the prefix of a copy of the project too", async () => {
    const world = await bucketOf(withDefault("GOVERNANCE"), { days: 29, mode: "COMPLIANCE" });
    const copy = below(world.store, "clone-0a1b2c3d");
    for (const name of [object, key]) await copy.create(name, noise(50, 1));
    expect(leftDays(world, `clone-0a1b2c3d/${object}`)).toBeCloseTo(29, 2);
    expect(world.bucket.retentionOf(world.at(`clone-0a1b2c3d/${object}`))?.mode).toBe("COMPLIANCE");
    expect(leftDays(world, `clone-0a1b2c3d/${key}`)).toBeLessThan(1 / 48);
  });

  it("has the bucket's default alone with lock=off, and keys not even that", async () => {
    const world = await bucketOf(withDefault("COMPLIANCE", 7), { days: 0, mode: "GOVERNANCE" });
    for (const name of [object, key]) await world.store.create(name, noise(50, 1));
    expect(leftDays(world, object)).toBeCloseTo(7, 2);
    expect(leftDays(world, key)).toBeLessThan(1 / 48);
    expect(await world.store.lock?.inForce()).toBeNull();
    await world.store.lock?.hold(object);
    expect(leftDays(world, object)).toBeCloseTo(7, 2);
  });

  it("gets the digest that a lock by default wants, where the server does not say that there is one", async () => {
    const world = await bucketOf({ ...withDefault("COMPLIANCE"), denied: ["ask"] });
    for (const name of [object, `${object}2`]) expect(await world.store.create(name, noise(50, 1))).toBe("created");
    expect(leftDays(world, object)).toBeCloseTo(7, 2);
  });

  it.each<[string, BucketLocks]>([
    ["it has no object lock", { versioning: "Enabled", lock: null }],
    ["these credentials may not ask", { versioning: null, lock: null, denied: ["ask"] }],
  ])("is put as ever where %s, and nobody is asked twice", async (_what, locks) => {
    const { store, bucket } = await bucketOf(locks);
    for (const name of [object, `${object}2`]) {
      await store.create(name, noise(50, 1));
      await store.lock?.hold(name);
    }
    expect(await store.lock?.inForce()).toBeNull();
    expect(bucket.calls.filter((call) => call.includes("object-lock"))).toHaveLength(1);
    expect(bucket.calls.filter((call) => call.includes("retention"))).toEqual([]);
  });

  it("is refused by name where these credentials may not lock, with the way out", async () => {
    const { store } = await bucketOf({ ...withLock, denied: ["retain"] });
    const error = await failureOf(() => store.create(object, noise(50, 1)));
    expect(error).toMatchObject({
      code: "store_denied",
      hint: expect.stringMatching(/s3:PutObjectRetention.*lock=off/),
    });
    await store.create(key, noise(50, 1));
  });
});

describe("a lock", () => {
  it("holds: nobody removes the version, and a removal by name leaves it where it was", async () => {
    const { store, bucket, at } = await bucketOf(withLock);
    await store.create(object, noise(50, 1));
    await store.remove([object]);
    expect(await store.size(object)).toBeNull();
    expect(bucket.versionsOf(at(object)).map(({ body }) => body?.byteLength ?? null)).toEqual([50, null]);
    expect(await store.create(object, noise(50, 2))).toBe("created");
    expect(await store.read(object)).toEqual(noise(50, 2));
  });

  it("is renewed when a later backup uses the object, by putting it again or without", async () => {
    const world = await bucketOf(withLock);
    const other = `${object}2`;
    for (const name of [object, other]) await world.store.create(name, noise(50, 1));
    world.pass(10 * dayMs);
    expect(await world.store.create(object, noise(50, 2))).toBe("existed");
    await world.store.lock?.hold(other);
    for (const name of [object, other]) {
      expect(leftDays(world, name)).toBeCloseTo(14, 2);
      expect(await world.store.read(name)).toEqual(noise(50, 1));
    }
  });

  it("is not asked for again while little of it has passed", async () => {
    const world = await bucketOf(withLock);
    await world.store.create(object, noise(50, 1));
    world.pass(0.8 * dayMs);
    await world.store.lock?.hold(object);
    expect(world.bucket.calls.filter((call) => call.includes("?retention"))).toEqual([]);
    world.pass(0.1 * dayMs);
    await world.store.lock?.hold(object);
    expect(world.bucket.calls.filter((call) => call.includes("?retention"))).toHaveLength(1);
  });

  it("is never made shorter, nor weaker", async () => {
    const world = await bucketOf(withLock, { days: 29, mode: "COMPLIANCE" });
    await world.store.create(object, noise(50, 1));
    const { endpoint, region, bucket, accessKeyId, secretAccessKey } = servers[0] ?? {};
    const settings = {
      endpoint: endpoint ?? "",
      region: region ?? "",
      bucket: bucket ?? "",
      prefix: "p",
      accessKeyId: accessKeyId ?? "",
      secretAccessKey: secretAccessKey ?? "",
      lock: { days: 7, mode: "GOVERNANCE" },
    } as const;
    let aheadMs = 0;
    const clock = { ...systemClock, now: () => new Date(Date.now() + aheadMs) };
    const weaker = createS3Store(settings, { fetch: (url, init) => fetch(url, init), clock });
    await weaker.lock?.hold(object);
    expect(leftDays(world, object)).toBeCloseTo(29, 2);
    aheadMs = 25 * dayMs;
    world.pass(aheadMs);
    await weaker.lock?.hold(object);
    expect(leftDays(world, object)).toBeCloseTo(7, 2);
    expect(world.bucket.retentionOf(world.at(object))?.mode).toBe("COMPLIANCE");
  });

  it("is missed by name: what is gone cannot be held", async () => {
    const { store } = await bucketOf(withLock);
    expect((await failureOf(async () => await store.lock?.hold(object))).code).toBe("object_missing");
  });

  it("of a server that takes the renewal for new bytes is told at the first object", async () => {
    const world = await bucketOf({ ...withLock, nonsense: true });
    await world.store.create(object, noise(5000, 1));
    world.pass(10 * dayMs);
    const error = await failureOf(async () => await world.store.lock?.hold(object));
    expect(error).toMatchObject({ code: "store_lied", hint: expect.stringContaining("lock=off") });
  });

  it.each([
    ["without a length", { mode: "GOVERNANCE", days: 0 }],
    ["of no known mode", { mode: "FOREVER", days: 7 }],
  ])("by default %s is nonsense, and told before anything is put", async (_what, preset) => {
    const { store, bucket, at } = await bucketOf({ versioning: "Enabled", lock: { preset } });
    expect((await failureOf(() => store.create(object, noise(50, 1)))).code).toBe("store_lied");
    expect(bucket.versionsOf(at(object))).toEqual([]);
  });
});

describe("a key file in a bucket that keeps versions", () => {
  it.each<[string, BucketLocks]>([
    ["with object lock and a default", withDefault("GOVERNANCE")],
    ["without object lock", { versioning: "Enabled", lock: null }],
  ])("is gone with every version once it is removed: %s", async (_what, locks) => {
    const { store, bucket, at, pass } = await bucketOf(locks);
    await store.create(key, noise(50, 1));
    for (const seed of [2, 3, 4]) await store.replace(key, noise(50, seed));
    await store.create(`${key}.other`, noise(9, 1));
    pass(dayMs / 48);
    await store.remove([key, object]);
    expect(bucket.versionsOf(at(key))).toEqual([]);
    expect(await store.read(`${key}.other`)).toEqual(noise(9, 1));
  });

  it("leaves nothing of what it held before it was replaced", async () => {
    const { store, bucket, at, pass } = await bucketOf(withDefault("GOVERNANCE"));
    await store.create(key, noise(50, 1));
    for (const seed of [2, 3]) await store.replace(key, noise(50, seed));
    expect((await failureOf(async () => await store.lock?.forgetEarlier(key))).code, "within its first minutes").toBe(
      "store_denied",
    );
    pass(dayMs / 48);
    await store.lock?.forgetEarlier(key);
    expect(bucket.versionsOf(at(key)).map(({ body }) => body && new Uint8Array(body))).toEqual([noise(50, 3)]);
    expect(await store.read(key)).toEqual(noise(50, 3));
  });

  it("is told to stay where these credentials may not remove versions", async () => {
    const { store } = await bucketOf({ versioning: "Enabled", lock: null, denied: ["removeVersions"] });
    await store.create(key, noise(50, 1));
    const error = await failureOf(() => store.remove([key]));
    expect(error).toMatchObject({ code: "store_denied", hint: expect.stringContaining("s3:DeleteObjectVersion") });
  });
});
