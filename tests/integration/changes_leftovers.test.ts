/**
 * What a replay took for something else once, or did not know until it was needed: by pg_dump and row hashes of both sides. Of
 * PostgreSQL 17, whose pg_dump cannot be had here, by rows of its catalogs.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import pg from "pg";
import { beforeAll, describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { planPoint } from "../../src/shared/changes/replay/restore_point.ts";
import { useCluster, withClient } from "../support/cluster.ts";
import { sampled } from "../support/sampled.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { cases, schemaOf } from "./changes_leftovers_cases.ts";
import { drainNow, emptyTarget, restored, tableHashes } from "./changes_stream_fixture.ts";
import { catalogRows } from "./schema_catalog_rows.ts";

const eventTriggers =
  "select evtname, evtenabled::text from pg_event_trigger where evtname ~ 'answer|ensure' order by 1";

describe.each([15, 17] as const)("on PostgreSQL %i", (version) => {
  const cluster = useCluster({ version, settings: { max_replication_slots: "20" } });
  const superuser = (url: string) => cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1));

  const catalogs = new Map<string, Promise<string[]>>();
  // Each of them breaks by itself, and hardly one of them by the release.
  const all = Object.entries(cases);
  const some = Object.fromEntries(version === 15 ? all : sampled(`on ${version}`, all, 6));

  /** Of each database, once, as far as it matters: publications are our own, and an owner's own rights may be written or not. */
  async function catalogOf(url: string): Promise<string[]> {
    const lines = await catalogRows((text, values) => query(url, text, values ?? []));
    return lines.filter((line) => !/publication|^published/.test(line)).map((line) =>
      line.replace(/(owner=(\w+) \| \w+acl=)\2=\w+\/\2$/, "$1").replace(/(contype=p .*) connoinherit=\w+/, "$1")
    );
  }

  /** Lines that are the same where the schema, and its second one, have the same definitions. */
  async function definitionsOf(url: string, schema: string): Promise<string[]> {
    if (version === 17) {
      const lines = catalogs.get(url) ?? catalogOf(url);
      catalogs.set(url, lines);
      return (await lines).filter((line) => new RegExp(`\\b${schema}(?:_2)?\\b`).test(line));
    }
    const schemas = [`--schema=${schema}`, `--schema=${schema}_2`];
    const text = execFileSync(join(cluster().bin, "pg_dump"), ["--schema-only", ...schemas, `--dbname=${url}`], {
      encoding: "utf8",
    });
    return text.split("\n").filter((line) => line !== "" && !/^(?:--|\\(?:un)?restrict)/.test(line));
  }

  describe("what was done behind the full backup comes back as it was:", () => {
    let source = "";
    let target = "";

    beforeAll(async () => {
      const w = await world(cluster());
      source = superuser(w.url);
      const sessions = new Map<string, pg.Client>();
      for (const [name, { before = "", events = "" }] of Object.entries(some)) {
        const schema = schemaOf(name);
        await query(
          w.url,
          `create schema ${schema};
         create table ${schema}.kept (id int primary key, t text, gone int);
         create table ${schema}.other (id int primary key, t text, n int);
         insert into ${schema}.kept select i, 'kept ' || i, i from generate_series(1, 9) as i;
         ${before.replaceAll("@", schema)}`,
        );
        const client = new pg.Client(w.url);
        await client.connect();
        sessions.set(name, client);
        if (events !== "") {
          await query(source, `${events.replaceAll("@", schema)}; grant all on schema ${schema} to postgres`);
        }
      }
      await drainNow(w.deps);
      await backup(w.deps);
      for (const [name, { steps }] of Object.entries(some)) {
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

    it.each(Object.keys(some))("%s", async (name) => {
      const schema = schemaOf(name);
      const schemas = [schema, `${schema}_2`];
      expect(await definitionsOf(target, schema)).toEqual(await definitionsOf(source, schema));
      expect(await tableHashes(target, schemas)).toEqual(await tableHashes(source, schemas));
    });

    it("and the event triggers of users are in the state that they had", async () => {
      expect(await query(target, eventTriggers)).toEqual(await query(source, eventTriggers));
    });
  });

  describe("what cannot be known", () => {
    const planned = (deps: Parameters<typeof planPoint>[0]) =>
      planPoint(deps, { by: "end" }).then(() => "", (error: Error) => error.message);

    it("of types that a function in SQL renames is told when it is drained", async () => {
      const w = await world(cluster());
      await query(
        w.url,
        `create schema app; create type app.mood as enum ('a');
       create function app.f() returns void language sql as 'alter type app.mood rename to feel'`,
      );
      await drainNow(w.deps);
      await backup(w.deps);
      await query(w.url, "select app.f()");
      await drainNow(w.deps);
      expect(await query(w.url, "select what from backup.obstacles")).toEqual([{ what: "ALTER TYPE of app.feel" }]);
    });

    it("of labels that a function in SQL exchanges is refused for rows that were written meanwhile", async () => {
      const w = await world(cluster());
      await query(
        w.url,
        `create schema app; create type app.mood as enum ('a', 'b'); create table app.felt (id int primary key, m app.mood);
       create function app.f() returns void language sql as $$ alter type app.mood rename value 'a' to 'x';
         alter type app.mood rename value 'b' to 'a'; alter type app.mood rename value 'x' to 'b' $$`,
      );
      await drainNow(w.deps);
      await backup(w.deps);
      await withClient(w.url, async (client) => {
        await client.query("begin; insert into app.felt values (1, 'a')");
        await query(w.url, "select app.f()");
        await client.query("commit");
      });
      await drainNow(w.deps);
      const deps = { ...w.deps, target: (await emptyTarget(cluster())).target };
      expect(await planned(deps)).toMatch(/^rows with labels of app\.mood .* inside a function/);
    });

    it("of owners is named for moments between REASSIGN OWNED and the drain behind it, and certain from there on", async () => {
      const w = await world(cluster());
      await query(
        w.url,
        `create schema app; create table app.notes (id int primary key); create role leftover_x; create role leftover_y;
       create table app.told (id int primary key); create function app.told() returns int language sql as 'select 1';
       grant leftover_x, leftover_y to postgres; grant all on schema app to leftover_x, leftover_y;
       alter table app.notes owner to leftover_x`,
      );
      await drainNow(w.deps);
      await backup(w.deps);
      await drainNow(w.deps);
      await query(w.url, "reassign owned by leftover_x to leftover_y");
      // What a command of the log tells is certain at each moment.
      await query(w.url, "alter table app.told owner to leftover_y; alter function app.told() owner to leftover_y");
      await query(w.url, "grant leftover_y to postgres; insert into app.notes values (1)");
      const [row] = await query(w.url, "select pg_current_wal_insert_lsn()::text as lsn");
      await query(w.url, "insert into app.notes values (2)");
      await drainNow(w.deps);
      const deps = { ...w.deps, target: (await emptyTarget(cluster())).target };
      const at: Point = { by: "lsn", lsn: parseLsn(String(row?.["lsn"])) };
      expect((await planPoint(deps, at)).survey.unsettledOwners).toEqual(["app.notes"]);
      expect((await planPoint(deps, { by: "end" })).survey.unsettledOwners).toEqual([]);
      const { url } = await restored(cluster(), w.deps);
      expect(await query(url, "select relowner::regrole::text from pg_class where oid = 'app.notes'::regclass"))
        .toEqual([
          { relowner: "leftover_y" },
        ]);
    });
  });

  describe("labels of before a full backup", () => {
    it(
      "are known although they were renamed many segments before it, by another transaction than their rows'",
      async () => {
        const w = await world(cluster());
        await query(
          w.url,
          `create schema app; create table app.marks (id int primary key); create type app.mood as enum ('a', 'b');
       create table app.felt (id int primary key, m app.mood, ms app.mood[])`,
        );
        await drainNow(w.deps);
        await withClient(w.url, async (client) => {
          await client.query("begin; insert into app.felt values (1, 'a', '{a,b}')");
          await query(
            w.url,
            `alter type app.mood rename value 'a' to 'x'; alter type app.mood rename value 'b' to 'a';
         alter type app.mood rename value 'x' to 'b'`,
          );
          for (let mark = 0; mark < 6; mark++) {
            await query(w.url, `insert into app.marks values (${mark})`);
            await drainNow(w.deps);
          }
          await backup(w.deps);
          await client.query("commit");
        });
        await drainNow(w.deps);
        const { url } = await restored(cluster(), w.deps);
        expect(await query(url, "select m::text, ms::text from app.felt")).toEqual([{ m: "b", ms: "{b,a}" }]);
        expect(await tableHashes(url)).toEqual(await tableHashes(w.url));
      },
      60_000,
    );
  });
});
