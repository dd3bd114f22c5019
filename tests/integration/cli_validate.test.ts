import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { cli, cliAtTerminal, type CliResult } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-validate-"));
let settings: Record<string, string> = {};
let [source, copy, backup] = ["", "", ""];

const ok = (result: CliResult): CliResult => {
  if (result.exit !== 0) throw new Error(result.stdout + result.stderr);
  return result;
};

beforeAll(async () => {
  const [from, to] = [await freshDatabase(cluster()), await freshDatabase(cluster())];
  [source, copy] = [cluster().plainUrl("postgres", from), cluster().plainUrl("postgres", to)];
  settings = {
    BACKUP_DB_URL: cluster().url("postgres", from),
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
  };
  await query(
    source,
    `create table public.entries (id integer primary key, body text);
     insert into public.entries select i, 'entry ' || i from generate_series(1, 100) as i`,
  );
  ok(await cli(["init"], settings));
  backup = (ok(await cli(["create", "--json"], settings)).document as { id: string }).id;
  settings["BACKUP_TARGET_DB_URL"] = cluster().url("postgres", to);
  ok(await cli(["restore-full", "latest", "--yes"], settings));
}, clusterMs);

const databases = () => query(source, "select datname from pg_database order by 1");
const entries = (url: string) => query(url, "select id, body from public.entries order by id");
const document = (result: CliResult) => ok(result).document as Record<string, unknown>;
/** The newest record of a restore. */
const recorded = async () =>
  (await query(
    source,
    `select id, scope, mode, status, source_backup, target_is_here, target_label, point_at, rows_done::int as rows,
            within_objective
       from backup.restores order by started_at desc limit 1`,
  ))[0];

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a restore into another database", () => {
  it("is recorded in the source with its time against the objective, and validate alone finds it", async () => {
    const record = await recorded();
    expect(record).toMatchObject({
      scope: "full",
      mode: "beside",
      status: "succeeded",
      source_backup: backup,
      target_is_here: false,
      within_objective: true,
    });
    expect(record?.["rows"]).toBeGreaterThanOrEqual(100);
    const validated = await cli(["validate", "--json"], settings);
    expect(document(validated)).toMatchObject({ id: backup, restore: record?.["id"], ok: true });
  }, 60_000);

  it("is not hindered by a source that is gone, and says that it is recorded nowhere", async () => {
    const to = await freshDatabase(cluster());
    const restored = await cli(["restore-full", backup, "--yes", "--json"], {
      ...settings,
      BACKUP_DB_URL: "postgresql://postgres@127.0.0.1:1/gone",
      BACKUP_TARGET_DB_URL: cluster().url("postgres", to),
    });
    expect(document(restored)).toMatchObject({ ok: true, restore: null });
    expect(restored.stderr).toContain("warning: this restore is not recorded in the database of --db-url");
    expect(await entries(cluster().plainUrl("postgres", to))).toHaveLength(100);
  }, 60_000);

  it("of rows goes in there, with the target's name for want of a safety backup, and is recorded", async () => {
    await query(copy, "delete from public.entries where id <= 10; update public.entries set body = 'x' where id = 11");
    const table = ["restore-table", "public.entries", backup];
    const beside = document(await cli([...table, "--json"], settings));
    expect(beside).toMatchObject({ mode: "beside", tables: [{ rows: 100 }] });
    expect(await query(copy, `select from ${beside["sideSchema"]}.entries`)).toHaveLength(100);
    const refused = await cli([...table, "--apply", "merge", "--yes", "--json"], settings);
    expect(refused.document).toMatchObject({
      error: { code: "usage", hint: expect.stringContaining("--skip-safety") },
    });
    expect(await entries(copy)).toHaveLength(90);
    const name = copy.slice(copy.lastIndexOf("/") + 1);
    const merge = [...table, "--apply", "merge", "--skip-safety-backup", name, "--json"];
    expect(document(await cli([...merge, "--yes"], settings))).toMatchObject({ ok: true, inserted: 10, updated: 1 });
    expect(await entries(copy)).toEqual(await entries(source));
    expect(await recorded()).toMatchObject({
      scope: "table",
      mode: "merge",
      status: "succeeded",
      target_is_here: false,
    });
    await query(copy, `drop schema ${beside["sideSchema"]} cascade`);
    await query(source, "delete from backup.restores where scope = 'table'");
  }, 60_000);

  it("asks at a terminal for the database's name: another word changes nothing, the name does it", async () => {
    await query(source, "delete from public.entries where id = 5");
    const name = source.slice(source.lastIndexOf("/") + 1);
    const args = ["restore-table", "public.entries", backup, "--apply", "missing", "--skip-safety-backup", name];
    const { BACKUP_TARGET_DB_URL: _, ...here } = settings;
    const wrong = await cliAtTerminal(args, here, "yes");
    expect(wrong.shown).toContain(`without a safety backup`);
    expect(wrong.shown).toContain(`Type ${name} to go on:`);
    expect([wrong.exit, wrong.shown], wrong.shown).toEqual([2, expect.stringContaining("confirmation_wrong")]);
    expect(await entries(source)).toHaveLength(99);
    const right = await cliAtTerminal(args, here, name);
    expect([right.exit, right.shown]).toEqual([0, expect.stringContaining("1 inserted")]);
    expect(await entries(source)).toHaveLength(100);
    await query(source, "delete from backup.restores where scope = 'table'");
  }, 60_000);
});

