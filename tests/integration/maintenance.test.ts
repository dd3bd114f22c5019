/** Maintenance mode of a whole project: its API, Storage, accounts and cron jobs, as an app and its operators meet it. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import type pg from "pg";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { describe, expect, it } from "vitest";
import { backupBucket } from "../../src/local/stack.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { createLog, silentLog } from "../../src/shared/log.ts";
import { readMaintenance, switchOn } from "../../src/shared/maintenance/state.ts";
import { leaveMaintenance } from "../../src/shared/maintenance/switch_off.ts";
import { enterMaintenance, type MaintenanceDeps } from "../../src/shared/maintenance/switch_on.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { query as ask, withClient } from "../support/cluster.ts";
import { eventually, useProject } from "../support/stack.ts";
import { root } from "../unit/project_files.ts";
import { cli } from "./cli_fixture.ts";
import { noSession } from "./gateway_fixture.ts";

const password = "a good password";
const window = { message: "Back at noon", until: null, by: "a test" };
let service: SupabaseClient;
let anna: SupabaseClient;
let annaId = "";

const project = useProject({}, async ({ stack: { gateway, cluster } }) => {
  service = createClient(gateway.url, gateway.serviceRoleKey, noSession);
  const { data, error } = await service.auth.admin.createUser({
    email: "anna@journal.example",
    password,
    email_confirm: true,
  });
  if (error !== null) throw error;
  annaId = data.user.id;
  anna = createClient(gateway.url, gateway.anonKey, noSession);
  await anna.auth.signInWithPassword({ email: "anna@journal.example", password });
  await ask(
    cluster.plainUrl(),
    `create table public.entries (
       id bigint generated always as identity primary key,
       user_id uuid not null default auth.uid() references auth.users on delete cascade, title text not null);
     alter table public.entries enable row level security;
     create policy own on public.entries to authenticated using (user_id = auth.uid()) with check (user_id = auth.uid());
     grant select, insert, update, delete on public.entries to authenticated, service_role;
     create view public.titles with (security_invoker = true) as select id, title from public.entries;
     grant select, insert, update, delete on public.titles to authenticated, service_role;
     create function public.add_for(owner uuid) returns void language sql security definer
       as $$ insert into public.entries (user_id, title) values (owner, 'by a definer') $$;
     create function public.count_entries() returns bigint language sql volatile as 'select count(*) from public.entries';
     create function public.check_request() returns void language plpgsql as $$
       begin
         if current_setting('request.headers', true)::json ->> 'x-unpaid' is not null then
           raise sqlstate 'PT402' using message = 'pay first';
         end if;
       end $$;
     alter role authenticator set pgrst.db_pre_request = 'public.check_request';
     notify pgrst, 'reload config';
     select cron.schedule('app-busy', '0 0 1 1 *', 'select 1'), cron.schedule('app-idle', '0 0 1 1 *', 'select 1');
     select cron.alter_job(jobid, active => false) from cron.job where jobname = 'app-idle';
     create policy files on storage.objects to authenticated using (true) with check (true)`,
  );
  await service.storage.createBucket("photos", { public: false });
  await service.storage.from("photos").upload("there.txt", new Blob(["there"]));
});

function deps(more: Partial<MaintenanceDeps> = {}): MaintenanceDeps {
  const { gateway, cluster } = project().stack;
  return {
    database: openDatabase({ url: cluster.plainUrl() }),
    project: { url: gateway.url, serviceKey: gateway.serviceRoleKey, fetch },
    ownBuckets: [backupBucket],
    clock: systemClock,
    random: webCryptoRandom,
    log: silentLog,
    ...more,
  };
}

/** What maintenance mode changes outside of its own tables, in full. */
async function outside(): Promise<unknown> {
  const { query } = project();
  return {
    settings: await query(
      `select s.setrole::regrole::text as role, s.setdatabase::text as database, s.setconfig::text as config
       from pg_db_role_setting s order by 1, 2`,
    ),
    jobs: await query(
      "select jobid::text, schedule, command, database, username, active, jobname from cron.job order by 1",
    ),
    triggers: await query(
      `select tgrelid::regclass::text as table, tgname, tgenabled::text from pg_trigger where not tgisinternal order by 1, 2`,
    ),
    buckets: await query("select id from storage.buckets order by 1"),
    files: await query("select bucket_id, name from storage.objects order by 1, 2"),
    users: await query("select email from auth.users order by 1"),
  };
}

async function entries(): Promise<number> {
  const [row] = await project().query("select count(*)::int as n from public.entries");
  return Number(row?.["n"]);
}

