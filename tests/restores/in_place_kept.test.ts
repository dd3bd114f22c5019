/** A full restore in place beside what came after the backup, or belongs to others: nothing of it is lost unsaid. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli } from "../integration/cli_fixture.ts";
import type { DefinitionPlan } from "../../src/shared/restore/in_place/change_format.ts";
import { clusterMs, query } from "../support/cluster.ts";
import { ask, Ground, inParts, type Place, remember, restoredAsItWas, restoreInPlace } from "./in_place_fixture.ts";

const subject = `
create schema k;
create type k.mood as enum ('a', 'b');
create type k.pair as (x integer, y integer);
create table k.parent (id integer primary key, n integer);
create table k.child (extra text) inherits (k.parent);
create table k.t (id integer primary key, v text);
create table k.m (id integer primary key, f k.mood, p k.pair);
create table k.parted (id integer primary key) partition by range (id);
create table k.parted_1 partition of k.parted for values from (0) to (100);
create materialized view k.still as select id from k.t with no data;
create table k.theirs (id integer primary key, v text);
create index theirs_v on k.theirs (v);
insert into k.parent values (1, 10), (2, 20);
insert into k.child values (3, 30, 'x');
insert into k.t values (1, 'one'), (2, 'two');
insert into k.m values (1, 'a', (1, 2)), (2, 'b', (3, 4));
insert into k.parted values (1), (2);
`;

let ground: Ground;
beforeAll(async () => {
  ground = await Ground.prepare(true, subject);
  const superuser = ground.cluster.plainUrl(ground.cluster.superuser);
  await query(superuser, "create role alice; create role bob");
}, clusterMs);
afterAll(() => ground?.cluster.destroy(), clusterMs);

const side = "restore_0a1b2c3d";

/** Without the roles of this file, which no capture of its subject has. */
const ofSubject = (notes: DefinitionPlan["kept"]) =>
  notes.filter(({ identity }) => identity !== "role alice" && identity !== "role bob");

/** As the superuser, remembered as what was. */
async function own(sql: string): Promise<{ place: Place; kept: Awaited<ReturnType<typeof remember>> }> {
  const place = await ground.changed("");
  await ask(place, sql);
  return { place, kept: await remember(place) };
}

describe("a table that came after the backup", () => {
  it("and inherits from one whose columns change is refused in the plan, and keeps its rows", async () => {
    const place = await ground.changed(
      `alter table k.parent alter n type text; update k.parent set n = 'abc' where id in (1, 3);
       create table k.kid (more text) inherits (k.parent); insert into k.kid values (7, 'abc', 'mine'), (8, '9', 'too')`,
    );
    const refusal = await restoreInPlace(place, ground.kept).then(() => null, (error) => error);
    expect(refusal).toMatchObject({
      code: "definitions_stuck",
      message: expect.stringMatching(/^table k\.kid: .*NO INHERIT/),
    });
    expect(await ask(place, "select id, n from k.kid order by id")).toEqual([{ id: 7, n: "abc" }, { id: 8, n: "9" }]);
    // Taken out of the family it is nobody's business; of those that stay all rows come back.
    await query(place.cluster.plainUrl("postgres", place.database), "alter table k.kid no inherit k.parent");
    const { emptied } = await restoredAsItWas(place, ground.kept);
    expect(emptied).toEqual(["k.parent", "k.child"]);
    expect(await ask(place, "select id, n from k.kid order by id")).toEqual([{ id: 7, n: "abc" }, { id: 8, n: "9" }]);
  });

  it("is refused where values of an enum or a composite type would get another meaning or be lost", async () => {
    const other = await ground.changed(
      `alter table k.m alter f type text; drop type k.mood; create type k.mood as enum ('a', 'c');
       update k.m set f = 'a'; alter table k.m alter f type k.mood using f::k.mood;
       create table k.feel (f k.mood); insert into k.feel values ('c')`,
    );
    const refused = await restoreInPlace(other, ground.kept).then(() => null, (error) => error);
    expect(refused).toMatchObject({ code: "definitions_stuck", message: expect.stringContaining("table k.feel") });
    expect(await ask(other, "select f::text from k.feel")).toEqual([{ f: "c" }]);

    const wider = await ground.changed(
      `alter type k.pair add attribute z text cascade; create table k.feel (p k.pair); insert into k.feel values ((1, 2, 'mine'))`,
    );
    const stuck = await restoreInPlace(wider, ground.kept).then(() => null, (error) => error);
    expect(stuck).toMatchObject({ code: "definitions_stuck", message: expect.stringContaining("table k.feel") });
    expect(await ask(wider, "select (p).z from k.feel")).toEqual([{ z: "mine" }]);

    const renamed = await ground.changed("alter type k.mood rename value 'b' to 'c'");
    const { first } = await restoredAsItWas(renamed, ground.kept);
    expect(first.steps.map(({ statements }) => statements)).toEqual([["alter type k.mood rename value 'c' to 'b'"]]);
  });
});

