/** The policies that close our buckets belong to an installation: restores neither lose nor double them, nor speak of them. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli } from "../integration/cli_fixture.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";

const source = useCluster();
const target = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-buckets-"));
let settings: Record<string, string> = {};

async function ok(args: readonly string[]): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  expect(result.stdout + result.stderr, "nothing is said of them").not.toMatch(/\bholdfast_buckets\b/);
  return result.document as Record<string, unknown>;
}

const here = () => source().plainUrl();
const there = () => target().plainUrl();

async function policies(url: string): Promise<Record<string, unknown>[]> {
  return await query(
    url,
    `select oid::int, polname as name, polrelid::regclass::text as table, pg_get_expr(polqual, polrelid) as using
       from pg_policy where polrelid in ('storage.objects'::regclass, 'storage.buckets'::regclass) order by 3, 2`,
  );
}

const ours = [{ name: "holdfast_buckets", table: "storage.buckets" }, {
  name: "holdfast_buckets",
  table: "storage.objects",
}];
const theirs = { name: "everything", table: "storage.objects", using: "true" };

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: source().url("postgres"),
  };
  await ok(["init"]);
  await query(here(), "create policy everything on storage.objects for all to anon, authenticated using (true)");
  await query(here(), "create table public.notes (id int primary key); insert into public.notes values (1)");
  await ok(["incremental"]);
  await ok(["create"]);
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the policies of our buckets", () => {
  it("are made by the installation, and stay when it is repeated", async () => {
    const before = await policies(here());
    expect(before).toMatchObject([ours[0], theirs, ours[1]]);
    await ok(["init"]);
    expect(await policies(here())).toEqual(before);
    await query(here(), "drop policy holdfast_buckets on storage.objects");
    await ok(["init"]);
    expect(await policies(here())).toMatchObject([ours[0], theirs, ours[1]]);
  }, 60_000);

  it("are no change of definitions that a restore to a moment would repeat", async () => {
    expect(await query(here(), "select 1 from backup.ddl_log where objects::text like '%holdfast_buckets%'")).toEqual(
      [],
    );
    await query(here(), "insert into public.notes values (2)");
    await ok(["incremental"]);
    await query(there(), "create database moment");
    const url = target().plainUrl("postgres", "moment");
    await ok(["restore-point", "latest", "--target-db-url", url, "--yes"]);
    expect(await query(url, "select id from public.notes order by id")).toEqual([{ id: 1 }, { id: 2 }]);
  }, 120_000);

  it("are left alone by a restore in place, which brings the project's own back", async () => {
    const before = await policies(here());
    await query(here(), "drop policy everything on storage.objects; delete from public.notes");
    const name = String((await query(here(), "select current_database() as name"))[0]?.["name"]);
    const plan = await ok(["restore-full", "latest", "--apply", "replace", "--dry-run"]);
    expect(JSON.stringify(plan)).toContain("everything");
    const done = await cli(
      [
        "restore-full",
        "latest",
        "--apply",
        "replace",
        "--yes",
        "--skip-safety-backup",
        name,
        "--without-maintenance",
        "--json",
      ],
      settings,
    );
    expect(done.exit, done.stdout + done.stderr).toBe(0);
    expect(done.stdout + done.stderr).not.toMatch(/\bholdfast_buckets\b/);
    const after = await policies(here());
    expect(after.filter(({ name }) => name === "holdfast_buckets")).toEqual(
      before.filter(({ name }) => name === "holdfast_buckets"),
    );
    expect(after).toMatchObject([ours[0], theirs, ours[1]]);
  }, 120_000);

  it("are not carried into a new project, where an installation makes its own, each once", async () => {
    await ok(["restore-full", "latest", "--target-db-url", there(), "--yes"]);
    expect(await policies(there())).toMatchObject([theirs]);
    const elsewhere = { ...settings, BACKUP_DB_URL: target().url("postgres") };
    for (let time = 0; time < 2; time++) {
      const installed = await cli(["init", "--json"], elsewhere);
      expect(installed.exit, installed.stderr).toBe(0);
      expect(await policies(there())).toMatchObject([ours[0], theirs, ours[1]]);
    }
    await ok(["validate", "latest", "--target-db-url", there()]);
  }, 180_000);
});
