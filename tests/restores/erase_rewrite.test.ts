/**
 * What is kept from before an erasure, sealed again without the person. The oracles: a search of every object of both stores by node
 * and zstd alone, and a restore of the same backup as it was, with the ledger.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { openManifest, sealManifest } from "../../src/shared/format/manifest_codec.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { openBackup } from "../../src/shared/verify/find_backup.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { segmentsOf, verifyIncremental } from "../../src/shared/changes/segments/verify_incremental.ts";
import { backup, query } from "../integration/backup_fixture.ts";
import { drainNow, tableHashes } from "../integration/changes_stream_fixture.ts";
import { passGrace, prune, verified } from "../integration/retention_fixture.ts";
import { copies, differences, type Pair, pairOfStores } from "../integration/replicate_fixture.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { clusterMs, freshDatabase, useCluster } from "../support/cluster.ts";
import { failureOf } from "../unit/format_fixture.ts";
import { isGenuine } from "../../src/shared/erase/certificate/certificate.ts";
import { certified, eraseFrom, holding, rewriteNow } from "./erase_rewrite_fixture.ts";

const cluster = useCluster();
let pair: Pair;
let fulls: RunRow[] = [];
const [person, other] = ["0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11", "5f0c6f2b-8e0a-4d1c-9b7a-3e2d1f0c9b8a"];
const words = [person, "hf-needle@example.org", "hf-needle"];
/** Both stores as they were before anything was rewritten. */
let before: { first: Map<string, Uint8Array>; second: Map<string, Uint8Array> };
const points: string[] = [];

async function point(): Promise<void> {
  const [row] = await query(pair.url, "select pg_current_wal_insert_lsn()::text as lsn");
  points.push(String(row?.["lsn"]));
}

const storeOf = (objects: ReadonlyMap<string, Uint8Array>): Store => {
  const store = createMemoryStore();
  for (const [name, bytes] of objects) store.objects.set(name, bytes);
  return store;
};

async function restored(store: Store, lsn: string | null, id: string): Promise<Record<string, string>> {
  const name = await freshDatabase(cluster(), { platform: false });
  const url = cluster().plainUrl(cluster().superuser, name);
  const deps = { ...pair.deps, log: silentLog, store, target: openDatabase({ url }) };
  if (lsn === null) await restoreBackup(deps, id, {});
  else {await restorePoint(
      deps,
      await planPoint(deps, { by: "lsn", lsn: parseLsn(lsn) }, { uncoveredAtFull: true }),
      {},
    );}
  return await tableHashes(url, ["app", "auth"]);
}

/** The first revision of a store, with the ledger as it is now. */
const asItWas = (): Store =>
  storeOf(
    new Map([
      ...before.first,
      ...[...pair.store.objects].filter(([name]) => name.includes("/erasures/000000000000001")),
    ]),
  );

beforeAll(async () => {
  pair = await pairOfStores(cluster());
  await query(
    pair.url,
    `insert into auth.users (id, email) values ('${person}', 'hf-needle@example.org'), ('${other}', 'o@example.org');
     create schema app;
     create table app.entries (id int primary key, user_id uuid references auth.users on delete cascade, read_by uuid references auth.users on delete set null, body text);
     create table app.lines (entry_id int references app.entries on delete cascade, n int, said text, big text, primary key (n, entry_id));
     create table app.samples (user_id uuid references auth.users on delete cascade, at int);
     create table app.odd (a int not null unique, b text, user_id uuid references auth.users on delete cascade, id int primary key);
     alter table app.odd replica identity using index odd_a_key;
     create table app.whole (user_id uuid references auth.users on delete cascade, read_by uuid references auth.users on delete set null, x int);
     alter table app.whole replica identity full;
     create table app.parts (id int, k int, user_id uuid references auth.users on delete cascade, primary key (id, k)) partition by list (k);
     create table app.parts_0 partition of app.parts for values in (0);
     create table app.parts_1 partition of app.parts for values in (1);
     create table app.alone (t text);
     insert into app.alone values ('nothing of anybody');
     insert into app.entries select i, case when i % 3 = 0 then '${person}'::uuid else '${other}' end, case when i % 7 = 0 then '${person}'::uuid end, case when i % 3 = 0 then 'hf-needle ' else 'body ' end || repeat(md5(i::text), 20)
       from generate_series(1, 2000) as i;
     insert into app.lines select i, 1, case when i % 3 = 0 then 'hf-needle' else 'said' end || e'\\ttab' from generate_series(1, 2000) as i where i <> 9;
     insert into app.samples select case when i % 2 = 0 then '${person}'::uuid else '${other}' end, i from generate_series(1, 50) as i;
     insert into app.odd select i, case when i % 2 = 0 then 'hf-needle' else 'b' end, case when i % 2 = 0 then '${person}'::uuid else '${other}' end, i + 100 from generate_series(1, 40) as i;
     insert into app.whole select case when i % 2 = 0 then '${person}'::uuid else '${other}' end, case when i % 5 = 0 then '${person}'::uuid end, i from generate_series(1, 40) as i;
     insert into app.parts select i, i % 2, case when i % 5 = 0 then '${person}'::uuid else '${other}' end from generate_series(1, 60) as i`,
  );
  await copies(pair);
  await drainNow(pair.deps);
  fulls = [await backup(pair.deps)];
  await query(
    pair.url,
    `insert into app.entries values (5000, '${person}', null, 'hf-needle, soon gone'), (5001, '${other}', '${person}', 'of another');
     insert into app.lines values (5000, 1, 'hf-needle', repeat('hf-needle', 2000)), (5001, 1, 'theirs', null);
     update app.lines set said = 'hf-needle again' where entry_id = 5000;
     update app.entries set body = 'hf-needle changed' where id = 3;
     delete from app.entries where id in (5000, 6, 4);
     delete from app.odd where id in (102, 103);
     update app.odd set b = b || '!' where id in (104, 105);
     update app.odd set a = a + 1000 where id in (106, 107);
     update app.whole set x = x + 100 where x in (5, 10, 11);
     delete from app.whole where x in (15, 20, 21);
     update app.parts set k = 1 - k where id in (5, 6);
     delete from app.parts where id in (10, 11);
     -- somebody else's now, and before
     update app.entries set user_id = '${other}', body = 'given' where id = 9;
     update app.entries set user_id = '${person}' where id = 10;
     delete from app.entries where id = 10`,
  );
  await point();
  await drainNow(pair.deps);
  fulls.push(await backup(pair.deps));
  await query(
    pair.url,
    `insert into app.entries values (6000, '${person}', null, 'hf-needle in the stream alone'), (6001, '${other}', null, 'x');
     insert into app.lines values (6000, 2, 'hf-needle', null);
     insert into app.samples values ('${person}', 1000), ('${other}', 1001)`,
  );
  await point();
  await drainNow(pair.deps);
  await copies(pair);
}, clusterMs + 120_000);