describe("what stands on something that goes", () => {
  const changes = `
    alter table k.t alter v type varchar(10); alter table k.t add fresh text;
    create view k.later as select upper(v) as v from k.t; grant select on k.later to anon;
    create view k.on_later as select v from k.later; create view k.of_fresh as select fresh from k.t;
    create table k.kept (id integer references k.t (id), other integer); insert into k.kept values (1, 2);
    drop table k.parted; create table k.parted (id integer primary key) partition by hash (id);
    create table k.parted_1 partition of k.parted for values with (modulus 1, remainder 0); insert into k.parted values (2);
    alter table k.kept add constraint kept_other foreign key (other) references k.parted (id)`;

  const afterwards = async (place: Place) => ({
    views: await ask(place, "select viewname from pg_views where schemaname = 'k' order by 1"),
    keys: await ask(
      place,
      "select conname from pg_constraint where conrelid = 'k.kept'::regclass and conparentid = 0 order by 1",
    ),
    anon: await ask(place, "select has_table_privilege('anon', 'k.later', 'select') as yes"),
  });
  const expected = {
    views: [{ viewname: "later" }, { viewname: "on_later" }],
    keys: [{ conname: "kept_id_fkey" }, { conname: "kept_other" }],
    anon: [{ yes: true }],
  };

  it("is made again once its text works, and what cannot be is told with it", async () => {
    const place = await ground.changed(changes);
    await ask(place, `create schema ${side} authorization postgres`);
    const { first, gone, again, extra, last } = await restoredAsItWas(place, ground.kept, { sideSchema: side });
    expect(await afterwards(place)).toEqual(expected);
    expect([...again].sort()).toEqual(expect.arrayContaining(["view k.later", "view k.on_later"]));
    expect(again.some((one) => one.includes("kept_other"))).toBe(true);
    expect(gone.map(({ identity, statements }) => [identity, statements.length > 0])).toEqual([
      ["view k.of_fresh", true],
      ["column fresh of k.t", false],
    ]);
    expect(gone[0]?.statements.join()).toMatch(/create or replace view k\.of_fresh/i);
    expect(extra.length).toBeGreaterThan(0);
    expect(last.steps).toEqual([]);
    expect(first.steps.filter(({ reason }) => reason.endsWith("made again if it still can")).length).toBeGreaterThan(2);
  });

  it("is made again by the call that goes on after a kill", async () => {
    const place = await ground.changed(changes);
    await ask(place, `create schema ${side} authorization postgres`);
    const parts = await inParts(place, ground.kept, { sideSchema: side });
    while (await parts.stoppedAfterOneStep("before"));
    await parts.rows();
    const { gone } = await parts.after();
    await parts.close();
    expect(await afterwards(place)).toEqual(expected);
    expect(gone.map(({ identity }) => identity)).toEqual(["view k.of_fresh", "column fresh of k.t"]);
  });
});

