/** Triggers and rules that fire for a replica too: a replay makes them do nothing twice, and leaves them as they were. */
import { describe, expect, it } from "vitest";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { createLog } from "../../src/shared/log.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { drainNow, emptyTarget, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster();

const states = (url: string) =>
  query(
    url,
    `select tgrelid::regclass::text as table, tgname as name, tgenabled::text as state from pg_trigger
      where not tgisinternal and tgrelid::regclass::text like 'app.%'
     union all
     select ev_class::regclass::text, rulename, ev_enabled::text from pg_rewrite where ev_class::regclass::text like 'app.%'
     order by 1, 2`,
  );

describe("a restore to a moment", () => {
  it("fires no trigger and no rule, and leaves each in the state that the source gave it last", async () => {
    const w = await world(cluster());
    const trigger = (name: string, table: string) =>
      `create trigger ${name} after insert or update on ${table} for each row execute function app.log()`;
    await query(
      w.url,
      `create schema app;
       create table app.notes (id int primary key, t text);
       create table app.parts (id int primary key, t text) partition by range (id);
       create table app.part partition of app.parts for values from (1) to (1000);
       create table app.audit (id int generated always as identity primary key, what text);
       create function app.log() returns trigger language plpgsql as
         'begin insert into app.audit (what) values (tg_name || tg_op); return new; end';
       ${
        ["always", "replica", "plain", "stopped", "renamed", "gone"].map((name) => trigger(name, "app.notes")).join(";")
      };
       ${trigger("parted", "app.parts")};
       create rule also as on delete to app.notes do also insert into app.audit (what) values ('rule');
       alter table app.notes enable always trigger always, enable replica trigger replica,
         enable always trigger stopped, enable always trigger renamed, enable always trigger gone, enable always rule also;
       alter table app.parts enable always trigger parted;
       insert into app.notes values (1, 'a')`,
    );
    await drainNow(w.deps);
    await backup(w.deps);
    const work = async (round: number) => {
      await query(w.url, `insert into app.notes values (${round * 10}, 'b'), (${round * 10 + 1}, 'c')`);
      await query(w.url, `insert into app.parts values (${round}, 'p')`);
      await query(w.url, "update app.notes set t = repeat(md5(t), 200)");
      await query(w.url, "update app.notes set id = id + 1000 where id < 1000");
      await query(w.url, `delete from app.notes where id = ${round * 10 + 1000}`);
    };
    await work(1);
    await query(w.url, "alter table app.notes disable trigger stopped");
    await work(2);
    await query(w.url, "alter trigger renamed on app.notes rename to moved");
    await query(w.url, "drop trigger gone on app.notes");
    await query(w.url, `${trigger("late", "app.notes")}; alter table app.notes enable always trigger late`);
    await work(3);
    await drainNow(w.deps);

    const { url, target } = await emptyTarget(cluster());
    const deps = { ...w.deps, target };
    const plan = await planPoint(deps, { by: "end" });
    let groups = 0;
    const breaking = createLog((line) => {
      if (line.event === "step:replay.group" && ++groups === 2) throw new Error("broken off");
    }, "debug");
    await expect(restorePoint({ ...deps, log: breaking }, plan)).rejects.toThrow("broken off");
    await restorePoint(deps, plan);
    expect(await tableHashes(url)).toEqual(await tableHashes(w.url));
    expect(await states(url)).toEqual(await states(w.url));
  }, 120_000);
});
