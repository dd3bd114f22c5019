/** Tables of which changes are missing, and that had another name when that happened. */
import { beforeAll, describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { planPoint, type PointChoices } from "../../src/shared/changes/replay/restore_point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, until } from "./backup_fixture.ts";
import { drainNow, mortalSource, query, restored, type Source, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster({ settings: { max_replication_slots: "20" } });
const schemas = ["app", "side", "Moved"];

const computed = "add column r float8 default random()";
const end: Point = { by: "end" };
const plan = (from: Source, point: Point, choices: PointChoices = {}) =>
  planPoint(
    { ...from.deps, target: { label: "none", connect: () => Promise.reject(new Error("not asked")) } },
    point,
    choices,
  );

describe("tables whose values were computed anew, and that were renamed", () => {
  let from: Source;
  let atFull: Record<string, string>;
  const open = ["app.entries", "app.people_old", '"Moved".things'];

  beforeAll(async () => {
    from = await mortalSource(cluster());
    await query(
      from.url,
      `create schema app; create schema side;
       create table app.notes (id int primary key, t text); insert into app.notes select i, 'old' from generate_series(1, 20) as i;
       create table app.people (like app.notes including all); insert into app.people select * from app.notes;
       create table app.gone (like app.notes including all); insert into app.gone select * from app.notes;
       create table side.things (like app.notes including all); insert into side.things select * from app.notes;`,
    );
    await drainNow(from.deps);
    await backup(from.deps);
    atFull = await tableHashes(from.url, schemas);
    for (
      const sql of [
        `alter table app.notes ${computed}`,
        "insert into app.notes (id, t) values (100, 'under the old name')",
        "alter table app.notes rename to entries",
        "insert into app.entries (id, t) values (101, 'under the new name')",
        // The usual exchange: the old name is another table's then.
        "update app.people set t = 'before' where id < 5",
        `alter table app.people ${computed}`,
        "alter table app.people rename to people_old",
        "create table app.people (id int primary key, t text)",
        "insert into app.people values (1, 'new')",
        "update app.people_old set t = 'after' where id > 15",
        `alter table app.gone ${computed}`,
        "insert into app.gone (id, t) values (100, 'x')",
        "drop table app.gone",
        "create table app.gone (id int primary key)",
        "insert into app.gone values (7)",
        `alter table side.things ${computed}`,
        'alter schema side rename to "Moved"',
        `update "Moved".things set t = 'after' where id = 1`,
      ]
    ) await query(from.url, sql);
    await drainNow(from.deps);
  }, 120_000);

  it("are refused by their names at the point, with those of then; one that is gone by then is in nobody's way", async () => {
    const error: unknown = await plan(from, end).then(() => null, (thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "tables_uncovered" });
    const told = (error as Error).message.replace(/ALTER TABLE of \S+ at \S+ computed its values anew/g, "…");
    expect(told).toBe(
      "changes may be missing of app.entries (formerly app.notes: …), app.people_old (formerly app.people: …), " +
        '"Moved".things (formerly side.things: …)',
    );
  });

  it("are left out by either name, and all else is as at the source", async () => {
    const source = await tableHashes(from.url, schemas);
    const others = Object.entries(source).filter(([name]) => !open.includes(name));
    expect(others.map(([name]) => name)).toEqual(["app.gone", "app.people"]);
    for (const withoutTables of [open, ["app.notes", "app.people_old", "side.things"]]) {
      expect((await plan(from, end, { withoutTables })).choices.withoutTables).toEqual(open);
      const copy = await restored(cluster(), from.deps, end, { withoutTables });
      const found = await tableHashes(copy.url, schemas);
      expect(found).toEqual({
        ...Object.fromEntries(others),
        ...Object.fromEntries(open.map((one) => [one, found[one]])),
      });
      for (const one of open) expect(await query(copy.url, `select from ${one}`), one).toEqual([]);
    }
  }, 60_000);

  it("stay as of the full by either name", async () => {
    for (const choice of [open, ["app.notes", "app.people_old", "side.things"]]) {
      const copy = await restored(cluster(), from.deps, end, { atFull: choice });
      for (
        const [now, was] of [["app.entries", "app.notes"], ["app.people_old", "app.people"], [
          '"Moved".things',
          "side.things",
        ]]
      ) {
        const [row] = await query(
          copy.url,
          `select count(*) || ':' || md5(string_agg(w::text, e'\\n' order by w::text collate "C")) as hash
             from (select id, t from ${now}) as w`,
        );
        expect(row?.["hash"], now).toBe(atFull[was ?? ""]);
      }
      expect(await query(copy.url, "select * from app.people")).toEqual([{ id: 1, t: "new" }]);
    }
  }, 60_000);

  it("are not meant by a name that another table has at the point", async () => {
    const choices = { withoutTables: ["app.notes", "app.people", "side.things"] };
    await expect(plan(from, end, choices)).rejects.toMatchObject({
      code: "tables_uncovered",
      message: expect.stringMatching(/^changes may be missing of app\.people_old \([^,]*\)$/) as string,
    });
  });

  it("are not both left out and as of the full, by two names", async () => {
    const both = { withoutTables: ["app.notes"], atFull: ["app.entries"] };
    await expect(plan(from, end, both)).rejects.toMatchObject({ code: "usage" });
  });
});

describe("a table without identity that was changed unseen and renamed", () => {
  it("is refused by its name at the point, before and behind the renaming, and left out by either", async () => {
    const from = await mortalSource(cluster());
    await query(
      from.url,
      "create schema app; create table app.loose (id int, t text); insert into app.loose values (1, 'old')",
    );
    await drainNow(from.deps);
    await backup(from.deps);
    await drainNow(from.deps);
    await query(from.url, "update app.loose set t = 'unseen'");
    await until("it is counted", async () => {
      const [row] = await query(
        from.url,
        "select n_tup_upd::int as n from pg_stat_user_tables where relname = 'loose'",
      );
      return row?.["n"] === 1 ? true : null;
    });
    const [row] = await query(from.url, "select pg_current_wal_insert_lsn()::text as lsn");
    const before: Point = { by: "lsn", lsn: parseLsn(String(row?.["lsn"])) };
    await query(from.url, "alter table app.loose rename to free");
    await drainNow(from.deps);

    for (const [point, name, other] of [[before, "app.loose", "later app.free"], [end, "app.free", ""]] as const) {
      await expect(plan(from, point)).rejects.toMatchObject({
        code: "tables_uncovered",
        message: expect.stringMatching(new RegExp(`missing of ${name} \\(${other}`)) as string,
      });
    }
    await expect(restored(cluster(), from.deps, before, { withoutTables: ["app.free"] })).rejects.toMatchObject({
      code: "tables_uncovered",
    });
    const early = await restored(cluster(), from.deps, before, { withoutTables: ["app.loose"] });
    expect(await query(early.url, "select from app.loose")).toEqual([]);
    const late = await restored(cluster(), from.deps, end, { withoutTables: ["app.loose"] });
    expect(await query(late.url, "select from app.free")).toEqual([]);
  }, 60_000);
});
