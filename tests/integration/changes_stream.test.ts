/** What the world around a change stream can do to it. */
import pg from "pg";
import { beforeAll, describe, expect, it } from "vitest";
import { newestEpoch } from "../../src/shared/backup/repository_epoch.ts";
import { drain } from "../../src/shared/changes/drain/drain.ts";
import { planPoint } from "../../src/shared/changes/replay/restore_point.ts";
import { sealSegment } from "../../src/shared/changes/segments/segment.ts";
import { ChangeHistory } from "../../src/shared/changes/segments/timeline.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { clusterMs, useCluster, withClient, withCluster } from "../support/cluster.ts";
import { sampled } from "../support/sampled.ts";
import { backup, until, world } from "./backup_fixture.ts";
import {
  drainNow,
  drainOptions,
  emptyTarget,
  insertedInto,
  leaseRunsOut,
  mortalSource,
  query,
  restored,
  type Source,
  storedChain,
  tableHashes,
} from "./changes_stream_fixture.ts";
import { differingEntries, dumpEntries } from "./restore_witness.ts";

const cluster = useCluster({ settings: { max_replication_slots: "60", max_prepared_transactions: "5" } });

const definitions = `create schema app; create table app.notes (id int primary key, t text);
  create table app.loose (id int, t text); insert into app.notes select -i, 'old' from generate_series(1, 20) as i;`;

async function source(on = cluster(), sql = definitions): Promise<Source & { readonly chain: string }> {
  const made = await mortalSource(on);
  await query(made.url, sql);
  const { chain } = await drainNow(made.deps);
  await backup(made.deps);
  return { ...made, chain: chain ?? "" };
}

const now = async (url: string) => {
  const [row] = await query(url, "select (extract(epoch from clock_timestamp()) * 1000000)::bigint::text as now");
  return BigInt(String(row?.["now"]));
};

async function refused(from: Source, point: Parameters<typeof planPoint>[1], choices = {}): Promise<HoldfastError> {
  const { target } = await emptyTarget(cluster());
  const error: unknown = await planPoint({ ...from.deps, target }, point, choices).then(() => null, (caught) => caught);
  if (error instanceof HoldfastError) return error;
  throw error ?? new Error("it was not refused");
}

describe("the limit of the slot", () => {
  it("is what is set, else a quarter of what is known of the log's limit and of the free disk, whichever is smaller", async () => {
    const w = await world(cluster());
    const mb = async (settings: Readonly<Record<string, number>>) => {
      for (const [name, value] of Object.entries(settings)) {
        await query(w.url, `update backup.settings set value = '${value}' where name = '${name}'`);
      }
      const [row] = await query(w.url, "select backup.slot_limit_bytes() / 1048576 as mb");
      return Number(row?.["mb"]);
    };
    const [used] = await query(w.url, "select sum(pg_database_size(oid)) / 1048576 as mb from pg_database");
    const databases = Number(used?.["mb"]);
    const admin = cluster().plainUrl(cluster().superuser);
    const keep = async (size: string) => {
      await query(admin, `alter system set max_slot_wal_keep_size = '${size}'`);
      await query(admin, "select pg_reload_conf()");
      await until("the setting", async () => {
        const [row] = await query(w.url, "show max_slot_wal_keep_size");
        return row?.["max_slot_wal_keep_size"] === size ? true : null;
      });
    };
    try {
      await keep("400MB");
      expect(await mb({})).toBe(100);
      expect(await mb({ disk_mb: 100_000_000 })).toBe(100);
      const ofDisk = await mb({ disk_mb: Math.round(databases) + 200 });
      expect(ofDisk).toBeGreaterThan(25);
      expect(ofDisk).toBeLessThan(75);
      expect(await mb({ disk_mb: 1 })).toBe(0);
      expect(await mb({ slot_limit_mb: 7 })).toBe(7);
      await keep("-1");
      expect(await mb({ slot_limit_mb: 0, disk_mb: 0 })).toBe(1024);
      expect(Math.abs(await mb({ disk_mb: 100_000 }) - (100_000 - databases) / 4)).toBeLessThan(100);
    } finally {
      await query(admin, "alter system reset max_slot_wal_keep_size");
      await query(admin, "select pg_reload_conf()");
    }
  });
});

