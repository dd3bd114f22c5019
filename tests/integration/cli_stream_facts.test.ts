/** What `status` says of tables that a restore to a moment could not bring, before anybody needs one. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { drain, processDrainLimits } from "../../src/shared/changes/drain/drain.ts";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { readUncoveredOfStream } from "../../src/shared/monitor/uncovered.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, query, world } from "./backup_fixture.ts";

const cluster = useCluster();
let w: Awaited<ReturnType<typeof world>>;
let session: Connection;

beforeAll(async () => {
  w = await world(cluster());
  await query(
    w.url,
    'create schema app; create table app.notes (id int primary key, t text); create table app."Other" (id int primary key)',
  );
  await drain(w.deps, { worker: "test", budget: unlimited, limits: processDrainLimits, idleSeconds: 0 });
  await backup(w.deps);
  session = await w.deps.database.connect("holdfast:test");
}, 120_000);
afterAll(async () => await session?.close());

const uncovered = async () => await readUncoveredOfStream(session);

it("a table whose values a command computed anew is named until the next full backup, or until it is gone", async () => {
  expect(await uncovered()).toEqual([]);
  await query(w.url, "alter table app.notes add column at timestamptz default now()");
  await query(w.url, "alter table app.notes alter column id type bigint");
  expect(await uncovered(), "known for certain").toEqual([]);
  await query(w.url, "alter table app.notes add column r float8 default random()");
  await query(w.url, 'alter table app."Other" add column u uuid default gen_random_uuid()');
  expect(await uncovered()).toEqual([
    { name: "app.notes", why: "rewritten" },
    { name: 'app."Other"', why: "rewritten" },
  ]);
  await query(w.url, 'drop table app."Other"');
  expect(await uncovered()).toEqual([{ name: "app.notes", why: "rewritten" }]);
  await backup(w.deps);
  expect(await uncovered()).toEqual([]);
});

it("a table that was renamed since is named as it is called now, with its name of then", async () => {
  await query(w.url, "create schema sub; create table app.early (id int primary key)");
  await query(w.url, "alter table app.early add column r float8 default random()");
  await query(w.url, "alter table app.early rename to late; create table app.early (id int primary key)");
  expect(await uncovered()).toEqual([{ name: "app.late", why: "rewritten", formerly: "app.early" }]);
  await query(w.url, "alter table app.late set schema sub; alter schema sub rename to other");
  await query(w.url, "alter table other.late alter column r type text using 'x'");
  expect(await uncovered()).toEqual([{ name: "other.late", why: "rewritten", formerly: "app.early" }]);
  await query(w.url, "drop schema other cascade");
  expect(await uncovered()).toEqual([]);
});

it("is named until a full backup of this chain that succeeded: none in quarantine, and of no other chain", async () => {
  const rewritten = [{ name: "app.notes", why: "rewritten" }];
  await query(w.url, "alter table app.notes add column again float8 default random()");
  const { id } = await backup(w.deps);
  expect(await uncovered()).toEqual([]);
  const full = async (columns: string) => {
    await query(w.url, `update backup.runs set ${columns} where id = $1`, [id]);
    return await uncovered();
  };
  expect(await full("status = 'quarantined', quarantine_reason = 'of the test'")).toEqual(rewritten);
  expect(await full("status = 'succeeded', quarantine_reason = null")).toEqual([]);
  expect(await full("chain_id = null")).toEqual(rewritten);
});

it("a table whose rows a query made before it could be published is named once only, and so is one that is on no list", async () => {
  const own = await world(cluster());
  await query(
    own.url,
    // As it is made where the role may not publish all tables.
    `create schema app; create publication holdfast_inserts with (publish = 'insert, truncate');
     alter publication holdfast_inserts add table only backup.ddl_log`,
  );
  await drain(own.deps, { worker: "test", budget: unlimited, limits: processDrainLimits, idleSeconds: 0 });
  await backup(own.deps);
  const looking = await own.deps.database.connect("holdfast:test");
  try {
    await query(own.url, "create table app.made as select 1 as x");
    expect(await readUncoveredOfStream(looking)).toEqual([{ name: "app.made", why: "identity" }]);
    await query(own.url, "alter table app.made add primary key (x)");
    expect(await readUncoveredOfStream(looking)).toEqual([{ name: "app.made", why: "rewritten" }]);
    // With a key, and yet on no list: as where the role may not publish it.
    await query(own.url, "create table app.theirs (id int primary key)");
    await query(own.url, "alter publication holdfast_changes drop table app.theirs");
    expect(await readUncoveredOfStream(looking)).toContainEqual({ name: "app.theirs", why: "unpublished" });
  } finally {
    await looking.close();
  }
});
