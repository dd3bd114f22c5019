/** A restore to a moment that is broken off and called again says what the whole of it did. */
import { beforeAll, describe, expect, it } from "vitest";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import {
  planPoint,
  type PointChoices,
  type PointResult,
  restorePoint,
} from "../../src/shared/changes/replay/restore_point.ts";
import { createLog, type LogLine } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { listHeld, releaseHeld } from "../../src/shared/restore/release.ts";
import { freshDatabase, useCluster } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { drainNow, emptyTarget, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    `create schema app;
     create table app.notes (id int primary key, t text);
     create trigger hook after insert on app.notes for each row
       execute function supabase_functions.http_request('http://127.0.0.1:9/', 'POST', '{}', '{}', '1000');
     alter table app.notes disable trigger hook;
     insert into app.notes select i, 'note ' || i from generate_series(1, 200) as i;
     alter table app.notes enable trigger hook;
     insert into auth.users (id, email) values ('00000000-0000-0000-0000-000000000001', 'a@example.org');
     insert into storage.buckets (id, name) values ('photos', 'photos');
     insert into storage.objects (bucket_id, name) values ('photos', 'p1'), ('photos', 'p2')`,
  );
  await drainNow(w.deps);
  await backup(w.deps);
  // Each change of a definition ends a group of the replay.
  for (let round = 0; round < 4; round++) {
    await query(
      w.url,
      `set session_replication_role = replica;
       insert into app.notes select i, 'late' from generate_series(${1000 + round * 100}, ${1049 + round * 100}) as i`,
    );
    await query(w.url, `update app.notes set t = 'x' where id % 7 = ${round}`);
    await query(w.url, `delete from app.notes where id % 11 = ${round}`);
    await query(w.url, `alter table app.notes add column c${round} int default ${round}`);
  }
  await query(w.url, "update auth.users set phone = '+49'");
  await query(w.url, "insert into storage.objects (bucket_id, name) values ('photos', 'p3')");
  await drainNow(w.deps);
}, 240_000);

interface Target {
  readonly url: string;
  readonly call: (onLine?: (line: LogLine) => void, choices?: PointChoices) => Promise<PointResult>;
}

/** `project`: one whose auth.users has no column for what changes. */
async function target(kind: "bare" | "project"): Promise<Target> {
  let url: string;
  if (kind === "bare") url = (await emptyTarget(cluster())).url;
  else {
    const name = await freshDatabase(cluster());
    url = cluster().plainUrl("postgres", name);
    await query(cluster().plainUrl(cluster().superuser, name), "alter table auth.users drop column phone");
  }
  const deps = { ...w.deps, target: openDatabase({ url }) };
  return {
    url,
    call: async (onLine = () => {}, choices = {}) => {
      const plan = await planPoint(deps, { by: "end" }, choices);
      return await restorePoint({ ...deps, log: createLog(onLine, "debug") }, plan);
    },
  };
}

/** Throws at the `nth` line of this name. */
function breakingAt(event: string, nth: number): (line: LogLine) => void {
  let left = nth;
  return (line) => {
    if (line.event === event && --left === 0) throw new Error(`broken off at ${event}`);
  };
}

const timeless = ({ durationMs: _, resumed: __, ...result }: PointResult) => result;

describe.each(["bare", "project"] as const)("a restore to a moment into a %s target, broken off", (kind) => {
  it("and resumed, however often, says the same as one that was not", async () => {
    const whole = await target(kind);
    let groups = 0;
    const expected = await whole.call((line) => {
      if (line.event === "step:replay.group") groups++;
    });
    expect(groups).toBeGreaterThan(4);
    expect(expected.resumed).toBe(false);
    expect(expected.held).toEqual([{ identity: "trigger hook on app.notes", kind: "webhook" }]);
    expect(expected).toMatchObject({ target: kind, filesNotRestored: kind === "project" ? 3 : 0 });
    // 4 rounds of 4, and 2 after them.
    expect(expected.transactions).toBeGreaterThanOrEqual(18);

    for (const nth of [1, groups]) {
      const broken = await target(kind);
      await expect(broken.call(breakingAt("step:replay.group", nth)), String(nth)).rejects.toThrow("broken off");
      const resumed = await broken.call();
      expect(resumed.resumed).toBe(true);
      expect(timeless(resumed), `broken off at group ${nth}`).toEqual(timeless(expected));
      expect(await tableHashes(broken.url)).toEqual(await tableHashes(w.url));
    }

    // A table that has changes of the first call already would be of neither moment.
    const other = await target(kind);
    await expect(other.call(breakingAt("step:replay.group", 1))).rejects.toThrow("broken off");
    await expect(other.call(() => {}, { atFull: ["app.notes"] })).rejects.toMatchObject({ code: "target_not_empty" });
    expect(timeless(await other.call())).toEqual(timeless(expected));

    const often = await target(kind);
    await expect(often.call(breakingAt("step:restore.chunk", 1))).rejects.toThrow("broken off");
    for (let done = 0; done < groups; done++) {
      await expect(often.call(breakingAt("step:replay.group", 1))).rejects.toThrow("broken off");
    }
    expect(timeless(await often.call())).toEqual(timeless(expected));
    expect((await listHeld(openDatabase({ url: often.url }))).map((one) => one.kind)).toEqual(["webhook"]);
  }, 240_000);
});

