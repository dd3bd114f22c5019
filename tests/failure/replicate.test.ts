/** The second store fails midway, or the worker dies: the end is the same, and at no moment is a manifest without its objects. */
import { createHash } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { asHoldfastError } from "../../src/shared/errors.ts";
import { objectsOf } from "../../src/shared/format/manifest.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { openSecondary } from "../../src/shared/store/secondary.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { type FaultProxy, type ProxyFault, startFaultProxy } from "../contract/fault_proxy.ts";
import { backup, manifestOf, query } from "../integration/backup_fixture.ts";
import { drainNow } from "../integration/changes_stream_fixture.ts";
import { copies, differences, type Pair, pairOfStores } from "../integration/replicate_fixture.ts";
import { useCluster } from "../support/cluster.ts";
import { type Fault, faulty } from "../support/faulty_store.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { sampled } from "../support/sampled.ts";

const cluster = useCluster();
let pair: Pair;
let needs: ReadonlyMap<string, readonly string[]>;

beforeAll(async () => {
  pair = await pairOfStores(cluster());
  await query(pair.url, "create table public.notes (id int primary key, t text not null)");
  await query(
    pair.url,
    "insert into public.notes select i, repeat(md5(i::text), 6) from generate_series(1, 2000) as i",
  );
  await drainNow(pair.deps);
  const full = await backup(pair.deps);
  await query(pair.url, "update public.notes set t = 'changed' where id < 50");
  await drainNow(pair.deps);
  needs = new Map([[full.manifestName ?? "", objectsOf(await manifestOf(pair.deps, full)).map(({ name }) => name)]]);
}, 180_000);

/** As if nothing had ever been copied. */
async function startOver(): Promise<void> {
  pair.second.objects.clear();
  pair.killer.disarm();
  await query(
    pair.url,
    `update backup.runs set status = 'cancelled', finished_at = greatest(started_at, clock_timestamp())
       where kind = 'replicate' and finished_at is null;
     delete from backup.copies;
     update backup.second_store set looked_at = null, look_from = null, listed_at = null;
     update backup.runs set complete_at = null where kind = 'full';
     update backup.alerts set status = 'resolved', resolved_at = clock_timestamp() where status <> 'resolved'`,
  );
}

async function openAlerts(): Promise<unknown[]> {
  const rows = await query(pair.url, "select kind from backup.alerts where status <> 'resolved' and kind ~ '^copies'");
  return rows.map((row) => row["kind"]);
}

function expectNoOrphan(): void {
  for (const name of pair.second.objects.keys()) {
    if (!name.endsWith("/manifest")) continue;
    expect(needs.has(name)).toBe(true);
    expect((needs.get(name) ?? []).filter((object) => !pair.second.objects.has(object))).toEqual([]);
  }
}

async function expectWhole(): Promise<void> {
  expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
  const recorded = await query(pair.url, "select name, second_hash from backup.copies where status = 'stored'");
  const hash = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
  expect(new Map(recorded.map((row) => [row["name"], row["second_hash"]])))
    .toEqual(new Map([...pair.second.objects].map(([name, bytes]) => [name, hash(bytes)])));
  expect(await query(pair.url, "select from backup.runs where kind = 'full' and complete_at is null")).toEqual([]);
  expect(await openAlerts()).toEqual([]);
}

function gate(): { readonly passed: Promise<void>; readonly open: () => void } {
  let open = () => {};
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open };
}

