/** An S3 server that lies: of sizes, of objects, of who may do what and of the time. Never a success that is none. */
import { Buffer } from "node:buffer";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { retrying } from "../../src/shared/store/retrying.ts";
import { createS3Store } from "../../src/shared/store/s3.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { backup, installedDatabase, query, world } from "../integration/backup_fixture.ts";
import { clusterMs, useCluster } from "../support/cluster.ts";
import { type Lie, type LyingProxy, type Said, startLyingProxy } from "../support/lying_proxy.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { sampled } from "../support/sampled.ts";

const cluster = useCluster();
let s3: S3Server;
let proxy: LyingProxy;
let url = "";
let prefixes = 0;

beforeAll(async () => {
  s3 = await startS3Server();
  proxy = await startLyingProxy(s3.endpoint);
  url = await installedDatabase(cluster());
  await query(
    url,
    `create table letters as select i, md5(i::text) as t from generate_series(1, 3000) as i;
     create table others as select i, md5(i::text) as t from generate_series(1, 500) as i;
     do $do$ begin
       execute format(
         'create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = '''' as
          $$ select timestamptz %L + 40 * (pg_catalog.clock_timestamp() - timestamptz %L) $$', clock_timestamp(), clock_timestamp()
       );
     end $do$`,
  );
}, clusterMs);

afterAll(async () => {
  await proxy?.close();
  await s3?.close();
});

interface Place {
  /** Through the proxy, with patience. */
  readonly told: Store;
  /** The same objects, as they are. */
  readonly true: Store;
}

function freshPlace(clock = systemClock): Place {
  const settings = { ...s3, prefix: `lies/${++prefixes}` };
  const deps = { fetch, clock: systemClock, timeoutMs: 5_000 };
  return {
    told: retrying(
      createS3Store({ ...settings, endpoint: proxy.endpoint }, { ...deps, clock }),
      { clock: systemClock, random: webCryptoRandom },
      { maxTries: 2, firstWaitMs: 5 },
    ),
    true: createS3Store(settings, deps),
  };
}

const taken = async (store: Store) =>
  await backup((await world(cluster(), { url, store })).deps, { leaseSeconds: 3_600 });
const verified = async (store: Store, id: string) =>
  await verifyBackup({ ...(await world(cluster(), { url, store })).deps, log: silentLog }, id);

async function lying<T>(lie: Lie, work: () => Promise<T>): Promise<T> {
  proxy.set(lie);
  try {
    return await work();
  } finally {
    // A lie that was not told proves nothing.
    expect(proxy.told()).toBeGreaterThan(0);
    proxy.set(null);
  }
}

