/** The function `restore`, called as docs/http.md says, on the embedded stack under the platform's limits. */
import { beforeAll, describe, expect, it } from "vitest";
import { callFunction } from "../../src/cli/function_client.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { query } from "../support/cluster.ts";
import { eventually, type Project, setClock, useProject } from "../support/stack.ts";

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } }, fill);
const owner = "11111111-1111-1111-1111-111111111111";
const other = "22222222-2222-2222-2222-222222222222";
let backup: string;

async function fill({ query }: Project): Promise<void> {
  await query(
    `insert into auth.users (id, email) values ('${owner}', 'a@example.org'), ('${other}', 'b@example.org');
     create table public.entries (id int primary key, owner uuid not null references auth.users, body text not null);
     alter table public.entries enable row level security;
     create policy own on public.entries for select to authenticated using (owner = (select auth.uid()));
     grant select on public.entries to authenticated;
     insert into public.entries select i, case when i % 3 = 0 then '${owner}' else '${other}' end::uuid, 'entry ' || i
       from generate_series(1, 300) as i;
     create table public.large (id int primary key, body text not null);
     insert into public.large select i, repeat(md5(i::text), 24) from generate_series(1, 70000) as i`,
  );
}

beforeAll(async () => {
  const { run } = await project().startBackup();
  expect(await project().ended(run)).toMatchObject({ status: "succeeded" });
  backup = run;
}, 120_000);

interface Shown {
  readonly status: string;
  readonly sideSchema: string | null;
  readonly tables: readonly unknown[];
  readonly plan: { readonly tables: readonly Record<string, unknown>[] } | null;
  readonly readBack: readonly unknown[];
  readonly safetyRun: string | null;
  readonly error: { readonly code: string } | null;
}

async function call(request: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
  const { stack } = project();
  const settings = { need: () => stack.gateway.url, variable: () => stack.workerSecret };
  const context = { settings, clock: systemClock, random: webCryptoRandom, signal: new AbortController().signal };
  return await callFunction(context as unknown as Parameters<typeof callFunction>[0], "restore", request) as Record<
    string,
    unknown
  >;
}

const plan = async (request: Readonly<Record<string, unknown>>) =>
  String((await call({ action: "plan", backup, ...request }))["restore"]);
const shown = async (restore: string) => await call({ action: "status", restore }) as unknown as Shown;

/** Once it stands beside or has ended. */
async function ended(restore: string): Promise<Shown> {
  try {
    return await eventually("the restore ends", async () => {
      const now = await shown(restore);
      return ["planned", "loading", "applying"].includes(now.status) ? null : now;
    }, 90_000);
  } catch (error) {
    const calls = await project().query(
      "select status, answer, made_at, ended_at from backup.calls where function_name = 'restore' order by made_at desc limit 5",
    );
    throw new Error(JSON.stringify([await shown(restore), calls]), { cause: error });
  }
}

const rows = async (table: string) =>
  (await project().query(
    `select count(*) as n, md5(string_agg(md5(r::text), '' order by id)) as hash from ${table} as r`,
  ))[0];

async function name(): Promise<string> {
  return String((await project().query("select current_database() as name"))[0]?.["name"]);
}

const record = { scope: "record", table: "public.entries", where: [{ column: "id", value: "42" }] };

/** What the audit says of the keys that opened something for it, whatever number of legs did. */
async function keysUsed(restore: string): Promise<Record<string, unknown>[]> {
  return await project().query(
    `select detail from backup.audit_log where action = 'key.used' and subject = 'restore:' || $1
       and pg_catalog.jsonb_array_length(detail -> 'keys') = 1`,
    [restore],
  );
}

