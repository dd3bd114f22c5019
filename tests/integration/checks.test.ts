/** The daily checks over two stores: what is sound passes, what rots, is gone or cut short is found in either, and mended where it can be. */
import { beforeAll, describe, expect, it } from "vitest";
import { functionOpenLimits, type OpenLimits, processOpenLimits } from "../../src/shared/checks/deps.ts";
import { recordVerification } from "../../src/shared/jobs/queries.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { useCluster } from "../support/cluster.ts";
import { faulty } from "../support/faulty_store.ts";
import { backup, query } from "./backup_fixture.ts";
import { drainNow } from "./changes_stream_fixture.ts";
import { checks, rot, unopened } from "./checks_fixture.ts";
import { copies, differences, type Pair, pairOfStores, smallBudget } from "./replicate_fixture.ts";

const cluster = useCluster();

/** Two verified backups with objects of their own, segments between them, all in both stores. */
async function twoBackups(): Promise<{ readonly pair: Pair; readonly ids: readonly string[] }> {
  const pair = await pairOfStores(cluster());
  await query(pair.url, "create table public.notes (id int primary key, t text not null)");
  await query(pair.url, "insert into public.notes select i, repeat(md5(i::text), 8) from generate_series(1, 900) as i");
  await copies(pair);
  const ids: string[] = [];
  for (let n = 0; n < 2; n++) {
    await query(pair.url, "update public.notes set t = md5(t) || repeat($1, 200)", [String(n)]);
    await drainNow(pair.deps);
    ids.push((await backup(pair.deps)).id);
  }
  await drainNow(pair.deps);
  await copies(pair);
  await query(pair.url, "update backup.runs set origin = 'http' where kind = 'full'");
  await query(pair.url, "update backup.schedules set enabled = false where kind = 'full'");
  await verifyAll(pair, ids);
  return { pair, ids };
}

async function verifyAll(pair: Pair, ids: readonly string[]): Promise<void> {
  const connection = await pair.deps.database.connect("holdfast:test");
  try {
    for (const id of ids) await recordVerification(connection, id, []);
  } finally {
    await connection.close();
  }
}

const names = (objects: ReadonlyMap<string, Uint8Array>, prefix: string) =>
  [...objects.keys()].filter((name) => name.startsWith(prefix)).sort();
const verified = async (pair: Pair) =>
  (await query(
    pair.url,
    "select id from backup.runs where kind = 'full' and status = 'succeeded' and verified_at is not null order by created_at",
  ))
    .map((row) => String(row["id"]));
const alerts = async (pair: Pair) =>
  (await query(
    pair.url,
    "select kind, subject from backup.alerts where status <> 'resolved' and severity <> 'information' order by 1, 2",
  ))
    .map((row) => `${String(row["kind"])} ${String(row["subject"])}`);
/** An object that the second backup alone needs. */
async function ownObject(pair: Pair, of: string, other: string): Promise<string> {
  const [row] = await query(
    pair.url,
    `select object from backup.chunks where run_id = $1 and table_name = 'notes'
       and object not in (select object from backup.chunks where run_id = $2) order by object limit 1`,
    [of, other],
  );
  return String(row?.["object"]);
}

