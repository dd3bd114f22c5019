/** Restores to moments, against the hashes that the source had at those moments. */
import { randomInt } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { drain, processDrainLimits } from "../../src/shared/changes/drain/drain.ts";
import { planPoint, type PointOptions, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { createLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { releaseHeld } from "../../src/shared/restore/release.ts";
import { freshDatabase, useCluster } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;

async function drainAll() {
  const result = await drain(w.deps, { worker: "test", budget: unlimited, limits: processDrainLimits, idleSeconds: 0 });
  expect(result.outcome).toBe("caught_up");
  return result;
}

/** A hash of every row of every table of schema `app`, by table. */
async function hashes(url: string): Promise<Record<string, string>> {
  const tables = await query(
    url,
    `select c.relname as name from pg_class c where c.relnamespace = to_regnamespace('app') and c.relkind = 'r' order by 1`,
  );
  const found: Record<string, string> = {};
  for (const { name } of tables) {
    const [row] = await query(
      url,
      `select md5(coalesce(string_agg(whole_row::text, e'\\n' order by whole_row::text collate "C"), '')) as hash from app."${name}" as whole_row`,
    );
    found[String(name)] = String(row?.["hash"]);
  }
  return found;
}

async function restoreTo(lsn: string, options: PointOptions = {}) {
  const name = await freshDatabase(cluster(), { platform: false });
  const target = openDatabase({ url: cluster().plainUrl(cluster().superuser, name) });
  const deps = { ...w.deps, target };
  const plan = await planPoint(deps, { by: "lsn", lsn: parseLsn(lsn) });
  const result = await restorePoint(deps, plan, options);
  return { url: cluster().plainUrl(cluster().superuser, name), result, plan };
}

async function now(): Promise<string> {
  const [row] = await query(w.url, "select pg_current_wal_insert_lsn()::text as lsn");
  return String(row?.["lsn"]);
}

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    `create schema app;
     create type app.mood as enum ('calm', 'sad');
     create table app.notes (id int primary key, t text, mood app.mood, at timestamptz default now());
     create table app.pairs (a int, b text, n numeric, primary key (a, b));
     create table app.whole (x int, y text);
     alter table app.whole replica identity full;
     create table app.parts (id int, k int, v text, primary key (id, k)) partition by list (k);
     create table app.parts_1 partition of app.parts for values in (1);
     create table app.parts_2 partition of app.parts for values in (2);
     create sequence app.numbers;
     insert into app.notes select i, 'note ' || i, 'calm' from generate_series(1, 500) as i;
     insert into app.pairs select i, 'b' || i, i / 3.0 from generate_series(1, 300) as i;
     insert into app.whole select i % 7, 'y' || i % 3 from generate_series(1, 60) as i;`,
  );
  await drainAll();
  await backup(w.deps);
}, 240_000);