/** How often it was turned on so far, taken back or not. */
async function timesClosed(): Promise<unknown> {
  return await project().query(
    "select count(*)::int as times from backup.audit_log where action = 'maintenance.closed'",
  );
}

type Answered = { readonly status?: number; readonly error: unknown };

/** Every way in which an app writes, as name and what it got. */
async function everyWrite(): Promise<Record<string, string>> {
  const told = ({ status, error }: Answered): string => {
    if (error === null) return "written";
    const { code, message, status: own, statusCode } = error as Record<string, unknown>;
    return [status ?? own ?? statusCode, code, message].filter((part) => part !== undefined).join(" ");
  };
  const row = { user_id: annaId, title: "new" };
  const file = new Blob(["new"]);
  const storage = (client: SupabaseClient) => client.storage.from("photos");
  const stranger = createClient(project().stack.gateway.url, project().stack.gateway.anonKey, noSession);
  const email = `${crypto.randomUUID()}@journal.example`;
  return {
    "a user inserts": told(await anna.from("entries").insert({ title: "new" })),
    "the service inserts": told(await service.from("entries").insert(row)),
    "the service upserts": told(await service.from("entries").upsert(row)),
    "the service updates": told(await service.from("entries").update({ title: "changed" }).eq("title", "new")),
    "the service updates through a view": told(
      await service.from("titles").update({ title: "x" }).eq("title", "changed"),
    ),
    "the service deletes": told(await service.from("entries").delete().eq("title", "x")),
    "a definer function writes": told(await anna.rpc("add_for", { owner: annaId })),
    "a user uploads": told(await storage(anna).upload("annas.txt", file, { upsert: true })),
    "the service uploads": told(await storage(service).upload("new.txt", file)),
    "the service replaces": told(await storage(service).upload("new.txt", file, { upsert: true })),
    "the service moves": told(await storage(service).move("there.txt", "moved.txt")),
    "the service removes": told(await storage(service).remove(["there.txt", "moved.txt"])),
    "somebody signs up": told(await stranger.auth.signUp({ email, password })),
    "an administrator makes an account": told(await service.auth.admin.createUser({ email: `a-${email}`, password })),
  };
}

