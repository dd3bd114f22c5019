/** Restores in legs, and what people, other legs and the database's own settings do to them meanwhile. */
import { createHash, createHmac, randomInt, randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import { callHeaders } from "../../src/shared/http/caller.ts";
import type { RestoreDoorDeps } from "../../src/shared/http/door.ts";
import { handleRestore } from "../../src/shared/http/handle_restore.ts";
import { createIsolateBudget } from "../../src/shared/http/isolate_budget.ts";
import { createLegSlot } from "../../src/shared/http/leg_slot.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { outlineFiles } from "../../src/shared/files/files_leg.ts";
import { outlineFull, runFullLeg } from "../../src/shared/restore/legs.ts";
import { inDatabase } from "../../src/shared/restore/new_database.ts";
import type { RowsAsked } from "../../src/shared/rows/asked.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { quoteIdent } from "../../src/shared/schema/quote.ts";
import { backup, type World, world } from "../integration/backup_fixture.ts";
import { legsOf, uncalled, watched } from "../restores/rows_legs_fixture.ts";
import { query, useCluster } from "../support/cluster.ts";
import { seeded } from "../support/sample_app/words.ts";

const cluster = useCluster();
let w: World;
let full: string;
let legs: ReturnType<typeof legsOf>;
const user = "aaaaaaaa-1111-1111-1111-111111111111";
/** As our own in a side schema, or hard to write. */
const strange = [
  ...["steps", "laid", "request", "asked", "delta 1", "before 1", "then 1", "others 1"].map((name) =>
    `holdfast ${name}`
  ),
  'a "quoted". name',
  "größe 表",
  "x".repeat(63),
];
const odd = ["it's\nback\\slash", "\\N", "null", "tab\there $1", "\\.", "", "x".repeat(3000)];

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    `create schema app;
     insert into auth.users (id, email) values ('${user}', 'a@example.org');
     create table app.t (id int primary key, boss int references app.t, body text not null);
     insert into app.t select i, nullif(i / 3, 0), repeat(md5(i::text), 12) from generate_series(1, 600) as i;
     create table app.notes (id int primary key, owner uuid references auth.users, parent int references app.notes, body text);
     insert into app.notes select i, '${user}', case when i > 30 then i - 30 end, 'note ' || i from generate_series(1, 90) as i;
     create table app.bag (x int);
     insert into app.bag select i % 7 from generate_series(1, 50) as i;
     create table app.odd (id int primary key, v text, body text);
     ${
      strange.map(quoteIdent).map((name) =>
        `create table app.${name} (id int primary key, owner uuid references auth.users, "end" text);
         insert into app.${name} select i, '${user}', 'value ' || i from generate_series(1, 20) as i`
      ).join(";\n")
    };
     ${uncalled}`,
  );
  for (const [at, value] of odd.entries()) {
    await query(w.url, "insert into app.odd values ($1, $2, 'then'), ($3, $4, 'then')", [
      at,
      value,
      100 + at,
      `${value}!`,
    ]);
  }
  full = (await backup(w.deps)).id;
  legs = legsOf(w, full);
}, 120_000);

const table = (name: string): RowsAsked => ({ scope: "table", table: { schema: "app", name } });
const records = (name: string, column: string, value: string): RowsAsked => ({
  scope: "record",
  table: { schema: "app", name },
  where: [{ column, value }],
});
const asUser: RowsAsked = {
  scope: "user",
  choice: { user, as: null, credentials: false, shared: false, map: emptyMap, replaces: true },
};
const rowsOf = async (name: string) =>
  (await query(w.url, `select r::text as row from app.${quoteIdent(name)} as r order by 1`)).map((row) =>
    String(row["row"])
  );
const codeOf = (error: unknown) => error instanceof HoldfastError ? error.code : String(error);

async function planned(asked: RowsAsked): Promise<string> {
  const id = await legs.plan(asked);
  expect((await legs.work(id, asked)).row).toMatchObject({ status: "beside", errorMessage: null });
  return id;
}

