import { describe, expect, it } from "vitest";
import { openBackup } from "../../src/shared/verify/find_backup.ts";
import { budgetOf, type LegBudget } from "../../src/shared/backup/budget.ts";
import { functionLimits } from "../../src/shared/backup/limits.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { requestRun } from "../../src/shared/jobs/queries.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { faulty } from "../support/faulty_store.ts";
import { freshDatabase, useCluster } from "../support/cluster.ts";
import { createMemoryStore } from "../contract/memory_store.ts";
import {
  backup,
  installedDatabase,
  manifestOf,
  query,
  smallLimits,
  tableIn,
  textOf,
  until,
  withClient,
  world,
} from "./backup_fixture.ts";

const cluster = useCluster();

/** The table's COPY text by the server itself, in one piece, in the order of places. */
async function copyText(url: string, table: string): Promise<string> {
  const connection = await openDatabase({ url }).connect("holdfast:oracle");
  try {
    await connection.execute(
      "set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set timezone = 'UTC'; set extra_float_digits = 3; set synchronize_seqscans = off",
    );
    const parts: Uint8Array[] = [];
    await connection.copyOut(`copy ${table} to stdout`, (view) => parts.push(view.slice()));
    return parts.map((part) => new TextDecoder().decode(part, { stream: false })).join("");
  } finally {
    await connection.close();
  }
}

