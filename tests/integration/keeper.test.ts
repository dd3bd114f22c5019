import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { defaultKeeperOptions, type Keeper, openKeeper } from "../../src/shared/backup/keeper.ts";
import { inSnapshot, openSession } from "../../src/shared/backup/session.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { createLog } from "../../src/shared/log.ts";
import type { Connection, Database } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { useCluster } from "../support/cluster.ts";
import {
  backup,
  installedDatabase,
  manifestOf,
  query,
  tableIn,
  textOf,
  until,
  withClient,
  world,
} from "./backup_fixture.ts";

const cluster = useCluster();
const run = "11111111-1111-4111-8111-111111111111";
let url = "";
let database: Database;
const keepers: Keeper[] = [];
const sessions: Connection[] = [];

beforeAll(async () => {
  url = await installedDatabase(cluster());
  database = openDatabase({ url });
}, 180_000);

afterEach(async () => {
  for (const keeper of keepers.splice(0)) {
    await query(url, "select pg_terminate_backend($1::int)", [keeper.facts.keeperPid]);
  }
  for (const session of sessions.splice(0)) await session.close();
});

/** A keeper; `atStep` runs before the session goes on after the named step. */
async function keep(atStep: (step: string) => void = () => {}, from: Database = database): Promise<Keeper> {
  const log = createLog((line) => atStep(line.event), "debug");
  const keeper = await openKeeper({ database: from, clock: systemClock, log }, defaultKeeperOptions);
  keepers.push(keeper);
  return keeper;
}

async function reader(): Promise<Connection> {
  const session = await openSession(database, "holdfast:test");
  sessions.push(session);
  return session;
}

const alive = async (pid: number) =>
  (await query(url, "select 1 from pg_stat_activity where pid = $1", [pid])).length > 0;

/** Runs a statement in a session of its own and says when it was through, in milliseconds from the call. */
async function timed(statement: string): Promise<number> {
  const start = performance.now();
  await query(url, statement);
  return performance.now() - start;
}