describe("the guard of the slot", () => {
  it(
    "warns from half of the limit on, takes it back, and past the limit gives up a slot that is read as well",
    async () => {
      const from = await source();
      await query(from.url, "insert into app.loose select i, repeat('x', 1000) from generate_series(1, 5000) as i");
      const slots = "select active from pg_replication_slots where database = current_database()";
      const [held] = await query(from.url, "select retained_bytes / 1048576.0 as mb from backup.slot_state()");
      const mb = Math.ceil(Number(held?.["mb"]));
      const guard = async (limitMb: number) => {
        await query(from.url, "update backup.settings set value = $1 where name = 'slot_limit_mb'", [String(limitMb)]);
        return (await query(from.url, "select backup.guard_slot() as what"))[0]?.["what"];
      };
      const alerts = () =>
        query(from.url, "select severity, status, message from backup.alerts where kind = 'slot_behind' order by id");
      const open = () => query(from.url, "select count(*)::int as chains from backup.chains where ended_at is null");

      expect(mb).toBeGreaterThan(4);
      expect(await guard(2 * mb + 2)).toBe("well");
      expect(await alerts()).toEqual([]);
      expect(await guard(mb + 1)).toBe("behind");
      const message = expect.stringMatching(
        new RegExp(`^the slot holds back \\d+ MB of WAL \\(kept from .*\\); at ${mb + 1} MB it is given up`),
      ) as string;
      expect(await alerts()).toEqual([{ severity: "warning", status: "open", message }]);
      expect([await query(from.url, slots), await open()]).toEqual([[{ active: false }], [{ chains: 1 }]]);
      expect(await guard(2 * mb + 2)).toBe("well");
      expect(await alerts()).toEqual([{ severity: "warning", status: "resolved", message }]);

      const reader = new pg.Client({ connectionString: from.url, ...{ replication: "database" } });
      reader.on("error", () => {});
      await reader.connect();
      const [slot] = await query(from.url, "select slot_name as name from backup.slot_state()");
      try {
        void reader.query(
          `START_REPLICATION SLOT ${
            String(slot?.["name"])
          } LOGICAL 0/0 (proto_version '1', publication_names 'holdfast_inserts')`,
        ).catch(() => {});
        await until("it is read", async () => (await query(from.url, slots))[0]?.["active"] === true ? true : null);
        expect(await guard(mb - 1)).toBe("over the limit");
        expect([await query(from.url, slots), await open()]).toEqual([[], [{ chains: 0 }]]);
      } finally {
        await reader.end();
      }
      expect(await guard(mb - 1)).toBeNull();
    },
    60_000,
  );

  it("is asked by the call of each minute", async () => {
    const from = await source();
    await query(
      from.url,
      `select vault.create_secret('http://127.0.0.1:1', 'holdfast_project_url'),
              vault.create_secret(repeat('s', 40), 'holdfast_worker_secret');
       update backup.settings set value = '1' where name = 'slot_limit_mb'`,
    );
    await query(from.url, "insert into app.loose select i, repeat('x', 300) from generate_series(1, 10000) as i");
    await query(from.url, "select backup.call_drain()");
    expect(await query(from.url, "select reason, to_at from backup.gaps"))
      .toEqual([{ reason: expect.stringMatching(/more than 1 MB/) as string, to_at: null }]);
  });
});

