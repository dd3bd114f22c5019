import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { cli, type CliResult } from "./cli_fixture.ts";

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

afterAll(() => rmSync(folder, { recursive: true, force: true }));

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
