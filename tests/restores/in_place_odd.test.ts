/** Definitions that are rarely altered by hand, undone by a restore in place. The oracle is pg_dump, and the rows as COPY writes them. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs } from "../support/cluster.ts";
import { goneMark, prepareGone } from "../../src/shared/restore/in_place/gone_definitions.ts";
import { ask, Ground, type Place, restoredAsItWas, withConnection } from "./in_place_fixture.ts";
import { oddChanges, oddSql } from "./in_place_odd_subject.ts";

let ground: Ground;
beforeAll(async () => {
  ground = await Ground.prepare(false, oddSql);
}, clusterMs);
afterAll(() => ground?.cluster.destroy(), clusterMs);

const side = "restore_0a1b2c3d";

const ids = (place: Place) =>
  ask(
    place,
    `select c.oid::regclass::text as name, c.oid::text, c.relacl::text, c.xmin::text,
            (select array_agg(a.attname || a.attacl::text || a.xmin order by a.attnum) from pg_attribute as a where a.attrelid = c.oid) as columns,
            (select array_agg(r.rulename || r.oid || r.xmin order by r.oid) from pg_rewrite as r where r.ev_class = c.oid and r.rulename <> '_RETURN') as rules,
            (select array_agg(t.tgname || t.oid || t.xmin order by t.oid) from pg_trigger as t where t.tgrelid = c.oid) as triggers
       from pg_class as c where c.relnamespace = 'odd'::regnamespace and c.relkind in ('v', 'm') order by 1`,
  );

describe("a view that differs", () => {
  it("is replaced where it stands: grants, triggers, rules, defaults and what stands on it are not touched", async () => {
    const place = await ground.changed("");
    const before = await ids(place);
    await ask(
      place,
      `create or replace view odd.open_noted with (security_barrier = true, check_option = local) as select id, "The Name", number from odd.noted where id > 5;
       create or replace view odd.of_key as select id, "The Name" from odd.noted where id > 1;
       grant select on odd.counted to anon; revoke select on odd.counted from anon; drop function odd.secret, odd.standard`,
    );
    const changed = await ids(place);
    const { first } = await restoredAsItWas(place, ground.kept);
    expect(
      first.steps.filter((step) => step.kind === "view").map((
        { phase, action, identity },
      ) => [phase, action, identity]),
    )
      .toEqual([["before", "alter", "view odd.open_noted"], ["after", "alter", "view odd.of_key"]]);
    const fixed = (rows: Record<string, unknown>[]) => rows.map(({ name, oid, relacl }) => ({ name, oid, relacl }));
    expect(fixed(await ids(place))).toEqual(fixed(before));
    const untouched = (rows: Record<string, unknown>[]) =>
      rows.map(({ name, columns, rules, triggers, xmin }) =>
        name === "odd.open_noted" || name === "odd.of_key"
          ? { name, columns, rules, triggers }
          : { name, columns, rules, triggers, xmin }
      );
    expect(untouched(await ids(place))).toEqual(untouched(changed));
  });

  it("is dropped and made again where its columns do not allow that, with what stands on it and all its grants", async () => {
    const place = await ground.changed(
      `create or replace view odd.open_noted as select id, "The Name", number, tags from odd.noted; create view odd.fresh as select tags from odd.open_noted`,
    );
    const { first, extra } = await restoredAsItWas(place, ground.kept);
    const dropped = first.steps.filter(({ action }) => action === "drop").map(({ identity }) => identity);
    expect(dropped).toContain("view odd.open_noted");
    expect(first.steps.find(({ identity }) => identity === "view odd.fresh")?.reason).toMatch(
      /stands on view odd.open_noted/,
    );
    expect(extra).toEqual([]);
  });

  it("is dropped where what it uses, then or now, is made anew", async () => {
    const place = await ground.changed(
      `alter table odd.typed add extra integer; create or replace view odd.of_key as select id, "The Name" from odd.noted where exists (select from odd.typed where extra > 0)`,
    );
    const { last } = await restoredAsItWas(place, ground.kept);
    expect(last.steps).toEqual([]);
  });
});

describe("a restore in place", () => {
  it("drops a schema that came since only when no column is of its types any more", async () => {
    const place = await ground.changed(
      `create schema fresh; create type fresh.mood as enum ('x'); alter table odd.typed drop constraint typed_mood_check;
       alter table odd.typed alter mood drop default; alter table odd.typed alter mood type fresh.mood using null`,
    );
    const { extra, emptied } = await restoredAsItWas(place, ground.kept, { dropExtra: true });
    expect([extra, emptied]).toEqual([[], []]);
  });

  it("drops what is computed before what it is computed from", async () => {
    const place = await ground.changed("alter table odd.computed rename a to amount");
    await restoredAsItWas(place, ground.kept, { sameDatabase: false });
  });

  it("empties a table whose values do not fit although a publication refuses to delete them", async () => {
    const place = await ground.changed(
      `alter table odd.seen drop constraint seen_region_at_id_fkey; alter table odd.seen alter id type text;
       insert into odd.seen values ('eu', '2024-01-01', 'no number'); create publication theirs for table odd.seen`,
    );
    await expect(ask(place, "delete from odd.seen")).rejects.toMatchObject({ code: "55000" });
    const { emptied, last } = await restoredAsItWas(place, ground.kept);
    expect([emptied, last.kept.map(({ identity }) => identity)]).toEqual([["odd.seen"], ["publication theirs"]]);
  });
});

describe("after an ordinary migration", () => {
  const restored = async (place: Place) => {
    await ask(place, `create schema if not exists ${side} authorization postgres`);
    return await restoredAsItWas(place, ground.kept, { sideSchema: side });
  };

  it("a partition that came since is detached with its rows, and told with the text that had attached it", async () => {
    const place = await ground.changed(
      "create table odd.metrics_2 partition of odd.metrics for values from (100, minvalue) to (200, minvalue); insert into odd.metrics values (150, 'low', 'new')",
    );
    const { gone, again } = await restored(place);
    expect(await ask(place, "select count(*)::int as n from odd.metrics")).toEqual([{ n: 5 }]);
    expect(await ask(place, "select id from odd.metrics_2")).toEqual([{ id: 150 }]);
    expect(again).toEqual([]);
    expect(gone.find(({ kind }) => kind === "partition")?.statements.join()).toMatch(/attach partition odd\.metrics_2/);
    expect((await restored(place)).steps).toBe(0);
  });

  it("a materialised view that stood in the way is filled again, and so is a view whose body came later", async () => {
    const place = await ground.changed(
      `alter table odd.orders alter v type varchar(20);
       create materialized view odd.loud as select id, upper(v) as v from odd.orders; create unique index loud_id on odd.loud (id);
       create view odd.louder as select lower(v) as v from odd.loud;
       create view odd.grouped as select id, v from odd.orders group by id`,
    );
    const { gone } = await restored(place);
    expect(gone).toEqual([]);
    expect(await ask(place, "select id, v from odd.loud order by id limit 1")).toEqual([{ id: 1, v: "V1" }]);
    expect(await ask(place, "select count(*)::int as n from odd.louder")).toEqual([{ n: 5 }]);
    expect(await ask(place, "select v from odd.grouped where id = 2")).toEqual([{ v: "v2" }]);
  });

  it("what an earlier try had taken away stays as somebody made it since, or as this backup has it", async () => {
    const place = await ground.changed(
      "create function odd.later() returns int language sql as 'select 2'; create view odd.tries as select 1 as n",
    );
    await ask(place, `create schema ${side} authorization postgres`);
    const then = (identity: string, kind: string, text: string) => ({
      ...{ identity, kind, reason: "in the way", again: true },
      statements: [`create or replace ${identity} ${text}`],
    });
    await withConnection(place, async (connection) => {
      await prepareGone(connection, side);
      const gone = [
        then("function odd.later()", "function", "returns int language sql as 'select 1'"),
        then("view odd.open_noted", "view", "as select 7 as id"),
        then("view odd.alone", "view", "as select 3 as n"),
      ];
      for (const text of goneMark(side)({ gone })) await connection.execute(text);
    });
    const { gone, again } = await restored(place);
    expect([gone, again.toSorted()]).toEqual([[], ["function odd.later()", "view odd.alone"]]);
    expect(await ask(place, "select odd.later() as later, (select n from odd.alone) as alone")).toEqual([
      { later: 2, alone: 3 },
    ]);
    const dropped = await restoredAsItWas(place, ground.kept, { sideSchema: side, dropExtra: true });
    expect(dropped.again).toEqual([]);
    expect(await ask(place, "select to_regclass('odd.alone') as alone")).toEqual([{ alone: null }]);
  });

  it("a view is told to be gone where a table has its name again", async () => {
    const place = await ground.changed(
      "drop table odd.stats; create materialized view odd.stats as select id, 1 as n from odd.orders",
    );
    const { gone, again } = await restored(place);
    expect(again).toEqual([]);
    expect(gone.find(({ identity }) => identity === "materialized view odd.stats")).toMatchObject({
      reason: expect.stringContaining("something else has its name"),
      statements: expect.arrayContaining([expect.stringContaining("create materialized view odd.stats")]),
    });
  });

  it("how many values statistics keep is what it was, set or not", async () => {
    const place = await ground.changed(
      "alter statistics odd.aimed set statistics -1; alter statistics odd.noted_both set statistics 9",
    );
    const { steps } = await restored(place);
    expect(steps).toBe(2);
  });

  it("a table that was renamed aside and replaced gets its index names, and the one aside keeps its rows", async () => {
    const place = await ground.changed(
      `create table odd.orders_new (id integer primary key, v text unique, extra text); insert into odd.orders_new select id, v, 'new' from odd.orders;
       alter table odd.orders rename to orders_old; alter table odd.orders_new rename to orders`,
    );
    await restored(place);
    expect(await ask(place, "select count(*)::int as n from odd.orders_old")).toEqual([{ n: 5 }]);
  });

  it("a partition key of another type, or of a type that was made anew, leads to another table with the same rows", async () => {
    const place = await ground.changed(
      `alter table odd.metrics rename to gone; alter table odd.metrics_1 rename to gone_1;
       alter table odd.gone rename constraint metrics_pkey to g; alter table odd.gone_1 rename constraint metrics_1_pkey to g1;
       create table odd.metrics (id bigint not null, level odd.level not null, v text, primary key (id, level)) partition by range (id, level);
       create table odd.metrics_1 partition of odd.metrics for values from (0, minvalue) to (100, minvalue);
       insert into odd.metrics select * from odd.gone; drop table odd.gone`,
    );
    await restored(place);
    const remade = await ground.changed(
      `drop table odd.metrics; drop type odd.level; create type odd.level as enum ('high', 'low');
       create table odd.metrics (id integer not null, level odd.level not null, v text, primary key (id, level)) partition by range (id, level);
       create table odd.metrics_1 partition of odd.metrics for values from (0, minvalue) to (100, minvalue);
       insert into odd.metrics select i, 'low', 'v' from generate_series(1, 5) i`,
    );
    await restored(remade);
  });

  it("a renamed table gets its name back from the view that was left in its place", async () => {
    const place = await ground.changed(
      `alter table odd.accounts rename to profiles; create view odd.accounts as select * from odd.profiles;
       grant select on odd.accounts to anon; create view odd.on_view as select id from odd.accounts`,
    );
    const { first, gone } = await restored(place);
    expect(first.steps.slice(0, 3).map(({ action, identity }) => `${action} ${identity}`)).toEqual([
      "drop view odd.on_view",
      "drop view odd.accounts",
      "alter table odd.accounts",
    ]);
    expect(gone.map(({ identity, statements }) => `${identity}: ${statements[0]}`)).toEqual([
      expect.stringMatching(/^view odd\.accounts: [^]* FROM odd\.profiles/),
    ]);
  });

  it("a table that came since with a column of a row type that changes is refused by what it has", async () => {
    const place = await ground.changed(
      "create table odd.holder (id integer, whole odd.orders); alter table odd.orders add more text",
    );
    await expect(restored(place)).rejects.toMatchObject({
      code: "definitions_stuck",
      message: expect.stringMatching(/^table odd\.holder: .* has a column of the row type of table odd\.orders/),
    });
  });
});

/** One change of each area at a time, which takes a fraction of the time of each by itself; those that move everything alone. */
function rounds(): [string, string][] {
  const { alone = {}, ...areas } = oddChanges;
  const lists = Object.values(areas).map((changes) => Object.entries(changes));
  const together = Array.from({ length: Math.max(...lists.map((list) => list.length)) }, (_, at) => {
    const chosen = lists.flatMap((list) => list.slice(at, at + 1));
    return [chosen.map(([name]) => name).join("; "), chosen.map(([, sql]) => sql).join(";")] as [string, string];
  });
  return [...together, ...Object.entries(alone)];
}

describe("a restore in place undoes changes of", () => {
  it.each(rounds())("%s", async (_, changes) => {
    const place = await ground.changed(changes);
    const { first, last } = await restoredAsItWas(place, ground.kept);
    expect(first.steps.length).toBeGreaterThan(0);
    expect(last.steps).toEqual([]);
  });
});

/** Some of these, as 17 has other catalogs; it has neither pg_cron nor pg_dump here. */
describe("on PostgreSQL 17", () => {
  let newer: Ground;
  beforeAll(async () => {
    newer = await Ground.prepare(false, oddSql, 17);
  }, clusterMs);
  afterAll(() => newer?.cluster.destroy(), clusterMs);

  it.each(rounds().slice(0, 3))("are undone: %s", async (_, changes) => {
    const place = await newer.changed(changes);
    const { first, last } = await restoredAsItWas(place, newer.kept);
    expect(first.steps.length).toBeGreaterThan(0);
    expect(last.steps).toEqual([]);
  });
});
