/** Maintenance mode around a full restore in place: whose it is, when it begins and ends, and what a kill leaves of it. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { denoPath } from "../../src/local/setup.mjs";
import { cli } from "../integration/cli_fixture.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { eventually, setClock } from "../support/stack.ts";
import { root } from "../unit/project_files.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-fence-"));
let settings: Record<string, string> = {};
let backup = "";

const source = () => cluster().plainUrl("postgres");
const admin = () => cluster().plainUrl("supabase_admin");
const ask = async (text: string, values: readonly unknown[] = []) => await query(source(), text, values);
const clock = { query: ask };

const inPlace = (
  id: string,
  ...more: string[]
) => ["restore-full", id, "--apply", "replace", "--yes", "--json", ...more];
const restore = async (...more: string[]) => await cli(inPlace(backup, ...more), settings);
const maintenance = async () => (await ask("select closed, message from backup.maintenance"))[0];
const timesClosed = async () =>
  Number((await ask("select count(*)::int as n from backup.audit_log where action = 'maintenance.closed'"))[0]?.["n"]);

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  await cli(["init", "--json"], settings);
  await ask(
    `create table public.t (id int primary key, v text); insert into public.t select i, 'v' from generate_series(1, 20) as i;
     select cron.schedule('of the app', '0 3 * * *', 'select 1')`,
  );
  const created = await cli(["create", "--json"], settings);
  backup = String((created.document as { id: string }).id);
}, clusterMs + 60_000);
afterEach(async () => {
  await setClock(clock, 0);
  await ask("select backup.maintenance_off()");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Running {
  readonly pid: number;
  said(text: string): Promise<void>;
  readonly ended: Promise<{ readonly exit: number | null; readonly document: unknown; readonly stderr: string }>;
}

/** In a process of its own, so that SIGKILL meets the one that works. */
function start(...more: string[]): Running {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(denoPath(), [
    ...["run", "--quiet", "--no-prompt", "--allow-all", "--config", join(root, "deno.json")],
    ...[join(root, "src/cli/main.ts"), ...inPlace(backup, ...more)],
  ], { cwd: "/", env: { PATH, HOME, DENO_NO_UPDATE_CHECK: "1", ...settings }, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<Awaited<Running["ended"]>>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exit) => resolve({ exit, document: stdout === "" ? null : JSON.parse(stdout), stderr }));
  });
  return {
    pid: child.pid ?? 0,
    ended,
    async said(text) {
      await eventually(text, () => Promise.resolve(stderr.includes(text) ? true : null), 60_000);
    },
  };
}

/** Process ids of sessions of that name that wait for a lock. */
async function waiting(application: string): Promise<number[]> {
  return await eventually(`${application} waits`, async () => {
    const rows = await ask(
      "select pid from pg_stat_activity where application_name ~ $1 and wait_event_type = 'Lock'",
      [application],
    );
    return rows.length > 0 ? rows.map(({ pid }) => Number(pid)) : null;
  }, 60_000);
}

describe("a project that is closed already", () => {
  it("by a person stays closed, with the person's message, and the restore says so", async () => {
    await cli(["maintenance", "on", "--message", "back on Monday", "--yes", "--json"], settings);
    const done = await restore("--message", "of the restore");
    expect(done, done.stderr).toMatchObject({ exit: 0, document: { ok: true, maintenance: { keptFor: "cli" } } });
    expect(await maintenance()).toEqual({ closed: true, message: "back on Monday" });
    expect(done.stderr).toMatch(/cli had turned it on; it stays on/);
    const [last] = await ask("select status from backup.restores order by started_at desc limit 1");
    expect(last).toEqual({ status: "succeeded" });
  });
});

describe("a restore that cannot be made", () => {
  it.each([
    [
      "another database is named to go without a safety backup",
      ["--skip-safety-backup", "wrong"],
      "confirmation_wrong",
    ],
    ["an end without a zone is announced", ["--until", "2999-01-01"], "usage"],
  ])("closes nothing where %s", async (_, args, code) => {
    const before = await timesClosed();
    const refused = await restore(...args);
    expect(refused).toMatchObject({ exit: 2, document: { error: { code } } });
    expect(await timesClosed()).toBe(before);
  });

  it("closes nothing where the target is another database and no safety backup of it is possible", async () => {
    const before = await timesClosed();
    const refused = await restore("--target-db-url", cluster().url("postgres"));
    expect(refused).toMatchObject({ exit: 2, document: { error: { code: "usage" } } });
    expect(await timesClosed()).toBe(before);
  });

  it("opens the project again where the safety backup fails, as nothing was changed", async () => {
    const before = await timesClosed();
    await ask("create function public.no() returns trigger language plpgsql as $$ begin raise 'no'; end $$");
    await ask(
      `create trigger refuse before insert on backup.runs for each row execute function public.no()`,
    );
    try {
      const refused = await restore();
      expect(refused.exit).not.toBe(0);
      expect(refused.stderr).toContain("maintenance mode is off again");
    } finally {
      await ask("drop trigger refuse on backup.runs; drop function public.no()");
    }
    expect(await timesClosed()).toBe(before + 1);
    expect(await maintenance()).toMatchObject({ closed: false });
  });
});