describe("a record", () => {
  it(
    "is planned, confirmed by the database's name, put back behind a safety backup, and read again as its owner",
    async () => {
      const was = await rows("public.entries");
      await project().query("delete from public.entries where id = 42");
      const broken = await rows("public.entries");
      const restore = await plan(record);
      const planned = await ended(restore);
      expect(planned, JSON.stringify(planned)).toMatchObject({
        status: "beside",
        plan: { tables: [{ table: "public.entries", insert: 1, update: 0, delete: 0, conflicts: [] }] },
      });
      for (const confirm of ["", "another", `${await name()} `]) {
        await expect(call({ action: "apply", restore, mode: "missing", confirm })).rejects.toMatchObject({
          code: confirm === "" ? "payload_invalid" : "confirmation_wrong",
        });
      }
      await expect(
        call({ action: "apply", restore, mode: "missing", confirm: await name(), skipSafetyBackup: "another" }),
      )
        .rejects.toMatchObject({ code: "confirmation_wrong" });
      expect(await rows("public.entries")).toEqual(broken);
      expect(await shown(restore)).toMatchObject({ status: "beside" });

      await call({ action: "apply", restore, mode: "missing", confirm: await name() });
      const done = await ended(restore);
      expect(done, JSON.stringify(done)).toMatchObject({
        status: "succeeded",
        tables: [{ schema: "public", name: "entries", inserted: 1, updated: 0, deleted: 0 }],
        readBack: [{ rows: 1, visible: 1 }],
      });
      expect(await rows("public.entries")).toEqual(was);
      const [safety] = await project().query(
        "select status, tiers, created_at >= (select started_at from backup.restores where id = $2) as later from backup.runs where id = $1",
        [done.safetyRun, restore],
      );
      expect(safety).toMatchObject({ status: "succeeded", later: true });
      expect(String(safety?.["tiers"])).toContain("safety");
      expect(await keysUsed(restore)).toHaveLength(1);
    },
    180_000,
  );

  it("of which several fit, or none, is refused, and leaves no side schema", async () => {
    const where = [{ column: "owner", value: owner }];
    for (
      const [request, code] of [
        [{ ...record, where }, "rows_ambiguous"],
        [{ ...record, where: [{ column: "id", value: "4242" }] }, "row_not_found"],
        [{ ...record, where: [{ column: "nothing", value: "1" }] }, "usage"],
        [{ ...record, table: "public.nowhere" }, "table_not_found"],
      ] as const
    ) {
      const restore = await plan(request);
      const end = await ended(restore);
      expect(end, JSON.stringify(end)).toMatchObject({ status: "failed", error: { code } });
      await eventually("its side schema goes", async () => (await shown(restore)).sideSchema === null ? true : null);
    }
    await expect(plan({ ...record, backup: "00000000-0000-4000-8000-000000000000" })).rejects.toMatchObject({
      code: "backup_not_found",
    });
    const left = await project().query("select nspname from pg_namespace where nspname like 'restore\\_%'");
    expect(left).toHaveLength(1);
    const restore = await plan({ ...record, where, all: true });
    expect(await ended(restore)).toMatchObject({ status: "beside", tables: [{ rows: 100 }] });
    expect(await call({ action: "cancel", restore }).catch((error: { code: string }) => error.code)).toBe("run_state");
  }, 120_000);

  it("is not asked for with fields that do not belong together", async () => {
    for (
      const request of [
        { scope: "record", table: "public.entries" },
        { scope: "table", table: "entries" },
        { scope: "table", table: "public.entries", where: record.where },
        { scope: "table", table: "public.entries", user: owner },
        { scope: "user" },
        { scope: "user", user: owner, table: "public.entries" },
        { scope: "user", user: owner, shared: true, mode: "replace" },
        { scope: "user", user: owner, map: { version: 2 } },
        { scope: "full" },
        { ...record, more: 1 },
      ]
    ) {
      await expect(plan(request), JSON.stringify(request)).rejects.toMatchObject({ code: "payload_invalid" });
    }
    for (const action of ["status", "leg", "cancel"]) {
      await expect(call({ action, restore: "00000000-0000-4000-8000-000000000000" })).rejects.toMatchObject({
        code: "run_not_found",
      });
    }
  });
});

describe("a table larger than a leg", () => {
  it("comes back as it was, also where a function is killed in the middle of it", async () => {
    const was = await rows("public.large");
    await project().query(
      "delete from public.large where id % 4 = 0; update public.large set body = 'gone' where id % 4 = 1; insert into public.large values (0, 'new')",
    );
    const kill = await project().killAt("step:rows.laid", 2, "restore");
    const restore = await plan({ scope: "table", table: "public.large", mode: "replace" });
    await kill.fired();
    await setClock(project(), 200);
    try {
      await project().query("select backup.tick()");
      const planned = await ended(restore);
      expect(planned, JSON.stringify(planned)).toMatchObject({
        status: "beside",
        tables: [{ schema: "public", name: "large", rows: 70000 }],
        plan: { tables: [{ insert: 17500, update: 17500, delete: 1 }] },
      });
      await setClock(project(), 0);
      const again = await project().killAt("step:rows.step", 1, "restore");
      await call({ action: "apply", restore, mode: "replace", confirm: await name(), skipSafetyBackup: await name() });
      await again.fired();
      await setClock(project(), 200);
      await project().query("select backup.tick()");
      expect(await ended(restore)).toMatchObject({
        status: "succeeded",
        tables: [{ schema: "public", name: "large", inserted: 17500, updated: 17500, deleted: 1 }],
        safetyRun: null,
      });
    } finally {
      await setClock(project(), 0);
    }
    expect(await rows("public.large")).toEqual(was);
    const [legs] = await project().query("select count(*)::int as n from backup.calls where function_name = 'restore'");
    expect(Number(legs?.["n"])).toBeGreaterThan(20);
  }, 240_000);
});

