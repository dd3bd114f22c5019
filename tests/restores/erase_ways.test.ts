/**
 * Ways back that end with an erasure too: a restore in legs, as the functions take them, a drill whose copy somebody looks into, a bundle that
 * left the store; with keys that were exchanged since, and never without the ledger. The oracle is a search of every row for the person.
 */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { isLedgerEpoch, listEpochs, rewrap } from "../../src/shared/crypto/epochs.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { mayBeShredded } from "../../src/shared/crypto/shred_epoch.ts";
import { openContents } from "../../src/shared/download/open_contents.ts";
import { dropDrillDatabase } from "../../src/shared/drills/database.ts";
import type { DrillServer } from "../../src/shared/drills/deps.ts";
import type { DrillRow } from "../../src/shared/drills/drill_queries.ts";
import { beginRecovery, recoverOn } from "../../src/shared/drills/recover.ts";
import { readLedger } from "../../src/shared/erase/ledger.ts";
import { openOrCreateRepository } from "../../src/shared/format/repository.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { silentLog } from "../../src/shared/log.ts";
import { inDatabase } from "../../src/shared/restore/new_database.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { restoreBackup } from "../../src/shared/restore/run.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { backup, testKeys, type World, world } from "../integration/backup_fixture.ts";
import { bytesOf } from "../integration/download_fixture.ts";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { failureOf } from "../unit/format_fixture.ts";
import { eraseFrom } from "./erase_rewrite_fixture.ts";
import { legsOf, uncalled } from "./rows_legs_fixture.ts";

const cluster = useCluster();
const [person, other] = ["0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11", "5f0c6f2b-8e0a-4d1c-9b7a-3e2d1f0c9b8a"];
const words = [person, "hf-needle"];
let w: World;
let full: RunRow;

/** Rows of any table that hold one of the words, and how many users there are. */
async function found(url: string): Promise<{ readonly users: number; readonly rows: string[] }> {
  const tables = await query(
    url,
    `select format('%I.%I', n.nspname, c.relname) as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema', 'backup')`,
  );
  const rows: string[] = [];
  for (const { name } of tables) {
    const [row] = await query(
      url,
      `select count(*)::int as n from only ${name} as t where exists (
         select from unnest($1::text[]) as w (word) where strpos(t::text, w.word) > 0)`,
      [words],
    );
    if (Number(row?.["n"]) > 0) rows.push(`${String(name)}: ${String(row?.["n"])}`);
  }
  const [users] = await query(url, "select count(*)::int as n from auth.users");
  return { users: Number(users?.["n"]), rows: rows.sort() };
}

async function restored(store: Store, ring = w.deps.ring): Promise<Awaited<ReturnType<typeof found>>> {
  const url = cluster().plainUrl(cluster().superuser, await freshDatabase(cluster(), { platform: false }));
  const target = openDatabase({ url });
  await restoreBackup({ ...w.deps, store, ring, log: silentLog, target }, full.id, {});
  return await found(url);
}

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    `${uncalled};
     insert into auth.users (id, email) values ('${person}', 'hf-needle@example.org'), ('${other}', 'o@example.org');
     create table public.entries (id int primary key, user_id uuid references auth.users on delete cascade, body text);
     create table public.lines (entry_id int references public.entries on delete cascade, n int, said text, primary key (n, entry_id));
     insert into public.entries select i, case when i % 2 = 0 then '${person}' else '${other}' end::uuid,
         case when i % 2 = 0 then 'hf-needle' else 'of another' end from generate_series(1, 200) as i;
     insert into public.lines select i, 1, case when i % 2 = 0 then 'hf-needle' else 'said' end from generate_series(1, 200) as i`,
  );
  full = await backup(w.deps);
  // Before the erasure, so that no list of what was erased names them.
  await query(w.url, "delete from public.entries where id <= 60");
  expect((await found(w.url)).rows.length).toBe(3);
  expect((await eraseFrom(w, person)).status).toBe("done");
  expect(await found(w.url)).toEqual({ users: 1, rows: [] });
}, clusterMs + 60_000);

