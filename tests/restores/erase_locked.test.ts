/** An erasure where both stores lock what they are given: what is locked waits for its day, is named, and goes then, every version of it. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { clusterMs, useCluster } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { backup, query } from "../integration/backup_fixture.ts";
import { drainNow } from "../integration/changes_stream_fixture.ts";
import { copies, type Pair, pairOfStores } from "../integration/replicate_fixture.ts";
import { passGrace, prune, verified } from "../integration/retention_fixture.ts";
import { failureOf } from "../unit/format_fixture.ts";
import { certified, eraseFrom, holding, rewriteNow } from "./erase_rewrite_fixture.ts";

const dayMs = 86_400_000;
const cluster = useCluster();
const servers: S3Server[] = [];
const person = "0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11";
const words = [person, "hf-needle"];
let pair: Pair;
let second: Store;
let aheadMs = 0;

async function lockingStore(label: string): Promise<Store> {
  const server = await startS3Server({ locks: { versioning: "Enabled", lock: { preset: null } } });
  servers.push(server);
  const { endpoint, region, bucket, accessKeyId, secretAccessKey } = server;
  const clock = { ...systemClock, now: () => new Date(Date.now() + aheadMs) };
  const settings = { endpoint, region, bucket, prefix: "", accessKeyId, secretAccessKey };
  return { ...createS3Store(settings, { fetch: (url, init) => fetch(url, init), clock }), label };
}

async function passDays(days: number): Promise<void> {
  aheadMs += days * dayMs;
  for (const { versioned } of servers) if (versioned !== null) versioned.aheadMs = aheadMs;
  await query(
    pair.url,
    `create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = ''
       as $$ select pg_catalog.clock_timestamp() + interval '${aheadMs} milliseconds' $$`,
  );
}

/** Every version of everything that was ever put into a bucket, each under a name of its own that opens. */
async function versionsHolding(server: S3Server | undefined): Promise<string[]> {
  const bucket = server?.versioned;
  if (bucket == null) throw new Error("the bucket keeps versions");
  const names = new Set(bucket.calls.filter((call) => /^PUT v1\/[^?]+$/.test(call)).map((call) => call.slice(4)));
  const found: string[] = [];
  const most = Math.max(...[...names].map((name) => bucket.versionsOf(name).length));
  for (let back = 0; back < most; back++) {
    const objects = new Map<string, Uint8Array>();
    for (const name of names) {
      const versions = bucket.versionsOf(name);
      const body = versions.at(name.startsWith("v1/keys/") ? -1 : -1 - back)?.body;
      if (body != null) objects.set(name, body);
    }
    pair.store.objects.set(
      "v1/repository.json",
      bucket.versionsOf("v1/repository.json").at(-1)?.body ?? new Uint8Array(),
    );
    found.push(...await holding(pair, objects, words));
  }
  return [...new Set(found)];
}

beforeAll(async () => {
  const made = await pairOfStores(cluster());
  const first = await lockingStore(made.store.label);
  second = await lockingStore(made.second.label);
  const clock = { ...systemClock, now: () => new Date(Date.now() + aheadMs) };
  pair = { ...made, second: { ...made.second, ...second }, deps: { ...made.deps, store: first, clock } };
  await query(
    pair.url,
    `insert into auth.users (id, email) values ('${person}', 'hf-needle@example.org');
     create table public.notes (id int primary key, user_id uuid references auth.users on delete cascade, t text);
     insert into public.notes select i, case when i % 2 = 0 then '${person}'::uuid end, repeat(case when i % 2 = 0 then 'hf-needle' else md5(i::text) end, 5)
       from generate_series(1, 400) as i`,
  );
  await drainNow(pair.deps);
  await backup(pair.deps);
  await query(pair.url, `insert into public.notes values (1000, '${person}', 'hf-needle in the stream')`);
  await drainNow(pair.deps);
  await copies(pair);
}, clusterMs + 60_000);
afterAll(async () => {
  for (const server of servers) await server.close();
});

describe("an erasure where stores lock", () => {
  it("rewrites at once, and names what is locked with its day", async () => {
    await eraseFrom(pair, person);
    await drainNow(pair.deps);
    await copies(pair);
    await query(pair.url, "select backup.watch_erasures()");
    await rewriteNow(pair);
    expect((await copies(pair)).warnings).toEqual([]);
    const { settled } = await rewriteNow(pair);
    expect(settled.uncopied).toBe(0);
    expect(new Set(settled.left.map(({ store }) => store)).size).toBe(2);
    const days = settled.left.map(({ lockedUntil }) => (new Date(lockedUntil ?? 0).getTime() - Date.now()) / dayMs);
    for (const day of days) expect(day).toBeCloseTo(14, 1);
    expect(new Set(settled.left.map(({ what }) => what))).toEqual(new Set(["object", "earlier"]));
    expect(await failureOf(() => certified(pair))).toMatchObject({ code: "certificate_not_due" });
    for (const server of servers) expect((await versionsHolding(server)).length).toBeGreaterThan(1);
  }, 120_000);

  it(
    "raises an alert a week before the thirty days are over, and is certified once the last lock has ended",
    async () => {
      const alerts = async () =>
        await query(
          pair.url,
          "select severity, message from backup.alerts where kind = 'erasure_overdue' and status <> 'resolved'",
        );
      await query(pair.url, "select backup.watch_rewriting()");
      expect(await alerts()).toEqual([]);
      await passDays(24);
      await query(pair.url, "select backup.watch_rewriting()");
      expect(await alerts()).toMatchObject([{ severity: "warning" }]);
      await drainNow(pair.deps);
      const run = await backup(pair.deps);
      await query(pair.url, "update backup.runs set origin = 'http' where kind = 'full'");
      // By the server's own clock, which nobody moves.
      await query(pair.url, "update backup.runs set consistent_at = backup.clock_now() where id = $1", [run.id]);
      await verified(pair, run.id);
      await copies(pair);
      await prune(pair);
      await passGrace(pair);
      await prune(pair);
      const { settled } = await rewriteNow(pair);
      expect(settled).toMatchObject({ left: [], cleaned: 1 });
      expect(await alerts()).toEqual([]);
      const certificate = await certified(pair);
      expect(certificate.mentions).toEqual([]);
      expect(certificate.cleanAt.slice(0, 10)).toBe(new Date(Date.now() + aheadMs).toISOString().slice(0, 10));
      for (const server of servers) expect(await versionsHolding(server)).toEqual([]);
    },
    120_000,
  );
});