describe("a user's rows", () => {
  it("come back, and no other's", async () => {
    const was = await rows("public.entries");
    await project().query("delete from public.entries where id in (3, 4, 6)");
    await project().query(`update auth.users set email = 'changed@example.org' where id = '${owner}'`);
    const restore = await plan({ scope: "user", user: owner, mode: "missing" });
    expect(await ended(restore)).toMatchObject({ status: "beside" });
    await call({ action: "apply", restore, mode: "missing", confirm: await name(), skipSafetyBackup: await name() });
    expect(await ended(restore)).toMatchObject({ status: "succeeded" });
    const back = await project().query("select id from public.entries where id in (3, 4, 6) order by id");
    expect(back.map(({ id }) => id)).toEqual([3, 6]);
    await project().query(`insert into public.entries values (4, '${other}', 'entry 4')`);
    expect(await rows("public.entries")).toEqual(was);
    const [user] = await project().query(`select email from auth.users where id = '${owner}'`);
    expect(user).toEqual({ email: "changed@example.org" });
  }, 120_000);
});

describe("a whole database", () => {
  it("comes into a new one whose name was typed, also where a function is killed in the middle of it", async () => {
    const outline = await call({ action: "full", backup: "latest" });
    expect(outline).toMatchObject({ isThere: false, tables: expect.any(Number) as number });
    const database = String(outline["database"]);
    await expect(call({ action: "full", backup: "latest", confirm: await name() })).rejects.toMatchObject({
      code: "confirmation_wrong",
    });
    expect(await project().query("select from pg_database where datname = $1", [database])).toEqual([]);
    const kill = await project().killAt("step:restore.chunk", 2, "restore");
    const restore = String((await call({ action: "full", backup: "latest", confirm: database }))["restore"]);
    await kill.fired();
    await setClock(project(), 200);
    try {
      await project().query("select backup.tick()");
      const done = await ended(restore);
      expect(done, JSON.stringify(done)).toMatchObject({
        status: "succeeded",
        target: database,
        rowsDone: outline["rows"],
      });
    } finally {
      await setClock(project(), 0);
    }
    expect(await keysUsed(restore)).toHaveLength(1);
    const url = project().stack.cluster.plainUrl("postgres", database);
    const hashes = `select (select md5(string_agg(md5(r::text), '' order by id)) from public.large as r) as large,
      (select md5(string_agg(md5(r::text), '' order by id)) from public.entries as r) as entries,
      (select json_agg(row(polname, polcmd, pg_get_expr(polqual, polrelid)) order by polname) from pg_policy
        where polrelid = 'public.entries'::regclass) as policies,
      (select json_agg(pg_get_constraintdef(oid) order by conname) from pg_constraint where conrelid = 'public.entries'::regclass) as keys`;
    expect(await query(url, hashes)).toEqual(await project().query(hashes));
    expect(await call({ action: "full", backup: "latest" })).toMatchObject({ isThere: true });
    const again = String((await call({ action: "full", backup: "latest", confirm: database }))["restore"]);
    expect(await ended(again)).toMatchObject({ status: "failed", error: { code: "target_not_empty" } });
  }, 180_000);
});

describe("its isolates", () => {
  it("were none of them ended for their memory or their CPU", async () => {
    const isolates = (await project().isolates()).filter((one) => one.function === "restore");
    expect(isolates.length).toBeGreaterThan(0);
    expect(isolates.map(({ endedBy }) => endedBy).filter((reason) => reason === "cpu" || reason === "memory")).toEqual(
      [],
    );
  });
});
