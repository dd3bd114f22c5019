/** A full restore into the very database: definitions and rows by difference. The oracle is pg_dump and row hashes. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp } from "../support/sample_app/load.ts";
import { cli, type CliRun, startCli } from "../integration/cli_fixture.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { RowsWork } from "../../src/shared/rows/work.ts";
import { eventually } from "../support/stack.ts";
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

function statusPage(): { readonly state: string } {
  return JSON.parse(readFileSync(`${folder}/page/status.json`, "utf8")) as { state: string };
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
    BACKUP_STATUS_PAGE: `file://${folder}/page`,
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
     create function app.leave() returns text language sql as $$ select set_config('transaction_read_only', 'off', true) $$;
     create sequence app.tickets; select setval('app.tickets', 500);
     create type app.mood as enum ('low', 'high'); create table app.moods (n int primary key, mood app.mood); insert into app.moods values (1, 'low');
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

const notFenced = expect.arrayContaining([
  expect.stringMatching(/^logins other than the API's/),
  "Realtime: broadcast and presence",
  expect.stringMatching(/reset transaction_read_only.*: app\.leave\(\)$/),
]);

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
       create index later on public.tags (name); update public.events set kind = 'lost' where id % 3 = 0;
       select setval('app.tickets', 3); update app.moods set mood = 'high'`,
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
    // So is what it would not keep out of the database: the plan of maintenance mode names it.
    const plan = await cli(["maintenance", "on", "--message", "x", "--json"], settings);
    expect(plan.document).toMatchObject({ dryRun: true, unfenced: notFenced });
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
    const page = () => existsSync(`${folder}/page/status.json`) ? statusPage().state : null;
    expect(page(), "nobody has told it anything yet").toBeNull();
    const doing = ok(["restore-full", backup, "--apply", "replace", "--smoke", smoke, "--yes"]);
    // The public hears of it while it lasts, and once it is over, from the restore itself.
    await eventually(
      "the status page tells of it",
      () => Promise.resolve(page() === "maintenance" ? true : null),
      90_000,
    );
    const done = await doing;
    expect(page()).toBe("operational");
    expect(done).toMatchObject({
      ok: true,
      differences: [],
      safetyRun: expect.any(String),
      maintenance: { unfenced: notFenced },
    });
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
    // A number that was handed out once is not handed out again.
    expect(await query(source(), "select nextval('app.tickets')::int > 500 as yes")).toEqual([{ yes: true }]);
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

  it("lets moments be restored again once a full backup of the new chain is there", async () => {
    await ok(["incremental"]);
    const full = await ok(["create"]);
    expect(
      await query(
        source(),
        "select c.ended_at from backup.runs as r join backup.chains as c on c.id = r.chain_id where r.id = $1::uuid",
        [full["id"]],
      ),
    ).toEqual([{ ended_at: null }]);
  }, 60_000);

  it("leaves no row beside that keeps a migration from making a type anew", async () => {
    await query(
      source(),
      `begin; alter type app.mood rename to mood_old; create type app.mood as enum ('low', 'mid', 'high');
       alter table app.moods alter mood type app.mood using mood::text::app.mood; drop type app.mood_old; rollback`,
    );
  });

  it("is refused before anything is read where the disk has no room for the rows", async () => {
    await query(source(), "update backup.settings set value = '1' where name = 'disk_mb'");
    const refused = await cli(["restore-full", backup, "--apply", "replace", "--yes", "--json"], settings);
    await query(source(), "update backup.settings set value = '0' where name = 'disk_mb'");
    expect([refused.exit, refused.document]).toMatchObject([1, { error: { code: "space_missing" } }]);
    expect(await timesClosed()).toBe(1);
  }, 60_000);
});

const timesClosed = async () =>
  Number(
    (await query(source(), "select count(*)::int as n from backup.audit_log where action = 'maintenance.closed'"))[0]
      ?.["n"],
  );
const closed = async () => (await query(source(), "select closed, message from backup.maintenance"))[0];

/** A restore that has changed definitions and waits for a lock of ours, until `released`. */
async function waiting(...more: string[]): Promise<CliRun & { readonly released: () => Promise<void> }> {
  const holder = new Client({ connectionString: source() });
  await holder.connect();
  await holder.query("begin; lock table public.tags in share mode");
  const run = startCli(["restore-full", backup, "--apply", "replace", "--yes", "--json", ...more], settings);
  await eventually("it waits", async () => {
    const rows = await query(
      source(),
      "select from pg_stat_activity where application_name ~ '^holdfast:restore_' and wait_event_type = 'Lock'",
    );
    return rows.length > 0 ? true : null;
  }, 60_000);
  return { ...run, released: () => holder.query("rollback").then(() => holder.end()) };
}