describe("what belongs to a role that the restoring one may not act for", () => {
  it("is refused before anything is done where something on its table is missing or came", async () => {
    const missing = await own("alter table k.theirs owner to alice");
    await ask(missing.place, "drop index k.theirs_v");
    const refusal = await restoreInPlace(missing.place, missing.kept).then(() => null, (error) => error);
    expect(refusal).toMatchObject({
      code: "definitions_stuck",
      message: "index k.theirs_v: it is missing, but table k.theirs belongs to alice, whom postgres may not act for",
    });
    const came = await own("alter table k.theirs owner to alice");
    await ask(came.place, "create policy hole on k.theirs using (true); create index more on k.theirs (id, v)");
    const other = await restoreInPlace(came.place, came.kept).then(() => null, (error) => error);
    expect(other).toMatchObject({ code: "definitions_stuck", message: expect.stringContaining("belongs to alice") });
    const policy = await own("alter table k.theirs owner to alice; create policy fine on k.theirs using (false)");
    await ask(policy.place, "drop policy fine on k.theirs");
    const third = await restoreInPlace(policy.place, policy.kept).then(() => null, (error) => error);
    expect(third).toMatchObject({
      code: "definitions_stuck",
      message: expect.stringContaining("policy fine on k.theirs: it is missing"),
    });
  });

  it("stays and is told where it is a grant or a default", async () => {
    const { place, kept } = await own(
      `grant usage on schema k to alice, bob; grant select on k.t to alice with grant option;
       set role alice; grant select on k.t to bob; reset role`,
    );
    await ask(
      place,
      "set role alice; revoke select on k.t from bob; alter default privileges grant select on tables to bob; reset role; grant insert on k.t to bob",
    );
    const { last } = await restoreInPlace(place, kept);
    expect(last.steps).toEqual([]);
    expect(last.kept.map(({ reason }) => reason)).toEqual([
      "grants that alice made differ and stay: postgres may not act for alice",
      expect.stringContaining("of alice, whom postgres may not act for"),
    ]);
    expect(await ask(place, "select has_table_privilege('bob', 'k.t', 'insert') as yes")).toEqual([{ yes: false }]);
  });

  it("or to the platform is told: grants on its tables, attributes of its roles", async () => {
    const place = await ground.changed("");
    await ask(place, "grant select on auth.users to anon; alter role authenticated bypassrls");
    const parts = await inParts(place, ground.kept);
    const plan = await parts.plan();
    await parts.close();
    await ask(place, "alter role authenticated nobypassrls");
    expect(ofSubject(plan.kept).map(({ identity, reason }) => `${identity}: ${reason.split(";")[0]}`)).toEqual([
      "role authenticated: its attributes differ: now alter role authenticated bypassrls",
      expect.stringMatching(/^table auth\.users: its grants differ: now grant select on table auth\.users to anon/),
    ]);
  });
});

it("a materialised view that was empty and is filled now is told", async () => {
  const place = await ground.changed("refresh materialized view k.still");
  const { last } = await restoreInPlace(place, ground.kept);
  expect(ofSubject(last.kept).map(({ reason }) => reason)).toEqual([
    "it holds rows, which it did not when the backup was taken",
  ]);
});