async function applied(id: string, asked: RowsAsked, mode: "merge" | "replace") {
  await legs.apply(id, mode);
  const { row } = await legs.work(id, asked);
  expect(row).toMatchObject({ status: "succeeded", errorMessage: null });
  return row;
}

describe("a restore in legs", () => {
  it("brings back a user's rows, whatever tables are called", async () => {
    const then = await Promise.all(strange.map(rowsOf));
    for (const name of strange) await query(w.url, `delete from app.${quoteIdent(name)} where id % 2 = 0`);
    await applied(await planned(asUser), asUser, "replace");
    expect(await Promise.all(strange.map(rowsOf))).toEqual(then);
  }, 60_000);

  it.each(["holdfast laid", "holdfast before 1"])("brings back a table that is called %s", async (name) => {
    const then = await rowsOf(name);
    await query(w.url, `delete from app.${quoteIdent(name)} where id % 2 = 0`);
    await applied(await planned(table(name)), table(name), "replace");
    expect(await rowsOf(name)).toEqual(then);
  });

  it("finds records by any text", async () => {
    const then = await rowsOf("odd");
    for (const value of odd) {
      await query(w.url, "update app.odd set body = 'now' where v = $1", [value]);
      const asked = records("odd", "v", value);
      const { tables } = await applied(await planned(asked), asked, "replace");
      expect(tables).toMatchObject([{ inserted: 0, updated: 1, deleted: 0 }]);
    }
    expect(await rowsOf("odd")).toEqual(then);
  }, 60_000);

  it("writes no value of a row anywhere but into its side schema", async () => {
    await query(w.url, "update app.odd set v = 'a secret of now' where v = 'null'");
    const asked = records("odd", "v", "null");
    await applied(await planned(asked), asked, "replace");
    await query(w.url, "alter table app.odd alter v type int using id");
    const id = await planned(table("odd"));
    await legs.apply(id, "merge");
    expect((await legs.work(id, table("odd"))).row).toMatchObject({ status: "failed", errorCode: "value_unfit" });
    await query(w.url, "alter table app.odd alter v type text");
    await applied(id, table("odd"), "replace");
    const told = await query(
      w.url,
      `select r::text from backup.restores as r union all select a::text from backup.audit_log as a
       union all select a::text from backup.alerts as a union all select c::text from backup.calls as c`,
    );
    for (const text of [JSON.stringify(told), JSON.stringify(w.lines)]) {
      for (const value of ["a secret of now", "it's", "tab\\there", "x".repeat(64)]) expect(text).not.toContain(value);
    }
  });

  it("gives nobody what lies beside, whatever default privileges and publications say", async () => {
    const everybody = "anon, authenticated, service_role, public";
    const change = (given: "grant" | "revoke", direction: "to" | "from") =>
      `alter default privileges ${given} all on tables ${direction} ${everybody};
       alter default privileges ${given} usage on schemas ${direction} ${everybody}`;
    const admin = cluster().plainUrl(cluster().superuser, new URL(w.url).pathname.slice(1));
    await query(admin, "create publication everything for all tables");
    await query(w.url, change("grant", "to"));
    try {
      for (const asked of [records("notes", "id", "3"), asUser]) {
        const { sideSchema } = await legs.row(await planned(asked));
        const open = await query(
          w.url,
          `select c.relname::text from pg_class as c left join aclexplode(c.relacl) as a on a.grantee <> c.relowner
            where c.relnamespace = to_regnamespace($1) and c.relkind = 'r' and (a.grantee is not null or not c.relrowsecurity)
           union select 'the schema' from pg_namespace as n cross join aclexplode(n.nspacl) as a
            where n.nspname = $1 and a.grantee <> n.nspowner`,
          [sideSchema],
        );
        expect(open).toEqual([]);
      }
    } finally {
      await query(w.url, change("revoke", "from"));
      await query(admin, "drop publication everything");
    }
  });

  it("raises an alert where it fails behind a step that it committed, and goes on once that is mended", async () => {
    const then = await rowsOf("t");
    await query(w.url, "update app.t set body = 'gone'");
    const id = await planned(table("t"));
    await legs.apply(id, "merge");
    await legs.leg(id, table("t"));
    await legs.letGo(id);
    expect(await legs.row(id)).toMatchObject({ status: "applying" });
    await query(
      w.url,
      `create function app.f() returns trigger language plpgsql as 'begin return null; end';
       create trigger fires after insert on app.t for each row execute function app.f();
       alter table app.t enable always trigger fires`,
    );
    expect((await legs.work(id, table("t"))).row).toMatchObject({ status: "failed", errorCode: "triggers_would_fire" });
    const open = "select kind from backup.alerts where subject = $1 and resolved_at is null";
    expect(await query(w.url, open, [`restore:${id}`])).toEqual([{ kind: "restore_failed" }]);
    // Whoever orders it so lets the trigger fire.
    await legs.apply(id, "merge", { safety: false, fireTriggers: true });
    const { row } = await legs.work(id, table("t"));
    expect(row).toMatchObject({ status: "succeeded", tables: [{ inserted: 0, updated: 600, deleted: 0 }] });
    await query(w.url, "drop trigger fires on app.t");
    expect(await query(w.url, open, [`restore:${id}`])).toEqual([]);
    expect(await rowsOf("t")).toEqual(then);
  }, 60_000);

  it("changes nothing where the disk has no room for it", async () => {
    const asked = records("notes", "id", "3");
    const id = await planned(asked);
    await query(w.url, "update app.notes set body = 'now' where id = 3");
    const then = await rowsOf("notes");
    await query(w.url, "update backup.settings set value = '1' where name = 'disk_mb'");
    try {
      await legs.apply(id, "merge");
      expect((await legs.work(id, asked)).row).toMatchObject({ status: "failed", errorCode: "space_missing" });
      expect(await rowsOf("notes")).toEqual(then);
    } finally {
      await query(w.url, "update backup.settings set value = '0' where name = 'disk_mb'");
    }
    await applied(id, asked, "merge");
  });

  it("reads rows of a record again as their owner, also where a leg was killed behind its commit", async () => {
    const asked = records("notes", "id", "90");
    const id = await planned(asked);
    await query(w.url, "delete from app.notes where id = 90");
    await legs.apply(id, "merge");
    const before = (text: string) =>
      text.includes('and d."done") as')
        ? Promise.reject(new HoldfastError("database_unreachable", "killed"))
        : Promise.resolve();
    const { failed } = await legs.leg(id, asked, { deps: { database: watched(w.deps.database, { before }) } }).then(
      () => ({ failed: false }),
      () => ({ failed: true }),
    );
    expect(failed).toBe(true);
    expect(await rowsOf("notes")).toHaveLength(90);
    await applied(id, asked, "merge");
    expect((await legs.row(id)).state["readBack"]).toMatchObject([{ rows: 1 }]);
  });

  it("keeps its side schema where it ends badly while rows go into place, also when its time is over", async () => {
    const id = await planned(table("notes"));
    await legs.apply(id, "merge");
    await query(w.url, "update backup.restores set side_expires_at = backup.clock_now() where id = $1", [id]);
    await query(w.url, "select backup.cancel_restore($1)", [id]);
    await query(w.url, "select backup.watch_restores()");
    expect(await legs.row(id)).toMatchObject({ status: "cancelled", sideDroppedAt: null });
    await applied(id, table("notes"), "merge");
  });

  it("deletes nothing for rows that somebody took away beside", async () => {
    const then = await rowsOf("notes");
    const id = await planned(table("notes"));
    const { sideSchema } = await legs.row(id);
    await query(w.url, `delete from ${sideSchema}.notes where id = 7`);
    await legs.apply(id, "replace");
    expect((await legs.work(id, table("notes"))).row).toMatchObject({ status: "failed", errorCode: "run_state" });
    expect(await rowsOf("notes")).toEqual(then);
  });

  it("is put into place once, however many order it and work on it at once", async () => {
    const then = await rowsOf("t");
    await query(w.url, "update app.t set body = 'gone'");
    const id = await planned(table("t"));
    const orders = await Promise.all([1, 2, 3].map(() => legs.apply(id, "merge").then(() => "ordered", codeOf)));
    expect(orders.toSorted()).toEqual(["ordered", "run_state", "run_state"]);
    await Promise.all([1, 2, 3].map(() => legs.leg(id, table("t")).catch(() => {})));
    await legs.letGo(id);
    expect((await legs.work(id, table("t"))).row).toMatchObject({ status: "succeeded", tables: [{ updated: 600 }] });
    expect(await rowsOf("t")).toEqual(then);
    await expect(legs.leg(id, table("t"))).rejects.toMatchObject({ code: "run_state" });
    await expect(legs.apply(id, "merge")).rejects.toMatchObject({ code: "run_state" });
  }, 60_000);

  it("that was overtaken while it laid rows changes nothing of what the next leg laid", async () => {
    const id = await legs.plan(table("bag"));
    let isOver = false;
    const database = watched(w.deps.database, {
      before: async (text) => {
        if (isOver || !text.startsWith("copy")) return;
        isOver = true;
        await legs.letGo(id);
        await legs.work(id, table("bag"));
      },
    });
    await legs.leg(id, table("bag"), { deps: { database } }).catch(() => {});
    const row = await legs.row(id);
    expect(row).toMatchObject({ status: "beside", sideDroppedAt: null });
    expect(await query(w.url, `select count(*)::int as n from ${row.sideSchema}.bag`)).toEqual([{ n: 50 }]);
  });

  const seed = randomInt(1_000_000_000);
  it(`overtaken or cancelled at any statement counts each row once, seed ${seed}`, async () => {
    const random = seeded(seed);
    for (const asked of [table("t"), asUser]) {
      const name = asked.scope === "table" ? "t" : "notes";
      const then = await rowsOf(name);
      const interrupted = async (id: string, below: number, by: () => Promise<unknown>) => {
        let at = random.integer(below);
        const before = async () => void (at-- === 0 && await by());
        await legs.leg(id, asked, { deps: { database: watched(w.deps.database, { before }) } }).catch(() => {});
        await legs.letGo(id);
      };
      const overtake = (id: string) => async () => {
        await legs.letGo(id);
        await legs.leg(id, asked).catch(() => {});
        await legs.letGo(id);
      };
      await query(w.url, `update app.${name} set body = 'gone' where id % 3 = 0`);
      const id = await legs.plan(asked);
      await interrupted(id, 60, overtake(id));
      expect((await legs.work(id, asked)).row).toMatchObject({ status: "beside", errorMessage: null });
      await legs.apply(id, "merge");
      await interrupted(id, 100, overtake(id));
      await interrupted(id, 100, () => query(w.url, "select backup.cancel_restore($1)", [id]).catch(() => {}));
      const { row } = await legs.work(id, asked);
      const end = row.status === "succeeded" ? row : await applied(id, asked, "merge");
      expect(end.tables.find((one) => one.name === name)).toMatchObject({
        inserted: 0,
        updated: then.length / 3,
        deleted: 0,
      });
      expect(await rowsOf(name)).toEqual(then);
    }
  }, 120_000);
});