describe("a restore of a project that an earlier one left closed", () => {
  let done: Awaited<ReturnType<typeof restore>>;
  let buckets: unknown;

  beforeAll(async () => {
    await ask("select backup.maintenance_on('of the first', null, 'restore:' || gen_random_uuid())");
    await query(
      admin(),
      `insert into storage.buckets (id, name) values ('fresh', 'fresh'), ('empty', 'empty');
       insert into storage.objects (bucket_id, name) values ('fresh', 'a.png')`,
    );
    await ask("select cron.alter_job(jobid, schedule => '0 5 * * *') from cron.job where jobname = 'of the app'");
    const smoke = join(folder, "smoke.sql");
    writeFileSync(
      smoke,
      "select not active and schedule = '0 3 * * *' as ok from cron.job where jobname = 'of the app'",
    );
    done = await restore("--smoke", smoke);
    buckets = await ask("select id from storage.buckets where id in ('fresh', 'empty')");
    await query(
      admin(),
      "set session_replication_role = replica; delete from storage.objects; delete from storage.buckets where id <> 'holdfast-backups'",
    );
  }, 90_000);

  it("opens it", async () => {
    expect(done, done.stderr).toMatchObject({ exit: 0, document: { ok: true, maintenance: { keptFor: null } } });
    expect(await maintenance()).toMatchObject({ closed: false });
  });

  it("leaves a bucket that came after the backup and holds files, and says so", () => {
    expect(buckets).toEqual([{ id: "fresh" }]);
    expect((done.document as { warnings: unknown }).warnings).toContainEqual(
      expect.stringMatching(/1 rows of storage\.buckets/),
    );
  });

  it("keeps a cron job that is made again paused until the project is open, and lets it run then", async () => {
    expect((done.document as { checks: unknown }).checks).toContainEqual(
      expect.objectContaining({ check: "smoke queries", ok: true }),
    );
    expect(await ask("select active, schedule from cron.job where jobname = 'of the app'")).toEqual([
      { active: true, schedule: "0 3 * * *" },
    ]);
    expect(done.stderr).not.toMatch(/left as it is/);
  });
});

it("another database as the target is the one that is closed, and the source is not", async () => {
  const other = "other";
  await query(
    admin(),
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres' and pid <> pg_backend_pid()",
  );
  await withClient(cluster().plainUrl("supabase_admin", "template1"), async (client) => {
    await eventually("it is copied", async () => {
      await client.query(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'postgres' and pid <> pg_backend_pid()",
      );
      return await client.query(`create database ${other} template postgres owner postgres`).then(
        () => true,
        () => null,
      );
    }, 30_000);
  });
  const before = await timesClosed();
  const target = cluster().plainUrl("postgres", other);
  await query(target, "delete from public.t where id = 1");
  const done = await restore("--target-db-url", cluster().url("postgres", other), "--skip-safety-backup", other);
  expect(done, done.stdout + done.stderr).toMatchObject({ document: { inserted: 1 } });
  expect(await timesClosed()).toBe(before);
  const closedThere = await query(
    target,
    "select count(*)::int as n from backup.audit_log where action = 'maintenance.closed'",
  );
  expect(Number(closedThere[0]?.["n"])).toBe(before + 1);
  expect(await query(target, "select closed from backup.maintenance")).toEqual([{ closed: false }]);
}, 90_000);

