import { beforeAll, describe, expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { drain, type DrainOptions, processDrainLimits } from "../../src/shared/changes/drain/drain.ts";
import { inOrder, listSegments, readChain } from "../../src/shared/changes/segments/chain_reader.ts";
import { decodeMessage } from "../../src/shared/changes/decode/pgoutput.ts";
import { readRecords } from "../../src/shared/changes/segments/segment.ts";
import { epochSource } from "../../src/shared/crypto/epochs.ts";
import { readRepository } from "../../src/shared/format/repository.ts";
import { useCluster } from "../support/cluster.ts";
import { planPoint } from "../../src/shared/changes/plan/plan_point.ts";
import { ChangeHistory } from "../../src/shared/changes/segments/timeline.ts";
import { backup, query, world } from "./backup_fixture.ts";
import { drainNow, mortalSource, restored } from "./changes_stream_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;

const options = (more: Partial<DrainOptions> = {}): DrainOptions => ({
  worker: "test",
  budget: unlimited,
  limits: processDrainLimits,
  ...more,
});

beforeAll(async () => {
  w = await world(cluster());
  await query(w.url, "create table public.notes (id int primary key, t text)");
}, 180_000);

async function stored() {
  const repository = await readRepository(w.deps.store);
  const epochOf = epochSource(w.deps.store, w.deps.ring, repository?.id ?? "");
  const all = [];
  for (const [, segments] of await listSegments(w.deps.store)) {
    for await (
      const segment of readChain(
        { store: w.deps.store, compressor: w.deps.compressor, epochOf },
        inOrder(segments),
      )
    ) all.push(segment);
  }
  return all;
}

describe("a drain", () => {
  it("begins a chain, stores what is committed, and goes on from there", async () => {
    const first = await drain(w.deps, options());
    expect(first).toMatchObject({ outcome: "caught_up", begun: true });
    await query(w.url, "insert into public.notes select i, 'n' || i from generate_series(1, 10) as i");
    await query(w.url, "update public.notes set t = 'x' where id = 3");
    const second = await drain(w.deps, options());
    expect(second).toMatchObject({ outcome: "caught_up", begun: false, segments: [{ transactions: 2, changes: 11 }] });
    const segments = await stored();
    const kinds = segments.flatMap((s) => [...readRecords(s.name, s.records)].map((r) => decodeMessage(r.data).kind));
    const inserts = Array.from({ length: 10 }, () => "insert");
    expect(kinds).toEqual(["begin", "relation", ...inserts, "commit", "begin", "update", "commit"]);
    const [run] = await query(w.url, "select kind, status, tiers, rows from backup.runs where kind = 'incremental'");
    expect(run).toEqual({ kind: "incremental", status: "copying", tiers: ["hourly"], rows: "11" });
  });
});

/** A chain with a full backup on it, and a segment behind it. */
async function withFull(prepare = async (_url: string) => {}) {
  const made = await mortalSource(cluster());
  await query(
    made.url,
    `create schema app; create table app.notes (id int primary key, t text); create type app.mood as enum ('a');
     create view app.v as select id from app.notes;
     create function app.f() returns int language sql as 'select 1';`,
  );
  await prepare(made.url);
  const { chain } = await drainNow(made.deps);
  await backup(made.deps);
  await query(made.url, "insert into app.notes values (1, 'a')");
  await drainNow(made.deps);
  return { ...made, chain: chain ?? "" };
}

type Made = Awaited<ReturnType<typeof withFull>>;

const unresolved = (url: string, kind: string) =>
  query(url, "select message from backup.alerts where kind = $1 and status <> 'resolved'", [kind]);
const lacksFull = async (url: string) => (await query(url, "select backup.chain_lacks_full() as yes"))[0]?.["yes"];
const refusalOf = async ({ deps }: Made) =>
  await planPoint({ ...deps, target: deps.database }, { by: "end" }).then(() => null, (error: unknown) => error);

/** Whoever asks is told until when nothing is lost; a full backup is ordered, and with it the chain goes on. */
async function stopsUntilTheNextFull(from: Made, what: RegExp) {
  expect(await refusalOf(from)).toMatchObject({ code: "ddl_not_replayable", message: expect.stringMatching(what) });
  expect(await unresolved(from.url, "stream_obstacle")).toEqual([{ message: expect.stringMatching(what) }]);
  expect(await unresolved(from.url, "stream_obstacle"))
    .toEqual([{ message: expect.stringMatching(/moments after .* UTC can be restored again once a new full backup/) }]);
  expect(await lacksFull(from.url)).toBe(true);
  const { windows: [window, ...more], gaps } = (await ChangeHistory.read(from.deps)).timeline();
  expect(more).toEqual([]);
  expect(gaps).toEqual([{ from: window?.to, to: expect.any(String), reason: expect.stringMatching(what) }]);
  // The end of the window can be restored.
  const at = BigInt(Date.parse(window?.to ?? "")) * 1000n;
  await planPoint({ ...from.deps, target: from.deps.database }, { by: "time", at });
  await backup(from.deps);
  await query(from.url, "insert into app.notes values (2, 'b')");
  await drainNow(from.deps);
  expect(await unresolved(from.url, "stream_obstacle")).toEqual([]);
  expect(await lacksFull(from.url)).toBe(false);
  expect((await ChangeHistory.read(from.deps)).timeline()).toMatchObject({ windows: [{}, {}], gaps: [{}] });
  const copy = await restored(cluster(), from.deps);
  expect(await query(copy.url, "select id from app.notes order by id")).toEqual([{ id: 1 }, { id: 2 }]);
  return copy;
}

describe("a drain notices", () => {
  it("each change of definitions where no event trigger logs them", async () => {
    const from = await withFull(async (url) => {
      const admin = cluster().plainUrl(cluster().superuser, new URL(url).pathname.slice(1));
      const names = await query(admin, "select evtname as name from pg_event_trigger where evtname like '!holdfast_%'");
      for (const { name } of names) await query(admin, `alter event trigger "${String(name)}" disable`);
    });
    const obstacles = async () =>
      Number((await query(from.url, "select count(*) from backup.obstacles"))[0]?.["count"]);
    expect([await obstacles(), await refusalOf(from), await lacksFull(from.url)]).toEqual([0, null, false]);
    const changes = [
      "alter table app.notes enable row level security",
      "create policy mine on app.notes using (true)",
      "create or replace view app.v as select id from app.notes where id > 5",
      "create or replace function app.f() returns int language sql as 'select 2'",
      "alter table app.notes add constraint positive check (id > 0)",
      "create index on app.notes (t)",
      "alter type app.mood add value 'b'",
      "grant select on app.notes to anon",
      "create function app.t() returns trigger language plpgsql as 'begin return new; end'",
      "create trigger t before insert on app.notes for each row execute function app.t()",
      "create sequence app.s",
      "comment on table app.notes is 'of people'",
    ];
    for (const [index, change] of changes.entries()) {
      await query(from.url, change);
      await query(
        from.url,
        `insert into app.notes values (${100 + index}, 'x'); delete from app.notes where id = ${100 + index}`,
      );
      await drainNow(from.deps);
      expect(await obstacles(), change).toBe(index + 1);
    }
    await query(from.url, "vacuum full app.notes");
    await query(from.url, "analyze app.notes");
    await query(from.url, "create temporary table mine (id int); insert into app.notes values (99, 'x')");
    await query(
      from.url,
      "delete from app.notes where id = 99; truncate app.notes; insert into app.notes values (1, 'a')",
    );
    await drainNow(from.deps);
    expect(await obstacles(), "what is no change of definitions").toBe(changes.length);
    const copy = await stopsUntilTheNextFull(from, /a change of definitions/);
    expect(
      await query(
        copy.url,
        "select relrowsecurity as rls, app.f() as f from pg_class where oid = 'app.notes'::regclass",
      ),
    )
      .toEqual([{ rls: true, f: 2 }]);
  }, 180_000);

  it("what no replay can do in the log of definitions", async () => {
    const from = await withFull();
    await query(
      from.url,
      "create function app.work() returns void language sql as 'alter view app.v rename to w'; select app.work()",
    );
    await query(from.url, "insert into app.notes values (7, 'x'); delete from app.notes where id = 7");
    await drainNow(from.deps);
    await stopsUntilTheNextFull(from, /app\.[vw]/);
  }, 120_000);

  it("a segment that is gone from the store: a gap from there on, an alert, another chain", async () => {
    const from = await withFull();
    for (const id of [2, 3, 4]) {
      await query(from.url, `insert into app.notes values (${id}, 'n')`);
      await drainNow(from.deps);
    }
    const segments = await query(from.url, "select name, taken_at::text as at from backup.segments order by end_lsn");
    const gone = segments.at(-2);
    from.store.objects.delete(String(gone?.["name"]));
    expect(await drainNow(from.deps), "it looks once an hour").toMatchObject({ begun: false });
    await query(from.url, "update backup.drain set looked_at = looked_at - interval '61 minutes'");
    expect(await drainNow(from.deps)).toMatchObject({
      begun: true,
      gap: `segment ${String(gone?.["name"])} is gone from the store`,
    });
    expect(await query(from.url, "select chain_id, from_at::text as at, to_at is not null as closed from backup.gaps"))
      .toEqual([{ chain_id: from.chain, at: segments.at(-3)?.["at"], closed: true }]);
    expect(await unresolved(from.url, "stream_gap")).toHaveLength(1);
    expect(await lacksFull(from.url)).toBe(true);
    const { windows, gaps } = (await ChangeHistory.read(from.deps)).timeline();
    expect(windows).toHaveLength(1);
    expect(gaps).toMatchObject([{ from: windows[0]?.to, reason: expect.stringMatching(/is missing/) }]);
    await backup(from.deps);
    await query(from.url, "insert into app.notes values (5, 'n')");
    await drainNow(from.deps);
    const copy = await restored(cluster(), from.deps);
    expect(await query(copy.url, "select id from app.notes order by id")).toEqual(
      [1, 2, 3, 4, 5].map((id) => ({ id })),
    );
    expect(await unresolved(from.url, "stream_gap")).toEqual([]);
  }, 120_000);
});