describe("the safety backup of a restore in legs", () => {
  it("is one that began after the order: whatever else ends, nothing is changed before it", async () => {
    let ms = 0;
    const clock = {
      ...w.deps.clock,
      monotonicMs: () => ms,
      sleep: (length: number) => Promise.resolve(void (ms += length)),
    };
    const active = async () =>
      (await query(w.url, "select id, tiers::text from backup.runs where status = 'queued'"))[0] ?? {};
    const asked = table("notes");
    const then = await rowsOf("notes");
    await query(w.url, "update app.notes set body = 'gone'");
    const broken = await rowsOf("notes");
    const id = await planned(asked);
    const leg = async () => {
      await legs.leg(id, asked, { deps: { clock } }).catch(() => {});
      await legs.letGo(id);
    };
    for (const end of ["select backup.cancel_run($1)", "select backup.fail_run($1, 'store_unreachable', 'no store')"]) {
      await query(w.url, "select backup.request_run('full', array['manual'], 'cli', $1)", [end]);
      await legs.apply(id, "merge", { safety: true });
      await leg();
      expect(await active()).toMatchObject({ tiers: "{manual}" });
      await query(w.url, "select backup.cancel_run($1)", [(await active())["id"]]);
      await leg();
      const { id: run, tiers } = await active();
      expect(tiers).toBe("{safety}");
      await query(w.url, end, [run]);
      await leg();
      expect(await legs.row(id)).toMatchObject({ status: "failed", errorCode: "run_state", safetyRun: null });
      expect(await rowsOf("notes")).toEqual(broken);
    }
    await applied(id, asked, "merge");
    expect(await rowsOf("notes")).toEqual(then);
  }, 60_000);
});

