/** Rows of Storage's tables that are of our own buckets are in no backup, and no restore brings, takes or misses one. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cli } from "../integration/cli_fixture.ts";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-own-files-"));
let settings: Record<string, string> = {};
const fulls: string[] = [];

/** As Storage does it. */
const storage = (text: string) => query(cluster().plainUrl(cluster().superuser, "postgres"), text);

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

const rowsOf = async (url: string) => ({
  buckets: await query(url, "select id, name, public from storage.buckets order by id"),
  objects: await query(url, "select id, bucket_id, name, metadata from storage.objects order by id"),
});
const theirs = async () => {
  const { buckets, objects } = await rowsOf(cluster().plainUrl(cluster().superuser, "postgres"));
  const isTheirs = (bucket: unknown) => bucket === null || !String(bucket).startsWith("holdfast-");
  return {
    buckets: buckets.filter(({ id }) => isTheirs(id)),
    objects: objects.filter(({ bucket_id: bucket }) => isTheirs(bucket)),
  };
};
const fileOf = (number: number) => `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`;
const file = (number: number, bucket: string, name: string) =>
  `insert into storage.objects (id, bucket_id, name, metadata) values
     ('${fileOf(number)}', ${bucket === "" ? "null" : `'${bucket}'`}, '${name}', '{"size": ${number}}')`;

/** A database without Storage: rows of its tables come as they are. */
async function bare(): Promise<{ readonly url: string; readonly given: Record<string, string> }> {
  const name = await freshDatabase(cluster(), { platform: false });
  return {
    url: cluster().plainUrl("supabase_admin", name),
    given: { ...settings, BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", name) },
  };
}

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  await ok(["init"]);
  await query(cluster().plainUrl(), "select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  await ok(["incremental"]);
  await storage(
    `insert into storage.buckets (id, name) values
       ('avatars', 'avatars'), ('holdfast-downloads', 'holdfast-downloads'), ('holdfast-backups', 'holdfast-backups')`,
  );
  await storage(file(1, "avatars", "a.png"));
  await storage(file(2, "avatars", "b.png"));
  await storage(file(3, "", "without a bucket"));
  await storage(file(11, "holdfast-downloads", "d/000001"));
  await storage(file(12, "holdfast-backups", "v1/repository.json"));
  fulls.push(String((await ok(["create"]))["id"]));
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("rows of our own buckets", () => {
  it("are not in a full backup, whose counts are those of the project's rows alone", async () => {
    const counted = await query(
      cluster().plainUrl(),
      `select table_name as name, counted_rows::int as rows from backup.run_tables
        where run_id = $1 and schema_name = 'storage' and table_name in ('buckets', 'objects') order by 1`,
      [fulls[0]],
    );
    expect(counted).toEqual([{ name: "buckets", rows: 1 }, { name: "objects", rows: 3 }]);
    expect(await ok(["verify", fulls[0] ?? ""])).toMatchObject({ ok: true });
    const { url, given } = await bare();
    await ok(["restore-full", fulls[0] ?? "", "--yes"], given);
    expect(await rowsOf(url)).toEqual(await theirs());
    expect(await ok(["validate", fulls[0] ?? "", "--target-db-url", given["BACKUP_TARGET_DB_URL"] ?? ""]))
      .toMatchObject({
        ok: true,
      });
  }, 120_000);

  it("let files that did not change be taken over, as rows of every table", async () => {
    await storage("update storage.objects set metadata = '{}' where bucket_id like 'holdfast-%'");
    fulls.push(String((await ok(["create"]))["id"]));
    const taken = await query(
      cluster().plainUrl(),
      `select c.taken_from from backup.chunks as c join backup.run_tables as t using (run_id, table_oid)
        where c.run_id = $1 and t.schema_name = 'storage' and t.table_name = 'objects'`,
      [fulls[1]],
    );
    expect(taken).toEqual([{ taken_from: fulls[0] }]);
  }, 60_000);

  it("do not come out of the change stream either, whatever was done to them, and all others do", async () => {
    for (
      const text of [
        file(4, "avatars", "c.png"),
        file(13, "holdfast-downloads", "d/000002"),
        file(14, "holdfast-backups", "v1/x"),
        // Of before the full backup and of after it, each changed, and some changed twice, then removed.
        "update storage.objects set metadata = '{\"size\": 0}' where bucket_id = 'avatars' and name = 'a.png'",
        `update storage.objects set metadata = '{"again": 1}' where id in ('${fileOf(11)}', '${fileOf(13)}')`,
        `update storage.objects set metadata = '{"again": 2}' where id in ('${fileOf(11)}', '${fileOf(13)}')`,
        "update storage.buckets set public = false",
        // Replica role, as the trigger of a hosted project refuses it else.
        `set session_replication_role = replica; delete from storage.objects where id in ('${fileOf(2)}', '${
          fileOf(12)
        }', '${fileOf(13)}')`,
        // One that was the project's is in ours from then on.
        `update storage.objects set bucket_id = 'holdfast-downloads' where id = '${fileOf(3)}'`,
      ]
    ) await storage(text);
    await ok(["incremental"]);
    expect((await theirs()).objects.map(({ name }) => name)).toEqual(["a.png", "c.png"]);
    const { url, given } = await bare();
    await ok(["restore-point", "latest", "--yes"], given);
    expect(await rowsOf(url)).toEqual(await theirs());
  }, 120_000);

  it("stay as they are where a restore in place makes all else equal to a backup", async () => {
    await storage("insert into storage.buckets (id, name) values ('later', 'later')");
    // No file keeps the bucket from being deleted.
    await storage(
      "set session_replication_role = replica; delete from storage.objects where bucket_id like 'holdfast-%'",
    );
    const ours = "select id, name, public from storage.buckets where id like 'holdfast-%' order by id";
    const before = await storage(ours);
    expect(before).toHaveLength(2);
    await ok([
      ...["restore-full", fulls[1] ?? "", "--apply", "replace", "--yes", "--without-maintenance"],
      ...["--skip-safety-backup", "postgres"],
    ]);
    expect(await storage(ours)).toEqual(before);
    expect((await theirs()).buckets.map(({ id }) => id)).toEqual(["avatars"]);
  }, 120_000);
});