const xml = (code: string) =>
  new TextEncoder().encode(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>AKIASECRET</Message></Error>`);
const refusing = (status: number, code: string): Lie["tell"] => () => ({
  status,
  headers: { "content-type": "application/xml" },
  body: xml(code),
});
const objects = "/v1/objects/";

const ofReading: readonly (readonly [string, Lie, RegExp])[] = [
  ["another object, whole and sound", {
    method: "GET",
    about: objects,
    tell: (said, earlier) => earlier[0] === undefined ? null : { ...said, body: earlier[0] },
  }, /^(store_lied|object_damaged|object_conflict)$/],
  ["its own bytes twice", {
    method: "GET",
    about: objects,
    tell: (said) => ({ ...said, body: Buffer.concat([said.body, said.body]) }),
  }, /^(store_lied|object_damaged)$/],
  ["half of it, of a size that fits", {
    method: "GET",
    about: objects,
    tell: (said) => ({ ...said, body: said.body.subarray(0, said.body.byteLength >> 1) }),
  }, /^(store_lied|object_damaged)$/],
  ["half of it, as a part that nobody asked for", {
    method: "GET",
    about: objects,
    tell: (said) => ({ ...said, status: 206, body: said.body.subarray(0, said.body.byteLength >> 1) }),
  }, /^(store_lied|object_damaged)$/],
  ["an error as if it were the object", {
    method: "GET",
    about: objects,
    tell: (said) => ({ ...said, body: xml("InternalError") }),
  }, /^(store_lied|object_damaged)$/],
  ["nothing at all, and success", {
    method: "GET",
    about: objects,
    tell: (said) => ({ ...said, body: new Uint8Array(0) }),
  }, /^(store_lied|object_damaged)$/],
  ["a manifest of nothing", {
    method: "GET",
    about: "/manifest",
    tell: (said) => ({ ...said, body: said.body.subarray(0, 40) }),
  }, /^(store_lied|object_damaged|manifest_damaged)$/],
];

/** Told by the name that is sealed in, by the status, by what a manifest is, or by bytes that do not open. */
const toldBy = ([what]: typeof ofReading[number]) => [
  /^another object|nobody asked for|manifest/.exec(what)?.[0] ?? "bytes that do not open",
];

describe("a store that answers a read by", () => {
  it.each(sampled("a backup", ofReading, 4, toldBy))("%s: a backup fails by name", async (_what, lie, code) => {
    const place = freshPlace();
    await lying(lie, async () => {
      await expect(taken(place.told)).rejects.toMatchObject({ code: expect.stringMatching(code) });
    });
    const [run] = await query(url, "select status, error_code from backup.runs order by created_at desc limit 1");
    expect(run).toMatchObject({ status: "failed", error_code: expect.stringMatching(code) });
    const row = await taken(place.true).catch((error: { code: string }) => error);
    // What the liar made it keep is not taken for whole either.
    if ("id" in row) expect(await verified(place.true, row.id)).toMatchObject({ ok: true });
  }, 60_000);

  it.each(sampled("a verification", ofReading, 4, toldBy))(
    "%s: verify finds it, and the truth again afterwards",
    async (_what, lie, code) => {
      const place = freshPlace();
      const { id } = await taken(place.true);
      await lying(lie, async () => {
        const outcome = await verified(place.told, id).catch((error: { code: string }) => error);
        const codes = "code" in outcome ? [outcome.code] : outcome.problems.map((problem) => problem.code);
        expect(codes.length).toBeGreaterThan(0);
        for (const one of codes) expect(one).toMatch(code);
      });
      expect(await verified(place.told, id)).toMatchObject({ ok: true });
    },
    60_000,
  );
});

describe("a store that lies of sizes", () => {
  it.each([
    [
      "that an object is there which is not",
      (said: Said) => ({ ...said, status: 200, headers: { "content-length": "100" } }),
    ],
    ["no size", (said: Said) => said.status === 200 ? { ...said, headers: {} } : null],
  ])("and says %s when it is asked for one: a backup is sound or fails by name", async (_what, tell) => {
    const place = freshPlace();
    // What is there already is asked about too.
    if (_what === "no size") await taken(place.true);
    await lying({ method: "HEAD", about: _what === "no size" ? "/v1/" : objects, tell }, async () => {
      const outcome = await taken(place.told).catch((error: { code: string }) => error);
      if ("id" in outcome) expect(await verified(place.true, outcome.id)).toMatchObject({ ok: true });
      else expect(outcome.code).toMatch(/^(store_lied|object_missing)$/);
    });
  }, 60_000);

  it.each([["larger", 1], ["smaller", -1]])(
    "and lists every object as %s than it is: what comes of it is sound",
    async (_what, by) => {
      const place = freshPlace();
      await taken(place.true);
      const honest = await taken(place.true);
      expect(honest.baseRun).not.toBeNull();
      const resized = (said: Said): Said => ({
        ...said,
        body: new TextEncoder().encode(
          new TextDecoder().decode(said.body).replace(
            /<Size>(\d+)<\/Size>/g,
            (_, size) => `<Size>${Number(size) + by}</Size>`,
          ),
        ),
      });
      await lying({ method: "GET", about: "list-type=2", tell: resized }, async () => {
        const row = await taken(place.told);
        expect(row).toMatchObject({ status: "succeeded" });
        expect(await verified(place.true, row.id)).toMatchObject({ ok: true, rows: row.rows });
      });
    },
    60_000,
  );
});

describe("a store that refuses", () => {
  const calls = [["PUT", "/v1/"], ["GET", "/v1/"], ["HEAD", "/v1/"], ["GET", "list-type=2"]] as const;
  const refusals = [["AccessDenied"], ["SignatureDoesNotMatch"], ["InvalidAccessKeyId"], [
    "AllAccessDisabled",
  ]] as const;

  it.each(calls)(
    "every %s about %s: a backup fails as store_denied, at once, without the server's words",
    async (method, about) => {
      for (const [code] of refusals) {
        const place = freshPlace();
        const failure = await lying(
          { method, about, tell: refusing(403, code) },
          () => taken(place.told).then(() => null, (error: { code: string; message: string; hint: string }) => error),
        );
        expect(failure, `${method} ${code}`).toMatchObject({ code: "store_denied" });
        expect(`${failure?.message} ${failure?.hint}`).not.toContain("AKIASECRET");
      }
    },
    120_000,
  );

  it("is never taken for one that lost its objects: verify says that it was refused", async () => {
    const place = freshPlace();
    const { id } = await taken(place.true);
    const outcome = await lying(
      { method: "GET", about: objects, tell: refusing(403, "AccessDenied") },
      () => verified(place.told, id).catch((error: { code: string }) => error),
    );
    const codes = "code" in outcome ? [outcome.code] : outcome.problems.map((problem) => problem.code);
    expect(new Set(codes)).toEqual(new Set(["store_denied"]));
  }, 60_000);
});

describe("a clock that is off", () => {
  it.each([["behind", -3_600_000], ["ahead", 3_600_000]])(
    "by an hour, %s: every call and the whole backup are denied, and the hint says that it is the clock",
    async (_what, byMs) => {
      const skewed = { ...systemClock, now: () => new Date(Date.now() + byMs) };
      const { told } = freshPlace(skewed);
      const bytes = new Uint8Array(8);
      for (
        const work of [
          () => told.create("a", bytes),
          () => told.replace("a", bytes),
          () => told.read("a"),
          () => told.list("")[Symbol.asyncIterator]().next(),
          () => told.remove(["a"]),
          () => taken(told),
        ] as (() => Promise<unknown>)[]
      ) {
        const failure = await work().then(() => null, (error: { code: string; hint: string }) => error);
        expect(failure).toMatchObject({ code: "store_denied" });
      }
      await expect(told.read("a")).rejects.toMatchObject({ hint: expect.stringContaining("clock") });
      const [run] = await query(
        url,
        "select status, error_code, hint from backup.runs order by created_at desc limit 1",
      );
      expect(run).toMatchObject({ status: "failed", error_code: "store_denied" });
    },
    60_000,
  );
});

describe("a store that sends its client elsewhere", () => {
  it("is not followed: no signature and no object reaches the other server", async () => {
    let visits = 0;
    const elsewhere = createServer((_, response) => {
      visits++;
      response.end("thank you");
    });
    await new Promise<void>((resolve) => elsewhere.listen(0, "127.0.0.1", resolve));
    const location = `http://127.0.0.1:${(elsewhere.address() as AddressInfo).port}/there`;
    try {
      for (const [method, status] of [["GET", 302], ["PUT", 307], ["HEAD", 301], ["PUT", 308]] as const) {
        const place = freshPlace();
        await lying(
          { method, about: "/v1/", tell: (said) => ({ ...said, status, headers: { location } }) },
          async () => await expect(taken(place.told)).rejects.toMatchObject({ code: "store_missing" }),
        );
      }
      expect(visits).toBe(0);
    } finally {
      await new Promise((resolve) => elsewhere.close(resolve));
    }
  }, 60_000);
});