describe("while maintenance mode is on", () => {
  let before: unknown;
  let closedEntries = 0;

  it("comes on under a client that keeps writing, and from its return on nothing is written", async () => {
    before = await outside();
    let over = false;
    let written = 0;
    const writing = (async () => {
      while (!over) {
        const { error } = await anna.from("entries").insert({ title: "kept trying" });
        if (error === null) written++;
      }
    })();
    await eventually("the client writes", () => Promise.resolve(written > 3 ? true : null));
    const closed = await enterMaintenance(deps(), window);
    closedEntries = await entries();
    expect(closed.probed).toEqual(["sql", "tables", "functions", "files", "accounts"]);
    expect(closed.notProbed).toEqual([]);
    expect(closed.stillOpen).toBe(0);
    expect(closed.state).toMatchObject({
      closed: true,
      message: "Back at noon",
      by: "a test",
      preRequest: { ours: true, chained: "public.check_request" },
      jobs: { paused: ["app-busy"], active: [] },
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    over = true;
    await writing;
    expect(await entries()).toBe(closedEntries);
    expect(written).toBe(closedEntries);
  });

  it("refuses every write of an app, with the message where the API has one", async () => {
    const outcomes = await everyWrite();
    for (const [what, outcome] of Object.entries(outcomes)) expect(outcome, what).not.toBe("written");
    for (
      const what of [
        "a user inserts",
        "the service inserts",
        "the service upserts",
        "the service updates",
        "the service updates through a view",
        "the service deletes",
      ]
    ) {
      expect(outcomes[what], what).toBe("503 PT503 Back at noon");
    }
    expect(outcomes["a definer function writes"]).toMatch(/^405 25006/);
    for (
      const [what, outcome] of Object.entries(outcomes).filter(([what]) =>
        / (uploads|replaces|moves|removes)$/.test(what)
      )
    ) {
      expect(outcome, what).toBe("503 Back at noon");
    }
    for (const what of ["somebody signs up", "an administrator makes an account"]) {
      expect(outcomes[what], what).toMatch(/^503/);
    }
    expect(await entries()).toBe(closedEntries);
    const { files, users } = await outside() as { files: unknown[]; users: unknown[] };
    expect({ files, users }).toEqual({
      files: [{ bucket_id: "photos", name: "there.txt" }],
      users: [{ email: "anna@journal.example" }],
    });
  });

  it("refuses to delete a file, a bucket with files, and an account", async () => {
    await service.storage.from("photos").remove(["there.txt"]);
    await service.storage.emptyBucket("photos");
    expect((await service.auth.admin.deleteUser(annaId)).error).not.toBeNull();
    expect((await service.storage.from("photos").download("there.txt")).error).toBeNull();
    expect(await project().query("select id from auth.users where id = $1", [annaId])).toHaveLength(1);
  });

  it("lets people read, call functions that read, download, and sign in", async () => {
    expect((await anna.from("entries").select("id", { count: "exact", head: true })).count).toBe(closedEntries);
    expect(await anna.rpc("count_entries")).toMatchObject({ error: null, data: closedEntries });
    const { data } = await service.storage.from("photos").download("there.txt");
    expect(await data?.text()).toBe("there");
    const { gateway } = project().stack;
    const again = createClient(gateway.url, gateway.anonKey, noSession);
    expect((await again.auth.signInWithPassword({ email: "anna@journal.example", password })).error).toBeNull();
    expect((await again.auth.refreshSession()).error).toBeNull();
  });

  it("goes on asking the project's own pre-request function", async () => {
    const { gateway } = project().stack;
    const headers = { apikey: gateway.serviceRoleKey, "x-unpaid": "1" };
    expect((await fetch(`${gateway.url}/rest/v1/entries`, { headers })).status).toBe(402);
  });

  it("shows the window to people who are not signed in", async () => {
    const { gateway } = project().stack;
    const stranger = createClient(gateway.url, gateway.anonKey, noSession);
    const { data, error } = await stranger.from("backup_announcements").select("message, status");
    expect({ data, error }).toEqual({ data: [{ message: "Back at noon", status: "in_force" }], error: null });
  });

  it("lets operators write, and a safety backup go to the project's own Storage", async () => {
    const { query, ended, story, verify } = project();
    await query(
      `begin; insert into public.entries (user_id, title) values ('${annaId}', 'by an operator');
       insert into auth.users (id, email) values (gen_random_uuid(), 'by-an-operator@journal.example');
       update storage.objects set user_metadata = '{}' where bucket_id = 'photos'; rollback`,
    );
    const [started] = await query("select run from backup.start_backup('safety')");
    const run = String(started?.["run"]);
    expect(await ended(run), await story(run)).toMatchObject({ status: "succeeded" });
    expect(await verify(run)).toMatchObject({ ok: true });
  });

  it("is still on after the server was killed and started again", async () => {
    const { cluster } = project().stack;
    await cluster.kill();
    await cluster.start(cluster.port);
    const refused = await eventually("the API answers again", async () => {
      const answer = await anna.from("entries").insert({ title: "after a crash" });
      return answer.error?.code === "PT503" ? answer : null;
    });
    expect(refused.status).toBe(503);
    expect((await anna.rpc("add_for", { owner: annaId })).error?.code).toBe("25006");
    expect(await entries()).toBe(closedEntries);
  });

  it("goes off: everything is as it was, and every write is done", async () => {
    await ask(project().stack.cluster.plainUrl(), "delete from auth.sessions where user_id <> $1", [annaId]);
    const opened = await leaveMaintenance(deps());
    expect(opened.state).toMatchObject({ opened: true, left: [], restored: ["app-busy"] });
    expect(opened.probed).toEqual(["sql", "tables", "functions", "files"]);
    const files = (where: unknown) => (where as { files: { bucket_id: string }[] }).files;
    const now = await outside();
    expect({ ...now as object, files: files(now).filter((file) => file.bucket_id !== backupBucket) }).toEqual(before);
    const outcomes = await everyWrite();
    expect(Object.entries(outcomes).filter(([, outcome]) => outcome !== "written")).toEqual([]);
  });
});

describe("a write that was under way", () => {
  const under = async (use: (client: pg.Client) => Promise<void>) => {
    await withClient(project().stack.cluster.plainUrl("authenticator"), async (client) => {
      await client.query("begin; set local role service_role");
      await client.query("insert into public.entries (user_id, title) values ($1, 'begun before')", [annaId]);
      await use(client);
    });
    await leaveMaintenance(deps({ project: null }));
  };

  it("is waited for", async () => {
    await under(async (client) => {
      let ended = false;
      const closing = enterMaintenance(deps({ project: null }), window).then((closed) => ({ closed, ended }));
      await eventually("it is closed", async () => {
        const [row] = await project().query("select closed from backup.maintenance where proven_at is not null");
        return row?.["closed"] === true ? true : null;
      });
      ended = true;
      await client.query("commit");
      expect(await closing).toMatchObject({ closed: { stillOpen: 0 }, ended: true });
    });
  });

  it("is told when it does not end", async () => {
    await under(async (client) => {
      expect(await enterMaintenance(deps({ project: null, patienceMs: 200 }), window)).toMatchObject({ stillOpen: 1 });
      await client.query("rollback");
    });
  });
});

describe("a write that does not end", () => {
  it("is undone with its session where that is wanted", async () => {
    await withClient(project().stack.cluster.plainUrl("authenticator"), async (client) => {
      await client.query("begin; set local role service_role");
      await client.query("insert into public.entries (user_id, title) values ($1, 'never ends')", [annaId]);
      const closed = await enterMaintenance(deps({ project: null, patienceMs: 200 }), { ...window, endsOpen: true });
      expect(closed).toMatchObject({ stillOpen: 0, ended: 1 });
      await expect(client.query("commit")).rejects.toThrow();
    });
    await leaveMaintenance(deps({ project: null }));
    expect(await project().query("select from public.entries where title = 'never ends'")).toEqual([]);
  });
});

describe("a read", () => {
  it("that would be refused as well is no proof: it is taken back", async () => {
    const { cluster } = project().stack;
    const refusing = "create or replace function public.check_request() returns void language plpgsql as " +
      "$$ begin if current_user = 'anon' then perform set_config('transaction_read_only', 'on', true); raise sqlstate '25006'; end if; end $$";
    const [made] = await project().query("select pg_get_functiondef('public.check_request()'::regprocedure) as text");
    await ask(cluster.plainUrl(), refusing);
    try {
      await expect(enterMaintenance(deps({ project: null }), window)).rejects.toMatchObject({
        code: "maintenance_unproven",
        message: expect.stringContaining("a read was refused"),
      });
      expect(await project().query("select closed from backup.maintenance")).toEqual([{ closed: false }]);
    } finally {
      await ask(cluster.plainUrl(), String(made?.["text"]));
    }
  });
});

describe("maintenance mode that cannot be proven", () => {
  it("is taken back when a write goes through", async () => {
    const before = await outside();
    // A project whose API takes every write, whatever the database is told.
    const open = (): Promise<Response> => Promise.resolve(new Response("{}", { status: 200 }));
    const taken = enterMaintenance(
      deps({ project: { url: "http://127.0.0.1:9", serviceKey: "k", fetch: open }, patienceMs: 200 }),
      window,
    );
    await expect(taken).rejects.toMatchObject({ code: "maintenance_unproven" });
    expect(await outside()).toEqual(before);
    expect((await anna.from("entries").insert({ title: "open" })).error).toBeNull();
  });

  it("is taken back when Storage takes an upload", async () => {
    const before = await outside();
    const { gateway } = project().stack;
    const leaking = (input: string, init: RequestInit) =>
      input.includes("/storage/v1/object/") && init.method === "POST"
        ? Promise.resolve(new Response("{}", { status: 200 }))
        : fetch(input, init);
    const taken = enterMaintenance(
      deps({ project: { url: gateway.url, serviceKey: gateway.serviceRoleKey, fetch: leaking }, patienceMs: 200 }),
      window,
    );
    await expect(taken).rejects.toMatchObject({
      code: "maintenance_unproven",
      message: expect.stringContaining("files"),
    });
    expect(await outside()).toEqual(before);
  });

  it.each([
    ["a key that is none", { serviceKey: "wrong" }, "maintenance_unproven"],
    ["an address where nobody is", { url: "http://127.0.0.1:9" }, "project_unreachable"],
  ])("changes nothing with %s", async (_, wrong, code) => {
    const before = await outside();
    const times = await timesClosed();
    const { gateway } = project().stack;
    const api = { url: gateway.url, serviceKey: gateway.serviceRoleKey, fetch, ...wrong };
    await expect(enterMaintenance(deps({ project: api }), window)).rejects.toMatchObject({ code });
    expect(await outside()).toEqual(before);
    expect(await timesClosed()).toEqual(times);
  });

  it("says what was not tried without the project's address", async () => {
    const closed = await enterMaintenance(deps({ project: null }), window);
    expect(closed).toMatchObject({ probed: ["sql"], notProbed: [expect.stringContaining("--project-url")] });
    const opened = await leaveMaintenance(deps({ project: null }));
    expect(opened).toMatchObject({ probed: ["sql"], state: { left: [] } });
  });
});

describe("a crash in the middle", () => {
  it("before the commit leaves everything as it was", async () => {
    const before = await outside();
    const { cluster } = project().stack;
    await withClient(cluster.plainUrl(), async (client) => {
      await client.query("begin");
      await client.query("select backup.maintenance_on('x')");
      await ask(
        cluster.plainUrl("supabase_admin"),
        "select pg_terminate_backend(pid) from pg_stat_activity where xact_start is not null and usename = 'postgres' and pid <> pg_backend_pid()",
      );
      await expect(client.query("commit")).rejects.toThrow();
    });
    expect(await outside()).toEqual(before);
  });

  it("before the proof leaves it closed and not proven; on again proves it, off puts everything back", async () => {
    const before = await outside();
    const session = await deps().database.connect("holdfast:test");
    try {
      await switchOn(session, { ...window, ownBuckets: [backupBucket] });
      expect(await readMaintenance(session)).toMatchObject({ closed: true, provenAt: null });
      const steps: string[] = [];
      const log = createLog(({ event }) => steps.push(event), "debug");
      const closed = await enterMaintenance(deps({ log }), { ...window, message: "Back at one" });
      expect(closed.state).toMatchObject({ message: "Back at one", by: "a test", jobs: { paused: ["app-busy"] } });
      expect(closed.state.provenAt).not.toBeNull();
      expect(steps).toEqual(["step:maintenance.closed", "step:maintenance.proven"]);
    } finally {
      await session.close();
    }
    await leaveMaintenance(deps());
    expect(await outside()).toEqual(before);
  });

  it("before the proof is also mended by off alone", async () => {
    const before = await outside();
    const session = await deps().database.connect("holdfast:test");
    await switchOn(session, { ...window, ownBuckets: [backupBucket] });
    await session.close();
    await leaveMaintenance(deps());
    expect(await outside()).toEqual(before);
  });
});

describe("the runbook", () => {
  const page = readFileSync(join(root, "docs/runbooks/maintenance.md"), "utf8");
  const commands = [...page.matchAll(/^ *npm run -s backup:(.+)$/gm)].map(([, line]) => line ?? "");
  const anHourOn = new Date(Date.now() + 3_600_000).toISOString().replace(/\.\d+Z$/, "Z");
  const words = (line: string) =>
    [...line.replace(/20\d\d-\S+Z/, anHourOn).matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) =>
      quoted ?? plain ?? ""
    )
      .filter((word) => word !== "--");

  it("has commands that do what it says, in its order", async () => {
    const { gateway, cluster } = project().stack;
    const settings = {
      BACKUP_DB_URL: cluster.plainUrl(),
      BACKUP_PROJECT_URL: gateway.url,
      SUPABASE_SERVICE_ROLE_KEY: gateway.serviceRoleKey,
      BACKUP_STORE: `supabase://${backupBucket}`,
    };
    expect(commands).toHaveLength(4);
    const results = [];
    for (const line of commands) results.push(await cli([...words(line), "--json"], settings));
    const [dry, on, status, off] = results;
    expect(dry).toMatchObject({
      exit: 2,
      document: {
        dryRun: true,
        error: { code: "confirmation_missing" },
        changes: expect.arrayContaining([expect.stringContaining("app-busy")]),
      },
    });
    expect(on).toMatchObject({
      exit: 0,
      document: {
        probed: ["sql", "tables", "functions", "files", "accounts"],
        state: { closed: true, until: anHourOn },
      },
    });
    expect(status).toMatchObject({
      exit: 0,
      document: { state: { closed: true, message: "Back at noon", contact: null } },
    });
    expect(off).toMatchObject({ exit: 0, document: { state: { opened: true, left: [] } } });
  });

  it("has SQL that runs as it stands", async () => {
    const statements = [...page.matchAll(/```sql\n([^`]+)```/g)].map(([, sql]) => sql ?? "");
    expect(statements).toHaveLength(1);
    for (const statement of statements) await project().query(statement);
    for (const inline of ["backup.maintenance_off()", "backup.maintenance_on('Back at noon')"]) {
      expect(page).toContain(inline);
    }
  });

  it("refuses a moment without a zone, one that has passed, a missing message and an unknown word", async () => {
    const settings = { BACKUP_DB_URL: project().stack.cluster.plainUrl() };
    const outcome = async (args: readonly string[]) => {
      const { exit, document } = await cli(["maintenance", ...args, "--json"], settings);
      return [exit, (document as { error: { code: string } }).error.code];
    };
    expect(await outcome(["on", "--message", "x", "--until", "2999-01-01"])).toEqual([2, "usage"]);
    expect(await outcome(["on", "--message", "x", "--until", "2000-01-01T00:00:00Z"])).toEqual([2, "payload_invalid"]);
    expect(await outcome(["on"])).toEqual([2, "setting_missing"]);
    expect(await outcome(["pause"])).toEqual([2, "usage"]);
  });
});