describe("holdfast validate", () => {
  it("compares a copy with its backup from store and key alone: exit 0, then 3 with what differs", async () => {
    const { BACKUP_DB_URL: _, ...alone } = settings;
    const same = await cli(["validate", "latest", "--json"], alone);
    expect(same.document, same.stderr).toMatchObject({ id: backup, ok: true, differences: [], restore: null });
    expect(same.exit).toBe(0);
    await query(copy, "update public.entries set body = 'something else' where id = 7");
    const other = await cli(["validate", backup.slice(0, 8), "--json"], settings);
    expect(other.exit, other.stderr).toBe(3);
    const difference = { kind: "rows", name: "table public.entries", detail: "100 rows, with other contents" };
    expect(other.document).toMatchObject({ id: backup, ok: false, differences: [difference] });
    const people = await cli(["validate", "latest"], settings);
    expect(people.exit).toBe(3);
    expect(people.stdout).toContain("rows: table public.entries: 100 rows, with other contents");
    expect(other.stdout + people.stdout).not.toContain("something else");
  }, 120_000);

  it("alone takes the latest restore that ended well, by its id any of them", async () => {
    await query(source, "delete from backup.restores");
    const none = await cli(["validate", "--json"], settings);
    expect(none.document).toMatchObject({ error: { code: "run_not_found" } });
    const rows = await query(
      source,
      `select * from backup.begin_restore('{"scope": "table", "mode": "merge", "source_backup": "${backup}",
         "target_label": "here", "tables": [{"schema": "public", "name": "entries"}]}')`,
    );
    const { id, side_schema: side, token } = rows[0] as { id: string; side_schema: string; token: string };
    await query(source, `create schema ${side}; create table ${side}.entries as select * from public.entries`);
    await query(source, `select backup.finish_restore('${id}', ${token}, '{}')`);
    const latest = await cli(["validate", "--json"], settings);
    expect(latest.document, latest.stderr).toMatchObject({ id, restore: id, ok: true, rows: 100 });
    await query(source, "delete from public.entries where id = 3");
    const named = await cli(["validate", id.slice(0, 8), "--json"], settings);
    expect(named.exit).toBe(3);
    expect(named.document).toMatchObject({
      ok: false,
      differences: [{ kind: "rows", detail: "1 rows of then are not there" }],
    });
  }, 120_000);

  it("a full restore in place is compared with its backup in the database itself", async () => {
    await query(source, "insert into public.entries values (3, 'entry 3') on conflict do nothing");
    const [begun] = await query(
      source,
      `select * from backup.begin_restore('{"scope": "full", "mode": "in_place", "source_backup": "${backup}", "target_label": "here"}')`,
    );
    await query(source, `select backup.finish_restore('${begun?.["id"]}', ${begun?.["token"]}, '{}')`);
    const same = await cli(["validate", "--json"], settings);
    expect(same.document, same.stderr).toMatchObject({ id: backup, restore: begun?.["id"], ok: true, differences: [] });
    await query(source, "create table public.later (); insert into public.entries values (101, 'more')");
    const other = await cli(["validate", "--json"], settings);
    expect(other.exit).toBe(3);
    expect(other.document).toMatchObject({ differences: [{ kind: "rows", name: "table public.entries" }] });
    expect((other.document as { notCompared: { identity: string }[] }).notCompared.map((one) => one.identity))
      .toContain("table public.later");
  }, 120_000);

  it("says what is missing: a target for a backup, a backup of that id", async () => {
    const { BACKUP_TARGET_DB_URL: _, ...without } = settings;
    const target = await cli(["validate", backup, "--json"], without);
    expect(target.exit).toBe(2);
    expect(target.document).toMatchObject({ error: { code: "setting_missing" } });
    const unknown = await cli(["validate", "00000000", "--json"], settings);
    expect(unknown.document).toMatchObject({ error: { code: "backup_not_found" } });
  }, 120_000);
});