describe("jobs of pg_cron", () => {
  const place = () => ({ cluster: ground.cluster, database: "postgres", role: "postgres" });
  const jobs = () =>
    ask(place(), "select schedule, command, active, database from cron.job where jobname is null order by jobid");

  it("without a name come back once, one for each that there was, and then nothing is left to do", async () => {
    await query(
      place().cluster.plainUrl("postgres"),
      `select cron.schedule('1 1 * * *', 'select 1'); select cron.schedule('1 1 * * *', 'select 1');
       select cron.alter_job(cron.schedule('2 2 * * *', 'select 1'), active => false)`,
    );
    const [was, kept] = [await jobs(), await remember(place())];
    await query(
      place().cluster.plainUrl("postgres"),
      "select cron.unschedule(jobid) from cron.job where jobname is null and schedule <> '2 2 * * *'; select cron.schedule('3 3 * * *', 'select 1')",
    );
    await restoreInPlace(place(), kept, { dropExtra: true });
    expect((await jobs()).map((job) => JSON.stringify(job)).sort()).toEqual(
      was.map((job) => JSON.stringify(job)).sort(),
    );
    // As an older capture names them, by a number.
    const older = {
      ...kept,
      capture: {
        ...kept.capture,
        definitions: kept.capture.definitions.map((one, at) =>
          one.identity.startsWith("cron job without a name")
            ? { ...one, identity: `cron job without a name (${900 + at}) of postgres` }
            : one
        ),
      },
    };
    expect((await restoreInPlace(place(), older, { dropExtra: true })).steps).toBe(0);
  });

  it("of another database stay when extra objects go", async () => {
    const kept = await remember(place());
    await ask(place(), "select cron.schedule_in_database('others', '0 3 * * *', 'select 1', 'template1', 'postgres')");
    const { last } = await restoreInPlace(place(), kept, { dropExtra: true });
    expect(await ask(place(), "select database from cron.job where jobname = 'others'")).toEqual([{
      database: "template1",
    }]);
    expect(last.kept.map(({ reason }) => reason)).toEqual(["it came after the backup, and runs in another database"]);
    await ask(place(), "select cron.unschedule(jobid) from cron.job where jobname = 'others'");
  });
});

