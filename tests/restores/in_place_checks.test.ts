/** Checks after a restore in place: what they find, on a project whose state is known; each is also seen to fail. */
import { createClient } from "@supabase/supabase-js";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import {
  type CheckChoice,
  type CheckDeps,
  type CheckResult,
  runChecks,
} from "../../src/shared/restore/in_place/checks/checks.ts";
import { captureSchema } from "../../src/shared/schema/capture.ts";
import type { SchemaCapture } from "../../src/shared/schema/capture_format.ts";
import { quoteQualified } from "../../src/shared/schema/quote.ts";
import { useProject } from "../support/stack.ts";
import { noSession } from "../integration/gateway_fixture.ts";

const email = "check@journal.example";
const password = "a good password";
const leaveOutSchemas = ["backup", "holdfast"];
let userId = "";
let was: SchemaCapture;
let tables: CheckChoice["manifest"]["tables"] = [];

const project = useProject({}, async ({ stack: { gateway, cluster }, query }) => {
  const service = createClient(gateway.url, gateway.serviceRoleKey, noSession);
  const { data, error } = await service.auth.admin.createUser({ email, password, email_confirm: true });
  if (error !== null) throw error;
  userId = data.user.id;
  await query(
    `create table public.entries (id integer primary key, user_id uuid not null references auth.users, title text);
     alter table public.entries enable row level security;
     create policy own on public.entries to authenticated using (user_id = auth.uid());
     grant select on public.entries to authenticated;
     create table public.logs (at date, line text) partition by range (at);
     create table public.logs_old partition of public.logs for values from (minvalue) to ('2025-01-01');
     create table public.logs_new partition of public.logs for values from ('2025-01-01') to (maxvalue);
     insert into public.entries select i, '${userId}', 'secret title' from generate_series(1, 3) as i;
     insert into public.logs select date '2024-12-30' + i, 'line' from generate_series(1, 5) as i`,
  );
  const session = await openDatabase({ url: cluster.plainUrl() }).connect("test");
  await session.execute("begin isolation level repeatable read read only");
  was = await captureSchema(session, { leaveOutSchemas });
  await session.close();
  tables = await Promise.all(was.tables.map(async ({ schema, name }) => {
    const [row] = await query(`select count(*)::int as n from only ${quoteQualified(schema, name)}`);
    return { schema, name, rows: Number(row?.["n"]) };
  }));
});

function deps(): CheckDeps & { readonly project: NonNullable<CheckDeps["project"]> } {
  const { gateway, cluster } = project().stack;
  return {
    database: openDatabase({ url: cluster.plainUrl() }),
    project: { url: gateway.url, serviceKey: gateway.serviceRoleKey, fetch },
    clock: systemClock,
    log: silentLog,
  };
}

/** By check: what it found. Every detail is looked at for what may not be in it. */
async function found(
  choice: Partial<CheckChoice> = {},
  more: Partial<CheckDeps> = {},
): Promise<Record<string, Pick<CheckResult, "ok" | "detail">>> {
  const results = await runChecks({ ...deps(), ...more }, {
    manifest: { tables },
    was,
    leaveOutSchemas,
    mode: "replace",
    critical: null,
    user: { email, password },
    table: null,
    smoke: "select count(*) > 0 as ok from public.entries",
    ...choice,
  });
  expect(JSON.stringify(results)).not.toMatch(/secret title|a good password/);
  return Object.fromEntries(results.map(({ check, ok, detail }) => [check, { ok, detail }]));
}

/** Nothing but what the database alone tells. */
const database = { user: null, smoke: null };
/** The sign-in, and no definitions. */
const door = { smoke: null, mode: "merge", critical: [] } as const;

/** What is found while the change is in place. */
async function foundWhile(change: string, back: string, choice: Partial<CheckChoice> = database) {
  await project().query(change);
  try {
    return await found(choice);
  } finally {
    await project().query(back);
  }
}

const sessions = async () => await project().query("select count(*)::int as n from auth.sessions");

it("all is well where nothing differs, and the session of the check is ended", async () => {
  const results = await found();
  expect(Object.values(results).map(({ ok }) => ok), JSON.stringify(results)).toEqual([true, true, true, true, true]);
  expect(results["row counts"]?.detail).toBe("4 tables, 9 rows");
  expect(results["policies"]?.detail).toMatch(/^\d+ tables under row level security, \d+ policies$/);
  expect(results["sign-in"]?.detail).toBe("the check user signed in and read an own row of public.entries");
  expect(results["functions"]?.detail).toBe("backup answers HTTP 401, unauthorised");
  expect(results["smoke queries"]?.detail).toBe("1 statements went through");
  expect(await sessions()).toEqual([{ n: 0 }]);
});

