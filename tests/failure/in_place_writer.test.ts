/** A full restore in place while an app keeps writing; and killed in the middle. The oracle: row hashes under maintenance. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { describe, expect, it } from "vitest";
import { denoPath } from "../../src/local/setup.mjs";
import { cli } from "../integration/cli_fixture.ts";
import { noSession } from "../integration/gateway_fixture.ts";
import { withClient } from "../support/cluster.ts";
import { eventually, setClock, useProject } from "../support/stack.ts";
import { root } from "../unit/project_files.ts";
import { startWriting, ways, type WritingClient } from "./in_place_client.ts";

let settings: Record<string, string> = {};
let service: SupabaseClient;
let anna: SupabaseClient;
let visitor: SupabaseClient;
let backup = "";
let kept: Record<string, string> = {};

const project = useProject({}, async ({ stack: { gateway, cluster, keys, workerSecret }, query }) => {
  service = createClient(gateway.url, gateway.serviceRoleKey, noSession);
  const account = { email: "anna@journal.example", password: "a good password" };
  await service.auth.admin.createUser({ ...account, email_confirm: true });
  anna = createClient(gateway.url, gateway.anonKey, noSession);
  visitor = createClient(gateway.url, gateway.anonKey, noSession);
  const { error } = await anna.auth.signInWithPassword(account);
  if (error !== null) throw error;
  await query(
    `create table public.entries (
       id uuid primary key default gen_random_uuid(), number integer, user_id uuid not null default auth.uid() references auth.users on delete cascade,
       title text not null, colour text not null default 'grey', written_at timestamptz not null default clock_timestamp());
     create table public.notes (entry uuid references public.entries on delete cascade, body text);
     alter table public.entries enable row level security;
     create policy own on public.entries to authenticated using (user_id = auth.uid()) with check (user_id = auth.uid());
     grant select, insert, update, delete on public.entries to authenticated, service_role;
     create function public.add_entry(title text) returns void language sql security definer
       as $$ insert into public.entries (user_id, title) values (auth.uid(), title) $$;
     insert into public.entries (number, user_id, title)
       select i, (select id from auth.users), 'entry ' || i from generate_series(1, 2000) as i;
     insert into public.notes select id, title from public.entries`,
  );
  await service.storage.createBucket("photos", { public: false });
  settings = {
    BACKUP_DB_URL: cluster.url("postgres"),
    BACKUP_PROJECT_URL: gateway.url,
    BACKUP_WORKER_SECRET: workerSecret,
    BACKUP_CHECK_PASSWORD: "a good password",
    BACKUP_KEYS: keys,
    BACKUP_STORE: "supabase://holdfast-backups",
    SUPABASE_SERVICE_ROLE_KEY: gateway.serviceRoleKey,
  };
  const created = await cli(["create", "--wait", "--json"], settings);
  if (created.exit !== 0) throw new Error(created.stdout + created.stderr);
  backup = String((created.document as { id: string }).id);
  kept = await state();
});

/** Hashes of all rows that the backup brings back, and the columns of the tables. */
async function state(): Promise<Record<string, string>> {
  const [row] = await project().query(
    `select
       (select md5(string_agg(to_jsonb(e)::text, '|' order by e.id)) from public.entries as e) as entries,
       (select md5(string_agg(to_jsonb(n)::text, '|' order by to_jsonb(n)::text)) from public.notes as n) as notes,
       (select md5(string_agg(format('%s %s %s %s %s', u.id, u.email, u.created_at, u.phone, u.last_sign_in_at), '|' order by u.id)) from auth.users as u) as users,
       (select md5(string_agg(to_jsonb(i)::text, '|' order by i.id)) from auth.identities as i) as identities,
       (select string_agg(a.attname, ',' order by a.attname) from pg_attribute as a
         where a.attrelid = 'public.entries'::regclass and a.attnum > 0 and not a.attisdropped) as columns,
       (select string_agg(p.polname || pg_get_expr(p.polqual, p.polrelid), '|') from pg_policy as p
         where p.polrelid = 'public.entries'::regclass) as policies`,
  );
  return row as Record<string, string>;
}