describe("a full restore in place that is broken off", () => {
  let first = "";

  it("by Ctrl-C leaves the project closed, and says so with the two ways out", async () => {
    await query(
      source(),
      `alter table app.settings add extra text; update app.settings set extra = 'precious'; alter table app.settings alter value type json using value::json;
       create view app.later as select value::text as said from app.settings; grant select on app.later to anon; update public.tags set name = name || '!'`,
    );
    const run = await waiting();
    expect(await query(source(), "select to_regclass('app.later') as later")).toEqual([{ later: null }]);
    run.signal("SIGINT");
    const ended = await run.result;
    await run.released();
    expect([ended.exit, ended.document]).toMatchObject([1, {
      error: {
        code: "cancelled",
        message: expect.stringContaining("the project is still closed"),
        hint: expect.stringMatching(/same command goes on.*maintenance off/),
      },
    }]);
    expect(await closed()).toMatchObject({ closed: true });
    const [record] = await query(
      source(),
      "select safety_run::text as run from backup.restores order by started_at desc limit 1",
    );
    first = String(record?.["run"]);
  }, 120_000);

  it(
    "and looked at, then gone on with by another choice, makes again what went, and names the safety backup from before all of it",
    async () => {
      await ok(["restore-full", backup, "--apply", "replace", "--dry-run"]);
      const run = await waiting("--credentials");
      // Somebody looks after it meanwhile, and wants it to stay closed.
      await query(source(), "select backup.maintenance_on('I am checking', null, 'cli')");
      await run.released();
      const done = await run.result;
      expect(done, done.stderr).toMatchObject({
        exit: 0,
        document: {
          ok: true,
          safetyRun: first,
          safetyRunOfThisTry: expect.not.stringMatching(first),
          maintenance: { keptFor: "cli" },
          definitions: { again: ["view app.later"], gone: [{ identity: "column extra of app.settings" }] },
        },
      });
      expect(await query(source(), "select said from app.later limit 1")).toHaveLength(1);
      expect(
        await query(source(), "select safety_run::text as run from backup.restores order by started_at desc limit 1"),
      )
        .toEqual([{ run: first }]);
      expect(await closed()).toEqual({ closed: true, message: "I am checking" });
      await query(source(), "select backup.maintenance_off(); drop view app.later");
    },
    120_000,
  );
});

describe("restore-full --apply, of definitions that stay", () => {
  const missing = async (...more: string[]) =>
    await cli(
      ["restore-full", backup, "--apply", "missing", "--yes", "--json", "--skip-safety-backup", "postgres", ...more],
      settings,
    );

  it("closes nothing where rows of then have no value for a column of now", async () => {
    await query(
      source(),
      "delete from app.moods; alter table app.moods add need int not null; update app.settings set value = '7' where name = 'b'",
    );
    const before = await timesClosed();
    const refused = await missing();
    expect([refused.exit, refused.document]).toMatchObject([1, {
      error: { code: "rows_conflict", message: expect.stringMatching(/app\.moods: column need/) },
    }]);
    expect(await timesClosed()).toBe(before);
  }, 60_000);

  it("opens the project again where the server refuses a row and none was changed", async () => {
    await query(
      source(),
      // Of a column that the backup does not have, so that only the server can tell.
      "alter table app.moods drop need; alter table app.moods add later int default 1, add constraint up check (later > 1)",
    );
    const before = await timesClosed();
    const refused = await missing();
    expect([refused.exit, refused.document]).toMatchObject([1, {
      error: { message: expect.not.stringContaining("closed") },
    }]);
    expect(await timesClosed()).toBe(before + 1);
    expect(await closed()).toMatchObject({ closed: false });
  }, 60_000);

  it(
    "brings back what is missing and changes no other row; triggers that fire whatever are fired when asked",
    async () => {
      await query(
        source(),
        `alter table app.moods drop later; create table app.fired (n int);
       create function app.fire() returns trigger language plpgsql as $$ begin insert into app.fired values (new.n); return new; end $$;
       create trigger fire after insert on app.moods for each row execute function app.fire(); alter table app.moods enable always trigger fire`,
      );
      expect((await missing()).document).toMatchObject({ error: { code: "triggers_would_fire" } });
      const done = await missing("--fire-triggers");
      expect([done.exit, done.document], done.stderr).toMatchObject([0, {
        ok: true,
        inserted: 1,
        updated: 0,
        deleted: 0,
      }]);
      expect(
        await query(source(), "select (select value from app.settings where name = 'b'), (select n from app.fired)"),
      )
        .toEqual([{ value: 7, n: 1 }]);
    },
    60_000,
  );
});

it(
  "a migration is undone with its new tables, whose rows refer to rows that go, without maintenance mode",
  async () => {
    await query(
      source(),
      `insert into app.moods values (2, 'high');
     create table app.of_moods (n int references app.moods (n)); insert into app.of_moods values (2)`,
    );
    const before = await timesClosed();
    const args = ["restore-full", backup, "--apply", "replace", "--yes", "--json", "--skip-safety-backup", "postgres"];
    const refused = await cli([...args, "--dry-run"], settings);
    expect(refused.exit).toBe(0);
    const done = await cli([...args, "--drop-extra", "--without-maintenance"], settings);
    expect([done.exit, done.document], done.stderr).toMatchObject([0, { ok: true, differences: [] }]);
    expect(await query(source(), "select to_regclass('app.of_moods') as c, (select max(n) from app.moods) as n"))
      .toEqual([
        { c: null, n: 1 },
      ]);
    expect(await timesClosed()).toBe(before);
  },
  60_000,
);

it("a restore that goes on may take longer than its lease to lay its rows again", async () => {
  const deps = { target: openDatabase({ url: source() }), clock: systemClock, random: webCryptoRandom, log: silentLog };
  const asked = { scope: "full", mode: "replace", sourceBackup: backup, pointAt: null, userId: null } as const;
  const first = await RowsWork.begin(deps, { ...asked, digest: "slow" });
  first.changed();
  await first.applying(null);
  await first.fail(new HoldfastError("database_unreachable", "gone"));
  await first.close();
  const clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + 3_600_000 };
  const second = await RowsWork.begin({ ...deps, clock }, { ...asked, digest: "slow" });
  expect(second.lease?.id).toBe(first.lease?.id);
  await second.loaded(1);
  await second.finish([]);
  await second.close();
});