describe("what is kept", () => {
  it("waits until the stream has passed the erasure, and for no longer", async () => {
    expect((await holding(pair, pair.store.objects, words)).length).toBeGreaterThan(5);
    const erased = await eraseFrom(pair, person);
    expect(erased.status).toBe("searched");
    expect(await failureOf(() => rewriteNow(pair))).toMatchObject({ code: "rewriting_waits" });
    await point();
    await drainNow(pair.deps);
    await copies(pair);
    await query(pair.url, `select backup.hold_erasure('${person}', 'a court order of 3 May')`);
    const held = await failureOf(() => rewriteNow(pair));
    expect(held).toMatchObject({ code: "erasure_held" });
    expect(String(held)).toContain("a court order of 3 May");
    await query(pair.url, `select backup.release_erasure('${person}')`);
    before = { first: new Map(pair.store.objects), second: new Map(pair.second.objects) };
  });

  it(
    "is sealed again without the person, killed wherever it is, and restores as it would have with the ledger",
    async () => {
      const expected = {
        fulls: [
          await restored(asItWas(), null, fulls[0]?.id ?? ""),
          await restored(asItWas(), null, fulls[1]?.id ?? ""),
        ],
        points: [] as Record<string, string>[],
      };
      // One at a time: each makes settings of the whole server.
      for (const lsn of points) expected.points.push(await restored(asItWas(), lsn, ""));
      for (
        const kill of [
          { at: "rewrite.planned" },
          { at: "rewrite.scanned" },
          { at: "rewrite.putting" },
          { at: "rewrite.put" },
          { at: "rewrite.recorded", times: 2 },
          { at: "rewrite.segments" },
          { at: "rewrite.put" },
          { at: "rewrite.recorded" },
        ]
      ) {
        await expect(rewriteNow(pair, kill), kill.at).rejects.toThrow("killed");
      }
      const { result, settled } = await rewriteNow(pair);
      expect(result.held).toEqual([]);
      expect(settled.uncopied).toBeGreaterThan(2);
      const again = await rewriteNow(pair);
      expect(again.result).toMatchObject({ backups: 0, segments: 0, rawBytes: 0 });
      expect([
        await restored(pair.deps.store, null, fulls[0]?.id ?? ""),
        await restored(pair.deps.store, null, fulls[1]?.id ?? ""),
      ])
        .toEqual(expected.fulls);
      for (const [at, lsn] of points.entries()) {
        expect(await restored(pair.deps.store, lsn, ""), lsn).toEqual(expected.points[at]);
      }
    },
    240_000,
  );

  it("verifies, and what comes after links to what was there first", async () => {
    for (const { id } of fulls) {
      expect(await verifyBackup(pair.deps, id)).toMatchObject({ ok: true, problems: [] });
    }
    await query(pair.url, "insert into app.entries values (7000, null, null, 'after')");
    await drainNow(pair.deps);
    const connection = await pair.deps.database.connect("holdfast:test");
    try {
      for (const { id } of await query(pair.url, "select id from backup.runs where kind = 'incremental'")) {
        const found = await verifyIncremental(pair.deps, String(id), await segmentsOf(connection, String(id)));
        expect(found.problems).toEqual([]);
      }
    } finally {
      await connection.close();
    }
    fulls.push(await backup(pair.deps));
    const third = await openBackup(pair.deps, fulls[2]?.id ?? "");
    const second = await openBackup(pair.deps, fulls[1]?.id ?? "");
    expect(third.manifest.previousManifest).toEqual({ name: second.name, hash: second.hash });
    expect(second.hash).not.toBe(second.storedHash);
  });

  it("is copied to the second store, listed in the ledger, and swept out of both", async () => {
    const clean = async () =>
      (await query(
        pair.url,
        "select status, rewritten_at is not null as rewritten, clean_at is not null as clean from backup.erasures",
      ))[0];
    expect((await copies(pair)).warnings).toEqual([]);
    const common = new Map([...pair.store.objects].filter(([name]) => !name.startsWith("v1/terms/")));
    const differing = await differences(common, pair.second.objects, pair.identity);
    expect(differing.filter((one) => !one.endsWith("is too much"))).toEqual([]);
    await query(pair.url, "select backup.watch_erasures()");
    const { settled } = await rewriteNow(pair);
    expect(settled).toMatchObject({ uncopied: 0, cleaned: 0 });
    expect(settled.left.length).toBeGreaterThan(3);
    expect(await clean()).toEqual({ status: "done", rewritten: true, clean: false });
    expect(await failureOf(() => certified(pair))).toMatchObject({ code: "certificate_not_due" });
    await verified(pair, fulls[2]?.id ?? "");
    await copies(pair);
    await prune(pair);
    expect((await rewriteNow(pair)).settled.left.length).toBeGreaterThan(3);
    await passGrace(pair);
    await prune(pair);
    const done = await rewriteNow(pair);
    expect(done.settled).toMatchObject({ left: [], cleaned: 1 });
    expect(await clean()).toEqual({ status: "done", rewritten: true, clean: true });
    for (const objects of [pair.store.objects, pair.second.objects]) {
      expect(await holding(pair, objects, words)).toEqual([]);
    }
  }, 120_000);

  it("is certified: what is left is in rows of others, and listed; signed, once, and without a name", async () => {
    const certificate = await certified(pair);
    expect(certificate.mentions).toEqual([]);
    expect(certificate.searchedFor).toEqual(
      expect.arrayContaining([{ kind: "id", count: 1 }, { kind: "e-mail", count: 1 }]),
    );
    const text = JSON.stringify(certificate);
    for (const word of words) expect(text).not.toContain(word);
    expect(await isGenuine(certificate, pair.deps.ring)).toBe(true);
    expect(await isGenuine({ ...certificate, files: 7 }, pair.deps.ring)).toBe(false);
    expect([...pair.store.objects.keys()].filter((name) => name.startsWith("v1/terms/"))).toEqual([]);
    expect(await certified(pair)).toEqual(certificate);
  });

  it("is refused where an earlier revision is put back, or one that nobody was erased for", async () => {
    const { name, manifest } = await openBackup(pair.deps, fulls[0]?.id ?? "");
    const now = pair.store.objects.get(name) ?? new Uint8Array();
    pair.store.objects.set(name, before.first.get(name) ?? new Uint8Array());
    expect(await failureOf(() => openBackup(pair.deps, fulls[0]?.id ?? ""))).toMatchObject({
      code: "rewrite_unlawful",
    });
    const repository = await openOrCreateRepository(pair.deps);
    const epochOf = epochSource(pair.store, pair.deps.ring, repository.id);
    const forged = {
      ...manifest,
      rewritten: { revision: 9, original: manifest.rewritten?.original ?? "", through: 99 },
    };
    const sealed = await sealManifest(pair.deps, await epochOf(manifest.epoch), forged);
    await openManifest({ ...pair.deps, epochOf }, name, sealed.bytes);
    pair.store.objects.set(name, sealed.bytes);
    expect(await failureOf(() => openBackup(pair.deps, fulls[0]?.id ?? ""))).toMatchObject({
      code: "rewrite_unlawful",
    });
    pair.store.objects.set(name, now);
    await openBackup(pair.deps, fulls[0]?.id ?? "");
    const segment =
      [...before.first.keys()].find((one) =>
        one.startsWith("v1/changes/") && before.first.get(one) !== pair.store.objects.get(one) &&
        before.first.get(one)?.byteLength !== pair.store.objects.get(one)?.byteLength
      ) ?? "";
    const held = pair.store.objects.get(segment) ?? new Uint8Array();
    pair.store.objects.set(segment, before.first.get(segment) ?? new Uint8Array());
    expect(await failureOf(() => restored(pair.deps.store, points[1] ?? "", ""))).toMatchObject({
      code: "rewrite_unlawful",
    });
    pair.store.objects.set(segment, held);
  });
});
