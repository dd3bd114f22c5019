/** Stores that fail in the middle of a backup: it heals, or it fails by name and the next one succeeds. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import type { ErrorCode } from "../../src/shared/errors.ts";
import { silentLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { retrying } from "../../src/shared/store/retrying.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { type FaultProxy, type ProxyFault, startFaultProxy } from "../contract/fault_proxy.ts";
import { backup, type BackupOptions, installedDatabase, query, world } from "../integration/backup_fixture.ts";
import { clusterMs, useCluster } from "../support/cluster.ts";
import { type Fault, faulty } from "../support/faulty_store.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { sampled } from "../support/sampled.ts";

const cluster = useCluster();
let s3: S3Server;
let proxy: FaultProxy;
let url = "";
let prefixes = 0;

beforeAll(async () => {
  s3 = await startS3Server();
  proxy = await startFaultProxy(s3.endpoint);
  url = await installedDatabase(cluster());
  await query(
    url,
    `create table letters as select i, md5(i::text) as t from generate_series(1, 6000) as i;
     create table others as select i, md5(i::text) as t from generate_series(1, 50) as i`,
  );
  await hurryClock();
}, clusterMs);

afterAll(async () => {
  await proxy?.close();
  await s3?.close();
});

/** The clock of schema `backup` runs 40 times as fast: a task that failed is tried again after parts of a second. */
async function hurryClock(): Promise<void> {
  await query(
    url,
    `do $do$ begin
       execute format(
         'create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = '''' as
          $$ select timestamptz %L + 40 * (pg_catalog.clock_timestamp() - timestamptz %L) $$', clock_timestamp(), clock_timestamp()
       );
     end $do$`,
  );
}

const options: BackupOptions = { leaseSeconds: 3_600 };

interface Place {
  /** What the backup uses: through the proxy, with patience. */
  readonly store: Store;
  /** The same objects by a way that does not fail. */
  readonly direct: Store;
}

/** A folder of its own in the bucket. */
function freshPlace(bucket = s3.bucket): Place {
  const settings = { ...s3, bucket, prefix: `p${++prefixes}` };
  const deps = { fetch, clock: systemClock, timeoutMs: 400 };
  const patience = { clock: systemClock, random: webCryptoRandom };
  return {
    store: retrying(createS3Store({ ...settings, endpoint: proxy.endpoint }, deps), patience, {
      maxTries: 2,
      firstWaitMs: 5,
    }),
    direct: createS3Store(settings, { ...deps, timeoutMs: 30_000 }),
  };
}

/** A backup whose store begins to fail as told at the first line of `step`. */
async function backupWithFault(place: Place, fault: ProxyFault, step = "attempt.planned") {
  let set = false;
  const { deps } = await world(cluster(), {
    url,
    store: place.store,
    onLine: (line) => {
      if (set || line.event !== `step:${step}`) return;
      set = true;
      proxy.set(fault);
    },
  });
  try {
    return await backup(deps, options);
  } finally {
    expect(proxy.fired()).toBeGreaterThan(0);
    proxy.set(null);
  }
}

async function manifestsIn(store: Store): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of store.list("v1/backups/")) names.push(name);
  return names;
}

/** Nothing is left of the run that failed but its record and an alert; the next one is sound. */
async function expectCleanFailure(place: Place, code: ErrorCode): Promise<void> {
  const [failed] = await query(url, "select * from backup.runs order by created_at desc limit 1");
  expect(failed).toMatchObject({ status: "failed", error_code: code, manifest_name: null, complete_at: null });
  expect(failed?.["error_message"]).toMatch(/\w+ .*\w+/);
  expect(failed?.["hint"]).toMatch(/\w+ .*\w+/);
  expect(await manifestsIn(place.direct)).toEqual([]);
  const open = () => query(url, "select 1 from backup.alerts where kind = 'backup_failed' and status = 'open'");
  expect(await open()).toHaveLength(1);
  expect(
    await query(url, "select 1 from backup.tasks where run_id = $1 and status in ('open', 'leased')", [failed?.["id"]]),
  )
    .toEqual([]);
  await expectSoundBackup(place);
  expect(await open()).toEqual([]);
}

async function expectSoundBackup(place: Place): Promise<void> {
  const { deps } = await world(cluster(), { url, store: place.store });
  const row = await backup(deps, options);
  await expectSound(place, row);
}

async function expectSound(place: Place, row: { readonly id: string; readonly status: string; readonly rows: number }) {
  expect(row).toMatchObject({ status: "succeeded" });
  const { deps } = await world(cluster(), { url, store: place.direct });
  expect(await verifyBackup({ ...deps, log: silentLog }, row.id)).toMatchObject({
    ok: true,
    problems: [],
    rows: row.rows,
  });
}