describe("the keeper", () => {
  it("locks before its snapshot: a TRUNCATE that comes while it locks is either seen whole or waits", async () => {
    await query(url, "create table early (i int); insert into early select generate_series(1, 100)");
    await query(url, "create table late (i int); insert into late select generate_series(1, 100)");
    // `late` is truncated while the keeper waits for its lock on `early`; the transaction that holds `early` has no part in it.
    await withClient(url, async (client) => {
      await client.query("begin; lock table early in access exclusive mode");
      const opening = keep();
      await until(
        "the keeper waits",
        async () =>
          (await query(url, "select 1 from pg_locks where not granted and relation = 'early'::regclass")).length > 0
            ? true
            : null,
      );
      await query(url, "truncate late");
      await query(url, "insert into late values (7)");
      await client.query("commit");
      const keeper = await opening;
      keeper.hold(run, 1);
      const session = await reader();
      const rows = await inSnapshot(session, keeper.facts.name, [], () => session.query("select i from public.late"));
      expect(rows).toEqual([{ i: "7" }]);
      const table = keeper.tables.find((each) => each.name === "late");
      expect(table?.relfilenode).toBe(table?.presentFilenode);
    });
  });

  it("starts over when a table was made while it locked", async () => {
    await query(url, "create table blocker (i int)");
    await withClient(url, async (client) => {
      await client.query("begin; lock table blocker in access exclusive mode");
      const opening = keep();
      await until(
        "the keeper waits",
        async () =>
          (await query(url, "select 1 from pg_locks where not granted and relation = 'blocker'::regclass")).length > 0
            ? true
            : null,
      );
      await query(url, "create table newcomer as select 1 as i");
      await client.query("commit");
      const keeper = await opening;
      expect(keeper.tables.map((table) => table.name)).toContain("newcomer");
      const held = await query(
        url,
        "select 1 from pg_locks where pid = $1 and relation = 'newcomer'::regclass and granted",
        [
          keeper.facts.keeperPid,
        ],
      );
      expect(held).toHaveLength(1);
    });
  });

  it("yields to a TRUNCATE within five seconds", async () => {
    await query(url, "create table wanted (i int); insert into wanted values (1)");
    const keeper = await keep();
    keeper.hold(run, 1);
    expect(await timed("truncate wanted")).toBeLessThan(5_000);
    await until("the keeper is gone", async () => await alive(keeper.facts.keeperPid) ? null : true);
    const session = await reader();
    await expect(inSnapshot(session, keeper.facts.name, [], () => Promise.resolve())).rejects.toMatchObject({
      code: "keeper_lost",
    });
  });

  it("yields to a CREATE INDEX CONCURRENTLY, which waits for its snapshot", async () => {
    await query(url, "create table indexed (i int)");
    const keeper = await keep();
    keeper.hold(run, 1);
    expect(await timed("create index concurrently on indexed (i)")).toBeLessThan(8_000);
    await until("the keeper is gone", async () => await alive(keeper.facts.keeperPid) ? null : true);
  });

  it("stays while others read and write its tables", async () => {
    await query(url, "create table busy (i int)");
    const keeper = await keep();
    keeper.hold(run, 1);
    for (let i = 0; i < 5; i++) {
      await query(url, "insert into busy values (1); update busy set i = 2; select * from busy");
    }
    await query(url, "vacuum busy");
    expect(await alive(keeper.facts.keeperPid)).toBe(true);
  });

  it("gives up with lock_timeout when a table stays locked, and leaves nothing behind", async () => {
    await query(url, "create table kept_away (i int)");
    await withClient(url, async (client) => {
      await client.query("begin; lock table kept_away in access exclusive mode");
      const log = createLog(() => {});
      const options = { ...defaultKeeperOptions, lockTimeoutMs: 200 };
      await expect(openKeeper({ database, clock: systemClock, log }, options)).rejects.toMatchObject({
        code: "lock_timeout",
      });
      await client.query("rollback");
    });
    await until(
      "its session has ended",
      async () =>
        (await query(
            url,
            "select 1 from pg_stat_activity where application_name = 'holdfast:keeper' and datname = current_database()",
          ))
            .length === 0
          ? true
          : null,
    );
  });

  it("outlives a process that is killed, and its snapshot can still be imported", async () => {
    const child = spawn(
      fileURLToPath(new URL("../../node_modules/.bin/deno", import.meta.url)),
      ["run", "-A", "--no-lock", fileURLToPath(new URL("./keeper_child.ts", import.meta.url))],
      { env: { ...process.env, TEST_DATABASE_URL: url }, stdio: ["ignore", "pipe", "inherit"], detached: true },
    );
    try {
      const facts = await new Promise<Keeper["facts"]>((resolve, reject) => {
        createInterface({ input: child.stdout }).once("line", (line) => resolve(JSON.parse(line) as Keeper["facts"]));
        child.once("exit", (code) => reject(new Error(`the child ended with ${code}`)));
      });
      await until(
        "the keeper sleeps",
        async () =>
          (await query(url, "select 1 from pg_stat_activity where pid = $1 and query like '%backup.keep%'", [
              facts.keeperPid,
            ])).length > 0
            ? true
            : null,
      );
      const closed = new Promise((resolve) => child.once("close", resolve));
      killGroup(child);
      await closed;
      // Two of its looks at the locks later it is still there.
      await query(url, "select pg_sleep(1.2)");
      expect(await alive(facts.keeperPid)).toBe(true);
      const session = await reader();
      await inSnapshot(session, facts.name, [], () => session.query("select 1"));
      await query(url, "select pg_terminate_backend($1::int)", [facts.keeperPid]);
      await until("it was ended", async () => await alive(facts.keeperPid) ? null : true);
    } finally {
      killGroup(child);
    }
  });

  it("names the table that the role may not read", async () => {
    const superuser = cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1));
    await query(superuser, "create role stranger login password 'p'; grant usage on schema public to stranger");
    try {
      await query(url, "create table secret_table (i int)");
      const strange = openDatabase({ url: url.replace(/\/\/[^@]+@/, "//stranger:p@") });
      await expect(keep(() => {}, strange)).rejects.toMatchObject({ code: "table_unreadable" });
    } finally {
      await query(superuser, "drop owned by stranger; drop role stranger");
    }
  });
});

describe("a run whose definitions change under its snapshot", () => {
  it("begins a new attempt when an enum's label was renamed, and the text is of one catalog", async () => {
    let renamed = false;
    const { deps, url: own } = await world(cluster(), {
      onLine: (line) => {
        if (line.event !== "step:attempt.exported" || renamed) return;
        renamed = true;
        void query(own, "alter type mood rename value 'sad' to 'gloomy'");
      },
    });
    await query(
      own,
      "create type mood as enum ('sad', 'ok'); create table moods (m mood); insert into moods values ('sad')",
    );
    const row = await backup(deps);
    expect(renamed).toBe(true);
    expect(row.status).toBe("succeeded");
    expect(row.attempt).toBe(2);
    expect(await textOf(deps, tableIn(await manifestOf(deps, row), "public", "moods"))).toBe("gloomy\n");
  });

  it("fails with catalog_changed when they never stop changing", async () => {
    let changes = 0;
    const { deps, url: own } = await world(cluster(), {
      onLine: (line) => {
        if (line.event === "step:attempt.exported") void query(own, `create type changing_${++changes} as enum ('a')`);
      },
    });
    await expect(backup(deps)).rejects.toMatchObject({ code: "catalog_changed" });
    expect(changes).toBe(5);
    expect(
      await query(
        own,
        "select 1 from pg_stat_activity where application_name = 'holdfast:keeper' and datname = current_database()",
      ),
    )
      .toEqual([]);
  });
});

/** npm's `deno` starts the real one: both have to go. */
function killGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}