describe("a chain that cannot go on", () => {
  const breaks: { readonly name: string; readonly reason: RegExp; readonly how: (from: Source) => Promise<unknown> }[] =
    [
      {
        name: "its slot was dropped",
        reason: /slot is gone/,
        how: ({ url }) =>
          query(
            url,
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
          ),
      },
      {
        name: "somebody else moved its slot",
        reason: /moved by somebody else/,
        how: async ({ url }) => {
          await query(url, "insert into app.notes values (1, 'lost')");
          await query(
            url,
            `select pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) from pg_replication_slots
            where database = current_database()`,
          );
        },
      },
      {
        name: "a publication was dropped",
        reason: /publication is gone/,
        how: ({ url }) => query(url, "drop publication holdfast_inserts"),
      },
      {
        name: "a publication was dropped and made again, with a change between",
        reason: /dropped and made again/,
        how: async ({ url }) => {
          await query(url, "drop publication holdfast_changes");
          await query(url, "insert into app.notes values (2, 'between')");
          await query(url, "create publication holdfast_changes with (publish = 'update, delete')");
        },
      },
      {
        name: "the database is a copy",
        reason: /copy, or was restored/,
        how: ({ url }) => query(url, "update backup.chains set system_identifier = '1' where ended_at is null"),
      },
      {
        name: "its slot held back more than its limit",
        reason: /more than 1 MB/,
        how: async ({ url }) => {
          await query(url, "update backup.settings set value = '1' where name = 'slot_limit_mb'");
          await query(url, "insert into app.loose select i, repeat('x', 300) from generate_series(1, 10000) as i");
          expect(await query(url, "select backup.guard_slot() as what")).toEqual([{ what: "over the limit" }]);
          expect(
            await query(url, "select count(*)::int as n from pg_replication_slots where database = current_database()"),
          ).toEqual([{ n: 0 }]);
          expect(await query(url, "select count(*)::int as open from backup.gaps where to_at is null")).toEqual([{
            open: 1,
          }]);
          await query(url, "update backup.settings set value = '0' where name = 'slot_limit_mb'");
        },
      },
    ];
  const restoredInto = sampled("breaks", breaks, 2);
  for (const broken of breaks) {
    const { name, reason, how } = broken;
    const isRestored = restoredInto.includes(broken);
    const what = `a gap with both ends, an alert, a new chain${isRestored ? ", and no restore into the gap" : ""}`;
    it(`because ${name}: ${what}`, async () => {
      const from = await source();
      await query(from.url, "insert into app.notes values (100, 'kept')");
      await drainNow(from.deps);
      await how(from);
      const inGap = await now(from.url);
      const first = await drainNow(from.deps).catch((error: unknown) => error);
      if (first instanceof HoldfastError) expect(first).toMatchObject({ code: "stream_busy" });
      await query(from.url, "insert into app.notes values (200, 'after')");
      const result = await drainNow(from.deps);
      expect(result).toMatchObject({ outcome: "caught_up" });
      expect(result.chain).not.toBe(from.chain);
      const gaps = await query(
        from.url,
        `select chain_id, reason, to_lsn > from_lsn as forward, to_at is not null as closed,
                from_at <= to_timestamp($1::numeric / 1000000) and to_at >= to_timestamp($1::numeric / 1000000) as holds
           from backup.gaps`,
        [String(inGap)],
      );
      expect(gaps).toEqual([{
        chain_id: from.chain,
        reason: expect.stringMatching(reason) as string,
        forward: true,
        closed: true,
        holds: true,
      }]);
      expect(await query(from.url, "select count(*)::int as n from backup.alerts where kind = 'stream_gap'"))
        .toEqual([{ n: 1 }]);
      if (!isRestored) return;
      await backup(from.deps);
      await drainNow(from.deps);
      const copy = await restored(cluster(), from.deps);
      expect(await tableHashes(copy.url)).toEqual(await tableHashes(from.url));
      const error = await refused(from, { by: "time", at: inGap });
      expect(error.code).toBe("point_uncovered");
      const { windows } = (await ChangeHistory.read(from.deps)).timeline();
      expect(windows).toHaveLength(2);
      for (const window of windows) expect(error.message).toContain(`${window.from} to ${window.to}`);
    }, 120_000);
  }

  it("because the server gave its WAL up: the guard notices and ends it", async () => {
    await withCluster({ settings: { max_slot_wal_keep_size: "1MB", max_wal_size: "64MB" } }, async (own) => {
      const from = await source(own);
      await withClient(own.plainUrl(own.superuser, new URL(from.url).pathname.slice(1)), async (client) => {
        for (let file = 0; file < 6; file++) {
          await client.query("insert into app.loose select i, repeat('y', 900) from generate_series(1, 2000) as i");
          await client.query("select pg_switch_wal()");
          await client.query("checkpoint");
        }
        const { rows } = await client.query("select wal_status from pg_replication_slots");
        expect(rows).toEqual([{ wal_status: "lost" }]);
      });
      expect(await query(from.url, "select backup.guard_slot() as what")).toEqual([{ what: "lost" }]);
      expect(await query(from.url, "select slot_name from pg_replication_slots"), "it takes no place").toEqual([]);
      expect(await drainNow(from.deps)).toMatchObject({ begun: true, outcome: "caught_up" });
      expect(await query(from.url, "select reason, to_at is not null as closed from backup.gaps"))
        .toEqual([{ reason: "the server gave the slot up", closed: true }]);
    });
  }, 180_000);
});