const secret = "a worker secret that is long enough to be one";
const unspent = { spendText: () => {}, spendCalls: () => {}, spent: () => false };
const asIs = (database: Database) => database;

const fullDeps = (wrap: typeof asIs = asIs) => ({
  database: wrap(w.deps.database),
  inDatabase: (name: string) => wrap(openDatabase(inDatabase({ url: w.url }, name))),
  clock: w.deps.clock,
  log: w.deps.log,
  open: () => Promise.resolve(w.deps),
});

/** The function as its callers meet it; legs are not begun. */
async function call(request: object): Promise<{ status: number; document: Record<string, unknown> }> {
  const deps: RestoreDoorDeps = {
    environment: { BACKUP_WORKER_SECRET: secret },
    clock: w.deps.clock,
    random: w.deps.random,
    log: w.deps.log,
    waitUntil: () => {},
    slot: createLegSlot(),
    budget: createIsolateBudget(w.deps.clock),
    checkPerson: () => Promise.reject(new Error("no person calls")),
    letIn: () => Promise.reject(new Error("no person calls")),
    countRefusal: () => Promise.resolve(0),
    openDatabase: () => w.deps.database,
    requireStored: () => Promise.reject(new Error("the database knows its backups")),
    outlineFull: async (connection, wanted) => await outlineFull(fullDeps(), connection, wanted),
    outlineFiles: async (connection, wanted) => await outlineFiles(w.deps, connection, wanted),
    restore: () => Promise.resolve(),
  };
  const body = JSON.stringify(request);
  const [timestamp, nonce] = [String(Math.floor(Date.now() / 1000)), randomUUID()];
  const lines = ["restore", timestamp, nonce, createHash("sha256").update(body).digest("hex")].join("\n");
  const headers = {
    [callHeaders.timestamp]: timestamp,
    [callHeaders.nonce]: nonce,
    [callHeaders.signature]: createHmac("sha256", secret).update(lines).digest("hex"),
  };
  const url = "https://project.test/functions/v1/restore";
  const response = await handleRestore(new Request(url, { method: "POST", headers, body }), deps);
  return { status: response.status, document: await response.json() as Record<string, unknown> };
}