describe("webhooks that the stream brings", () => {
  it("are held like those of the full, and those that are gone are not", async () => {
    const hook = (name: string) =>
      `create trigger ${name} after insert on app.notes for each row
         execute function supabase_functions.http_request('http://127.0.0.1:9/', 'POST', '{}', '{}', '1000')`;
    const lsn = async () => {
      const [row] = await query(w.url, "select pg_current_wal_insert_lsn()::text as lsn");
      return { by: "lsn", lsn: parseLsn(String(row?.["lsn"])) } as const;
    };
    await query(w.url, hook("second"));
    await query(w.url, "alter table app.notes disable trigger hook");
    await query(w.url, "alter table app.notes enable always trigger hook");
    const both = await lsn();
    await query(w.url, "drop trigger hook on app.notes");
    await query(w.url, "drop trigger second on app.notes");
    const none = await lsn();
    await drainNow(w.deps);

    const first = await emptyTarget(cluster());
    const deps = { ...w.deps, target: first.target };
    const result = await restorePoint(deps, await planPoint(deps, both));
    expect(result.held.map(({ identity }) => identity)).toEqual([
      "trigger hook on app.notes",
      "trigger second on app.notes",
    ]);
    const states = () =>
      query(
        first.url,
        "select tgname || tgenabled::text as state from pg_trigger where tgname in ('hook', 'second') order by 1",
      );
    expect(await states()).toEqual([{ state: "hookD" }, { state: "secondD" }]);
    expect((await releaseHeld(first.target, ["all"])).left).toEqual([]);
    expect(await states()).toEqual([{ state: "hookA" }, { state: "secondO" }]);

    const last = await emptyTarget(cluster());
    const later = { ...w.deps, target: last.target };
    expect((await restorePoint(later, await planPoint(later, none))).held).toEqual([]);
    expect(await query(last.url, "select to_regnamespace('holdfast') as state")).toEqual([{ state: null }]);
  }, 60_000);
});

describe("the tables that a restore leaves out", () => {
  const attack = 'app.notes; create table app."harm" (); --';

  it("are names to planning and to the restore itself, never SQL", async () => {
    const { url, target: database } = await emptyTarget(cluster());
    const deps = { ...w.deps, target: database };
    await expect(planPoint(deps, { by: "end" }, { withoutTables: [attack] })).rejects.toMatchObject({ code: "usage" });
    const plan = await planPoint(deps, { by: "end" });
    const forged = { ...plan, choices: { withoutTables: [attack], atFull: [] } };
    await expect(restorePoint(deps, forged)).rejects.toMatchObject({ code: "usage" });
    const [harm] = await query(url, `select to_regclass('app.harm') as harm`);
    expect(harm).toEqual({ harm: null });
  }, 60_000);

  it("may have been dropped before the moment, or have names that need quotes", async () => {
    await query(
      w.url,
      `create table app."Odd ""name""" (id int primary key); insert into app."Odd ""name""" values (1);
       create table app.gone (id int primary key); insert into app.gone values (1)`,
    );
    await query(w.url, "drop table app.gone");
    await drainNow(w.deps);
    const { url, target: database } = await emptyTarget(cluster());
    const deps = { ...w.deps, target: database };
    const odd = 'app."Odd ""name"""';
    const plan = await planPoint(deps, { by: "end" }, { withoutTables: [odd, 'app."gone"'] });
    expect((await restorePoint(deps, plan)).warnings).toEqual(
      expect.arrayContaining([`${odd} was left out`, "app.gone was left out"]),
    );
    expect(await query(url, `select count(*)::int as n from ${odd}`)).toEqual([{ n: 0 }]);
  }, 60_000);
});
