/** Restores of rows in legs, each of which may do one piece of work, and some of which are killed. */
import { randomInt } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import type { RestoreRow } from "../../src/shared/jobs/restore_row.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { query, useCluster } from "../support/cluster.ts";
import { seeded } from "../support/sample_app/words.ts";
import { backup, type World, world } from "../integration/backup_fixture.ts";
import { isLong } from "../support/sampled.ts";
import { legsOf, uncalled, watched } from "./rows_legs_fixture.ts";

const cluster = useCluster();
let w: World;
let legs: ReturnType<typeof legsOf>;
const user = "11111111-1111-1111-1111-111111111111";
const other = "22222222-2222-2222-2222-222222222222";

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    `create schema app;
     create table app.t (id int primary key, boss int references app.t, body text not null);
     insert into app.t select i, nullif(i / 3, 0), repeat(md5(i::text), 12) from generate_series(1, 600) as i;
     insert into auth.users (id, email) values ('${user}', 'a@example.org'), ('${other}', 'b@example.org');
     create table app.notes (id int primary key, owner uuid not null references auth.users, parent int references app.notes, body text);
     insert into app.notes select i, case when i % 3 > 0 then '${other}' else '${user}' end::uuid,
         case when i > 30 and i % 3 = 0 then i - 30 end, repeat(md5(i::text), 20) from generate_series(1, 300) as i;
     create table app.marks (note int references app.notes, mark text, primary key (note, mark));
     insert into app.marks select i, m from generate_series(1, 300) as i, unnest(array['red', 'blue']) as m;
     create table app.bag (owner uuid references auth.users, x int);
     insert into app.bag select case when i % 5 > 1 then '${other}' else '${user}' end::uuid, i % 7 from generate_series(1, 300) as i;
     create table app.threads (id int primary key, owner uuid not null references auth.users);
     insert into app.threads select i, case when i = 1 then '${user}' else '${other}' end::uuid from generate_series(1, 3) as i;
     -- A reply is somebody's by way of the posts above it alone.
     create table app.posts (id int primary key, thread int references app.threads, parent int references app.posts, body text);
     insert into app.posts select i, case when i <= 3 then i end, case when i > 150 then i - 147 when i > 3 then (i - 1) % 3 + 1 end, repeat(md5(i::text), 20)
       from generate_series(1, 300) as i;
     ${uncalled}`,
  );
  legs = legsOf(w, (await backup(w.deps)).id);
  then = await state();
}, 120_000);

const tables = ["app.t", "app.notes", "app.marks", "app.bag", "app.threads", "app.posts"];
/** Every row of every table, as a hash of its text. */
const state = async () =>
  await Promise.all(
    tables.map(async (table) =>
      (await query(w.url, `select md5(r::text) as row from ${table} as r order by 1`)).map((row) => String(row["row"]))
    ),
  );
let then: string[][];

const asTable: RowsAsked = { scope: "table", table: { schema: "app", name: "t" } };
/** A key of a table to itself is followed only where somebody says so. */
const map = { ...emptyMap, keys: [{ table: { schema: "app", name: "posts" }, columns: ["parent"], follow: true }] };
const asUser: Extract<RowsAsked, { scope: "user" }> = {
  scope: "user",
  choice: { user, as: null, credentials: false, shared: false, map, replaces: true },
};
const asRecord: RowsAsked = {
  scope: "record",
  table: { schema: "app", name: "notes" },
  where: [{ column: "owner", value: user }],
};
const disaster = `
  delete from app.marks where note % 3 = 0; delete from app.bag where owner = '${user}' and x > 2;
  delete from app.notes where owner = '${user}' and id % 2 = 0 and id not in (select parent from app.notes where parent is not null);
  update app.notes set body = 'gone' where owner = '${user}' and id % 5 = 0;
  delete from app.posts where id > 250 and id % 3 = 1; update app.posts set body = 'gone' where id % 3 = 1 and id % 2 = 0;
  update app.t set body = 'gone' where id % 2 = 0; update app.t set boss = null; delete from app.t where id % 7 = 0`;