describe("the second store, failing midway and well again", () => {
  const faults: readonly (readonly [string, Fault, "heals" | "fails"])[] = [
    ["is not reached at a put", { call: "create", prefix: "v1/objects/", nth: 3, kind: "store_unreachable" }, "heals"],
    ["is not reached for a long time", { call: "create", nth: 4, times: 9, kind: "store_unreachable" }, "fails"],
    ["refuses (403)", { call: "create", prefix: "v1/objects/", nth: 2, kind: "store_denied" }, "fails"],
    ["refuses the manifest", { call: "create", prefix: "v1/backups/", kind: "store_denied" }, "fails"],
    ["is full", { call: "create", prefix: "v1/changes/", kind: "store_full" }, "fails"],
    ["is read-only", { call: "create", prefix: "v1/keys/", kind: "store_read_only" }, "fails"],
    ["loses an answer", { call: "create", prefix: "v1/objects/", nth: 2, kind: "lost_answer" }, "heals"],
    ["loses the answer for the manifest", { call: "create", prefix: "v1/backups/", kind: "lost_answer" }, "heals"],
    ["forgets what it took", { call: "create", prefix: "v1/objects/", nth: 2, kind: "forget" }, "heals"],
    ["gives back a changed bit", { call: "read", prefix: "v1/objects/", nth: 2, kind: "flip" }, "heals"],
    ["gives back half", { call: "read", prefix: "v1/objects/", nth: 2, kind: "cut" }, "heals"],
    ["gives back half of the manifest", { call: "read", prefix: "v1/backups/", nth: 2, kind: "cut" }, "heals"],
    ["does not answer a read", { call: "read", prefix: "v1/changes/", kind: "store_unreachable" }, "heals"],
    [
      "lists half of what it has",
      { call: "list", prefix: "v1/objects/", nth: 1, times: 256, kind: "short_listing" },
      "heals",
    ],
  ];

  it.each(faults)("%s", async (_, fault, outcome) => {
    await startOver();
    const second = faulty(pair.second, [fault]);
    const run = await copies(pair, { second: { ...second, label: pair.second.label } });
    second.assertAllFired();
    expectNoOrphan();
    expect(run.status).toBe(outcome === "heals" ? "succeeded" : "failed");
    if (outcome === "fails") {
      expect(run.errorCode).toBe(fault.kind);
      expect(await openAlerts()).toEqual(["copies_failed"]);
    }
    expect((await copies(pair)).status).toBe("succeeded");
    await expectWhole();
  });

  it.each(["v1/objects/", "v1/changes/", "v1/keys/", "v1/backups/"])(
    "keeps other bytes of %s than it was given",
    async (prefix) => {
      await startOver();
      let changed = 0;
      const second: Store = {
        ...pair.second,
        create: async (name, bytes) => {
          if (!name.startsWith(prefix) || changed++ > 0) return await pair.second.create(name, bytes);
          return await pair.second.create(name, bytes.map((byte, index) => index === 200 ? byte ^ 1 : byte));
        },
      };
      expect((await copies(pair, { second })).status).toBe("succeeded");
      expect(changed).toBeGreaterThan(0);
      await expectWhole();
    },
  );

  it("returns another object than it was asked for", async () => {
    await startOver();
    let lies = 0;
    const second: Store = {
      ...pair.second,
      read: async (name) => {
        const other = [...pair.second.objects.keys()].find((one) => one.startsWith("v1/objects/") && one !== name);
        if (!name.startsWith("v1/objects/") || other === undefined || lies > 0) return await pair.second.read(name);
        lies++;
        return await pair.second.read(other);
      },
    };
    await copies(pair, { second });
    expect(lies).toBe(1);
    expect((await copies(pair)).status).toBe("succeeded");
    await expectWhole();
  });
});

describe("the first store", () => {
  it.each(
    [
      ["gives a changed bit of an object", { call: "read", prefix: "v1/objects/", nth: 2, kind: "flip" }],
      ["gives half of a segment", { call: "read", prefix: "v1/changes/", nth: 1, kind: "cut" }],
      ["gives a changed bit of the manifest", { call: "read", prefix: "v1/backups/", nth: 2, kind: "flip" }],
      // The first read is that of the listing.
      ["gives a changed bit of a key", { call: "read", prefix: "v1/keys/", nth: 2, kind: "flip" }],
      ["gives a changed bit of an anchor", { call: "read", prefix: "v1/anchors/", nth: 1, kind: "flip" }],
    ] satisfies [string, Fault][],
  )("%s: nothing of it reaches the second store, and the others go on", async (_, fault) => {
    await startOver();
    const first = faulty(pair.store, [fault]);
    const run = await copies(pair, { first: { ...first, label: pair.store.label } });
    first.assertAllFired();
    expect(run).toMatchObject({ status: "failed", errorCode: "object_damaged" });
    expectNoOrphan();
    const found = await differences(pair.store.objects, pair.second.objects, pair.identity);
    expect(found.length).toBeGreaterThan(0);
    expect(found.filter((one) => !one.endsWith("is missing"))).toEqual([]);
    expect((await copies(pair)).status).toBe("succeeded");
    await expectWhole();
  });
});