/** The damage that is to be undone. */
async function harm(): Promise<void> {
  await project().query(
    `lock table public.entries, public.notes in access exclusive mode;
     update public.entries set title = 'lost' where number % 3 = 0; delete from public.entries where number % 7 = 0;
     drop policy own on public.entries; create policy own on public.entries to authenticated using (user_id = auth.uid() and title <> '');
     alter table public.entries drop column colour; alter table public.notes add column extra text`,
  );
}

interface Restoring {
  readonly pid: number;
  /** Resolves with the text once it is on stderr; rejects when the process ends without it. */
  said(text: string): Promise<void>;
  /** Throws, with what it said, once it has ended. */
  assertGoesOn(missing: string): void;
  readonly ended: Promise<{ readonly exit: number | null; readonly document: unknown; readonly stderr: string }>;
}

/** The command in a process of its own, so that SIGKILL meets the one that works. */
function startRestore(): Restoring {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(denoPath(), [
    ...["run", "--quiet", "--no-prompt", "--allow-all", "--config", join(root, "deno.json")],
    ...[join(root, "src/cli/main.ts"), "restore-full", backup, "--apply", "replace", "--yes", "--json", ...[
      "--check-user",
      "anna@journal.example",
    ]],
  ], { cwd: "/", env: { PATH, HOME, DENO_NO_UPDATE_CHECK: "1", ...settings }, stdio: ["ignore", "pipe", "pipe"] });
  let [stdout, stderr, over] = ["", "", false];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const ended = new Promise<Awaited<Restoring["ended"]>>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exit) => {
      over = true;
      resolve({ exit, document: stdout === "" ? null : JSON.parse(stdout), stderr });
    });
  });
  const assertGoesOn = (missing: string) => {
    if (over) throw new Error(`it ended before "${missing}":\n${stderr}${stdout}`);
  };
  return {
    pid: child.pid ?? 0,
    ended,
    assertGoesOn,
    async said(text) {
      await eventually(text, () => {
        if (stderr.includes(text)) return Promise.resolve(true);
        assertGoesOn(text);
        return Promise.resolve(null);
      }, 90_000);
    },
  };
}

/** Until a session of that name waits for a lock. */
async function waiting(application: string, restoring: Restoring): Promise<void> {
  await eventually(`${application} waits`, async () => {
    restoring.assertGoesOn(`${application} waits`);
    const rows = await project().query(
      "select from pg_stat_activity where application_name ~ $1 and wait_event_type = 'Lock'",
      [application],
    );
    return rows.length > 0 ? true : null;
  }, 90_000);
}

/** What is there when maintenance mode is about to end: the switch is held meanwhile. */
async function stateAtEnd(restoring: Restoring): Promise<Record<string, string>> {
  return await withClient(project().stack.cluster.plainUrl(), async (holder) => {
    await holder.query("begin");
    await holder.query("select from backup.maintenance for update");
    await waiting("holdfast:maintenance", restoring);
    const found = await state();
    await holder.query("rollback");
    return found;
  });
}

async function momentOf(action: string): Promise<number> {
  const [row] = await project().query(
    "select (extract(epoch from max(recorded_at)) * 1000)::float8 as ms from backup.audit_log where action = $1",
    [action],
  );
  return Number(row?.["ms"]);
}

/** Every way of writing has been done since. */
async function writtenSince(client: WritingClient, ms: number): Promise<void> {
  const missing = () =>
    ways.filter((way) => !client.attempts.some((one) => one.way === way && one.written && one.startMs > ms));
  await eventually("all ways of writing go through", () => Promise.resolve(missing().length === 0 ? true : null))
    .catch((error: unknown) => {
      throw new Error(`not written: ${missing().join(", ")}`, { cause: error });
    });
}