describe("two sound stores", () => {
  let pair: Pair;
  beforeAll(async () => ({ pair } = await twoBackups()), 180_000);

  it("pass, with what was measured as evidence", async () => {
    const { run, results } = await checks(pair);
    expect(run).toMatchObject({ status: "succeeded" });
    const outcomes = Object.fromEntries(Object.entries(results).map(([name, { outcome }]) => [name, outcome]));
    expect(outcomes).toEqual({
      clock: "passed",
      newest_backup: "passed",
      newest_verified: "passed",
      job_status: "passed",
      backup_size: "no_verdict",
      row_counts: "no_verdict",
      stores_complete: "passed",
      storage_use: "passed",
      manifests: "passed",
      objects: "passed",
      chain: "passed",
    });
    const bytes = (objects: ReadonlyMap<string, Uint8Array>) =>
      [...objects].filter(([name]) => !name.startsWith("v1/claims/")).reduce((sum, [, one]) => sum + one.byteLength, 0);
    expect(results["storage_use"]?.evidence).toMatchObject({
      stores: [
        { store: "memory", bytes: bytes(pair.store.objects) },
        { store: "memory of the other provider", bytes: bytes(pair.second.objects) },
      ],
    });
    expect(results["manifests"]?.evidence).toMatchObject({ stores: [{ opened: 2 }, { opened: 2 }], problems: 0 });
    expect(await alerts(pair)).toEqual([]);
  });

  it("pass in many legs as in one, and open each object once", async () => {
    await unopened(pair, 40);
    const { run, legs, results } = await checks(pair, { budget: () => smallBudget(20) });
    expect(run.status).toBe("succeeded");
    expect(legs).toBeGreaterThan(10);
    const opened = (objects: ReadonlyMap<string, Uint8Array>) =>
      [...objects.keys()].filter((name) => !/^v1\/(claims|backups)\//.test(name)).length;
    expect(results["objects"]).toMatchObject({
      outcome: "passed",
      evidence: {
        stores: [
          { overdue: 0, neverOpened: 0, today: { opened: opened(pair.store.objects), hashedOnly: 0 } },
          { overdue: 0, neverOpened: 0, unrecorded: 0, today: { opened: opened(pair.second.objects) } },
        ],
      },
    });
  }, 120_000);

  it("are opened by a share a day, the longest unopened first", async () => {
    await unopened(pair, 3);
    const longest = names(pair.store.objects, "v1/objects/")[3] ?? "";
    await query(
      pair.url,
      "update backup.inventory set looked_at = looked_at - interval '1 day' where store = 'memory' and name = $1",
      [
        longest,
      ],
    );
    const reads: string[] = [];
    const first: Store = {
      ...pair.store,
      read: async (name) => {
        if (/^v1\/(objects|changes)\//.test(name)) reads.push(name);
        return await pair.store.read(name);
      },
    };
    const { results } = await checks(pair, { first });
    const total = [...pair.store.objects.keys()].filter((name) => !/^v1\/(claims|backups)\//.test(name)).length;
    expect(results["objects"]?.evidence).toMatchObject({ stores: [{ today: { opened: Math.ceil(total / 28) } }, {}] });
    expect(reads[0]).toBe(longest);
  });

  it("wait for the CLI with what a function has no room for, and say so before their time is over", async () => {
    const sizes = names(pair.store.objects, "v1/objects/").map((name) => pair.store.objects.get(name)?.byteLength ?? 0);
    const most = Math.max(...sizes) - 1;
    const large = [...pair.store.objects].filter(([name, { byteLength }]) =>
      !/^v1\/(claims|backups)\//.test(name) && byteLength > most
    ).map(([name]) => name);
    const small = { ...functionOpenLimits, mostSealedBytes: most };
    const made = async (days: number, limits: OpenLimits) => {
      await unopened(pair, days);
      return (await checks(pair, { limits })).results["objects"];
    };
    const early = await made(14, small);
    expect(early).toMatchObject({ outcome: "passed", evidence: { stores: [{ tooLargeFirst: large }, {}] } });
    expect(early?.message).toContain("too large for a function");
    const late = await made(16, small);
    expect(late).toMatchObject({ outcome: "warning" });
    expect(late?.message).toContain("run `holdfast checks run daily`");
    expect(await alerts(pair)).toEqual(["verification_failed check:objects"]);
    expect(await made(31, small)).toMatchObject({ outcome: "failed" });
    expect(await made(31, processOpenLimits)).toMatchObject({ outcome: "passed" });
    // The function finds that somebody with more room was there.
    expect((await checks(pair, { limits: small })).results["objects"]).toMatchObject({ outcome: "passed" });
    expect(await alerts(pair)).toEqual([]);
  }, 120_000);
});

describe("what rots at the same size", () => {
  let pair: Pair;
  let ids: readonly string[];
  beforeAll(async () => ({ pair, ids } = await twoBackups()), 180_000);

  const kinds: readonly (readonly [string, string])[] = [
    ["an object", "v1/objects/"],
    ["a segment", "v1/changes/"],
    ["a manifest", "v1/backups/"],
    ["a key file", "v1/keys/"],
  ];
  it.each(kinds)(
    "%s of the second store is found, copied anew, and found sound",
    async (_, prefix) => {
      await checks(pair);
      await unopened(pair, 40);
      const victim = names(pair.second.objects, prefix)[0] ?? "";
      rot(pair.second.objects, victim);
      const { results } = await checks(pair);
      const check = prefix === "v1/backups/" ? "manifests" : "objects";
      expect(results[check], JSON.stringify(results[check])).toMatchObject({
        outcome: "failed",
        message: expect.stringContaining(victim),
      });
      expect(await alerts(pair)).toEqual(
        expect.arrayContaining([`verification_failed check:${check}`, "copies_lost store:second"]),
      );
      // Backups are as sound as they were.
      expect(await verified(pair)).toEqual(ids);
      expect(await copies(pair)).toMatchObject({ status: "succeeded" });
      expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
      const again = await checks(pair);
      expect(again.results[check]).toMatchObject({ outcome: "passed" });
      expect(await alerts(pair)).toEqual([]);
    },
    120_000,
  );

  it(
    "an object of the first store is found, takes `verified` from its backups alone, and is not taken over",
    async () => {
      await checks(pair);
      await unopened(pair, 40);
      const [older = "", newer = ""] = ids;
      const victim = await ownObject(pair, newer, older);
      const sound = pair.store.objects.get(victim)?.slice() ?? new Uint8Array();
      rot(pair.store.objects, victim);
      const { results } = await checks(pair);
      expect(results["objects"]).toMatchObject({ outcome: "failed", message: expect.stringContaining(victim) });
      expect(await verified(pair)).toEqual([older]);
      expect(await alerts(pair)).toEqual([`backup_damaged run:${newer}`, "verification_failed check:objects"]);
      await expect(backup(pair.deps)).rejects.toMatchObject({
        code: "object_damaged",
        message: expect.stringContaining(victim),
      });
      // As somebody who puts it back by hand, and looks.
      pair.store.objects.set(victim, sound);
      await verifyAll(pair, [newer]);
      expect((await checks(pair)).results["objects"]).toMatchObject({ outcome: "passed" });
      expect((await backup(pair.deps)).status).toBe("succeeded");
    },
    120_000,
  );
});

describe("a store that", () => {
  let pair: Pair;
  let ids: readonly string[];
  beforeAll(async () => ({ pair, ids } = await twoBackups()), 180_000);

  it.each(["v1/backups/", "v1/changes/", "v1/keys/"])(
    "lists %s only to its half fails by that, and nothing is called lost",
    async (prefix) => {
      const bad = faulty(pair.store, [{ call: "list", prefix, kind: "short_listing", times: Infinity }]);
      const { results } = await checks(pair, { first: { ...bad, label: pair.store.label } });
      bad.assertAllFired();
      expect(results["stores_complete"]).toMatchObject({
        outcome: "failed",
        message: expect.stringContaining("does not list all that it holds"),
        evidence: { stores: [{ missing: 0 }, { missing: 0 }] },
      });
      expect(await verified(pair)).toEqual(ids);
    },
    60_000,
  );

  it("has lost objects is told by their names; the second one is filled again", async () => {
    await checks(pair);
    const [older = "", newer = ""] = ids;
    const lost = await ownObject(pair, newer, older);
    const bytes = pair.store.objects.get(lost) ?? new Uint8Array();
    pair.store.objects.delete(lost);
    const gone = names(pair.second.objects, "v1/objects/").find((name) => name !== lost) ?? "";
    pair.second.objects.delete(gone);
    const { results } = await checks(pair);
    expect(results["stores_complete"]).toMatchObject({
      outcome: "failed",
      evidence: { stores: [{ missing: 1, missingFirst: [lost] }, { missing: 1, missingFirst: [gone] }] },
    });
    expect(await verified(pair)).toEqual([older]);
    pair.store.objects.set(lost, bytes);
    await verifyAll(pair, ids);
    await copies(pair);
    expect((await checks(pair)).results["stores_complete"]).toMatchObject({ outcome: "passed" });
    expect(await alerts(pair)).toEqual([]);
  }, 120_000);

  it(
    "is down for a moment in the middle of a leg is asked again; one that stays away fails its checks, and no others",
    async () => {
      await checks(pair);
      await unopened(pair, 40);
      const brief = faulty(pair.second, [{ call: "read", prefix: "v1/objects/", nth: 3, kind: "store_unreachable" }]);
      const healed = await checks(pair, { second: { ...brief, label: pair.second.label } });
      brief.assertAllFired();
      expect(healed.results["objects"]).toMatchObject({
        outcome: "passed",
        evidence: { stores: [{ overdue: 0 }, { overdue: 0 }] },
      });
      await unopened(pair, 40);
      const down = faulty(pair.second, [
        { call: "read", kind: "store_unreachable", times: Infinity },
        { call: "list", kind: "store_unreachable", times: Infinity },
      ]);
      const { run, results } = await checks(pair, { second: { ...down, label: pair.second.label } });
      down.assertAllFired();
      expect(run.status).toBe("succeeded");
      for (const name of ["stores_complete", "manifests", "objects"]) {
        expect(results[name]).toMatchObject({ outcome: "failed", evidence: { code: "store_unreachable" } });
      }
      expect(results["chain"]).toMatchObject({ outcome: "passed" });
      // What was opened in the first one before stays opened.
      expect(await query(pair.url, "select from backup.inventory where store = 'memory' and damage is not null"))
        .toEqual([]);
      expect(
        await query(
          pair.url,
          "select from backup.inventory where store = 'memory' and name like 'v1/objects/%' and looked_at < now() - interval '1 hour'",
        ),
      )
        .toEqual([]);
      expect((await checks(pair)).results["objects"]).toMatchObject({ outcome: "passed" });
    },
    120_000,
  );

  it("holds a manifest that is newer than now fails by its name, and nothing is called damaged", async () => {
    // Its clock is an hour behind.
    const late = {
      ...pair,
      deps: { ...pair.deps, clock: { ...pair.deps.clock, now: () => new Date(Date.now() - 3_600_000) } },
    };
    const { results } = await checks(late);
    expect(results["manifests"]).toMatchObject({
      outcome: "failed",
      evidence: { problemsFirst: [{ code: "newer_than_now" }, {}, {}, {}] },
    });
    expect(await verified(pair)).toEqual(ids);
    expect((await checks(pair)).results["manifests"]).toMatchObject({ outcome: "passed" });
  }, 60_000);
});

describe("a run that is killed", () => {
  let pair: Pair;
  beforeAll(async () => ({ pair } = await twoBackups()), 180_000);

  it.each(["checks.claimed", "checks.made", "checks.opened", "checks.ended"])(
    "at %s goes on, and finds the same",
    async (event) => {
      await checks(pair);
      await unopened(pair, 40);
      const runs = async () => (await query(pair.url, "select from backup.runs where kind = 'verify'")).length;
      const before = await runs();
      const victim = names(pair.second.objects, "v1/objects/")[1] ?? "";
      rot(pair.second.objects, victim);
      pair.killer.arm(`step:${event}`);
      await expect(checks(pair, { database: pair.killer.mortal(pair.deps.database) })).rejects.toThrow();
      expect(pair.killer.fired).toBe(1);
      pair.killer.disarm();
      await query(
        pair.url,
        "update backup.tasks set lease_until = now() - interval '1 second' where status = 'leased'",
      );
      const { run, results } = await checks(pair);
      expect(run.status).toBe("succeeded");
      // At its end it had ended; the next one looks at what was damaged first.
      expect(results["objects"]).toMatchObject({ outcome: "failed", message: expect.stringContaining(victim) });
      expect(await runs() - before).toBe(event === "checks.ended" ? 2 : 1);
      await copies(pair);
    },
    120_000,
  );
});

describe("beside a prune", () => {
  it("an object that goes between its listing and its turn is forgotten, and no damage", async () => {
    const { pair, ids } = await twoBackups();
    await checks(pair);
    await unopened(pair, 40);
    const [older = "", newer = ""] = ids;
    const victim = await ownObject(pair, older, newer);
    let went = 0;
    const first: Store = {
      ...pair.store,
      read: async (name) => {
        if (name === victim && went++ === 0) {
          await query(pair.url, "update backup.runs set status = 'pruned' where id = $1", [older]);
          await query(pair.url, "delete from backup.chunks where run_id = $1", [older]);
          pair.store.objects.delete(victim);
        }
        return await pair.store.read(name);
      },
    };
    const { results } = await checks(pair, { first });
    expect(went).toBe(1);
    expect(results["objects"]).toMatchObject({ outcome: "passed" });
    expect(await query(pair.url, "select from backup.inventory where store = 'memory' and name = $1", [victim]))
      .toEqual([]);
    expect(await verified(pair)).toEqual([newer]);
  }, 120_000);
});
