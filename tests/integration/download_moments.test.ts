/** Downloads of what lies between two full backups: the bundle of an incremental, and rows of a moment. By the CLI, into files. */
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-download-moments-"));
let settings: Record<string, string> = {};
const keys = `test:${randomBytes(32).toString("base64url")}`;
const moments: string[] = [];
const incrementals: string[] = [];
let full = "";

const source = () => cluster().plainUrl("postgres");

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

async function notesAt(): Promise<string> {
  const [row] = await query(
    source(),
    "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') as at",
  );
  return String(row?.["at"]);
}

async function changed(sql: string): Promise<void> {
  await query(source(), sql);
  moments.push(await notesAt());
  await query(source(), "insert into public.marks select coalesce(max(id), 0) + 1 from public.marks");
  incrementals.push(String((await ok(["incremental"]))["id"]));
  // An incremental owns its hour: the next one is of a later hour.
  await query(
    source(),
    `select backup.seal_incrementals(true);
     update backup.runs set consistent_at = now() + interval '${incrementals.length} hours' where id = '${
      incrementals.at(-1)
    }'`,
  );
}

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: keys,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  await query(
    source(),
    `create table public.notes (id int primary key, text text);
     create table public.marks (id int primary key);
     insert into public.notes values (1, 'one')`,
  );
  await ok(["init"]);
  await query(source(), "select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  await cli(["incremental", "--json"], settings);
  full = String((await ok(["create"]))["id"]);
  await changed("insert into public.notes values (2, null), (3, '')");
  await changed("update public.notes set text = 'changed' where id = 1");
  await changed("delete from public.notes where id = 2");
}, clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const databases = async () => await query(source(), "select datname from pg_database order by 1");
const csv = { second: 'id,text\n1,changed\n2,\n3,""\n', first: 'id,text\n1,one\n2,\n3,""\n' };
const sorted = (text: string) => text.trimEnd().split("\n").sort();

it(
  "the bundle of an incremental brings back its end from the file and the keys alone, and nothing behind it",
  async () => {
    expect(new Set(incrementals).size, JSON.stringify(incrementals)).toBe(3);
    const out = join(folder, "incremental.tar");
    const made = await ok(["download", incrementals[1] ?? "", "--out", out]);
    expect(made).toMatchObject({ backup: incrementals[1], format: "bundle" });
    await promisify(execFile)("tar", ["--extract", "--file", out], { cwd: folder });
    const unpacked = join(
      folder,
      readdirSync(folder).find((name) => name.startsWith(`holdfast-${full.slice(0, 8)}`)) ?? "",
    );
    expect(existsSync(join(unpacked, "v1", "changes"))).toBe(true);
    const name = await freshDatabase(cluster(), { platform: false });
    const alone = {
      BACKUP_STORE: `file://${unpacked}`,
      BACKUP_KEYS: keys,
      BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", name),
    };
    await ok(["restore-point", "latest", "--yes"], alone);
    const rows = await query(cluster().plainUrl("supabase_admin", name), "select * from public.notes order by id");
    expect(rows).toEqual([{ id: 1, text: "changed" }, { id: 2, text: null }, { id: 3, text: "" }]);
    const behind = await cli(["restore-point", moments[2] ?? "", "--json"], alone);
    expect(behind.document).toMatchObject({ error: { code: "point_uncovered" } });
  },
  180_000,
);

it("rows of a moment, and of the end of an incremental, come as the server had them", async () => {
  const before = await databases();
  const at = join(folder, "moment.csv");
  await ok(["download", "--at", moments[0] ?? "", "--table", "public.notes", "--format", "csv", "--out", at]);
  expect(sorted(readFileSync(at, "utf8"))).toEqual(sorted(csv.first));
  const end = join(folder, "end.csv");
  await ok(["download", incrementals[1] ?? "", "--table", "public.notes", "--out", end]);
  expect(sorted(readFileSync(end, "utf8"))).toEqual(sorted(csv.second));
  expect(await databases(), "the scratch database is gone").toEqual(before);
}, 180_000);

it("a bundle of a moment is refused, with what to take instead", async () => {
  const refused = await cli(["download", "--at", moments[0] ?? "", "--out", join(folder, "x.tar")], settings);
  expect(refused.exit).toBe(2);
  expect(refused.stderr).toMatch(/no moment between two.*incremental/);
  expect(existsSync(join(folder, "x.tar"))).toBe(false);
}, 60_000);