describe("restore-full --apply replace", () => {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-kept-"));
  let settings: Record<string, string> = {};
  let [source, admin, backup] = ["", "", ""];

  const run = async (...args: string[]) => {
    const { exit, document, stderr } = await cli([...args, "--json"], settings);
    return { exit, document: document as Record<string, unknown>, stderr };
  };
  const replace = (...more: string[]) => run("restore-full", backup, "--apply", "replace", "--yes", ...more);
  const closed = async () => (await query(source, "select closed from backup.maintenance"))[0]?.["closed"];

  beforeAll(async () => {
    const database = "postgres";
    const { superuser } = ground.cluster;
    [source, admin] = [ground.cluster.plainUrl("postgres", database), ground.cluster.plainUrl(superuser, database)];
    settings = {
      BACKUP_DB_URL: ground.cluster.url("postgres", database),
      BACKUP_STORE: `file://${folder}/store`,
      BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    };
    const begun = await run("init");
    expect(begun.exit, begun.stderr + JSON.stringify(begun.document)).toBe(0);
    await query(
      source,
      `${subject}
      create table k.counted (id integer generated by default as identity primary key); insert into k.counted values (default);
      create function k.ratio() returns integer language sql volatile as 'select 1 / (max(id) - 2) from k.t'`,
    );
    await query(admin, "alter table k.theirs owner to alice; grant select on k.theirs to postgres");
    const made = await run("create");
    expect(made.exit, made.stderr).toBe(0);
    backup = String(made.document["id"]);
  }, clusterMs);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it("is refused before the project is closed where rows of a table cannot be written", async () => {
    await query(admin, "insert into k.theirs values (5, 'new')");
    const refused = await replace();
    expect(refused.document).toMatchObject({
      error: { code: "database_denied", message: expect.stringContaining("k.theirs belongs to alice") },
    });
    expect(await closed()).toBe(false);
    await query(admin, "delete from k.theirs");
  }, 120_000);

  it(
    "puts rows back into types that differ, with rows beside of them, and a view that fails ends nothing",
    async () => {
      await query(
        source,
        `alter table k.m alter f type text; drop type k.mood; create type k.mood as enum ('b', 'a');
       alter table k.m alter f type k.mood using f::k.mood; create view k.seen as select f from k.m`,
      );
      // Rows beside that hold the type that is there now.
      const beside = await run("restore-table", "k.m", backup);
      expect(beside.exit, beside.stderr).toBe(0);
      const other = String(beside.document["sideSchema"] ?? beside.document["schema"]);
      await query(
        source,
        `alter type k.pair drop attribute y cascade; alter type k.pair add attribute w integer cascade;
       insert into k.t values (3, 'three'); create materialized view k.broken as select k.ratio() as r`,
      );
      const done = await replace();
      expect(done.document, done.stderr).toMatchObject({
        ok: false,
        differences: [expect.stringContaining("k.broken")],
        definitions: { again: ["view k.seen"], gone: [] },
      });
      expect(await closed()).toBe(false);
      expect(await query(source, "select id, f::text, p::text from k.m order by id")).toEqual([
        { id: 1, f: "a", p: "(1,2)" },
        { id: 2, f: "b", p: "(3,4)" },
      ]);
      expect(await query(source, `select id, f::text from ${other}.m order by id`)).toEqual([{ id: 1, f: "a" }, {
        id: 2,
        f: "b",
      }]);
      await query(source, "drop materialized view k.broken; drop view k.seen");
    },
    180_000,
  );

  it("puts back what a label that has another name now was called", async () => {
    await query(source, "alter type k.mood rename value 'b' to 'c'");
    const plan = await run("restore-full", backup, "--apply", "replace", "--dry-run");
    expect(plan.document).toMatchObject({ dryRun: true, waiting: [{ table: "k.m", rows: 2 }] });
    const done = await replace();
    expect(done.document, JSON.stringify(done.document["checks"])).toMatchObject({ ok: true, differences: [] });
    expect(await query(source, "select f::text from k.m order by id")).toEqual([{ f: "a" }, { f: "b" }]);
  }, 180_000);

  it("is validated: what went on or stays is no difference, what hangs on objects of the backup is", async () => {
    await query(
      source,
      "insert into k.counted values (default); delete from k.counted where id > 1; create table k.later (id integer primary key)",
    );
    const fine = await run("validate");
    expect(fine.document, fine.stderr).toMatchObject({ ok: true, differences: [] });
    await query(
      source,
      `create policy hole on k.t to anon using (true); create rule nothing as on delete to k.t do instead nothing;
       create function k.eat() returns trigger language plpgsql as 'begin return null; end';
       create trigger eat before insert on k.t for each row execute function k.eat(); alter table k.t enable row level security;
       create table k.parted_2 (id integer not null); alter table k.parted attach partition k.parted_2 for values from (100) to (200);
       alter default privileges in schema k grant all on tables to anon`,
    );
    await query(admin, "grant select on auth.users to anon; alter role authenticated bypassrls");
    const found = await run("validate");
    await query(admin, "revoke select on auth.users from anon; alter role authenticated nobypassrls");
    expect(found.exit).toBe(3);
    const { differences, notCompared } = found.document as Record<
      string,
      { name?: string; identity?: string; reason?: string }[]
    >;
    const names = (differences ?? []).map(({ name }) => name ?? "");
    for (const what of ["policy hole", "rule nothing", "trigger eat", "row security", "k.parted_2", "default acl"]) {
      expect(names.some((name) => name.includes(what)), `${what} in ${names.join("; ")}`).toBe(true);
    }
    expect(names).not.toContain("table k.later");
    const said = (notCompared ?? []).map(({ identity, reason }) => `${identity}: ${reason}`);
    expect(said).toEqual(expect.arrayContaining([
      expect.stringMatching(/^table auth\.users: .*to anon/),
      expect.stringMatching(/^role authenticated: .*bypassrls/),
      "table k.later: it came after the backup",
    ]));
  }, 120_000);

  it("a merge is validated by the rows that it put back; columns that are gone since are named", async () => {
    await query(source, "drop rule nothing on k.t; drop trigger eat on k.t; insert into k.t values (9, 'more')");
    const merged = await run("restore-full", backup, "--apply", "merge", "--yes");
    expect(merged.exit, merged.stderr).toBe(0);
    const fine = await run("validate");
    expect(fine.document, fine.stderr).toMatchObject({ ok: true, differences: [] });
    await query(source, "drop materialized view k.still; alter table k.t drop column v cascade");
    const lost = await run("validate");
    expect(lost.document).toMatchObject({
      ok: false,
      differences: [{ kind: "rows", name: "table k.t", detail: "column v of then is not there under its name" }],
    });
  }, 180_000);
});