describe("somebody who was erased is not brought back", () => {
  it("by a restore of tables in legs, beside and in place", async () => {
    const legs = legsOf(w, full.id);
    const ask = async (asked: RowsAsked) => {
      const id = await legs.plan(asked);
      for (;;) {
        const { status, finishedAt } = await legs.row(id);
        if (status === "beside" || finishedAt !== null) break;
        await legs.leg(id, asked);
        await legs.letGo(id);
      }
      expect(await found(w.url)).toEqual({ users: 1, rows: [] });
      await legs.apply(id, "merge");
      expect((await legs.work(id, asked)).row.status).toBe("succeeded");
      expect(await found(w.url)).toEqual({ users: 1, rows: [] });
    };
    await ask({ scope: "table", table: { schema: "auth", name: "users" } });
    await ask({ scope: "table", table: { schema: "public", name: "entries" } });
    expect(await query(w.url, "select count(*)::int as n from public.entries")).toEqual([{ n: 100 }]);
  }, 120_000);

  it("into the copy of a drill, which is compared with the backup before", async () => {
    const options = { url: cluster().plainUrl(cluster().superuser) };
    const server: DrillServer = {
      database: openDatabase(options),
      inDatabase: (name) => openDatabase(inDatabase(options, name)),
      isOwn: false,
    };
    const connection = await w.deps.database.connect("test");
    const deps = { connection, server, clock: w.deps.clock, log: silentLog };
    const drill = { id: crypto.randomUUID(), startedAt: new Date().toISOString() } as DrillRow;
    let step = await beginRecovery(deps, w.deps, drill, "0badcafe-0000", false);
    try {
      while (step.proof === null) step = await recoverOn(deps, w.deps, step.state, { budget: unlimited });
      expect(step.proof).toMatchObject({ ok: true });
      expect(await found(inDatabase(options, step.state.database).url)).toEqual({ users: 1, rows: [] });
    } finally {
      await dropDrillDatabase(deps, step.state.database);
      await connection.close();
    }
  }, 120_000);

  it("out of a bundle, which carries the ledger and opens with none of it away", async () => {
    const place = mkdtempSync(join(tmpdir(), "holdfast-erased-bundle-"));
    try {
      const asked = { backup: full.id, table: null, format: "bundle" as const };
      writeFileSync(
        join(place, "bundle.tar"),
        await bytesOf(await openContents(w.deps, null, asked, { ahead: false })),
      );
      await promisify(execFile)("tar", ["--extract", "--file", "bundle.tar"], { cwd: place });
      const unpacked = join(place, `holdfast-${full.id.slice(0, 8)}`);
      expect(await restored(createFileStore(unpacked))).toEqual({ users: 1, rows: [] });
    } finally {
      rmSync(place, { recursive: true, force: true });
    }
  }, 60_000);

  it("with other keys than those of then; the epoch of the ledger is never shredded", async () => {
    const fresh = `new:${"B".repeat(42)}E`;
    const repository = await openOrCreateRepository(w.deps);
    const both = parseKeyRing(`${fresh},${testKeys}`);
    await rewrap({ ...w.deps, ring: both }, repository.id);
    const ring = parseKeyRing(fresh);
    const wrapped = await rewrap({ ...w.deps, ring }, repository.id);
    const [ledgers = ""] = (await listEpochs(w.deps.store)).filter(isLedgerEpoch);
    expect(wrapped.map(({ epochId }) => epochId)).toContain(ledgers);
    expect((await readLedger({ ...w.deps, ring })).entries.length).toBeGreaterThan(0);
    expect(await restored(w.deps.store, ring)).toEqual({ users: 1, rows: [] });
    // Who has the old key alone opens nothing, and is told so.
    expect(await failureOf(() => readLedger(w.deps))).toMatchObject({ code: "ledger_unreadable" });
    await rewrap({ ...w.deps, ring: both }, repository.id);
    expect(await failureOf(() => mayBeShredded(w.deps.store, ledgers))).toMatchObject({ code: "forbidden" });
  }, 60_000);
});

describe("a verification", () => {
  const name = "v1/erasures/000000000000001";

  it("opens the ledger, and names the entry that is gone or does not open", async () => {
    expect(await verifyBackup(w.deps, full.id)).toMatchObject({ ok: true });
    const sound = w.store.objects.get(name) ?? new Uint8Array();
    const why = async (bytes: Uint8Array | null) => {
      if (bytes === null) w.store.objects.delete(name);
      else w.store.objects.set(name, bytes);
      return String(await failureOf(() => verifyBackup(w.deps, full.id)));
    };
    w.store.objects.set("v1/erasures/000000000000002", sound);
    expect(await why(null)).toContain(`${name} is missing`);
    expect(await why(sound)).toMatch(/ledger .*000000000000002/);
    w.store.objects.delete("v1/erasures/000000000000002");
    expect(await why(sound.map((byte, at) => at === 70 ? byte ^ 1 : byte))).toMatch(/ledger .*000000000000001/);
    w.store.objects.set(name, sound);
    expect(await verifyBackup(w.deps, full.id)).toMatchObject({ ok: true });
  });
});