describe("a restore in legs", () => {
  it.each(
    [
      ["a table", asTable, "replace", ["app.t"]],
      ["a user", asUser, "replace", ["app.notes", "app.marks", "app.bag", "app.threads", "app.posts"]],
      ["records", asRecord, "replace", ["app.notes"]],
    ] as const,
  )("of %s gives the rows of then, each counted once", async (_what, asked, mode, restored) => {
    await query(w.url, disaster);
    const broken = await state();
    const id = await legs.plan(asked);
    const planned = await legs.work(id, asked);
    expect(planned.row, JSON.stringify(planned.row)).toMatchObject({ status: "beside" });
    expect(planned.legs).toBeGreaterThan(2);
    expect(await state()).toEqual(broken);
    await legs.apply(id, mode);
    const applied = await legs.work(id, asked);
    expect(applied.row, JSON.stringify(applied.row)).toMatchObject({ status: "succeeded", mode });
    expect(applied.legs).toBeGreaterThan(asked.scope === "record" ? 0 : 1);
    expect(applied.legs).toBeLessThan(30);
    const after = await state();
    for (const [at, table] of tables.entries()) {
      const isBack = (restored as readonly string[]).includes(table);
      expect(after[at], table).toEqual((isBack ? then : broken)[at]);
    }
    const changed = (at: number) => {
      const [was, now] = [new Set(then[at]), new Set(broken[at])];
      return {
        gone: then[at]?.filter((row) => !now.has(row)).length,
        other: broken[at]?.filter((row) => !was.has(row)).length,
      };
    };
    for (const { schema, name, inserted = 0, updated = 0, deleted = 0 } of applied.row.tables) {
      const at = tables.indexOf(`${schema}.${name}`);
      if (at < 0 || name === "bag") continue;
      expect({ gone: inserted + updated, other: updated + deleted }, name).toEqual(changed(at));
    }
  }, 120_000);

  const seed = randomInt(1_000_000_000);
  it(`that are killed at any statement give the same, seed ${seed}`, async () => {
    const random = seeded(seed);
    let kills = 0;
    await query(w.url, disaster);
    for (const asked of [asTable, asRecord, asUser]) {
      const broken = await state();
      const id = await legs.plan(asked);
      // A person's rows take minutes then: the next test kills them where the filling ends, `npm run test:long` anywhere.
      const isCalm = asked.scope === "user" && !isLong;
      const sometimes = () => isCalm || random.integer(3) === 0 ? null : random.integer(50);
      const planned = await legs.work(id, asked, { killedAfter: sometimes, atOnce: isCalm });
      expect(planned.row, JSON.stringify(planned.row)).toMatchObject({ status: "beside" });
      const whole = await legs.plan(asked);
      const calm = await legs.work(whole, asked, { atOnce: true });
      const laid = (row: RestoreRow) => row.tables.map(({ schema, name, rows }) => ({ schema, name, rows }));
      expect(laid(planned.row)).toEqual(laid(calm.row));
      await legs.apply(id, "replace");
      const applied = await legs.work(id, asked, { killedAfter: sometimes, atOnce: isCalm });
      expect(applied.row, JSON.stringify(applied.row)).toMatchObject({ status: "succeeded" });
      kills += planned.kills + applied.kills;
      const after = await state();
      const touched = applied.row.tables.map(({ schema, name }) => `${schema}.${name}`);
      for (const [at, table] of tables.entries()) {
        expect(after[at], `${asked.scope}: ${table}`).toEqual((touched.includes(table) ? then : broken)[at]);
      }
    }
    expect(await state()).toEqual(then);
    expect(kills).toBeGreaterThan(3);
  }, 240_000);

  it(
    "that is killed where the filling ends fills again to the same, and gives the rows to the new account once",
    async () => {
      const asked: RowsAsked = { ...asUser, choice: { ...asUser.choice, as: "33333333-3333-3333-3333-333333333333" } };
      await query(
        w.url,
        "insert into auth.users (id, email) values ('33333333-3333-3333-3333-333333333333', 'c@example.org')",
      );
      const calm = await legs.work(await legs.plan(asked), asked, { atOnce: true });
      const id = await legs.plan(asked);
      const open: Connection[] = [];
      let kills = 0;
      const database = watched(w.deps.database, {
        onConnect: (connection) => open.push(connection),
        before: async (text) => {
          if (kills > 0 || !text.startsWith("insert into") || !text.includes("holdfast laid")) return;
          kills++;
          await Promise.all(open.splice(0).map((each) => each.close()));
          throw new HoldfastError("database_unreachable", "killed");
        },
      });
      const { row } = await legs.work(id, asked, { atOnce: true, deps: { database } });
      expect(kills).toBe(1);
      expect(row).toMatchObject({ status: "beside" });
      expect(row.tables).toEqual(calm.row.tables);
      expect(calm.row.tables.find(({ name }) => name === "posts")?.rows).toBe(100);
    },
    60_000,
  );

  it("that replaces a user's rows deletes what was not there then, and leaves what was somebody else's", async () => {
    const before = await state();
    await query(
      w.url,
      `update app.notes set owner = '${user}' where id in (1, 2); insert into app.notes values (1001, '${user}', null, 'new')`,
    );
    const id = await legs.plan(asUser);
    const planned = await legs.work(id, asUser, { atOnce: true });
    expect(planned.row.state["warnings"]).toContainEqual(
      "2 rows of app.notes are the user's now and were not theirs alone then; replace leaves them as they are",
    );
    await legs.apply(id, "replace");
    const { row } = await legs.work(id, asUser, { atOnce: true });
    expect(row.tables.filter(({ deleted = 0 }) => deleted > 0)).toMatchObject([{ name: "notes", deleted: 1 }]);
    expect(await query(w.url, "select id, owner from app.notes where id in (1, 2, 1001)")).toEqual([
      { id: 1, owner: user },
      { id: 2, owner: user },
    ]);
    const kept: RowsAsked = { ...asUser, choice: { ...asUser.choice, replaces: false } };
    const unasked = await legs.plan(kept);
    await legs.work(unasked, kept, { atOnce: true });
    await legs.apply(unasked, "replace");
    expect((await legs.work(unasked, kept, { atOnce: true })).row).toMatchObject({
      status: "failed",
      errorCode: "run_state",
    });
    await query(w.url, `update app.notes set owner = '${other}' where id in (1, 2)`);
    expect(await state()).toEqual(before);
  }, 60_000);

  it("whose legs are all ended by the platform fails, and says so", async () => {
    const id = await legs.plan(asTable);
    for (let leg = 0; leg < 7; leg++) {
      await query(w.url, "select backup.claim_restore($1, 'killed', '1 minute')", [id]);
      await query(
        w.url,
        "update backup.restores set lease_until = backup.clock_now() - interval '1 s' where id = $1 and finished_at is null",
        [id],
      )
        .catch(() => []);
      const [row] = await query(w.url, "select status from backup.restores where id = $1", [id]);
      if (row?.["status"] === "failed") break;
    }
    const row = await legs.row(id);
    expect(row).toMatchObject({ status: "failed", errorCode: "run_stalled" });
  });
});