describe("a full backup", () => {
  it("holds every table as COPY gives it: odd names, no columns, no rows, partitions, generated columns", async () => {
    const { deps, url } = await world(cluster());
    await query(
      url,
      `create schema "Odd ""schema";
       create table "Odd ""schema"."Täble one" ("Ünï" int generated always as identity, "a b" text, c int generated always as (1) stored);
       insert into "Odd ""schema"."Täble one" ("a b") select repeat('x', i) from generate_series(1, 500) as i;
       create table no_columns (); insert into no_columns default values; insert into no_columns default values;
       create table no_rows (i int);
       create table parted (i int, t text) partition by range (i);
       create table parted_a partition of parted for values from (0) to (1000);
       create table parted_b partition of parted for values from (1000) to (9000);
       insert into parted select i, md5(i::text) from generate_series(0, 8999) as i;
       create table parent (i int); create table child (j int) inherits (parent);
       insert into parent select generate_series(1, 50); insert into child select i, i from generate_series(1, 30) as i;`,
    );
    const row = await backup(deps);
    expect(row.status).toBe("succeeded");
    const manifest = await manifestOf(deps, row);
    const same = async (schema: string, name: string, oracle: string) => {
      expect(await textOf(deps, tableIn(manifest, schema, name))).toBe(await copyText(url, oracle));
    };
    await same('Odd "schema', "Täble one", '(select "Ünï", "a b" from "Odd ""schema"."Täble one")');
    await same("public", "no_columns", "(select from no_columns)");
    await same("public", "parted_a", "parted_a");
    await same("public", "parted_b", "parted_b");
    await same("public", "parent", "(select * from only parent)");
    await same("public", "child", "child");
    expect(tableIn(manifest, "public", "no_rows").chunks).toEqual([]);
    expect(tableIn(manifest, "public", "no_columns").rows).toBe(2);
    expect(tableIn(manifest, "public", "parted_b").chunks.length).toBeGreaterThan(1);
    const ours = manifest.tables.filter((table) => table.dataOwner === "user");
    expect(ours.reduce((sum, table) => sum + table.rows, 0)).toBe(500 + 2 + 9_000 + 50 + 30);
    expect(manifest.tables.some((table) => table.schema === "backup")).toBe(false);
  });

  it("sees one moment while writers insert, update, delete and truncate", async () => {
    const { deps, url } = await world(cluster());
    await query(
      url,
      "create table a (id int primary key, v text); insert into a select i, md5(i::text) from generate_series(1, 20000) as i",
    );
    await query(url, "create table b (like a including all); insert into b select * from a");
    let stop = false;
    const writer = async (seed: number) => {
      await withClient(url, async (client) => {
        for (let i = 0; !stop && i < 5_000; i++) {
          // Both tables change in one transaction, so that a backup of one moment holds the same keys in both.
          const id = (seed * 7919 + i * 104_729) % 20_000 + 1;
          const statement = i % 3 === 0
            ? `delete from T where id = ${id}`
            : `insert into T values (${id}, 'w${i}') on conflict (id) do update set v = excluded.v`;
          await client.query(`begin; ${statement.replace("T", "a")}; ${statement.replace("T", "b")}; commit`);
        }
      });
    };
    const writers = [writer(1), writer(2)];
    try {
      for (let round = 0; round < 3; round++) {
        const manifest = await manifestOf(deps, await backup(deps));
        const rows = async (name: string) => (await textOf(deps, tableIn(manifest, "public", name))).split("\n").sort();
        expect(await rows("a")).toEqual(await rows("b"));
      }
    } finally {
      stop = true;
      await Promise.all(writers);
    }
  });

  it("lets a TRUNCATE through that comes while it runs, and still ends right", async () => {
    let truncated: Promise<unknown> | null = null;
    const { deps, url } = await world(cluster(), {
      onLine: (line) => {
        if (line.event === "step:attempt.planned") truncated ??= query(url, "truncate going");
      },
    });
    await query(
      url,
      "create table going (t text); insert into going select md5(i::text) from generate_series(1, 20000) as i",
    );
    const row = await backup(deps, { workers: 1 });
    expect(truncated).not.toBeNull();
    await truncated;
    const held = tableIn(await manifestOf(deps, row), "public", "going").rows;
    // Taken before it, or, when the keeper had to yield, after it: never in between.
    expect([0, 20_000]).toContain(held);
    expect(row.attempt).toBe(held === 0 ? 2 : 1);
  });

  it("of a database without tables of its own succeeds, with a warning", async () => {
    const { deps, url } = await world(cluster());
    const codes = async () => (await backup(deps)).warnings.map((warning) => warning.code);
    expect(await codes()).toContain("no_tables");
    await query(url, "create table one ()");
    expect(await codes()).not.toContain("no_tables");
  });

  it("is taken though the role's own settings would end its sessions", async () => {
    const { deps, url } = await world(cluster());
    await query(url, "create table t as select i, md5(i::text) as v from generate_series(1, 30000) as i");
    const name = new URL(url).pathname.slice(1);
    for (const setting of ["statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"]) {
      await query(url, `alter role postgres in database ${name} set ${setting} = '150ms'`);
    }
    await query(url, `alter role postgres in database ${name} set datestyle = 'German'`);
    const row = await backup(deps, { workers: 1 });
    expect([row.status, row.attempt]).toEqual(["succeeded", 1]);
  });

  it("puts a thousand tiny tables into few tasks, each into a chunk of its own", async () => {
    const { deps, url } = await world(cluster());
    await query(
      url,
      "create schema many; do $$ begin for i in 1..1000 loop execute format('create table many.t%s as select %s as i', i, i); end loop; end $$",
    );
    const row = await backup(deps, { limits: functionLimits });
    expect(row.tasksTotal).toBeLessThan(40);
    const manifest = await manifestOf(deps, row);
    const many = manifest.tables.filter((table) => table.schema === "many");
    expect(many).toHaveLength(1_000);
    expect(new Set(many.flatMap((table) => table.chunks.map((chunk) => chunk.object))).size).toBe(1_000);
  });

  it("cuts a page that holds far more text than a chunk may, and reads every row once", async () => {
    const { deps, url } = await world(cluster());
    await query(
      url,
      "create table dense (i int, t text); insert into dense select i, repeat('y', 40000) from generate_series(1, 120) as i",
    );
    const row = await backup(deps);
    const table = tableIn(await manifestOf(deps, row), "public", "dense");
    expect(table.chunks.some((chunk) => chunk.fromItem !== undefined)).toBe(true);
    expect(table.chunks.every((chunk) => chunk.rawBytes <= smallLimits.chunkCapBytes)).toBe(true);
    expect(await textOf(deps, table)).toBe(await copyText(url, "dense"));
  });

  it("names table and page of a row that no worker can hold", async () => {
    const { deps, url } = await world(cluster());
    await query(url, "create table huge (t text); insert into huge values ('a'), (repeat('z', 900000)), ('b')");
    const limits = { ...smallLimits, rowCapBytes: 600_000 };
    const error = await backup(deps, { limits }).catch((caught: unknown) => caught);
    expect(error).toMatchObject({ code: "row_too_large" });
    expect((error as Error).message).toContain("public.huge in page 0");
    const row = await backup(deps, { limits: { ...limits, rowCapBytes: 2_000_000 } });
    expect(tableIn(await manifestOf(deps, row), "public", "huge").rows).toBe(3);
  });

  it("fits into legs of a small budget, and goes on where the last one ended", async () => {
    const { deps, url } = await world(cluster());
    await query(url, "create table cut as select i, md5(i::text) as t from generate_series(1, 30000) as i");
    const tiny: LegBudget = { cpuMs: 4, wallMs: 60_000, usedCpuMs: 0 };
    const row = await backup(deps, { budget: () => budgetOf(tiny, systemClock) });
    expect(row.status).toBe("succeeded");
    expect(await textOf(deps, tableIn(await manifestOf(deps, row), "public", "cut"))).toBe(await copyText(url, "cut"));
  });

  it("ends a leg between two small tables once its budget is spent, however many of them are one task", async () => {
    const { deps, url } = await world(cluster());
    const tables = 20;
    await query(
      url,
      `do $$ begin for i in 1..${tables} loop
         execute format('create table small_%s as select %s as i', i, i);
       end loop; end $$`,
    );
    const row = await backup(deps, {
      workers: 1,
      budget: () => ({ spendText: () => {}, spendCalls: () => {}, spent: () => true }),
    });
    expect(row.status).toBe("succeeded");
    const done = await query(
      url,
      "select 1 from backup.tasks where run_id = $1 and kind = 'chunks' and status = 'done'",
      [row.id],
    );
    expect(done.length).toBeGreaterThanOrEqual(tables);
    const names = (await manifestOf(deps, row)).tables.filter((table) => table.name.startsWith("small_"));
    expect(names.map((table) => table.rows)).toEqual(Array(tables).fill(1));
  });

  it("seals all that it writes under one epoch, though several workers begin on an empty store", async () => {
    const { deps, url, store } = await world(cluster());
    await query(url, "create table t as select i, md5(i::text) as v from generate_series(1, 30000) as i");
    await backup(deps, { workers: 4 });
    expect([...store.objects.keys()].filter((name) => name.startsWith("v1/keys/"))).toHaveLength(1);
    const again = tableIn(await manifestOf(deps, await backup(deps, { workers: 4 })), "public", "t");
    expect(again.chunks.every((chunk) => chunk.takenFrom !== null)).toBe(true);
  });

  it("asked for while one runs joins it: the same id, tiers of both", async () => {
    const { deps, url } = await world(cluster());
    const connection = await deps.database.connect("holdfast:test");
    try {
      const first = await requestRun(connection, {
        kind: "full",
        tiers: ["daily"],
        origin: "schedule",
        requestKey: "d",
      });
      const second = await requestRun(connection, {
        kind: "full",
        tiers: ["weekly"],
        origin: "schedule",
        requestKey: "w",
      });
      expect(second).toEqual({ run: first.run, joined: true });
      const row = await backup(deps);
      expect(row.id).toBe(first.run);
      expect(row.tiers).toEqual(["daily", "manual", "weekly"]);
      const again = await requestRun(connection, {
        kind: "full",
        tiers: ["weekly"],
        origin: "schedule",
        requestKey: "w",
      });
      expect(again).toEqual({ run: first.run, joined: true });
      expect(await query(url, "select count(*)::int as n from backup.runs")).toEqual([{ n: 1 }]);
    } finally {
      await connection.close();
    }
  });

  it("is cancelled when the caller says so, and its keeper ends", async () => {
    const stop = new AbortController();
    const { deps, url } = await world(cluster(), {
      onLine: (line) => {
        if (line.event === "step:chunk.recorded") stop.abort();
      },
    });
    await query(url, "create table c as select i, md5(i::text) from generate_series(1, 30000) as i");
    await expect(backup(deps, { signal: stop.signal })).rejects.toMatchObject({ code: "cancelled" });
    await until(
      "the keeper has ended",
      async () =>
        (await query(
            url,
            "select 1 from pg_stat_activity where application_name = 'holdfast:keeper' and datname = current_database()",
          ))
            .length === 0
          ? true
          : null,
    );
    expect((await backup(deps)).status).toBe("succeeded");
  });
});