describe("two drainers", () => {
  /** Holds the first put of a segment back until `go`. */
  function heldBack(from: Source) {
    let go = () => {};
    const gate = new Promise<void>((resolve) => go = resolve);
    let arrived = () => {};
    const waits = new Promise<void>((resolve) => arrived = resolve);
    const store = {
      ...from.deps.store,
      create: async (name: string, bytes: Uint8Array) => {
        arrived();
        await gate;
        return await from.deps.store.create(name, bytes);
      },
    };
    return { deps: { ...from.deps, store }, waits, go };
  }

  it("at once: one drains, the other is told that it is busy", async () => {
    const from = await source();
    await query(from.url, "insert into app.notes values (1, 'a')");
    const slow = heldBack(from);
    const first = drain(slow.deps, drainOptions());
    await slow.waits;
    expect(await drain(from.deps, drainOptions())).toMatchObject({ outcome: "busy", segments: [] });
    slow.go();
    expect(await first).toMatchObject({ outcome: "caught_up" });
    expect(insertedInto(await storedChain(from.deps, from.chain), "app.notes")).toEqual(["1"]);
  });

  it("after the first one's lease ran out: its record is refused, and nothing is recorded twice", async () => {
    const from = await source();
    await query(from.url, "insert into app.notes values (1, 'a')");
    const slow = heldBack(from);
    const first = drain(slow.deps, drainOptions()).then(() => null, (error: unknown) => error);
    await slow.waits;
    await leaseRunsOut(from.url);
    await query(from.url, "insert into app.notes values (2, 'b')");
    expect(await drain(from.deps, drainOptions({ worker: "second" }))).toMatchObject({ outcome: "caught_up" });
    slow.go();
    expect(await first).toMatchObject({ code: "lease_lost" });
    await query(from.url, "insert into app.notes values (3, 'c')");
    await drainNow(from.deps);
    expect(insertedInto(await storedChain(from.deps, from.chain), "app.notes")).toEqual(["1", "2", "3"]);
  });

  it("while one spools a transaction, the other does not wait for it", async () => {
    const from = await source();
    await withClient(from.url, async (client) => {
      const [row] = await query(from.url, "select backup.claim_drain('slow', '90 seconds') as token");
      await leaseRunsOut(from.url);
      await client.query("begin");
      await client.query("select backup.hold_drain($1, '90 seconds')", [row?.["token"]]);
      expect(await drain(from.deps, drainOptions())).toMatchObject({ outcome: "busy" });
      await client.query("rollback");
    });
  }, 30_000);
});

describe("transactions that were open while the full's snapshot was taken", () => {
  it("are in a restore exactly when they had committed", async () => {
    const from = await mortalSource(cluster());
    await query(from.url, definitions);
    await drainNow(from.deps);
    await withClient(from.url, (across) =>
      withClient(from.url, (before) =>
        withClient(from.url, async (never) => {
          await across.query(
            "begin; insert into app.notes values (1, 'across'); update app.notes set t = 'a' where id = -1",
          );
          await before.query("begin; insert into app.notes values (2, 'before'); delete from app.notes where id = -2");
          await never.query("begin; insert into app.notes values (3, 'never')");
          await query(from.url, "begin; insert into app.notes values (4, 'prepared'); prepare transaction 'p1'");
          await query(from.url, "begin; insert into app.notes values (5, 'undone'); prepare transaction 'p2'");
          await before.query("commit");
          await drainNow(from.deps);
          await backup(from.deps);
          await across.query("savepoint s; insert into app.notes values (6, 'rolled back'); rollback to s");
          await across.query("insert into app.notes values (7, 'later'); commit");
          await query(from.url, "commit prepared 'p1'");
          await query(from.url, "rollback prepared 'p2'");
          await query(from.url, "update app.notes set t = t || '!' where id in (1, 2, 4)");
          await never.query("rollback");
        })));
    await drainNow(from.deps);
    const copy = await restored(cluster(), from.deps);
    expect(await tableHashes(copy.url)).toEqual(await tableHashes(from.url));
  }, 120_000);
});

