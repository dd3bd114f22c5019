/** The bundle of an incremental whose rows have labels of before the full backup: it holds the segments that renamed them. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, expect, it } from "vitest";
import { freshDatabase, query, useCluster, withClient } from "../support/cluster.ts";
import { tableHashes } from "./changes_stream_fixture.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-download-labels-"));
const keys = `test:${randomBytes(32).toString("base64url")}`;
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const source = () => cluster().plainUrl("postgres");

async function ok(args: readonly string[], settings?: Record<string, string>): Promise<Record<string, unknown>> {
  const own = { BACKUP_STORE: `file://${folder}/store`, BACKUP_KEYS: keys, BACKUP_DB_URL: cluster().url("postgres") };
  const result = await cli([...args, "--json"], settings ?? own);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

const segmentsIn = (store: string) => readdirSync(join(store, "v1/changes"), { recursive: true }).length;

it("brings the rows back with the labels that they have, and no more segments than that takes", async () => {
  await query(
    source(),
    `create schema app; create table app.marks (id int primary key); create type app.mood as enum ('a', 'b');
     create table app.felt (id int primary key, m app.mood, ms app.mood[])`,
  );
  await ok(["init"]);
  await query(source(), "select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  const mark = async () => {
    await query(source(), "insert into app.marks select coalesce(max(id), 0) + 1 from app.marks");
    return String((await ok(["incremental"]))["id"]);
  };
  for (let time = 0; time < 6; time++) await mark();
  await withClient(source(), async (client) => {
    // No lock of the server stands between rows that are not committed and the names of their labels.
    await client.query("begin; insert into app.felt values (1, 'a', '{a,b}')");
    await query(
      source(),
      `alter type app.mood rename value 'a' to 'x'; alter type app.mood rename value 'b' to 'a';
       alter type app.mood rename value 'x' to 'b'`,
    );
    for (let time = 0; time < 6; time++) await mark();
    await ok(["create"]);
    await client.query("commit");
  });
  const incremental = await mark();

  await ok(["download", incremental, "--out", join(folder, "incremental.tar")]);
  await promisify(execFile)("tar", ["--extract", "--file", join(folder, "incremental.tar")], { cwd: folder });
  const unpacked = join(folder, readdirSync(folder).find((name) => /^holdfast-[0-9a-f]{8}$/.test(name)) ?? "");
  const name = await freshDatabase(cluster(), { platform: false });
  await ok(["restore-point", "latest", "--yes"], {
    BACKUP_STORE: `file://${unpacked}`,
    BACKUP_KEYS: keys,
    BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", name),
  });
  const restored = cluster().plainUrl("supabase_admin", name);
  expect(await query(restored, "select m::text, ms::text from app.felt")).toEqual([{ m: "b", ms: "{b,a}" }]);
  expect(await tableHashes(restored)).toEqual(await tableHashes(source()));
  expect(segmentsIn(unpacked)).toBeLessThan(segmentsIn(join(folder, "store")));
}, 300_000);