describe("a backup that may not be called a success", () => {
  it("fails with counts_differ when a chunk lost rows", async () => {
    const { deps, url } = await world(cluster(), {
      onLine: (line) => {
        if (line.event === "step:chunk.recorded") {
          lost ??= query(url, "update backup.chunks set rows = rows - 1 where table_name = 'counted'");
        }
      },
    });
    let lost: Promise<unknown> | null = null;
    await query(url, "create table counted as select generate_series(1, 10) as i");
    // The last task reads the rows again, after the update.
    await expect(backup(deps, { workers: 1 })).rejects.toMatchObject({ code: "counts_differ" });
    await lost;
    expect([...(await objectsUnder(deps.store, "v1/backups/"))]).toEqual([]);
  });

  it("is quarantined when its rows are gone without a cause, and counts once it is accepted", async () => {
    const { deps, url } = await world(cluster());
    await query(url, "create table entries as select i, md5(i::text) as t from generate_series(1, 5000) as i");
    const whole = await backup(deps);
    expect(whole.status).toBe("succeeded");
    await query(url, "delete from entries where i > 10");
    // The counters are lost, as in a crash: nothing explains the missing rows.
    await until(
      "the deletes are counted",
      async () =>
        (await query(url, "select 1 from pg_stat_user_tables where relname = 'entries' and n_tup_del > 0")).length > 0
          ? true
          : null,
    );
    const superuser = cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1));
    await query(superuser, "select pg_stat_reset()");
    const row = await backup(deps);
    expect(row.status).toBe("quarantined");
    expect(row.quarantineReason).toContain("public.entries went from 5000 to 10 rows");
    // Whoever has nothing but the store gets the whole one.
    expect((await openBackup(deps, "latest")).manifest.id).toBe(whole.id);
    expect(await query(url, "select kind, status from backup.alerts where kind = 'backup_quarantined'"))
      .toEqual([{ kind: "backup_quarantined", status: "open" }]);
    const failures = () => query(url, "select status from backup.alerts where kind = 'backup_failed' order by id desc");
    const failsOnce = async () => {
      const [asked] = await query(url, "select run from backup.request_run('full', '{manual}', 'cli', null)");
      await query(url, "select backup.fail_run($1, 'store_full', 'no room')", [asked?.["run"]]);
    };
    await failsOnce();
    await query(url, "select backup.accept_run($1, 'cleaned up by hand')", [row.id]);
    expect(await failures(), "it failed after the backup that was accepted").toMatchObject([{ status: "open" }]);
    await query(url, "update backup.runs set status = 'quarantined', created_at = backup.clock_now() where id = $1", [
      row.id,
    ]);
    await query(url, "select backup.accept_run($1, 'cleaned up by hand')", [row.id]);
    expect(await failures(), "it failed before").toMatchObject([{ status: "resolved" }]);
    expect(await query(url, "select status, accepted_reason from backup.runs where id = $1", [row.id]))
      .toEqual([{ status: "succeeded", accepted_reason: "cleaned up by hand" }]);
    expect((await backup(deps)).status).toBe("succeeded");
  });

  it("is quarantined, and the alert is over once the rows are back and another backup has them", async () => {
    const { deps, url } = await world(cluster());
    await query(url, "create table entries (i int); insert into entries select * from generate_series(1, 3000)");
    await backup(deps);
    await query(url, "delete from entries");
    await until(
      "the deletes are counted",
      async () => (await query(url, "select from pg_stat_user_tables where n_tup_del = 3000")).length > 0 ? true : null,
    );
    const superuser = cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1));
    await query(superuser, "select pg_stat_reset()");
    expect((await backup(deps)).status).toBe("quarantined");
    const alerts = async () =>
      (await query(url, "select status from backup.alerts where kind = 'backup_quarantined' order by id"))
        .map((row) => row["status"]);
    expect((await backup(deps)).status, "compared with the last good one").toBe("quarantined");
    expect(await alerts()).toEqual(["open", "open"]);
    await query(url, "insert into entries select * from generate_series(1, 3000)");
    expect((await backup(deps)).status).toBe("succeeded");
    expect(await alerts()).toEqual(["resolved", "resolved"]);
  });

  it("is no quarantine when the deletes were counted, or the table was truncated", async () => {
    const { deps, url } = await world(cluster());
    await query(
      url,
      "create table entries as select i from generate_series(1, 5000) as i; create table others as select * from entries",
    );
    await backup(deps);
    await query(url, "delete from entries; truncate others");
    await until(
      "the deletes are counted",
      async () =>
        (await query(url, "select 1 from pg_stat_user_tables where relname = 'entries' and n_tup_del = 5000")).length >
            0
          ? true
          : null,
    );
    expect((await backup(deps)).status).toBe("succeeded");
  });

  it.each(
    [
      ["full", "store_full"],
      ["read-only", "store_read_only"],
      ["denied", "store_denied"],
    ] as const,
  )("fails with the store's own error when it is %s", async (_name, code) => {
    const store = faulty(createMemoryStore(), [{ call: "create", prefix: "v1/objects/", kind: code, times: Infinity }]);
    const { deps, url } = await world(cluster(), { store });
    await query(url, "create table s as select generate_series(1, 10) as i");
    await expect(backup(deps)).rejects.toMatchObject({ code });
    store.assertAllFired();
    expect(await query(url, "select status, error_code from backup.runs")).toEqual([{
      status: "failed",
      error_code: code,
    }]);
  });

  it("gets over an answer that was lost: the object that is there is adopted", async () => {
    const store = faulty(createMemoryStore(), [{ call: "create", prefix: "v1/objects/", kind: "lost_answer", nth: 2 }]);
    const { deps, url } = await world(cluster(), { store });
    await query(url, "create table s as select i, md5(i::text) as t from generate_series(1, 5000) as i");
    const row = await backup(deps);
    store.assertAllFired();
    expect(await textOf(deps, tableIn(await manifestOf(deps, row), "public", "s"))).toBe(await copyText(url, "s"));
  });

  it("fails with key_wrong under another key, before it reads a row", async () => {
    const { deps, url } = await world(cluster());
    await backup(deps);
    const ring = parseKeyRing(`other:${"B".repeat(42)}E`);
    await expect(backup({ ...deps, ring })).rejects.toMatchObject({ code: "key_wrong" });
    expect(await query(url, "select attempt from backup.runs where status = 'failed'")).toEqual([{ attempt: 0 }]);
  });

  it("needs the schema: without it, schema_missing", async () => {
    const { deps } = await world(cluster(), { url: await installedDatabase(cluster()) });
    const bare = openDatabase({ url: await bareDatabase() });
    await expect(backup({ ...deps, database: bare })).rejects.toMatchObject({ code: "schema_missing" });
  });
});

async function bareDatabase(): Promise<string> {
  return cluster().plainUrl("postgres", await freshDatabase(cluster()));
}

async function objectsUnder(store: { list(prefix: string): AsyncIterable<{ name: string }> }, prefix: string) {
  const names: string[] = [];
  for await (const { name } of store.list(prefix)) names.push(name);
  return names;
}
