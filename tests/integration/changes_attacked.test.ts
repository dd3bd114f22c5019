/** What once gave wrong rows, or refused what is ordinary: each case as somebody found it. */
import { beforeAll, describe, expect, it } from "vitest";
import { planPoint, type PointPlan, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { useCluster, withClient } from "../support/cluster.ts";
import { backup } from "./backup_fixture.ts";
import { drainNow, emptyTarget, mortalSource, query, type Source, tableHashes } from "./changes_stream_fixture.ts";

const cluster = useCluster({ settings: { max_replication_slots: "20", max_prepared_transactions: "5" } });

/** With a full backup, and then these statements between two drains, of one session. */
async function after(before: string, statements: readonly string[]): Promise<Source> {
  const from = await mortalSource(cluster());
  await query(from.url, before);
  await drainNow(from.deps);
  await backup(from.deps);
  await query(from.url, "create table app.marks (id int primary key)");
  await drainNow(from.deps);
  await go(from, statements);
  return from;
}

async function go(from: Source, statements: readonly string[]): Promise<void> {
  await withClient(from.url, async (client) => {
    for (const statement of statements) await client.query(statement);
  });
  // What that session counted is told by now.
  await query(from.url, "insert into app.marks select count(*) from app.marks");
  await drainNow(from.deps);
}

const planned = (from: Source, choices: Parameters<typeof planPoint>[2] = {}): Promise<PointPlan> =>
  planPoint(
    { ...from.deps, target: { label: "none", connect: () => Promise.reject(new Error("not asked")) } },
    { by: "end" },
    choices,
  );

const refusal = (from: Source, choices = {}): Promise<string> =>
  planned(from, choices).then(() => "", (error: Error) => error.message.replace(/ at \S+ /g, " "));

/** Restores, broken off after each group and gone on with. */
async function restoredInPieces(from: Source, choices: Parameters<typeof planPoint>[2]): Promise<string> {
  const copy = await emptyTarget(cluster());
  const deps = { ...from.deps, target: copy.target };
  for (let calls = 0; calls < 200; calls++) {
    const stop = new AbortController();
    const onReplay = () => stop.abort();
    try {
      await restorePoint(deps, await planPoint(deps, { by: "end" }, choices), { signal: stop.signal, onReplay });
      expect(calls).toBeGreaterThan(5);
      return copy.url;
    } catch (error) {
      if ((error as { code?: string }).code !== "cancelled") throw error;
    }
  }
  throw new Error("it never came to its end");
}

describe("a restore to a moment", () => {
  let from: Source;
  let refused: string;
  const without = ["app.report", "app.stage", "app.emptied", "app.shouted"];
  const choices = { withoutTables: without, atFull: ["app.children", "app.part_b"] };
  const schemas = ["app", "app_a", "app_b", "later"];

  beforeAll(async () => {
    from = await after(
      `create schema app; create schema app_a; create schema app_b; create schema other;
       create table app.report as select i as id, 'old' as t from generate_series(1, 20) as i;
       update app.report set t = 'x' where id < 6;
       create unlogged table app.stage as select i from generate_series(1, 20) as i;
       create unlogged table app.emptied as select i from generate_series(1, 20) as i; create unlogged table app.kept (i int);
       create table app.loose (id int); insert into app.loose values (1), (2); update app.loose set id = 3 where id = 2;
       create table app_a.t (id int primary key, t text); insert into app_a.t values (1, 'a');
       create table app_b.t (id int primary key, t text); insert into app_b.t values (1, 'b');
       create table other.t (id int primary key);
       create table app.parents (id int primary key); insert into app.parents values (1), (2);
       create table app.children (id int primary key, parent int references app.parents); insert into app.children values (1, 1);
       create table app.parted (id int, k int, primary key (id, k)) partition by list (k);
       create table app.part_a partition of app.parted for values in (1);
       create table app.part_b partition of app.parted for values in (2); insert into app.parted values (1, 1), (1, 2);
       create table app.pair (id int primary key); create table app.pair_of (id int primary key references app.pair);
       insert into app.pair values (1); insert into app.pair_of values (1);
       create table app.shouted (e text, l text generated always as (lower(e)) stored primary key, v int);
       insert into app.shouted values ('A'), ('B');
       create table app.rekeyed (id int primary key, o int not null); insert into app.rekeyed values (1, 1);
       create table app.unkeyed (id int primary key, o int); insert into app.unkeyed values (1, 1);
       create table app.dated (id int primary key, at timestamptz); insert into app.dated values (1, '2020-01-01');
       create table app.filled (id int primary key); insert into app.filled values (1), (2)`,
      [
        // Rebuilt, with as many changes as were counted of the former one.
        "drop table app.report",
        "create table app.report as select i as id, 'new' as t from generate_series(1, 20) as i",
        "update app.report set t = 'changed' where id < 6",
        "drop table app.stage",
        "create unlogged table app.stage as select i + 5 as i from generate_series(1, 20) as i",
        "truncate app.emptied",
        "alter table app.loose rename to looser",
        // The server describes a table once, also where its schema has another name by then.
        "insert into app_a.t values (2, 'a'); insert into app_b.t values (2, 'b')",
        "begin; alter schema app_a rename to aside; alter schema app_b rename to app_a; alter schema aside rename to app_b; commit",
        "insert into app_a.t values (3, 'b'); insert into app_b.t values (4, 'a')",
        "update app_a.t set t = 'b changed' where id = 1; delete from app_b.t where id = 2",
        "truncate app_b.t; insert into app_b.t values (9, 'a at last')",
        "insert into other.t values (1)",
        "alter schema other rename to later",
        "insert into later.t values (2)",
        "truncate app.parents cascade; insert into app.parents values (3)",
        "truncate app.parted; insert into app.parted values (7, 1), (7, 2)",
        "truncate app.pair cascade; insert into app.pair values (8)",
        "insert into app.shouted values ('C'); update app.shouted set v = 5 where e = 'A'",
        "update app.rekeyed set o = 2",
        "begin; alter table app.rekeyed drop constraint rekeyed_pkey; alter table app.rekeyed add primary key (id, o); commit",
        "update app.rekeyed set o = 3",
        "update app.unkeyed set o = 2",
        "alter table app.unkeyed drop constraint unkeyed_pkey",
        "create table app.part_c (id int not null, k int not null); insert into app.part_c select i, 3 from generate_series(1, 5) as i",
        "alter table app.parted attach partition app.part_c for values in (3)",
        "update app.parted set id = id + 100 where k = 3",
        "alter table app.dated drop column at, add column at timestamptz default now()",
        "alter table app.filled add column at timestamptz default now()",
        "update app.filled set at = '2020-01-01' where id = 1",
        "alter table app.filled rename to filled_up",
      ],
    );
    refused = await refusal(from);
  }, 120_000);

  it("is refused for a table that was made anew and changed unseen as often as the former one", () => {
    expect(refused).toContain("app.report (it has no usable replica identity)");
    expect(refused).toContain("app.stage (it is unlogged");
  });

  it("is refused for an unlogged table that was emptied by TRUNCATE, which no counter tells", () => {
    expect(refused).toContain("app.emptied (it is unlogged");
  });

  it("is refused for a table whose key has a generated column, which is not in the stream", () => {
    expect(refused).toContain("app.shouted (it has no usable replica identity)");
  });

  it("is refused for no other: not for one that was renamed, that changed its key, or that lost it after its changes", () => {
    expect(refused.match(/app\w*\.\w+(?= \()/g)?.sort()).toEqual([...without].sort());
  });

  it(
    "puts rows into the table that they are of, whatever its schema is called, also where it was broken off",
    async () => {
      const url = await restoredInPieces(from, choices);
      const [source, copy] = [await tableHashes(from.url, schemas), await tableHashes(url, schemas)];
      for (const name of [...without, ...choices.atFull]) {
        delete source[name];
        delete copy[name];
      }
      expect(copy).toEqual(source);
      expect(Object.keys(source)).toContain("later.t");
      // TRUNCATE … CASCADE and the one of a partitioned table leave out what was to be as of the full.
      expect(await query(url, "select id from app.children")).toEqual([{ id: 1 }]);
      expect(await query(url, "select id from app.part_b")).toEqual([{ id: 1 }]);
    },
    90_000,
  );
});

describe("a table that comes or goes otherwise than by its own command", () => {
  let from: Source;

  beforeAll(async () => {
    from = await after(
      `create schema app; create schema restore_12345678; create sequence app.numbers; select nextval('app.numbers');
       create table app.numbered (id int generated always as identity primary key); insert into app.numbered default values;
       create table restore_12345678.notes (id int primary key);
       create table app.keyed (id int primary key); create table app.loose (id int);
       create table app.members (id int, t text); insert into app.members values (1, 'a');`,
      [],
    );
  }, 60_000);

  it("is named once an extension has it and a row of it was changed", async () => {
    const admin = cluster().plainUrl(cluster().superuser, new URL(from.url).pathname.slice(1));
    await query(admin, "create extension pg_trgm schema public; alter extension pg_trgm add table app.members");
    await go(from, []);
    expect(await refusal(from)).toBe("");
    await go(from, ["update app.members set t = 'unseen'"]);
    expect(await refusal(from)).toContain("app.members (it belongs to an extension)");
  }, 30_000);

  it("is recorded although a transaction that nobody ends holds its sequence", async () => {
    await go(from, ["select nextval('app.numbers')"]);
    await query(from.url, "begin; alter sequence app.numbers increment by 2; prepare transaction 'orphan'");
    const begun = performance.now();
    expect(await drainNow(from.deps, { lockMs: 20_000 })).toMatchObject({ outcome: "caught_up" });
    expect(performance.now() - begun).toBeLessThan(5000);
    const { survey } = await planned(from, { withoutTables: ["app.members"] });
    expect(survey.heldSequences).toEqual(["app.numbers"]);
    expect(survey.sequences.findLast(({ name }) => name === "numbers")).toMatchObject({ lastValue: "2" });
    await query(from.url, "rollback prepared 'orphan'");
  }, 30_000);

  it("is refused by its name where it was moved to where no changes are recorded", async () => {
    await go(from, [
      "alter table app.keyed set schema restore_12345678",
      "insert into restore_12345678.keyed values (1)",
      "do $$ begin alter table app.loose set schema restore_12345678; end $$",
      "alter table restore_12345678.notes add column t text",
    ]);
    expect(await refusal(from, { withoutTables: ["app.members"] })).toBe(
      "changes may be missing of app.keyed (later restore_12345678.keyed: ALTER TABLE of restore_12345678.keyed moved it " +
        "to where no changes are recorded), app.loose (later restore_12345678.loose: ALTER TABLE of " +
        "restore_12345678.loose moved it to where no changes are recorded)",
    );
    const listed = await query(
      from.url,
      "select tablename from pg_publication_tables where schemaname = 'restore_12345678' and pubname = 'holdfast_changes'",
    );
    expect(listed).toEqual([]);
  }, 30_000);

  it("is refused where it comes from there, by itself or with its schema, before anything is restored", async () => {
    const choices = { withoutTables: ["app.members", "app.keyed", "app.loose"] };
    expect(await refusal(from, choices)).toBe("");
    await go(from, ["alter table restore_12345678.notes set schema app", "insert into app.notes values (1)"]);
    expect(await refusal(from, choices)).toMatch(
      /^ALTER TABLE of app\.notes .*cannot be replayed: no backup holds the rows/,
    );
    await go(from, ["alter schema restore_12345678 rename to shown"]);
    expect(await refusal(from, choices)).toMatch(/and 1 more/);
  }, 30_000);
});
