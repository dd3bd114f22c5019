/** Restores of rows in legs, each of which may do one piece of work, and some of which are killed. */
import { randomInt } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import { beginRestore, orderApply, readRestore } from "../../src/shared/jobs/restore_queries.ts";
import type { RestoreRow } from "../../src/shared/jobs/restore_row.ts";
import type { Connection, Database } from "../../src/shared/postgres/connection.ts";
import type { RestoreMode } from "../../src/shared/rows/apply/difference.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { runRowsLeg } from "../../src/shared/rows/leg.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { query, useCluster } from "../support/cluster.ts";
import { seeded } from "../support/sample_app/words.ts";
import { backup, type World, world } from "./backup_fixture.ts";

const cluster = useCluster();
let w: World;
let full: string;
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
     -- Nobody is called: the test takes the legs.
     create or replace function backup.invoke(function_name text, body jsonb) returns bigint
       language sql set search_path = '' as 'select 0::bigint'`,
  );
  full = (await backup(w.deps)).id;
  then = await state();
}, 120_000);

const tables = ["app.t", "app.notes", "app.marks", "app.bag"];
/** Every row of every table, as a hash of its text. */
const state = async () =>
  await Promise.all(
    tables.map(async (table) =>
      (await query(w.url, `select md5(r::text) as row from ${table} as r order by 1`)).map((row) => String(row["row"]))
    ),
  );
let then: string[][];
/** A leg may do one piece, and no more. */
const spent = { spendText: () => {}, spent: () => true };

async function withSession<T>(use: (session: Connection) => Promise<T>): Promise<T> {
  const session = await w.deps.database.connect("test");
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}

async function plan(asked: RowsAsked): Promise<string> {
  return await withSession(async (session) =>
    (await beginRestore(session, {
      scope: asked.scope,
      mode: "beside",
      sourceBackup: full,
      pointAt: null,
      targetLabel: "test",
      targetIsHere: true,
      userId: asked.scope === "user" ? asked.choice.user : null,
      worker: "test",
      leaseSeconds: 1,
      byFunction: true,
    })).id
  );
}

async function apply(id: string, mode: RestoreMode): Promise<void> {
  await withSession(async (session) => {
    const [row] = await session.query("select current_database() as name");
    await orderApply(session, id, { mode, target: row?.["name"] ?? "", options: { safety: false } });
  });
}

class Killed extends Error {}

/** As the database, until the statement with that number: then every session of it is gone, as of a process that is killed. */
function mortal(database: Database, statements: number): Database {
  let left = statements;
  const open: Connection[] = [];
  const spend = async () => {
    if (left-- > 0) return;
    await Promise.all(open.splice(0).map((each) => each.close()));
    throw new HoldfastError("database_unreachable", "killed", { cause: new Killed() });
  };
  return {
    label: database.label,
    connect: async (name) => {
      await spend();
      const connection = await database.connect(name);
      open.push(connection);
      return {
        processId: connection.processId,
        serverVersion: connection.serverVersion,
        query: async (text, values) => {
          await spend();
          return await connection.query(text, values);
        },
        execute: async (text) => {
          await spend();
          await connection.execute(text);
        },
        copyOut: (text, onData) => connection.copyOut(text, onData),
        copyIn: async (text, source) => {
          await spend();
          return await connection.copyIn(text, source);
        },
        close: () => connection.close(),
      };
    },
  };
}

/** Takes legs until the restore has ended; `killedAfter` says before which statement the next one is killed, or null. */
async function work(
  id: string,
  asked: RowsAsked,
  killedAfter: () => number | null = () => null,
): Promise<{ row: RestoreRow; legs: number; kills: number }> {
  let [legs, kills] = [0, 0];
  for (;;) {
    const row = await withSession((session) => readRestore(session, id));
    if (row.finishedAt !== null) return { row, legs, kills };
    legs++;
    const statements = killedAfter();
    const database = statements === null ? w.deps.database : mortal(w.deps.database, statements);
    try {
      await withSession((session) =>
        runRowsLeg(
          { ...w.deps, database, open: () => Promise.resolve(w.deps) },
          session,
          id,
          { worker: "test", budget: spent, capBytes: 60_000 },
          () => Promise.resolve({ asked, all: true, mode: "merge" }),
        )
      );
    } catch (error) {
      if (error instanceof HoldfastError && error.cause instanceof Killed) kills++;
    }
    // What the watchdog waits for.
    await query(
      w.url,
      "update backup.restores set lease_until = backup.clock_now() - interval '1 s', legs_begun = 0 where id = $1 and finished_at is null",
      [id],
    );
  }
}

const asTable: RowsAsked = { scope: "table", table: { schema: "app", name: "t" } };
const asUser: RowsAsked = {
  scope: "user",
  choice: { user, as: null, credentials: false, shared: false, map: emptyMap },
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
  update app.t set body = 'gone' where id % 2 = 0; update app.t set boss = null; delete from app.t where id % 7 = 0`;

describe("a restore in legs", () => {
  it.each(
    [
      ["a table", asTable, "replace", ["app.t"]],
      ["a user", asUser, "replace", ["app.notes", "app.marks", "app.bag"]],
      ["records", asRecord, "replace", ["app.notes"]],
    ] as const,
  )("of %s gives the rows of then, each counted once", async (_what, asked, mode, restored) => {
    await query(w.url, disaster);
    const broken = await state();
    const id = await plan(asked);
    const planned = await work(id, asked);
    expect(planned.row, JSON.stringify(planned.row)).toMatchObject({ status: "beside" });
    expect(planned.legs).toBeGreaterThan(2);
    expect(await state()).toEqual(broken);
    await apply(id, mode);
    const applied = await work(id, asked);
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
    for (const asked of [asTable, asUser, asRecord]) {
      await query(w.url, disaster);
      const broken = await state();
      const id = await plan(asked);
      const sometimes = () => random.integer(3) === 0 ? null : random.integer(70);
      const planned = await work(id, asked, sometimes);
      expect(planned.row, JSON.stringify(planned.row)).toMatchObject({ status: "beside" });
      const whole = await plan(asked);
      const calm = await work(whole, asked);
      const laid = (row: RestoreRow) => row.tables.map(({ schema, name, rows }) => ({ schema, name, rows }));
      expect(laid(planned.row)).toEqual(laid(calm.row));
      await apply(id, "replace");
      const applied = await work(id, asked, sometimes);
      expect(applied.row, JSON.stringify(applied.row)).toMatchObject({ status: "succeeded" });
      expect(planned.kills + applied.kills).toBeGreaterThan(1);
      const after = await state();
      const touched = applied.row.tables.map(({ schema, name }) => `${schema}.${name}`);
      for (const [at, table] of tables.entries()) {
        expect(after[at], `${asked.scope}: ${table}`).toEqual((touched.includes(table) ? then : broken)[at]);
      }
      await apply(whole, "replace");
      expect(
        (await work(whole, asked)).row.tables.every(({ inserted, updated, deleted }) =>
          inserted === 0 && updated === 0 && deleted === 0
        ),
      ).toBe(true);
      // What this scope does not bring comes back for the next one.
      for (const rest of [asTable, asUser]) {
        const again = await plan(rest);
        await work(again, rest);
        await apply(again, "replace");
        await work(again, rest);
      }
      expect(await state()).toEqual(then);
    }
  }, 240_000);

  it("whose legs are all ended by the platform fails, and says so", async () => {
    const id = await plan(asTable);
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
    const row = await withSession((session) => readRestore(session, id));
    expect(row).toMatchObject({ status: "failed", errorCode: "run_stalled" });
  });
});