it("a restore is told as done where the project is open and no write was seen to go through", async () => {
  let isGone = false;
  // An API that does as the switch says, until it is open again: then nobody answers.
  const api = createServer((request, response) => {
    void (async () => {
      const [row] = await ask("select closed, opened_at is not null as was_closed from backup.maintenance");
      isGone ||= row?.["closed"] !== true && timesSeenClosed > 0;
      if (isGone) return void request.socket.destroy();
      if (row?.["closed"] === true) timesSeenClosed++;
      const isFunction = request.url?.startsWith("/rest/v1/rpc/") === true;
      const [status, code] = row?.["closed"] !== true ? [200, ""] : isFunction ? [405, "25006"] : [503, "PT503"];
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ code }));
    })();
  });
  let timesSeenClosed = 0;
  await new Promise<void>((resolve) => api.listen(0, "127.0.0.1", resolve));
  try {
    await ask("delete from public.t where id = 2");
    const { port } = api.address() as AddressInfo;
    const url = `http://127.0.0.1:${port}`;
    const done = await cli(inPlace(backup, "--skip-safety-backup", "postgres"), {
      ...settings,
      BACKUP_PROJECT_URL: url,
      SUPABASE_SERVICE_ROLE_KEY: "k",
    });
    expect(done, done.stderr).toMatchObject({
      exit: 3,
      document: { ok: false, inserted: 1, maintenance: { unproven: expect.stringContaining("project_unreachable") } },
    });
    expect(await maintenance()).toMatchObject({ closed: false });
    const [last] = await ask("select status from backup.restores order by started_at desc limit 1");
    expect(last).toEqual({ status: "succeeded" });
  } finally {
    api.closeAllConnections();
    api.close();
  }
}, 60_000);

describe("a restore that is killed", () => {
  it(
    "as it is about to open the project has not ended; the watchdog tells, and the same call brings both to their end",
    async () => {
      await ask("delete from public.t where id = 3");
      const first = start();
      await withClient(source(), async (holder) => {
        await first.said("taking the snapshot");
        await holder.query("begin");
        await holder.query("select from backup.maintenance for update");
        await waiting("^holdfast:maintenance$");
        process.kill(first.pid, "SIGKILL");
        await first.ended;
        await query(
          admin(),
          "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name ~ '^holdfast:(maintenance|restore)'",
        );
        await holder.query("rollback");
      });
      expect(await maintenance()).toMatchObject({ closed: true });
      const [broken] = await ask("select id, status from backup.restores order by started_at desc limit 1");
      expect(broken).toMatchObject({ status: "applying" });
      await setClock(clock, 600);
      await ask("select backup.watch_maintenance()");
      expect(await ask("select kind from backup.alerts where status = 'open' and kind ~ '^maintenance'")).toEqual([
        { kind: "maintenance_overdue" },
      ]);
      const again = await restore();
      expect(again, again.stderr).toMatchObject({ exit: 0, document: { ok: true, restore: broken?.["id"] } });
      expect(await maintenance()).toMatchObject({ closed: false });
      expect(await ask("select kind from backup.alerts where status = 'open' and kind ~ '^maintenance'")).toEqual([]);
    },
    120_000,
  );

  it(
    "has kept its lease while it changed definitions, and leaves no session at work once the same call takes over",
    async () => {
      await ask("alter table public.t add column extra text");
      await withClient(source(), async (holder) => {
        const first = start();
        await first.said("taking the snapshot");
        await holder.query("begin");
        await holder.query("lock table public.t in row exclusive mode");
        const [pid] = await waiting("^holdfast:restore_");
        const beat = async () =>
          (await ask("select heartbeat_at as at from backup.restores order by started_at desc limit 1"))[0]?.["at"];
        const begun = await beat();
        await eventually("the lease is renewed", async () => {
          const now = await beat();
          return String(now) === String(begun) ? null : now;
        }, 28_000);
        process.kill(first.pid, "SIGKILL");
        await first.ended;
        // Nobody is there to hear of it, and the statement waits on.
        await setClock(clock, 600);
        const second = start();
        await eventually("the session of the first is gone", async () => {
          const rows = await ask("select from pg_stat_activity where pid = $1", [pid]);
          return rows.length === 0 ? true : null;
        }, 20_000);
        await second.said("taking the snapshot");
        await holder.query("rollback");
        const done = await second.ended;
        expect(done, done.stderr).toMatchObject({ exit: 0, document: { ok: true } });
      });
      expect(await maintenance()).toMatchObject({ closed: false });
    },
    120_000,
  );
});

it("a backup that was quarantined is told to be one before it is restored", async () => {
  await ask("create table public.many as select i from generate_series(1, 5000) as i");
  await cli(["create", "--json"], settings);
  await ask("delete from public.many where i > 10");
  await eventually("the deletes are counted", async () => {
    const counted = await ask("select from pg_stat_user_tables where relname = 'many' and n_tup_del > 0");
    return counted.length > 0 ? true : null;
  });
  // The counters are lost, as in a crash: nothing explains the missing rows.
  await query(admin(), "select pg_stat_reset()");
  const { document } = await cli(["create", "--json"], settings);
  expect(document).toMatchObject({ status: "quarantined" });
  const { id } = document as { id: string };
  const plan = await cli(["restore-full", id, "--apply", "replace", "--dry-run", "--json"], settings);
  expect(plan, plan.stderr).toMatchObject({
    exit: 0,
    stderr: expect.stringContaining("quarantined when it was taken"),
  });
}, 60_000);
