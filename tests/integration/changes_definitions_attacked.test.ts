/** Definitions changed in ways that a replay got wrong once: under other settings, more than once, inside of functions. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import pg from "pg";
import { beforeAll, describe, expect, it } from "vitest";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { freshDatabase, useCluster } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { cases, schemaOf } from "./changes_definitions_cases.ts";
import { drainNow, restored, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster();

function definitionsOf(url: string, schema: string): string[] {
  const text = execFileSync(
    join(cluster().bin, "pg_dump"),
    ["--schema-only", `--schema=${schema}`, `--schema=${schema}_2`, `--dbname=${url}`],
    { encoding: "utf8" },
  );
  return text.split("\n").filter((line) => line !== "" && !/^(?:--|\\(?:un)?restrict)/.test(line));
}

const extensions = `select extname, extversion,
    array(select pg_describe_object(classid, objid, 0) from pg_depend as d
      where d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and deptype = 'e' order by 1) as members
  from pg_extension as e where extnamespace::regnamespace::text like 'attacked%' order by 1`;

const superuser = (url: string) => cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1));

describe("definitions behind the full backup come back as they were:", () => {
  let source = "";
  let target = "";

  beforeAll(async () => {
    const w = await world(cluster());
    source = superuser(w.url);
    for (const [name, { before = "", bySuperuser }] of Object.entries(cases)) {
      const schema = schemaOf(name);
      await query(
        w.url,
        `create schema ${schema};
         create table ${schema}.kept (id int primary key, t text, gone int); create index kept_t on ${schema}.kept (t);
         create table ${schema}.other (id int primary key, t text, n int);
         insert into ${schema}.kept select i, 'kept ' || i, i from generate_series(1, 9) as i;
         insert into ${schema}.other select i, 'other ' || i, i from generate_series(1, 9) as i`,
      );
      if (before !== "") await query(bySuperuser === true ? source : w.url, before.replaceAll("@", schema));
    }
    const sessions = new Map<string, pg.Client>();
    for (const [name, { early, bySuperuser }] of Object.entries(cases)) {
      const client = new pg.Client(bySuperuser === true ? source : w.url);
      await client.connect();
      sessions.set(name, client);
      if (early !== undefined) await client.query(early.replaceAll("@", schemaOf(name)));
    }
    // Whatever the user's default is, a backup reads what is there.
    const database = new URL(w.url).pathname.slice(1);
    await query(w.url, `alter database "${database}" set default_transaction_isolation = 'serializable'`);
    await drainNow(w.deps);
    await backup(w.deps);
    await query(w.url, `alter database "${database}" reset default_transaction_isolation`);
    for (const [name, { steps }] of Object.entries(cases)) {
      for (const step of steps) {
        const text = (typeof step === "string" ? step : step.other).replaceAll("@", schemaOf(name));
        if (typeof step === "string") await sessions.get(name)?.query(text);
        else await query(w.url, text);
      }
      await sessions.get(name)?.end();
    }
    await drainNow(w.deps);
    target = superuser((await restored(cluster(), w.deps)).url);
  }, 240_000);

  it.each(Object.keys(cases))("%s", async (name) => {
    const schema = schemaOf(name);
    expect(definitionsOf(target, schema)).toEqual(definitionsOf(source, schema));
    expect(await tableHashes(target, [schema, `${schema}_2`])).toEqual(
      await tableHashes(source, [schema, `${schema}_2`]),
    );
  });

  it("and each grant of a script is told of what it was given on, and of no more", async () => {
    const rows = await query(
      source,
      `select jsonb_array_length(o -> 'made' -> 'access') as lines from backup.ddl_log as d, jsonb_array_elements(d.objects) as o
        where o -> 'made' ? 'access' and d.query like '%' || $1 || '.made_7 (id%' order by d.id`,
      [schemaOf("a script of grants")],
    );
    // The table and its columns, where it was made since.
    expect(rows.map(({ lines }) => lines)).toEqual(Array.from({ length: 9 }, () => [3, 1]).flat());
  });

  it("and extensions have their versions and members", async () => {
    expect(await query(target, extensions)).toEqual(await query(source, extensions));
  });
});

describe("a project", () => {
  it("gets triggers and policies that users made on the tables of its services", async () => {
    const w = await world(cluster());
    await query(w.url, "create schema app; create schema private; create table app.profiles (id uuid primary key)");
    await drainNow(w.deps);
    await backup(w.deps);
    await query(
      w.url,
      `create function private.on_user() returns trigger language plpgsql security definer set search_path = ''
         as $f$ begin insert into app.profiles values (new.id); return new; end $f$;
       revoke execute on function private.on_user() from public;
       create trigger on_auth_user_created after insert on auth.users for each row execute function private.on_user();
       create policy mine on storage.objects for select using (true)`,
    );
    await drainNow(w.deps);
    const database = await freshDatabase(cluster());
    const url = cluster().plainUrl("postgres", database);
    const deps = { ...w.deps, target: openDatabase({ url }) };

    await restorePoint(deps, await planPoint(deps, { by: "end" }));
    expect(
      await query(
        superuser(url),
        `select (select tgenabled::text from pg_trigger where tgname = 'on_auth_user_created') as "trigger",
                (select count(*)::int from pg_policy where polname = 'mine') as policies`,
      ),
    ).toEqual([{ trigger: "O", policies: 1 }]);
  }, 120_000);
});

describe("a table that loses what its rows are known by", () => {
  it.each([
    [
      "an index",
      `create table app.t (id int not null, v text); create unique index t_id on app.t (id);
       alter table app.t replica identity using index t_id`,
      "drop index app.t_id",
    ],
    [
      "its partitioned parent's key",
      `create table app.p (id int, v text, primary key (id)) partition by range (id);
       create table app.t partition of app.p for values from (0) to (9)`,
      "alter table app.p drop constraint p_pkey",
    ],
    [
      "the domain of its key",
      "create domain app.number as int; create table app.t (id app.number primary key, v text)",
      "drop domain app.number cascade",
    ],
  ])("by %s takes updates at once", async (_, before, loses) => {
    const w = await world(cluster());
    await query(w.url, `create schema app; ${before}`);
    await drainNow(w.deps);
    await query(w.url, "insert into app.t values (1, 'a')");
    await query(w.url, loses);
    await query(w.url, "update app.t set v = 'b'");
    expect(await query(w.url, "select v from app.t")).toEqual([{ v: "b" }]);
  });
});