describe("a worker that dies", () => {
  const steps = [
    ["copies.claimed", 1],
    ["copies.surveyed", 1],
    ["copy.intended", 1],
    ["copy.intended", 5],
    ["copy.put", 1],
    ["copy.put", 5],
    ["copy.read_back", 3],
    ["copy.read_back", 7],
    ["copy.recorded", 6],
    ["copies.looked", 1],
  ] as const;
  it.each(steps)(
    "at %s (%i) leaves what the next one goes on with, and no byte is put twice",
    async (step, nth) => {
      await startOver();
      pair.killer.arm(`step:${step}`, nth);
      await expect(copies(pair, { database: pair.killer.mortal(pair.deps.database) })).rejects.toThrow();
      expect(pair.killer.fired).toBe(1);
      pair.killer.disarm();
      expectNoOrphan();
      await query(
        pair.url,
        "update backup.tasks set lease_until = clock_timestamp() - interval '1 second' where status = 'leased'",
      );
      const replaced: string[] = [];
      const second: Store = {
        ...pair.second,
        create: async (name, bytes) => {
          if (pair.second.objects.has(name)) replaced.push(name);
          return await pair.second.create(name, bytes);
        },
        replace: async (name, bytes) => {
          replaced.push(name);
          await pair.second.replace(name, bytes);
        },
      };
      expect((await copies(pair, { second })).status).toBe("succeeded");
      expect(replaced).toEqual([]);
      await expectWhole();
    },
  );

  it("was only slow, and another has its task: what it does late changes nothing", async () => {
    await startOver();
    const wall = gate();
    let atWall = 0;
    const slow: Store = {
      ...pair.second,
      create: async (name, bytes) => {
        if (name.startsWith("v1/objects/")) {
          atWall++;
          await wall.passed;
        }
        return await pair.second.create(name, bytes);
      },
    };
    const late = copies(pair, { second: slow, legs: 1 }).catch(asHoldfastError);
    // All that are on their way at once: none of them renews the lease any more.
    await vi.waitFor(async () => {
      const [needs] = await query(pair.url, "select count(*)::int as n from backup.copy_needs");
      expect(needs?.["n"]).toBeGreaterThan(1);
      expect(atWall).toBe(Math.min(8, Number(needs?.["n"])));
    }, { timeout: 30_000 });
    await query(
      pair.url,
      "update backup.tasks set lease_until = clock_timestamp() - interval '1 second' where status = 'leased'",
    );
    expect((await copies(pair)).status).toBe("succeeded");
    wall.open();
    await late;
    await expectWhole();
  });
});