describe("a full restore in place while an app keeps writing", () => {
  it(
    "lets no write in, ends with exactly the backup's rows, and takes every write again",
    async () => {
      const client = startWriting(anna, visitor, service);
      try {
        await writtenSince(client, 0);
        await harm();
        const restoring = startRestore();
        await restoring.said("maintenance mode is on");
        const onMs = Date.now();
        const atEnd = await stateAtEnd(restoring);
        const result = await restoring.ended;
        expect(result, result.stderr).toMatchObject({
          exit: 0,
          document: {
            ok: true,
            differences: [],
            checks: expect.arrayContaining([expect.objectContaining({ check: "sign-in", ok: true })]),
          },
        });
        const offMs = await momentOf("maintenance.opened");
        await writtenSince(client, offMs);
        await client.stop();

        const between = client.attempts.filter(({ startMs, endMs }) => startMs >= onMs && endMs <= offMs);
        expect(between.filter(({ written }) => written)).toEqual([]);
        expect([...new Set(between.map(({ way }) => way))].sort()).toEqual([...ways].sort());
        expect(atEnd).toEqual(kept);
        // What lands after the restore's end is written then, and by nobody else.
        const strange = await project().query(
          `select e.title from public.entries as e where e.number is null and e.written_at < to_timestamp($1 / 1000.0)
         union all select o.name from storage.objects as o
         where o.bucket_id = 'photos' and o.created_at between to_timestamp($2 / 1000.0) and to_timestamp($1 / 1000.0)`,
          [offMs, onMs],
        );
        expect(strange).toEqual([]);
      } finally {
        await client.stop();
      }
    },
    240_000,
  );
});

describe("a full restore in place that is killed", () => {
  it("stays closed to writes; the same command again ends well", async () => {
    const client = startWriting(anna, visitor, service);
    try {
      await writtenSince(client, 0);
      await harm();
      const first = startRestore();
      await first.said("maintenance mode is on");
      await withClient(project().stack.cluster.plainUrl(), async (holder) => {
        await holder.query("begin");
        // It waits for this table, in the middle of its changes.
        await holder.query("lock table public.notes in row exclusive mode");
        await waiting("^holdfast:restore_", first);
        process.kill(first.pid, "SIGKILL");
        await first.ended;
        await holder.query("rollback");
      });
      const killedMs = Date.now();
      await eventually("the client has tried everything again", () => {
        const tried = client.attempts.filter(({ startMs }) => startMs > killedMs).map(({ way }) => way);
        return Promise.resolve(new Set(tried).size === ways.length ? true : null);
      });
      const since = client.attempts.filter(({ startMs }) => startMs > killedMs);
      expect(since.filter(({ written }) => written)).toEqual([]);
      expect(await project().query("select closed from backup.maintenance")).toEqual([{ closed: true }]);

      // The lease of the one that was killed is over in 90 s.
      await setClock(project(), 200);
      const second = startRestore();
      await second.said("maintenance mode is on");
      expect(await stateAtEnd(second)).toEqual(kept);
      const again = await second.ended;
      await setClock(project(), 0);
      expect(again, again.stderr).toMatchObject({ exit: 0, document: { ok: true, differences: [] } });
      await writtenSince(client, Date.now());
      await client.stop();
      expect(await project().query("select closed from backup.maintenance")).toEqual([{ closed: false }]);
      const restores = await project().query(
        "select status, mode from backup.restores order by started_at",
      );
      expect(restores).toEqual([{ status: "succeeded", mode: "replace" }, { status: "succeeded", mode: "replace" }]);
      expect(await project().query("select id from backup.chains where ended_at is null")).toEqual([]);
      // The change stream begins anew, and the function orders the full backup that its moments need.
      await project().query("select backup.call_drain()");
      await eventually("a full backup is ordered for the new chain", async () => {
        const ordered = await project().query(
          `select from backup.chains as c join backup.run_requests as q on q.request_key like 'chain:' || c.id || ':%'
            where c.ended_at is null`,
        );
        return ordered.length > 0 ? true : null;
      }, 60_000);
    } finally {
      await client.stop();
      await setClock(project(), 0);
    }
  }, 240_000);
});
