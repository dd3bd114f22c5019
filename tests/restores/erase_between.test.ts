/**
 * A rewriting of the change stream that is broken off, and another erasure before it goes on. What hangs on a row that is in the stream alone
 * is told by segments that the first one has rewritten already. The oracles: a search of every object by node and zstd alone, and restores
 * of what was there before, with the ledger.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import { backup, query } from "../integration/backup_fixture.ts";
import { drainNow, tableHashes } from "../integration/changes_stream_fixture.ts";
import { type Pair, pairOfStores } from "../integration/replicate_fixture.ts";
import { clusterMs, freshDatabase, useCluster } from "../support/cluster.ts";
import { eraseFrom, holding, rewriteNow } from "./erase_rewrite_fixture.ts";

const cluster = useCluster();
const [first, second, other] = [
  "0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11",
  "7a2b1c3d-4e5f-4a6b-8c7d-9e0f1a2b3c4d",
  "5f0c6f2b-8e0a-4d1c-9b7a-3e2d1f0c9b8a",
];
let pair: Pair;
const points: string[] = [];
let before: ReadonlyMap<string, Uint8Array>;

async function point(sql: string): Promise<void> {
  await query(pair.url, sql);
  const [row] = await query(pair.url, "select pg_current_wal_insert_lsn()::text as lsn");
  points.push(String(row?.["lsn"]));
  await drainNow(pair.deps);
}

async function restored(store: Store, lsn: string): Promise<Record<string, string>> {
  const name = await freshDatabase(cluster(), { platform: false });
  const url = cluster().plainUrl(cluster().superuser, name);
  const deps = { ...pair.deps, log: silentLog, store, target: openDatabase({ url }) };
  const plan = await planPoint(deps, { by: "lsn", lsn: parseLsn(lsn) }, { uncoveredAtFull: true });
  await restorePoint(deps, plan, {});
  return await tableHashes(url, ["app", "auth"]);
}

beforeAll(async () => {
  pair = await pairOfStores(cluster());
  pair = { ...pair, second: pair.store };
  await query(
    pair.url,
    `insert into auth.users (id, email) values ('${first}', 'a@example.org'), ('${second}', 'b@example.org'), ('${other}', 'o@example.org');
     create schema app;
     create table app.entries (id int primary key, user_id uuid references auth.users on delete cascade, body text);
     create table app.lines (entry_id int references app.entries on delete cascade, n int, said text, primary key (n, entry_id));
     insert into app.entries values (1, '${first}', 'x'), (2, '${second}', 'x'), (3, '${other}', 'x');
     insert into app.lines values (1, 1, 'hf-first'), (2, 1, 'hf-second'), (3, 1, 'of another')`,
  );
  await drainNow(pair.deps);
  await backup(pair.deps);
  // Three segments: the entry, its line, and the end of both. No list of erased rows will ever name them.
  for (const id of [10, 20]) {
    await point(
      `insert into app.entries values (${id}, '${first}', 'x'), (${id + 1}, '${second}', 'x'), (${
        id + 2
      }, '${other}', 'x')`,
    );
    await point(
      `insert into app.lines values (${id}, 1, 'hf-first'), (${id + 1}, 1, 'hf-second'), (${id + 2}, 1, 'of another')`,
    );
    await point(`update app.lines set said = said || '!' where entry_id >= ${id}`);
    await point(`delete from app.entries where id in (${id}, ${id + 1})`);
  }
  await eraseFrom(pair, first);
  await drainNow(pair.deps);
}, clusterMs + 120_000);

describe("a rewriting that was broken off", () => {
  it("goes on behind what it had rewritten, and knows what went there", async () => {
    before = new Map(pair.store.objects);
    for (const kill of [{ at: "rewrite.recorded" }, { at: "rewrite.put" }]) {
      await expect(rewriteNow(pair, kill), kill.at).rejects.toThrow("killed");
    }
    const held = async (word: string) =>
      (await holding(pair, pair.store.objects, [word])).filter((name) => name.startsWith("v1/changes/")).length;
    // It found the lines of an entry that only a segment told of, which it has rewritten.
    expect(await held("hf-first")).toBeGreaterThan(0);
    const erased = await eraseFrom(pair, second);
    expect(erased.status).toBe("done");
    await drainNow(pair.deps);
    const store = createMemoryStore();
    for (const [name, bytes] of [...before, ...[...pair.store.objects].filter(([one]) => one.includes("/erasures/"))]) {
      store.objects.set(name, bytes);
    }
    // One at a time: each makes settings of the whole server.
    const some = points.filter((_, at) => at % 3 !== 0);
    const expected: Record<string, string>[] = [];
    for (const lsn of some) expected.push(await restored(store, lsn));
    await expect(rewriteNow(pair, { at: "rewrite.put" })).rejects.toThrow("killed");
    const { result } = await rewriteNow(pair);
    expect(result.held).toEqual([]);
    expect(await query(pair.url, "select from backup.rewriting")).toEqual([]);
    expect([await held("hf-first"), await held("hf-second"), await held("of another")]).toEqual([0, 0, 4]);
    for (const [at, lsn] of some.entries()) expect(await restored(pair.store, lsn), lsn).toEqual(expected[at]);
    expect((await rewriteNow(pair)).result).toMatchObject({ backups: 0, segments: 0, lists: 0, rawBytes: 0 });
  }, 240_000);
});

describe("a backup on hold", () => {
  it("stays as it is, and the stream behind it loses what hangs on rows that it alone has", async () => {
    const held = await pairOfStores(cluster());
    const here = { ...held, second: held.store };
    await query(
      here.url,
      `insert into auth.users (id, email) values ('${first}', 'a@example.org');
       create table public.entries (id int primary key, user_id uuid references auth.users on delete cascade);
       create table public.lines (entry_id int references public.entries on delete cascade, n int, said text, primary key (n, entry_id));
       insert into public.entries values (1, '${first}');
       insert into public.lines values (1, 1, 'hf-held')`,
    );
    await drainNow(here.deps);
    const { id } = await backup(here.deps);
    await query(here.url, "update public.lines set said = 'hf-held, later'");
    await query(here.url, "delete from public.entries");
    await drainNow(here.deps);
    await backup(here.deps);
    await eraseFrom(here, first);
    await drainNow(here.deps);
    await query(here.url, "select backup.hold_backup($1, 'case 17', now() + interval '1 year')", [id]);
    const { result } = await rewriteNow(here);
    expect(result).toMatchObject({ backups: 1, segments: 2, held: [{ reason: "case 17" }] });
    const names = await holding(here, here.store.objects, ["hf-held"]);
    expect(names.length).toBe(1);
    expect(names.filter((name) => name.startsWith("v1/changes/"))).toEqual([]);
    expect(await query(here.url, "select rewritten_at from backup.erasures")).toEqual([{ rewritten_at: null }]);
  }, 60_000);
});