describe("a chain whose segments were touched", () => {
  let from: Source & { readonly chain: string };
  let names: string[];
  let foreign: string;

  beforeAll(async () => {
    from = await source();
    for (let id = 1; id <= 8; id++) {
      await query(from.url, "insert into app.notes values ($1, 'n')", [id]);
      await drainNow(from.deps);
    }
    names = (await storedChain(from.deps, from.chain)).map((one) => one.name);
    // Another chain in the same store, under the same keys.
    await query(
      from.url,
      "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
    );
    const other = await drainNow(from.deps);
    foreign = (await storedChain(from.deps, other.chain ?? ""))[0]?.name ?? "";
    for (const name of [...from.store.objects.keys()]) {
      if (name.startsWith("v1/changes/") && !names.includes(name) && name !== foreign) from.store.objects.delete(name);
    }
  }, clusterMs);

  async function touched(change: (objects: Map<string, Uint8Array>) => void): Promise<HoldfastError> {
    const before = new Map(from.store.objects);
    try {
      change(from.store.objects);
      return await refused(from, { by: "end" });
    } finally {
      from.store.objects.clear();
      for (const [name, bytes] of before) from.store.objects.set(name, bytes);
    }
  }

  const at = (index: number) => names.at(index) ?? "";
  const bytesOf = (objects: Map<string, Uint8Array>, name: string) => objects.get(name) ?? new Uint8Array();

  it("is refused by the segment's name before a target is touched: missing, flipped, cut, exchanged", async () => {
    expect(names.length).toBeGreaterThan(8);
    const missing = await touched((objects) => objects.delete(at(-3)));
    expect([missing.code, missing.message]).toEqual(["chain_broken", expect.stringContaining(at(-2))]);
    const flipped = await touched((objects) => {
      const bytes = bytesOf(objects, at(-3)).slice();
      const place = bytes.length - 20;
      bytes[place] = (bytes[place] ?? 0) ^ 1;
      objects.set(at(-3), bytes);
    });
    expect([flipped.code, flipped.message]).toEqual(["object_damaged", expect.stringContaining(at(-3))]);
    const cut = await touched((objects) => objects.set(at(-3), bytesOf(objects, at(-3)).slice(0, -5)));
    expect([cut.code, cut.message]).toEqual(["object_damaged", expect.stringContaining(at(-3))]);
    const exchanged = await touched((objects) => {
      const [a, b] = [bytesOf(objects, at(-3)), bytesOf(objects, at(-4))];
      objects.set(at(-3), b);
      objects.set(at(-4), a);
    });
    expect([exchanged.code, exchanged.message]).toEqual(["object_damaged", expect.stringContaining(at(-4))]);
    const another = await touched((objects) => objects.set(at(-3), bytesOf(objects, foreign)));
    expect([another.code, another.message]).toEqual(["object_damaged", expect.stringContaining(at(-3))]);
  });

  it("is refused where one was sealed again under its name, with the right key", async () => {
    const opened = (await storedChain(from.deps, from.chain)).at(-3);
    if (opened === undefined) throw new Error("the chain is too short");
    const sealed = await sealSegment(
      from.deps,
      await newestEpoch(from.deps),
      opened.header,
      opened.records.slice(0, 0),
    );
    expect(sealed.name).toBe(at(-3));
    const error = await touched((objects) => objects.set(at(-3), sealed.bytes));
    expect([error.code, error.message]).toEqual(["chain_broken", expect.stringContaining(at(-2))]);
  });

  it("is refused when all that lies between the full and a later segment is missing", async () => {
    const error = await touched((objects) => names.slice(0, 5).forEach((name) => objects.delete(name)));
    expect([error.code, error.message]).toEqual(["chain_broken", expect.stringContaining(at(5))]);
  });

  it("is restored when nobody touched it", async () => {
    const copy = await restored(cluster(), from.deps);
    expect(await query(copy.url, "select count(*)::int as n from app.notes where id > 0")).toEqual([{ n: 8 }]);
  });
});