describe("a restore to a moment", () => {
  it("gives what the source had after each of many transactions, with definitions changed between them", async () => {
    const points: { lsn: string; hashes: Record<string, string>; what: string }[] = [];
    const seed = randomInt(1e9);
    let random = seed;
    const next = (below: number) => {
      random = (random * 1103515245 + 12345) % 2147483648;
      return Math.floor(random / 2147483648 * below);
    };
    const works = [
      () =>
        `insert into app.notes select i, md5(i::text), 'sad' from generate_series(${1000 + next(10) * 100}, ${
          1000 + next(1000)
        }) as i on conflict do nothing`,
      () => `update app.notes set t = t || '${next(100)}' where id % ${2 + next(9)} = 0`,
      () => `delete from app.notes where id % ${20 + next(50)} = 1`,
      () => `update app.pairs set a = a + 10000 where a % ${5 + next(20)} = 0`,
      () => `insert into app.whole values (1, 'y1'), (1, 'y1'), (${next(9)}, null)`,
      () => `delete from app.whole where ctid = (select min(ctid) from app.whole where x = ${next(7)})`,
      () => `update app.whole set y = 'z' where x = ${next(7)} and y = 'y1'`,
      () =>
        `insert into app.parts select i, 1 + i % 2, 'v' || i from generate_series(${next(1000)}, ${
          next(1000) + 50
        }) as i on conflict do nothing`,
      () =>
        `update app.parts set k = 3 - k where id % 11 = ${
          next(11)
        } and not exists (select from app.parts p where p.id = parts.id and p.k = 3 - parts.k)`,
      () =>
        `begin; savepoint s; insert into app.notes values (99999, 'gone'); rollback to s; update app.notes set mood = 'sad' where id < ${
          next(300)
        }; commit`,
      () => `begin; delete from app.notes; rollback`,
      () => `update app.notes set t = repeat(md5(random()::text), 400) where id in (${next(400)}, ${next(400)})`,
      () => `update app.notes set mood = 'calm' where length(t) > 5000`,
      () => `truncate app.whole`,
      () => `select nextval('app.numbers') from generate_series(1, ${next(40)})`,
    ];
    const definitions = [
      "create table app.made (id int generated always as identity primary key, v text default 'd')",
      "insert into app.made (v) select 'm' || i from generate_series(1, 50) as i",
      "alter table app.notes add column extra int default 7",
      "update app.notes set extra = id where id % 3 = 0",
      "alter type app.mood add value 'gloomy'",
      "update app.notes set mood = 'gloomy' where id % 13 = 0",
      "alter table app.notes rename column t to body; alter table app.notes rename column body to t",
      "create index concurrently notes_t on app.notes (mood)",
      "alter table app.pairs drop column n; alter table app.pairs add column n2 numeric",
      "update app.made set v = upper(v)",
      "drop table app.made",
      "alter table app.notes drop column extra",
      "create table app.later as select * from app.pairs",
      "do $$ begin create table app.inside (id int primary key); insert into app.inside values (1); end $$",
    ];
    for (let step = 0; step < 60; step++) {
      const definition = step % 4 === 3 ? definitions.shift() : undefined;
      const what = definition ?? works[next(works.length)]?.() ?? "";
      await query(w.url, what);
      points.push({ lsn: await now(), hashes: await hashes(w.url), what });
      if (next(5) === 0) await drainAll();
    }
    await drainAll();
    const picked = points.filter((_, index) => index % 6 === 5 || index === points.length - 1);
    for (const point of picked) {
      const { url, result } = await restoreTo(point.lsn);
      expect(await hashes(url), `seed ${seed}, after: ${point.what}`).toEqual(point.hashes);
      expect(result.ok).toBe(true);
    }
  }, 240_000);

  it("that was broken off is released by nobody, and goes on in one place at a time", async () => {
    for (let round = 0; round < 3; round++) {
      await query(w.url, `insert into app.whole select i, 'late' from generate_series(1, 50) as i`);
      await query(w.url, `alter table app.whole add column late_${round} int default ${round}`);
    }
    await drainAll();
    const name = await freshDatabase(cluster(), { platform: false });
    const url = cluster().plainUrl(cluster().superuser, name);
    const target = openDatabase({ url });
    const plan = await planPoint({ ...w.deps, target }, { by: "end" });
    let groups = 0;
    const breaking = createLog((line) => {
      if (line.event === "step:replay.group" && ++groups === 2) throw new Error("broken off");
    }, "debug");
    await expect(restorePoint({ ...w.deps, target, log: breaking }, plan)).rejects.toThrow("broken off");
    await expect(releaseHeld(target, ["all"])).rejects.toMatchObject({ code: "run_state" });

    const both = await Promise.allSettled([1, 2].map(() => restorePoint({ ...w.deps, target }, plan)));
    expect(both.filter((each) => each.status === "fulfilled")).toHaveLength(1);
    expect(both.find((each) => each.status === "rejected")).toMatchObject({ reason: { code: "run_state" } });
    expect(await hashes(url)).toEqual(await hashes(w.url));
  }, 60_000);
});