describe("a restore to a moment, or of what a safety backup is newer than", () => {
  it("with --dry-run says what would be made, and makes nothing; latest is no safety backup", async () => {
    const { BACKUP_TARGET_DB_URL: _, ...here } = settings;
    const before = await databases();
    const safety = document(await cli(["create", "--tier", "safety", "--json"], here));
    expect(safety["id"]).not.toBe(backup);
    const planned = await cli(["restore-full", "latest", "--dry-run", "--yes", "--json"], here);
    expect(document(planned)).toMatchObject({
      dryRun: true,
      id: backup,
      isNew: true,
      database: expect.stringMatching(/_at_\d{8}t\d{6}z$/),
      rows: expect.any(Number),
      tables: expect.any(Number),
    });
    const { bytes, room } = document(planned) as { bytes: number; room: number };
    expect(room).toBeGreaterThan(bytes);
    expect(planned.stderr).toContain("latest passes over 1 newer backup");
    expect(await databases()).toEqual(before);
    const verified = await cli(["verify", "latest", "--json"], here);
    expect(document(verified)).toMatchObject({ id: backup });
  }, 60_000);

  it("by `restore --at` with the scope full is the moment's, not the backup's", async () => {
    const { BACKUP_TARGET_DB_URL: _, ...here } = settings;
    ok(await cli(["incremental"], here));
    ok(await cli(["create"], here));
    await query(source, "delete from public.entries where id <= 40");
    const was = await entries(source);
    const [row] = await query(
      source,
      `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
    );
    const at = String(row?.["at"]);
    await query(source, "delete from public.entries where id > 90");
    ok(await cli(["incremental"], here));
    const before = await databases();
    const full = ["restore", "--scope", "full", "--at", at, "--json", "--yes"];
    const planned = document(await cli([...full, "--dry-run"], here));
    expect(planned).toMatchObject({ dryRun: true, isNew: true, transactions: expect.any(Number) });
    expect(await databases()).toEqual(before);
    const done = document(await cli(full, here));
    const label = String(done["database"]);
    const made = cluster().plainUrl("postgres", label.slice(label.lastIndexOf("/") + 1));
    expect(await entries(made)).toEqual(was);
    expect(planned["database"]).toBe(label);
    expect(await recorded()).toMatchObject({
      id: done["restore"],
      scope: "point",
      mode: "beside",
      target_label: label,
    });
    const rows = document(await cli(["restore", "public.entries", "--scope", "table", "--at", at, "--json"], here));
    expect(rows).toMatchObject({ mode: "beside", tables: [{ rows: was.length }] });
  }, 120_000);
});