describe("a backup whose store has trouble for a moment succeeds", () => {
  const moments: readonly [string, ProxyFault][] = [
    ["answers 500 to two uploads", { method: "PUT", times: 2, kind: 500 }],
    ["resets two uploads", { method: "PUT", times: 2, kind: "reset" }],
    ["loses the answer to an upload that it did", { method: "PUT", times: 1, kind: "lost_answer" }],
    ["never answers an upload", { method: "PUT", times: 1, kind: "hang" }],
    ["cuts a body that is read back", { method: "GET", times: 2, kind: "cut_body" }],
    ["answers 503 for longer than one task has patience", { method: "PUT", times: 7, kind: 503 }],
  ];
  it.each(sampled("moments", moments, 4, ([, { method, times, kind }]) => [
    kind === "lost_answer" ? kind : times > 2 ? "longer than one task" : method,
  ]))("%s", async (_name, fault) => {
    const place = freshPlace();
    await expectSound(place, await backupWithFault(place, fault));
  });
});

describe("a backup whose store fails for good fails by name, and the next one succeeds", () => {
  const forever = Number.POSITIVE_INFINITY;
  const troubles: readonly [string, ProxyFault, ErrorCode][] = [
    ["full", { method: "PUT", times: forever, kind: 507 }, "store_full"],
    ["read-only", { method: "PUT", times: forever, kind: 405 }, "store_read_only"],
    ["denied", { method: "PUT", times: forever, kind: 403 }, "store_denied"],
    ["gone", { method: "PUT", times: forever, kind: "reset" }, "store_unreachable"],
    ["slow without end", { method: "PUT", times: forever, kind: "hang" }, "store_unreachable"],
    ["answering 500", { method: "PUT", times: forever, kind: 500 }, "store_unreachable"],
    ["cutting every body", { method: "GET", times: forever, kind: "cut_body" }, "store_lied"],
  ];
  it.each(sampled("troubles", troubles, 3, ([, , code]) => [code]))("%s", async (_name, fault, code) => {
    const place = freshPlace();
    await expect(backupWithFault(place, fault)).rejects.toMatchObject({ code });
    await expectCleanFailure(place, code);
  });

  it("is full when only the manifest is missing", async () => {
    const place = freshPlace();
    await expect(backupWithFault(place, { method: "PUT", times: forever, kind: 507 }, "counts.recorded"))
      .rejects.toMatchObject({ code: "store_full" });
    await expectCleanFailure(place, "store_full");
  });

  it("has no such bucket", async () => {
    const place = freshPlace("nowhere");
    const { deps } = await world(cluster(), { url, store: place.store });
    await expect(backup(deps, options)).rejects.toMatchObject({ code: "store_missing" });
    await expectCleanFailure(freshPlace(), "store_missing");
  });
});

describe("a store that says one thing and does another", () => {
  const lies: readonly [string, Fault][] = [
    ["takes a chunk and keeps nothing", { call: "create", prefix: "v1/objects/", nth: 2, kind: "forget" }],
    ["takes the manifest and keeps nothing", { call: "create", prefix: "v1/backups/", kind: "forget" }],
    ["gives back a chunk with one bit changed", { call: "read", prefix: "v1/objects/", nth: 2, kind: "flip" }],
    ["gives back half of a chunk as if it were whole", { call: "read", prefix: "v1/objects/", nth: 2, kind: "cut" }],
    ["gives back a manifest with one bit changed", { call: "read", prefix: "v1/backups/", kind: "flip" }],
  ];
  it.each(sampled("lies", lies, 3, ([, { call, prefix = "" }]) => [`${call} ${prefix}`]))(
    "%s, once: it is put or read again",
    async (_name, fault) => {
      const place = freshPlace();
      const store = faulty(place.direct, [fault]);
      const { deps } = await world(cluster(), { url, store });
      const row = await backup(deps, options);
      store.assertAllFired();
      await expectSound(place, row);
    },
  );

  const always: readonly [string, Fault, ErrorCode][] = [
    ["keeps no manifest", { call: "create", prefix: "v1/backups/", times: Infinity, kind: "forget" }, "store_lied"],
    [
      "gives back halves of chunks",
      { call: "read", prefix: "v1/objects/", times: Infinity, kind: "cut" },
      "object_damaged",
    ],
  ];
  it.each(always)("%s, always: never a success", async (_name, fault, code) => {
    const place = freshPlace();
    const store = faulty(place.direct, [fault]);
    const { deps } = await world(cluster(), { url, store });
    await expect(backup(deps, options)).rejects.toMatchObject({ code });
    store.assertAllFired();
    await expectCleanFailure(place, code);
  });
});
