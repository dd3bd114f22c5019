/** Backups in buckets with object lock: whatever the newest one needs is locked, in both stores, and no key ever is. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { objectsOf } from "../../src/shared/format/manifest.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { clusterMs, useCluster } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import type { VersionedBucket } from "../support/versioned_bucket.ts";
import { backup, manifestOf, query, tableIn, testKeys } from "./backup_fixture.ts";
import { cli } from "./cli_fixture.ts";
import { copies, type Pair, pairOfStores, smallBudget } from "./replicate_fixture.ts";

const dayMs = 86_400_000;
const cluster = useCluster();
const servers: S3Server[] = [];
let pair: Pair;
let second: Store;
let aheadMs = 0;

async function lockingStore(label: string): Promise<Store> {
  const preset = { mode: "COMPLIANCE", days: 7 };
  const server = await startS3Server({ locks: { versioning: "Enabled", lock: { preset } } });
  servers.push(server);
  const { endpoint, region, bucket, accessKeyId, secretAccessKey } = server;
  const clock = { ...systemClock, now: () => new Date(Date.now() + aheadMs) };
  const settings = { endpoint, region, bucket, prefix: "", accessKeyId, secretAccessKey };
  return { ...createS3Store(settings, { fetch: (url, init) => fetch(url, init), clock }), label };
}

const buckets = (): VersionedBucket[] => servers.flatMap(({ versioned }) => versioned === null ? [] : [versioned]);

async function passDays(days: number): Promise<void> {
  aheadMs += days * dayMs;
  for (const bucket of buckets()) bucket.aheadMs = aheadMs;
  await query(
    pair.url,
    `create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = ''
       as $$ select pg_catalog.clock_timestamp() + interval '${aheadMs} milliseconds' $$`,
  );
}

/** Names that a backup needs, keys aside. */
async function neededBy(run: RunRow): Promise<string[]> {
  const manifest = await manifestOf(pair.deps, run);
  return [...objectsOf(manifest).map(({ name }) => name), run.manifestName ?? "", "v1/repository.json"];
}

function leftDays(bucket: VersionedBucket, name: string): number {
  const until = bucket.retentionOf(name)?.until.getTime() ?? 0;
  return (until - bucket.now().getTime()) / dayMs;
}

const renewals = (bucket: VersionedBucket | undefined) =>
  bucket?.calls.filter((call) => call.startsWith("PUT ") && call.endsWith("?retention")).length ?? NaN;

beforeAll(async () => {
  const made = await pairOfStores(cluster());
  const first = await lockingStore(made.store.label);
  second = await lockingStore(made.second.label);
  const clock = { ...systemClock, now: () => new Date(Date.now() + aheadMs) };
  pair = { ...made, deps: { ...made.deps, store: first, clock } };
  await query(
    pair.url,
    "create table public.notes as select i, repeat(md5(i::text), 8) as t from generate_series(1, 3000) as i",
  );
}, clusterMs);
afterAll(async () => {
  for (const server of servers) await server.close();
});

describe("backups in buckets with object lock", () => {
  it("are locked for two weeks in both stores, keys never", async () => {
    const run = await backup(pair.deps);
    expect((await copies(pair, { second })).status).toBe("succeeded");
    const names = await neededBy(run);
    expect(names.length).toBeGreaterThan(8);
    for (const bucket of buckets()) {
      for (const name of names) expect(leftDays(bucket, name), name).toBeCloseTo(14, 1);
      const keys = bucket.calls.filter((call) => call.startsWith("PUT v1/keys/")).map((call) => call.slice(4));
      expect(keys.length).toBeGreaterThan(0);
      for (const key of keys) expect(leftDays(bucket, key)).toBeLessThan(1 / 24);
      expect(renewals(bucket)).toBe(0);
    }
  }, 120_000);

  it("are looked at by doctor, in both stores", async () => {
    const [one, other] = servers;
    if (one === undefined || other === undefined) throw new Error("there are two stores");
    const addressOf = ({ endpoint, bucket }: S3Server) => `s3://${bucket}?endpoint=${encodeURIComponent(endpoint)}`;
    const { document } = await cli(["doctor", "--json"], {
      BACKUP_KEYS: testKeys,
      BACKUP_STORE: addressOf(one),
      BACKUP_S3_ACCESS_KEY_ID: one.accessKeyId,
      BACKUP_S3_SECRET_ACCESS_KEY: one.secretAccessKey,
      BACKUP_SECONDARY: `${addressOf(other)}&lock=29`,
      BACKUP_SECONDARY_S3_ACCESS_KEY_ID: other.accessKeyId,
      BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: other.secretAccessKey,
      BACKUP_RECIPIENTS: pair.secondary.recipients.join(","),
    });
    const { checks } = document as { checks: { name: string; state: string; message: string }[] };
    for (const [name, days] of [["store locks", 14], ["locks", 29]] as const) {
      expect(checks.filter((check) => check.name === name)).toMatchObject([
        {
          state: "ok",
          message: `versions are kept; what is new is locked for ${days} days (governance), keys are not`,
        },
        { state: "ok", message: expect.stringMatching(/^the newest backup is locked until /) },
      ]);
    }
  }, 60_000);

  it("renew the locks of all that they share with those before, in both stores, in many legs", async () => {
    await passDays(10);
    await query(pair.url, "insert into public.notes values (3001, 'new')");
    const run = await backup(pair.deps);
    const manifest = await manifestOf(pair.deps, run);
    const taken = tableIn(manifest, "public", "notes").chunks.filter((chunk) => chunk.takenFrom !== null);
    expect(taken.length, "chunks that were neither read nor put again").toBeGreaterThan(3);
    expect((await copies(pair, { second, budget: () => smallBudget(40) })).status).toBe("succeeded");
    for (const bucket of buckets()) {
      for (const name of await neededBy(run)) expect(leftDays(bucket, name), name).toBeGreaterThan(13.9);
      expect(renewals(bucket)).toBeGreaterThan(taken.length);
    }
  }, 120_000);

  it("renew nothing again within the day", async () => {
    const before = buckets().map(renewals);
    const run = await backup(pair.deps);
    expect((await copies(pair, { second })).status).toBe("succeeded");
    expect(buckets().map(renewals)).toEqual(before);
    for (const bucket of buckets()) {
      for (const name of await neededBy(run)) expect(leftDays(bucket, name), name).toBeGreaterThan(13.9);
    }
  }, 120_000);

  it("make a copy again that was removed from the second store, though its lock was all that was due", async () => {
    await passDays(2);
    const run = await backup(pair.deps);
    const [gone = ""] = objectsOf(await manifestOf(pair.deps, run)).map(({ name }) => name);
    await second.remove([gone]);
    expect((await copies(pair, { second })).status).toBe("succeeded");
    expect(await second.size(gone)).toBeGreaterThan(0);
    for (const bucket of buckets()) expect(leftDays(bucket, gone)).toBeGreaterThan(13.9);
  }, 120_000);

  it("tell the security audit what the locks are", async () => {
    const facts = await query(
      pair.url,
      "select subject, facts from backup.told_facts where subject like 'lock:%' order by 1",
    );
    const told = { mode: "governance", days: 14, keys: false };
    expect(facts).toEqual([
      { subject: `lock:${pair.deps.store.label}`, facts: told },
      { subject: `lock:${second.label}`, facts: told },
    ]);
  });
});