it("what was not asked for, or cannot be tried, is told as not tried and never as well", async () => {
  const results = await found({ user: null, smoke: null, mode: "merge" }, { project: null });
  expect(results).toMatchObject({
    "row counts": { ok: true },
    "policies": { ok: null, detail: "not tried: definitions stay as they are" },
    "sign-in": { ok: null, detail: "not tried: no user is named (--check-user)" },
    "functions": { ok: null, detail: "not tried: the project's URL is not set (--project-url)" },
    "smoke queries": { ok: null, detail: "not tried: no queries are given (--smoke)" },
  });
  expect((await found({}, { project: null }))["sign-in"]).toMatchObject({ ok: null });
  expect((await found({ smoke: "-- none" }))["smoke queries"]).toMatchObject({ ok: null });
});

describe("row counts", () => {
  const gone = "delete from public.entries where id = 3";
  const back = () => `insert into public.entries values (3, '${userId}', 'secret title')`;
  const more = "insert into public.logs values ('2026-01-01', 'more')";
  const lessAgain = "delete from public.logs where line = 'more'";

  it("fail for a row that is gone, and name the table", async () => {
    const results = await foundWhile(gone, back());
    expect(results["row counts"]).toEqual({ ok: false, detail: "public.entries holds 2 of 3 rows" });
  });

  it("fail for a row too many after replace; after merge only for one that is missing", async () => {
    expect((await foundWhile(more, lessAgain))["row counts"]).toMatchObject({ ok: false });
    expect((await foundWhile(more, lessAgain, { ...database, mode: "merge" }))["row counts"]).toMatchObject({
      ok: true,
    });
    expect((await foundWhile(gone, back(), { ...database, mode: "merge" }))["row counts"]).toMatchObject({ ok: false });
  });

  it("are of the critical tables alone, a partitioned one for all its partitions", async () => {
    const critical = [{ schema: "public", name: "logs" }];
    expect((await foundWhile(gone, back(), { ...database, critical }))["row counts"]).toEqual({
      ok: true,
      detail: "1 tables, 5 rows",
    });
    expect((await foundWhile(more, lessAgain, { ...database, critical }))["row counts"]).toEqual({
      ok: false,
      detail: "public.logs holds 6 of 5 rows",
    });
  });

  it("fail for a table that is not in the backup, and for one that is not there", async () => {
    const critical = [{ schema: "public", name: "nowhere" }, { schema: "public", name: "logs_lost" }];
    const manifest = { tables: [...tables, { schema: "public", name: "logs_lost", rows: 0 }] };
    expect((await found({ ...database, critical, manifest }))["row counts"]).toEqual({
      ok: false,
      detail: "public.nowhere is not in the backup; public.logs_lost is not there",
    });
  });
});

describe("policies", () => {
  const create = "create policy own on public.entries to authenticated using (user_id = auth.uid())";
  it.each([
    [
      "row level security that is off",
      "alter table public.entries disable row level security",
      "alter table public.entries enable row level security",
      "row level security of table public.entries is off, not on",
    ],
    ["a policy that is gone", "drop policy own on public.entries", create, "is gone"],
    [
      "a policy that says something else",
      "alter policy own on public.entries using (true)",
      "alter policy own on public.entries using (user_id = auth.uid())",
      "says something else",
    ],
    [
      "a policy that was not there",
      "create policy open on public.entries using (true)",
      "drop policy open on public.entries",
      "is not in the backup",
    ],
  ])("fail for %s", async (_, change, back, detail) => {
    const results = await foundWhile(change, back);
    expect(results["policies"]).toEqual({ ok: false, detail: expect.stringContaining(detail) });
  });
});

