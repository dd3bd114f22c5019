/** A backup that outlives many functions while the project is in use: what comes back is the moment of its snapshot. */
import { readFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startStack } from "../../src/local/stack.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import { openStore } from "../../src/shared/store/open_store.ts";
import { freshDatabase, query, withClient } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { loadSampleApp } from "../support/sample_app/load.ts";
import { type SlowWay, startSlowWay } from "../support/slow_store.ts";
import { eventually, type Project, projectOf, stackMs } from "../support/stack.ts";
import { startWriters, type Writers } from "../support/writers.ts";

/**
 * An isolate takes one leg and lives 12 s at most: longer than a leg whose keeper gives way after 5 s, so that none is cut
 * off; the slow store makes the last attempt longer than that.
 */
const limits = { wallMs: 12_000, cpuSoftMs: 150 };
const uploadBytesPerSecond = 800_000;
/** A slow upload is no standstill. */
const stillMs = 6_000;

let s3: S3Server;
let way: SlowWay;
let project: Project;
let storeAddress = "";

beforeAll(async () => {
  s3 = await startS3Server();
  way = await startSlowWay(s3.endpoint);
  storeAddress = `s3://${s3.bucket}/journal?endpoint=${encodeURIComponent(way.endpoint)}&region=${s3.region}`;
  const stack = await startStack({
    stream: false,
    durable: false,
    prepared: true,
    limits,
    environment: {
      BACKUP_STORE: storeAddress,
      BACKUP_S3_ACCESS_KEY_ID: s3.accessKeyId,
      BACKUP_S3_SECRET_ACCESS_KEY: s3.secretAccessKey,
    },
  });
  project = projectOf(stack);
  await loadSampleApp({ owner: { connectionString: stack.cluster.plainUrl() } }, { scale: 0.02 });
  await project.query(
    `create table public.pages (id int primary key, body text not null, version int not null default 0);
     insert into pages select i, repeat(md5(i::text), 8) from generate_series(1, 380000) as i;
     create table public.accounts (id int primary key, amount int not null);
     create table public.mirror (id int primary key, amount int not null);
     insert into accounts select i, 100 from generate_series(1, 500) as i;
     insert into mirror select * from accounts;
     create table public.inbox (id bigint generated always as identity primary key, body text);
     insert into inbox (body) select md5(i::text) from generate_series(1, 5000) as i;
     create table public.scratch as select i, md5(i::text) as t from generate_series(1, 2000) as i;
     create table public.doomed as select i from generate_series(1, 2000) as i;
     create table public.shaped as select i as i, md5(i::text) as t from generate_series(1, 2000) as i;
     update backup.settings set value = '1' where name = 'concurrency'`,
  );
}, stackMs);

afterAll(async () => {
  await project?.stack.destroy();
  await way?.close();
  await s3?.close();
}, stackMs);

/** Every table of the schemas that hold rows of the user, by name, as a count and two sums over hashes of its rows. */
const hashedSchemas = ["public", "auth"];

async function hashes(client: pg.Client): Promise<Map<string, string>> {
  const { rows: tables } = await client.query<{ name: string }>(
    `select format('%I.%I', n.nspname, c.relname) as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
     where c.relkind = 'r' and n.nspname = any ($1) and c.relname <> 'schema_migrations' order by 1`,
    [hashedSchemas],
  );
  const found = new Map<string, string>();
  for (const { name } of tables) {
    const { rows } = await client.query<{ hash: string }>(
      `select concat_ws(' ', count(*), sum(hashtextextended(whole_row::text, 1)::numeric), sum(hashtextextended(whole_row::text, 2)::numeric)) as hash
       from only ${name} as whole_row`,
    );
    found.set(name, rows[0]?.hash ?? "");
  }
  return found;
}

/** Reads in a snapshot that somebody else holds, in a session of its own. */
async function inSnapshot(name: string): Promise<Map<string, string>> {
  return await withClient(project.stack.cluster.plainUrl(), async (client) => {
    await client.query("begin isolation level repeatable read read only");
    await client.query(`set transaction snapshot ${client.escapeLiteral(name)}`);
    return await hashes(client);
  });
}

/** Waits for the snapshot of the attempt and reads everything in it. */
async function witness(run: string, attempt: number): Promise<Map<string, string>> {
  const name = await eventually(`attempt ${attempt} has its snapshot`, async () => {
    const row = await project.run(run);
    return row.attempt === attempt ? row.snapshot_name : null;
  });
  return await inSnapshot(name);
}