describe("the function restore", () => {
  const plan = { action: "plan", scope: "record", backup: "latest", table: "app.odd" };

  it("refuses texts that no database takes", async () => {
    for (const value of ["a\u0000b", "\ud800"]) {
      const { document } = await call({ ...plan, where: [{ column: "v", value }] });
      expect(document).toMatchObject({ code: "payload_invalid" });
    }
  });

  it("tells one person as one, however their id is written", async () => {
    const user = "AAAAAAAA-1111-1111-1111-111111111111";
    const { document } = await call({ action: "plan", scope: "user", backup: "latest", user });
    expect((await legs.row(String(document["restore"]))).userId).toBe(user.toLowerCase());
    await call({ action: "cancel", restore: document["restore"] });
  });

  it("leaves nothing of a plan that is cancelled, before its first leg or under one", async () => {
    const { document: { restore } } = await call({ ...plan, where: [{ column: "v", value: "secret" }] });
    expect(await call({ action: "cancel", restore })).toMatchObject({ status: 200, document: { cancelled: true } });
    const under = await legs.plan(table("t"));
    const before = async (text: string) => {
      if (!text.startsWith("copy")) return;
      expect(await call({ action: "cancel", restore: under })).toMatchObject({ status: 202 });
    };
    await legs.leg(under, table("t"), { deps: { database: watched(w.deps.database, { before }) } }).catch(() => {});
    await query(w.url, "select backup.watch_restores()");
    for (const id of [String(restore), under]) {
      const { status, sideSchema } = await legs.row(id);
      expect(status).toBe("cancelled");
      expect(await query(w.url, "select from pg_namespace where nspname = $1", [sideSchema])).toEqual([]);
    }
  });

  it("takes no leg of what the CLI began", async () => {
    const restore = await planned(table("notes"));
    await query(w.url, "update backup.restores set next_leg_at = null where id = $1", [restore]);
    expect((await call({ action: "leg", restore })).document).toMatchObject({ code: "run_state" });
  });

  it("leaves rows as they lie beside where it was not asked for them over HTTP", async () => {
    const restore = await planned(table("notes"));
    const [here] = await query(w.url, "select current_database() as name");
    const { document } = await call({ action: "apply", restore, mode: "merge", confirm: here?.["name"] });
    expect(document).toMatchObject({ code: "run_state" });
    expect(await legs.row(restore)).toMatchObject({ status: "beside" });
  });
});

