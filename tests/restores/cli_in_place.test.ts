/** A full restore into the very database: definitions and rows by difference. The oracle is pg_dump and row hashes. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp } from "../support/sample_app/load.ts";
import { cli } from "../integration/cli_fixture.ts";
import { rowsOf } from "./rows_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-in-place-"));
let settings: Record<string, string> = {};
let app: SampleApp;
let backup = "";
let factor = "";

const source = () => cluster().plainUrl("postgres");

async function ok(args: readonly string[]): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

/** What pg_dump says of the user's schemas. */
function dumped(): string {
  const text = execFileSync("pg_dump", [
    "--schema-only",
    "--schema=public",
    "--schema=app",
    cluster().plainUrl("supabase_admin"),
  ], { encoding: "utf8", maxBuffer: 1 << 26 });
  return text.replace(/^\\(un)?restrict .*$/gm, "");
}

/** Rows of every table, partition by partition, as text. */
async function allRows(): Promise<Record<string, string[]>> {
  const tables = await query(
    source(),
    `select c.oid::regclass::text as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where c.relkind in ('r', 'm') and (n.nspname in ('public', 'app') or c.oid in ('auth.users'::regclass, 'auth.identities'::regclass))`,
  );
  const found: Record<string, string[]> = {};
  for (const { name } of tables) found[String(name)] = await rowsOf(source(), `only ${name}`);
  return found;
}

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  await ok(["init"]);
  app = await loadSampleApp({
    owner: { connectionString: source() },
    admin: { connectionString: cluster().plainUrl("supabase_admin") },
  }, { scale: 0.02 });
  await query(
    source(),
    `create schema app; create table app.settings (name text primary key, value jsonb); insert into app.settings values ('a', '1'), ('b', 'null');
     create function app.answer() returns int language sql as 'select 42'; grant execute on function app.answer() to authenticated;
     create table app.notes (n int, said text); insert into app.notes select i, 'said ' || i from generate_series(1, 9) i;
     create view app.spoken as select said from app.notes where n > 3; grant select on app.spoken to authenticated`,
  );
  // Somebody with a second factor and a session, who keeps both.
  factor = app.people[2]?.id ?? "";
  await query(
    source(),
    `insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at) values (gen_random_uuid(), '${factor}', 'totp', 'verified', now(), now());
     insert into auth.sessions (id, user_id) values (gen_random_uuid(), '${factor}')`,
  );
  await ok(["incremental"]);
  backup = String((await ok(["create"]))["id"]);
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("restore-full --apply replace", () => {
  let definitions = "";
  let rows: Record<string, string[]> = {};

  beforeAll(async () => {
    definitions = dumped();
    rows = await allRows();
    const [first, second] = app.people;
    await query(
      source(),
      `delete from public.journal_entries where id in (select id from public.journal_entries limit 50);
       update public.profiles set display_name = 'changed';
       delete from auth.users where id = '${first?.id}'; update auth.users set phone = '+1' where id = '${second?.id}';
       drop table public.mood_samples; drop policy if exists "own entries" on public.journal_entries;
       alter table public.journal_entries disable row level security;
       alter table public.profiles add extra text default 'x'; alter table public.tags drop column colour;
       alter table app.settings rename to options; create or replace function app.answer() returns int language sql as 'select 41';
       revoke execute on function app.answer() from authenticated; grant all on app.options to anon;
       insert into auth.users (id, email) values ('99999999-9999-4999-8999-999999999999', 'new@journal.example');
       insert into auth.sessions (id, user_id) values (gen_random_uuid(), '99999999-9999-4999-8999-999999999999');
       insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at)
         values (gen_random_uuid(), '99999999-9999-4999-8999-999999999999', 'totp', 'verified', now(), now()),
           (gen_random_uuid(), '${factor}', 'phone', 'verified', now(), now());
       delete from app.notes where n = 2; update app.notes set said = 'other' where n = 3; insert into app.notes values (20, 'new');
       create publication of_the_app for table app.notes; create or replace view app.spoken as select said from app.notes where n > 4;
       create index later on public.tags (name); update public.events set kind = 'lost' where id % 3 = 0`,
    );
    expect(dumped()).not.toBe(definitions);
  }, 60_000);

  it("shows all of it, and changes nothing", async () => {
    const [changed, present] = [dumped(), await allRows()];
    const plan = await ok(["restore-full", backup, "--apply", "replace", "--dry-run"]);
    expect(plan).toMatchObject({ dryRun: true, ok: false });
    expect(JSON.stringify(plan["definitions"])).toMatch(/mood_samples/);
    expect(dumped()).toBe(changed);
    expect(await allRows()).toEqual(present);
    expect(await query(source(), "select nspname from pg_namespace where nspname like 'restore\\_%'")).toEqual([]);
  }, 120_000);

  it("is refused before anything is read where its checks could not be made", async () => {
    const flagsAndCodes = [
      ["setting_missing", "--check-user", "somebody@journal.example"],
      ["usage", "--smoke", join(folder, "none.sql")],
    ];
    for (const [code, ...flags] of flagsAndCodes) {
      const refused = await cli(["restore-full", backup, "--apply", "replace", "--yes", "--json", ...flags], settings);
      expect([refused.exit, refused.document]).toMatchObject([2, { error: { code } }]);
    }
    expect((await ok(["maintenance", "status"]))["state"]).toMatchObject({ closed: false });
  });

  it("is refused in the plan where a publication forbids to delete rows, and no way leads around it", async () => {
    await query(source(), "alter publication of_the_app set table app.notes (said)");
    const refused = await cli(["restore-full", backup, "--apply", "replace", "--dry-run", "--json"], settings);
    expect([refused.exit, refused.document]).toMatchObject([1, {
      error: { code: "definitions_stuck", message: expect.stringContaining("app.notes") },
    }]);
    await query(source(), "alter publication of_the_app set table app.notes");
  }, 120_000);

  it("makes definitions and rows what they were, after a safety backup, and begins a new chain", async () => {
    const smoke = join(folder, "smoke.sql");
    writeFileSync(smoke, "begin;\nselect count(*) > 0 as ok from public.tags;\nselect 1 from app.settings;\ncommit;\n");
    const done = await ok(["restore-full", backup, "--apply", "replace", "--smoke", smoke, "--yes"]);
    expect(done).toMatchObject({ ok: true, differences: [], safetyRun: expect.any(String) });
    expect(dumped()).toBe(definitions);
    expect(await allRows()).toEqual(rows);
    expect(await query(source(), "select count(*)::int as n from backup.chains where ended_at is null")).toEqual([{
      n: 0,
    }]);
    // Who came later goes with all that hung on the account; who was there keeps sessions and second factors of today.
    expect(await query(source(), "select user_id from auth.sessions")).toEqual([{ user_id: factor }]);
    expect(await query(source(), "select user_id from auth.mfa_factors")).toEqual([{ user_id: factor }, {
      user_id: factor,
    }]);
    // For the watchdog to run each hour of the next day.
    expect(
      await query(
        source(),
        `select q.number, q.line, q.statement, q.was_good from backup.restore_smokes as q
           join backup.restores as r on r.id = q.restore_id and r.status = 'succeeded' order by q.number`,
      ),
    ).toEqual([
      { number: 2, line: 2, statement: "select count(*) > 0 as ok from public.tags", was_good: true },
      { number: 3, line: 3, statement: "select 1 from app.settings", was_good: true },
    ]);
    // The project is open again.
    const status = await ok(["maintenance", "status"]);
    expect(status).toMatchObject({ state: { closed: false } });
    const again = await ok(["restore-full", backup, "--apply", "replace", "--dry-run"]);
    expect((again["definitions"] as { steps: unknown[] }).steps).toEqual([]);
  }, 180_000);
});