describe("changes of definitions", () => {
  // Of functions in SQL nobody knows the text; of others the server tells it.
  const bySql = (statement: string) =>
    `create or replace function public.work() returns void language sql as $$ ${statement} $$; select public.work()`;
  const cannot = [
    ["ALTER INDEX of app.other", "alter index app.notes_pkey rename to other"],
    ["CREATE AGGREGATE of app.total(integer)", "create aggregate app.total (int) (sfunc = int4pl, stype = int)"],
    [
      "ALTER DEFAULT PRIVILEGES of TABLES",
      "alter default privileges in schema app grant select on tables to anon",
    ],
    ["ALTER VIEW of app.w", "alter view app.v rename to w"],
    ["ALTER SCHEMA of other", "alter schema app rename to other"],
  ] as const;
  it("by functions in SQL that rename, make or alter what is no table are refused with their place", async () => {
    const from = await source();
    await query(from.url, "create view app.v as select 1 as x");
    for (const [, statement] of cannot) {
      await query(from.url, bySql(statement));
      await drainNow(from.deps);
    }
    expect((await query(from.url, "select what from backup.obstacles order by lsn")).map(({ what }) => what))
      .toEqual(cannot.map(([what]) => what));
    const error = await refused(from, { by: "end" });
    expect(error.code).toBe("ddl_not_replayable");
    expect(error.message).toMatch(
      /^ALTER INDEX of app\.other at \d{4}-.*Z \([0-9A-F]+\/[0-9A-F]+\) cannot be replayed: .* \(and 4 more\)$/,
    );
  }, 60_000);

  it(
    "with publications by list, rows of CREATE TABLE AS are not in the stream, and an index on a view is nothing",
    async () => {
      // As it is made where the role may not publish all tables.
      const byList = `create publication holdfast_inserts with (publish = 'insert, truncate');
      alter publication holdfast_inserts add table only backup.ddl_log`;
      const from = await source(cluster(), `${definitions} ${byList}`);
      await query(from.url, "create materialized view app.sums as select count(*) as n from app.notes");
      await query(from.url, "create unique index on app.sums (n); refresh materialized view app.sums");
      await drainNow(from.deps);
      const copy = await restored(cluster(), from.deps);
      expect(await query(copy.url, "select n::int from app.sums")).toEqual(
        await query(from.url, "select n::int from app.sums"),
      );
      await query(from.url, "create table app.made as select 1 as x");
      await drainNow(from.deps);
      const error = await refused(from, { by: "end" });
      expect([error.code, error.message]).toEqual(["tables_uncovered", expect.stringMatching(/app\.made/)]);
    },
    60_000,
  );

  it(
    "that compute values close the table until the next full: by a volatile default, a type whose text a setting shapes, an expression, being unlogged for a while",
    async () => {
      const from = await source(
        cluster(),
        `${definitions} create table app.timed (id int primary key, at timestamp); create table app.same (id int primary key);
       create table app.wide (id int primary key); insert into app.timed values (1, '2026-01-01 00:00');
       insert into app.wide values (1); insert into app.same values (1)`,
      );
      await query(from.url, "alter table app.notes add column r float8 default random()");
      await query(from.url, "set timezone = 'Asia/Tokyo'; alter table app.timed alter column at type timestamptz");
      await query(from.url, "alter table app.wide alter column id type bigint using id + 1");
      await query(from.url, "alter table app.loose set unlogged; alter table app.loose set logged");
      await query(from.url, "alter table app.same alter column id type bigint");
      await drainNow(from.deps);
      const { code, message } = await refused(from, { by: "end" });
      expect(code).toBe("tables_uncovered");
      expect([...message.matchAll(/app\.\w+(?= \()/g)].map(([name]) => name).sort())
        .toEqual(["app.loose", "app.notes", "app.timed", "app.wide"]);
    },
    60_000,
  );

  it("are logged from before the slot is made: its stream may hold them before the chain is recorded", async () => {
    const w = await world(cluster());
    const logged = async () =>
      (await query(w.url, "select objects -> 0 ->> 'identity' as name from backup.ddl_log where what = 'command'"))
        .map(({ name }) => name);
    await query(w.url, "create schema app; create table app.early (id int)");
    expect(await logged()).toEqual([]);
    await query(w.url, "select backup.make_publications(array['holdfast_inserts', 'holdfast_changes']::name[])");
    await query(w.url, "create table app.meanwhile (id int)");
    expect(await logged()).toEqual(["app.meanwhile"]);
  });

  it("that nobody logged, since the event triggers were switched off, are refused and not passed over", async () => {
    const from = await source();
    const admin = new URL(from.url);
    admin.username = cluster().superuser;
    admin.password = cluster().password(cluster().superuser);
    await query(admin.href, 'alter event trigger "!holdfast_after_ddl" disable');
    await query(from.url, "alter table app.notes drop column t; insert into app.notes values (100)");
    await drainNow(from.deps);
    expect(await refused(from, { by: "end" })).toMatchObject({
      code: "ddl_not_replayable",
      message: expect.stringMatching(/event triggers that log definitions are missing or switched off/),
    });
  });

  it("that the event trigger failed to log are refused with their place, and the user's command has gone on", async () => {
    const from = await source();
    await query(
      from.url,
      `create or replace function backup.publish_touched(objects jsonb, tag text) returns void language plpgsql
         set search_path = '' as $f$ begin raise exception 'broken for the test'; end $f$`,
    );
    await query(from.url, "alter table app.notes add column extra int default 3");
    expect(await query(from.url, "select extra from app.notes limit 1")).toEqual([{ extra: 3 }]);
    await drainNow(from.deps);
    expect(await refused(from, { by: "end" })).toMatchObject({
      code: "ddl_not_replayable",
      message: expect.stringMatching(/^ALTER TABLE at .* could not be logged/),
    });
  });

  it("of every other kind come out as pg_dump shows them at the source", async () => {
    const from = await source(
      cluster(),
      `${definitions} create type app.mood as enum ('calm', 'sad'); create role changes_reader;
       create schema other; create table other.t (id int primary key); create table other.gone (id int primary key);
       create table app.dropped (id int primary key); create table public.t (id int primary key);`,
    );
    const works = [
      "create table app.made (id bigint generated always as identity primary key, m app.mood default 'sad', note_id int references app.notes)",
      "insert into app.made (m, note_id) select 'calm', -i from generate_series(1, 5) as i",
      "alter type app.mood add value 'gloomy' before 'sad'",
      "insert into app.made (m) values ('gloomy')",
      "create index concurrently made_m on app.made (m)",
      "create unique index concurrently if not exists made_u on app.made (id, m)",
      "drop index concurrently app.made_u",
      "comment on table app.made is 'a; comment'; comment on column app.made.m is 'it''s -- one'",
      "grant select, insert on app.made to changes_reader; grant usage on schema app to changes_reader",
      "alter table app.made enable row level security",
      "create policy readers on app.made for select to changes_reader using (id > 0)",
      "create function app.touch() returns trigger language plpgsql as $f$ begin new.id := new.id; return new; end; $f$",
      "create trigger touch before update on app.made for each row execute function app.touch()",
      "drop table if exists app.not_there; create table if not exists app.notes (x int); create table app.second (id int primary key)",
      "insert into app.second values (1), (2)",
      'begin; create table app."Odd.""Name" (id int primary key, "Ünï" text); insert into app."Odd.""Name" values (1, \'x\'); commit',
      'create table app.U&"sch\\00f6n" (id int primary key); insert into app."schön" values (1)',
      "alter table app.second rename to third; alter table app.third rename column id to key",
      "update app.third set key = key + 10",
      "set search_path = other; create table made_by_path (id int primary key); insert into made_by_path values (1)",
      "set search_path = other; alter table t add column by_path int; create policy p on t; comment on table t is 'other'",
      "create temp table passing (x int); create table app.after_temp (id int primary key)",
      "create view app.seen as select id from app.notes; create or replace view app.seen as select id, t from app.notes",
      "alter default privileges in schema app grant select on tables to changes_reader",
      "create schema restore_0123abcd; create table restore_0123abcd.t (id int)",
      "drop schema restore_0123abcd cascade",
      "drop table app.dropped",
      "drop schema other cascade; create schema other; create table other.again (id int primary key)",
      "alter table app.third alter column key type bigint",
      "insert into app.third values (9999999999)",
      "create domain app.short as text check (length(value) < 9); create sequence app.counter start 7",
      "alter table app.loose add constraint loose_key primary key (id)",
    ];
    const problems: string[] = [];
    for (const sql of works) {
      await query(from.url, sql).catch((error: unknown) => problems.push(`${sql}: ${String(error)}`));
    }
    expect(problems).toEqual([]);
    await drainNow(from.deps);
    const copy = await restored(cluster(), from.deps);
    const schemas = ["app", "other", "public"];
    expect(await tableHashes(copy.url, schemas)).toEqual(await tableHashes(from.url, schemas));
    const here = (name: string) => /; Schema: (app|other|public)$|^SCHEMA (app|other);/.test(name);
    const differing = differingEntries(
      dumpEntries(cluster(), new URL(from.url).pathname.slice(1)),
      dumpEntries(cluster(), copy.name),
    );
    // Our own views, functions and publications are in no backup.
    expect(
      differing.filter((name) =>
        here(name) && !/^(?:TABLE |VIEW |FUNCTION )?(?:backup_|my_exports\b)|^holdfast_/.test(name)
      ),
    )
      .toEqual([]);
  }, 60_000);
});

describe("an idle database", () => {
  it("moves its slot without a segment a minute, and stores one when the last is old", async () => {
    const from = await source();
    const confirmed = async () =>
      String(
        (await query(
          from.url,
          "select confirmed_flush_lsn as at from pg_replication_slots where database = current_database()",
        ))[0]?.["at"],
      );
    const count = async () => (await storedChain(from.deps, from.chain)).length;
    await drainNow(from.deps);
    const [before, segments] = [await confirmed(), await count()];
    for (let tick = 0; tick < 3; tick++) {
      expect(await drainNow(from.deps, { idleSeconds: 600 })).toMatchObject({ outcome: "caught_up", segments: [] });
    }
    expect(await confirmed()).not.toBe(before);
    expect(await count()).toBe(segments);
    await query(from.url, "update backup.segments set taken_at = taken_at - interval '601 seconds'");
    expect((await drainNow(from.deps, { idleSeconds: 600 })).segments).toMatchObject([{ changes: 0 }]);
    await query(from.url, "insert into app.notes values (1, 'awake')");
    expect((await drainNow(from.deps, { idleSeconds: 600 })).segments).toMatchObject([{ changes: 1 }]);
    expect(insertedInto(await storedChain(from.deps, from.chain), "app.notes")).toEqual(["1"]);
  });
});

describe("the event triggers", () => {
  it(
    "never fail a user's command: while the publication is locked, and when two sessions make tables at once",
    async () => {
      const from = await source();
      await withClient(from.url, (a) =>
        withClient(from.url, async (b) => {
          await a.query("begin; create table app.a0 (id int primary key)");
          const start = performance.now();
          await b.query("set lock_timeout = '30s'; create table app.made_beside (id int primary key)");
          expect(performance.now() - start, "it waited for the lock, and not for long").toBeGreaterThan(450);
          await a.query("rollback");
          await a.query("begin; create table app.a1 (id int primary key)");
          await b.query("begin; create table app.b1 (id int primary key)");
          await Promise.all([
            a.query("create table app.a2 (id int primary key)"),
            b.query("create table app.b2 (id int primary key)"),
          ]);
          await Promise.all([a.query("commit"), b.query("commit")]);
          expect((await b.query("show lock_timeout")).rows).toEqual([{ lock_timeout: "30s" }]);
        }));
      expect(
        await query(
          from.url,
          "select count(*)::int as n from pg_class where relname in ('made_beside', 'a1', 'a2', 'b1', 'b2')",
        ),
      ).toEqual([{ n: 5 }]);
      await drainNow(from.deps);
      const listed = await query(
        from.url,
        `select count(*)::int as n from pg_publication_tables
        where pubname = 'holdfast_changes' and tablename in ('made_beside', 'a1', 'a2', 'b1', 'b2')`,
      );
      expect(listed).toEqual([{ n: 5 }]);
      await until("the stream goes on", async () => (await drainNow(from.deps)).outcome === "caught_up" ? true : null);
    },
    60_000,
  );
});