describe("the sign-in", () => {
  const ofSignIn = async (choice: Partial<CheckChoice>) => (await found({ ...door, ...choice }))["sign-in"];

  it("fails with a wrong password, and leaves no session", async () => {
    expect(await ofSignIn({ user: { email, password: "another" } })).toEqual({
      ok: false,
      detail: "the check user cannot sign in: HTTP 400, invalid_credentials",
    });
    expect(await sessions()).toEqual([{ n: 0 }]);
  });

  it("fails where a policy hides the user's own rows, and where the table may not be read", async () => {
    const hidden = await foundWhile(
      "alter policy own on public.entries using (false)",
      "alter policy own on public.entries using (user_id = auth.uid())",
      door,
    );
    expect(hidden["sign-in"]).toEqual({
      ok: false,
      detail: "the check user signed in and sees no own row of public.entries, where there is one",
    });
    const revoked = await foundWhile(
      "revoke select on public.entries from authenticated",
      "grant select on public.entries to authenticated",
      door,
    );
    expect(revoked["sign-in"]).toMatchObject({ ok: false, detail: expect.stringContaining("42501") });
    expect(await sessions()).toEqual([{ n: 0 }]);
  });

  it("fails for a named table without rows of that user, without row level security, or without a user's id", async () => {
    const table = { schema: "public", name: "entries" };
    expect(await ofSignIn({ table })).toMatchObject({ ok: true });
    const none = await foundWhile(
      "create table backup_side (like public.entries); insert into backup_side table public.entries; delete from public.entries",
      "insert into public.entries table backup_side; drop table backup_side",
      { ...door, table },
    );
    expect(none["sign-in"]).toEqual({ ok: false, detail: "public.entries holds no row of the check user" });
    const off = await foundWhile(
      "alter table public.entries disable row level security",
      "alter table public.entries enable row level security",
      { ...door, table },
    );
    expect(off["sign-in"]).toEqual({ ok: false, detail: "public.entries is not under row level security" });
    expect(await ofSignIn({ table: { schema: "public", name: "logs" } })).toMatchObject({
      ok: false,
      detail: expect.stringContaining("known to hold a user's id"),
    });
  });

  it("is not told as well where no table has a row of that user", async () => {
    const off = await foundWhile(
      "alter table public.entries disable row level security",
      "alter table public.entries enable row level security",
      door,
    );
    expect(off["sign-in"]).toMatchObject({ ok: null, detail: expect.stringContaining("(--check-table)") });
  });

  it("fails where nobody answers", async () => {
    const results = await found(door, { project: { ...deps().project, url: "http://127.0.0.1:9" } });
    expect(results["sign-in"]).toMatchObject({ ok: false, detail: expect.stringContaining("project_unreachable") });
    expect(results["functions"]).toMatchObject({ ok: false, detail: expect.stringContaining("project_unreachable") });
  });
});

describe("the functions", () => {
  it.each([
    ["are not there", new Response('{"code":"NOT_FOUND"}', { status: 404 }), "is it deployed?"],
    ["break", new Response("", { status: 546 }), "HTTP 546"],
    ["are refused by the gateway before they are reached", new Response('{"code":401}', { status: 401 }), "verify_jwt"],
    ["answer without a signature", new Response("{}", { status: 200 }), "HTTP 200"],
  ])("fail where they %s", async (_, response, detail) => {
    const answering = (input: string, init: RequestInit) =>
      input.includes("/functions/v1/backup") ? Promise.resolve(response) : fetch(input, init);
    const results = await found(door, { project: { ...deps().project, fetch: answering } });
    expect(results["functions"]).toEqual({ ok: false, detail: expect.stringContaining(detail) });
    expect(results["sign-in"]).toMatchObject({ ok: true });
  });
});

describe("smoke queries", () => {
  const smoke = async (sql: string) => (await found({ ...door, smoke: sql, user: null }))["smoke queries"];

  it("fail by number and line, with the SQLSTATE and without what the server says", async () => {
    expect(await smoke("select 1;\nselect 'secret title'::int;\nselect 1/0 from generate_series(1, 3)")).toEqual({
      ok: false,
      detail: "statement 2 (line 2): SQLSTATE 22P02; statement 3 (line 3): SQLSTATE 22012",
    });
  });

  it("fail for a row that is not ok, the last of many as well, and for nothing else that is false", async () => {
    expect(await smoke("select i < 2500 as ok from generate_series(1, 2500) as i")).toEqual({
      ok: false,
      detail: "statement 1 (line 1): a row says that it is not ok",
    });
    expect(await smoke("select true as ok; select null::boolean as ok; select false as fine; select false as ok, 1"))
      .toEqual({
        ok: true,
        detail: "4 statements went through",
      });
  });

  it("change nothing, whatever they try", async () => {
    expect(
      await smoke(
        "delete from public.entries; commit; delete from public.logs; do $$ begin delete from public.logs; end $$",
      ),
    ).toEqual({
      ok: false,
      detail:
        "statement 1 (line 1): SQLSTATE 25006; statement 3 (line 1): SQLSTATE 25006; statement 4 (line 1): SQLSTATE 25006",
    });
    expect((await found({ smoke: null, user: null }))["row counts"]).toMatchObject({ ok: true });
  });

  it("run as role postgres, and see names without a schema", async () => {
    const admin = openDatabase({ url: project().stack.cluster.plainUrl("supabase_admin") });
    const results = await found(
      { smoke: "select current_user = 'postgres' as ok; select 1 from entries", user: null },
      {
        database: admin,
      },
    );
    expect(results["smoke queries"]).toMatchObject({ ok: true });
  });
});