describe("a second store of which the database knows nothing any more", () => {
  it("is taken over: what has no layer as it is, and each age file in one step by another", async () => {
    await startOver();
    await copies(pair);
    const before = new Map(pair.second.objects);
    await query(pair.url, "delete from backup.copies");
    const removed: string[] = [];
    const second: Store = {
      ...pair.second,
      remove: async (names) => {
        removed.push(...names);
        await pair.second.remove(names);
      },
      replace: async (name, bytes) => {
        expectNoOrphan();
        await pair.second.replace(name, bytes);
      },
    };
    expect((await copies(pair, { second })).status).toBe("succeeded");
    expect(removed).toEqual([]);
    for (const [name, bytes] of pair.second.objects) {
      if (!/^v1\/(objects|changes)\//.test(name)) expect(bytes, name).toEqual(before.get(name));
    }
    await expectWhole();
  });

  it("holds another manifest under the name of ours: that stays, and is told", async () => {
    await startOver();
    const [manifest = ""] = needs.keys();
    pair.second.objects.set(manifest, new Uint8Array([1, 2, 3]));
    const run = await copies(pair);
    expect(run).toMatchObject({ status: "failed", errorCode: "object_conflict" });
    expect(pair.second.objects.get(manifest)).toEqual(new Uint8Array([1, 2, 3]));
    expect(await openAlerts()).toEqual(["copies_failed"]);
    pair.second.objects.delete(manifest);
    await copies(pair);
    await expectWhole();
  });

  it("is another repository's: nothing is written", async () => {
    await startOver();
    const text = new TextDecoder().decode(pair.store.objects.get("v1/repository.json"));
    pair.second.objects.set(
      "v1/repository.json",
      new TextEncoder().encode(text.replace(/(?<="id":")./, (first) => (first === "0" ? "1" : "0"))),
    );
    const run = await copies(pair);
    expect(run).toMatchObject({ status: "failed", errorCode: "object_conflict" });
    expect([...pair.second.objects.keys()]).toEqual(["v1/repository.json"]);
  });
});

describe.each([{ conditions: true }, { conditions: false }])(
  "a real S3 server (conditions: $conditions)",
  (options) => {
    let server: S3Server;
    let proxy: FaultProxy;
    let store: Store;

    beforeAll(async () => {
      server = await startS3Server(options);
      proxy = await startFaultProxy(server.endpoint);
      const variables: Record<string, string> = {
        BACKUP_SECONDARY: `s3://${server.bucket}/copies?endpoint=${encodeURIComponent(proxy.endpoint)}`,
        BACKUP_RECIPIENTS: pair.secondary.recipients.join(","),
        BACKUP_SECONDARY_S3_ACCESS_KEY_ID: server.accessKeyId,
        BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
      };
      const deps = { fetch, clock: systemClock, random: webCryptoRandom };
      const opened = openSecondary((name) => variables[name], deps)?.store;
      if (opened === undefined) throw new Error("there is no second store");
      store = { ...opened, label: pair.second.label };
    }, 60_000);
    afterAll(async () => {
      await proxy?.close();
      await server?.close();
    });

    const faults = [
      [{ method: "PUT", times: 3, kind: 503 }, "succeeded"],
      [{ method: "PUT", times: 1, kind: 403 }, "failed"],
      [{ method: "PUT", times: 2, kind: "lost_answer" }, "succeeded"],
      [{ method: "PUT", times: 2, kind: "reset" }, "succeeded"],
      [{ method: "GET", times: 2, kind: "cut_body" }, "succeeded"],
      [{ method: "GET", times: 1, kind: "short_body" }, "any"],
      [{ method: "HEAD", times: 2, kind: 500 }, "succeeded"],
    ] satisfies [ProxyFault, string][];
    // Tried again by a status or a broken connection, refused, done and not answered, or read otherwise than it lies there.
    const meets = ([{ method, kind }]: typeof faults[number]) => [
      method === "GET" ? "reading" : typeof kind !== "number" ? kind : kind === 403 ? "refusal" : "again",
    ];
    it.each(sampled(`conditions: ${options.conditions}`, faults, 3, meets))(
      "with %j holds the same in the end",
      async (fault, outcome) => {
        await startOver();
        const names: string[] = [];
        for await (const { name } of store.list("v1/")) names.push(name);
        await store.remove(names);
        proxy.set(fault);
        const run = await copies(pair, { second: store });
        expect(proxy.fired()).toBeGreaterThan(0);
        if (outcome !== "any") expect(run.status).toBe(outcome);
        proxy.set(null);
        expect((await copies(pair, { second: store })).status).toBe("succeeded");
        for await (const { name } of store.list("v1/")) pair.second.objects.set(name, await store.read(name));
        await expectWhole();
      },
    );
  },
);