describe("a full backup into a new database, in legs", () => {
  const outline = async () => (await call({ action: "full", backup: full })).document;
  const order = async () => {
    const { database } = await outline();
    return String((await call({ action: "full", backup: full, confirm: database })).document["restore"]);
  };
  const leg = async (id: string, wrap: typeof asIs = asIs, budget = unspent) => {
    const session = await wrap(w.deps.database).connect("test");
    try {
      await runFullLeg(fullDeps(wrap), session, id, { worker: "test", budget });
    } finally {
      await session.close();
    }
  };
  const isThere = async (database: unknown) =>
    await query(
      w.url,
      `select datallowconn as open, exists (
         select from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) as a where a.grantee = 0
       ) as public from pg_database as d where datname = $1`,
      [database],
    );

  it("asks for room before it makes anything", async () => {
    await query(w.url, "update backup.settings set value = '1' where name = 'disk_mb'");
    try {
      const id = await order();
      await expect(leg(id)).rejects.toMatchObject({ code: "space_missing" });
      expect(await legs.row(id)).toMatchObject({ status: "failed", errorCode: "space_missing" });
      expect(await isThere((await outline())["database"])).toEqual([]);
    } finally {
      await query(w.url, "update backup.settings set value = '0' where name = 'disk_mb'");
    }
  });

  it("is one restore, however often it is asked for, and ends when it is cancelled under a leg", async () => {
    const id = await order();
    expect(await order()).toBe(id);
    const before = async (text: string) =>
      void (text.includes("create database") && await query(w.url, "select backup.cancel_restore($1)", [id]));
    await leg(id, (database) => watched(database, { before }), { ...unspent, spent: () => true });
    expect(await legs.row(id)).toMatchObject({ status: "cancelled" });
  }, 60_000);

  it("lets nobody in, also where a leg was killed while it made the database", async () => {
    const { database } = await outline();
    await query(cluster().plainUrl(cluster().superuser, "postgres"), `drop database "${String(database)}"`);
    for (const killedAt of [/revoke connect/, /alter database/]) {
      const before = (text: string) =>
        killedAt.test(text) ? Promise.reject(new HoldfastError("database_unreachable", "killed")) : Promise.resolve();
      await leg(await order(), (each) => watched(each, { before })).catch(() => {});
      expect(await isThere(database)).toMatchObject([{ open: false }]);
    }
    const id = await order();
    await leg(id);
    expect(await legs.row(id)).toMatchObject({ status: "succeeded" });
    expect(await isThere(database)).toEqual([{ open: true, public: false }]);
  }, 60_000);
});