async function restored(run: string): Promise<Map<string, string>> {
  const { cluster, keys } = project.stack;
  const database = await freshDatabase(cluster);
  const deps = { fetch, clock: systemClock, random: webCryptoRandom };
  const store = openStore(storeAddress, s3Credentials(), deps);
  const target = openDatabase({ url: cluster.url("postgres", database), caPem: readFileSync(cluster.caFile, "utf8") });
  const compressor = await loadZstd();
  await restoreBackup({ store, ring: parseKeyRing(keys), target, compressor, clock: systemClock, log: silentLog }, run);
  return await withClient(cluster.plainUrl("postgres", database), hashes);
}

function s3Credentials() {
  return { s3AccessKeyId: s3.accessKeyId, s3SecretAccessKey: s3.secretAccessKey };
}

describe("a backup through functions that live shorter than it takes", () => {
  let writers: Writers;
  let run = "";
  let seen = new Map<string, string>();
  let lastAttemptMs = 0;

  it("ends while others write, truncate, drop, alter and create", async () => {
    way.setSpeed(uploadBytesPerSecond);
    const url = project.stack.cluster.plainUrl();
    ({ run } = await project.startBackup());
    const end = project.ended(run, stillMs);
    end.catch(() => {});
    await witness(run, 1);
    writers = startWriters(url);
    // These wait for the keeper's locks, and it gives way to them: the next snapshot sees them done.
    await Promise.all([
      query(url, "truncate scratch"),
      query(url, "drop table doomed"),
      query(url, "alter table shaped alter column i type bigint, add column added text default 'new'"),
      query(url, "create table fresh as select i from generate_series(1, 100) as i"),
    ]);
    await query(url, "insert into scratch select i, 'again' from generate_series(1, 50) as i");
    const attempt = await eventually("the next snapshot", async () => {
      const row = await project.run(run);
      return row.attempt > 1 && row.snapshot_name !== null ? row.attempt : null;
    });
    const start = performance.now();
    const before = { ...writers.done };
    seen = await witness(run, attempt);
    const ended = await end;
    lastAttemptMs = performance.now() - start;
    expect(ended, await project.story(run)).toMatchObject({ status: "succeeded", attempt, error_code: null });
    for (const [kind, count] of Object.entries(writers.done)) {
      expect(count, `${kind} while the last snapshot was read`).toBeGreaterThan(before[kind as keyof typeof before]);
    }
    await writers.stop();
  });

  it("took longer than any of its functions may live, and several of them", async () => {
    expect(way.waits.uploads).toBeGreaterThan(10);
    expect(lastAttemptMs).toBeGreaterThan(limits.wallMs);
    const isolates = await project.isolates();
    expect(isolates.length).toBeGreaterThan(4);
    expect(Math.max(...isolates.map((isolate) => isolate.wallMs))).toBeLessThan(limits.wallMs + 1_000);
  });

  it("restores, row for row, what an independent session saw in its snapshot", async () => {
    way.setSpeed(Infinity);
    const now = await withClient(project.stack.cluster.plainUrl(), hashes);
    for (const table of ["public.pages", "public.accounts", "public.inbox"]) {
      expect(now.get(table), `${table} was changed after the snapshot`).not.toBe(seen.get(table));
    }
    expect(seen.size).toBeGreaterThan(20);
    const back = await restored(run);
    const differing = [...seen].filter(([table, hash]) => back.get(table) !== hash).map(([table]) => table);
    expect(differing).toEqual([]);
    expect(back.get("public.accounts")).toBe(back.get("public.mirror"));
    expect(seen.has("public.doomed")).toBe(false);
    expect(seen.get("public.fresh")).toMatch(/^100 /);
  });

  it("takes a new snapshot when a table is made while it runs, and holds it", async () => {
    const { run } = await project.startBackup();
    await project.holding(
      run,
      "pages",
      () => project.query("create table late as select i from generate_series(1, 10) as i"),
    );
    const ended = await project.ended(run, stillMs);
    expect(ended, await project.story(run)).toMatchObject({ status: "succeeded", attempt: 2 });
    expect((await restored(run)).get("public.late")).toMatch(/^10 /);
  });
});
