/** Ctrl-C while rows go into place: nothing is changed, it is said, and the same command does it later. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { cli, startCli } from "../integration/cli_fixture.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { eventually } from "../support/stack.ts";
import { rowsOf } from "./rows_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-cancelled-"));
let settings: Record<string, string> = {};
const source = () => cluster().plainUrl("postgres");

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  expect((await cli(["init", "--json"], settings)).exit).toBe(0);
  await query(
    source(),
    `create table public.notes (id int primary key, said text); insert into public.notes select i, 'said ' || i from generate_series(1, 500) i;
     create table public.answers (id int primary key, note int references public.notes); insert into public.answers select i, i from generate_series(1, 100) i`,
  );
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("leaves live rows as they were, between the tables of work and the commit", async () => {
  const created = await cli(["create", "--json"], settings);
  const backup = String((created.document as { id: string }).id);
  const then = await rowsOf(source(), "public.notes");
  await query(
    source(),
    "delete from public.notes where id > 200; update public.notes set said = 'other' where id < 20; insert into public.notes values (900, 'new')",
  );
  const present = await rowsOf(source(), "public.notes");
  const holder = new Client({ connectionString: source() });
  await holder.connect();
  await holder.query("begin; lock table public.notes in share mode");
  const args = ["restore-table", "public.notes", backup, "--apply", "replace", "--yes", "--json"];
  const quick = ["--skip-safety-backup", "postgres"];
  const run = startCli([...args, ...quick], settings);
  await eventually("it waits", async () => {
    const waiting = await query(
      source(),
      "select from pg_stat_activity where application_name ~ '^holdfast:restore' and wait_event_type = 'Lock'",
    );
    return waiting.length > 0 ? true : null;
  }, 60_000);
  run.signal("SIGINT");
  const ended = await run.result;
  await holder.query("rollback");
  await holder.end();
  expect([ended.exit, ended.document], ended.stderr).toMatchObject([1, { error: { code: "cancelled" } }]);
  expect(await rowsOf(source(), "public.notes")).toEqual(present);
  const sessions = "select from pg_stat_activity where application_name ~ '^holdfast:restore'";
  await eventually("its sessions are gone", async () => (await query(source(), sessions)).length === 0 || null, 20_000);
  expect(await query(source(), "select status from backup.restores")).toEqual([{ status: "cancelled" }]);
  expect(await query(source(), "select kind from backup.alerts where status = 'open' and kind = 'restore_failed'"))
    .toEqual([]);
  const done = await cli([...args, ...quick], settings);
  expect([done.exit, done.document], done.stderr).toMatchObject([0, {
    ok: true,
    inserted: 300,
    updated: 19,
    deleted: 1,
  }]);
  expect(await rowsOf(source(), "public.notes")).toEqual(then);
}, 120_000);
