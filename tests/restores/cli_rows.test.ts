/** A table, a row, a person: brought back by the CLI into the journal app. The oracle is what was there. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp } from "../support/sample_app/load.ts";
import { cli, type CliResult } from "../integration/cli_fixture.ts";
import { rowsOf } from "./rows_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-cli-rows-"));
let settings: Record<string, string> = {};
let app: SampleApp;
let backup = "";
let database = "";
/** A person with something in every table, and one to whom they wrote. */
let [sender, recipient] = ["", ""];

const source = () => cluster().plainUrl("postgres");

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

function failure({ document }: CliResult): { readonly code: string; readonly message: string; readonly hint: string } {
  return (document as { error: { code: string; message: string; hint: string } }).error;
}

/** No safety backup: the tests that look at it say so themselves. */
const quick = () => ["--yes", "--skip-safety-backup", database];

/** Every row of a person in a table, as text. */
const ofPerson = (table: string, column: string, id: string) =>
  rowsOf(source(), `(select * from ${table} where ${column} = '${id}')`);

/** The present moment by the server's clock. */
async function point(): Promise<string> {
  const [row] = await query(
    source(),
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
  );
  return String(row?.["at"]);
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
  const [writer] = await query(
    source(),
    `select e.user_id as id from public.attachments as a join public.journal_entries as e on e.id = a.entry_id
       join public.entry_tags as t on t.entry_id = e.id where e.user_id <> all ($1::uuid[]) limit 1`,
    [app.people.slice(4, 9).map(({ id }) => id)],
  );
  sender = String(writer?.["id"]);
  recipient = app.people[4]?.id ?? "";
  await query(
    source(),
    `create table public.posts (id int primary key, author_id uuid references public.profiles on delete cascade);
     insert into public.posts values (1, '${app.people[6]?.id}'), (2, '${recipient}');
     create table public.messages (id bigint generated always as identity primary key,
       sender_id uuid references auth.users on delete cascade, recipient_id uuid references auth.users on delete cascade, text text);
     insert into public.messages (sender_id, recipient_id, text) values
       ('${sender}', '${recipient}', 'to another'), ('${sender}', '${sender}', 'to myself');
     insert into public.journal_entries (user_id, date, body, created_at)
       select person, day, 'of a week ago', day from (values ('${sender}'::uuid), ('${recipient}')) as p (person),
         (select current_date - 7 as day) as d`,
  );
  backup = String((await ok(["create"]))["id"]);
  const [row] = await query(source(), "select current_database() as name");
  database = String(row?.["name"]);
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("restore-table", () => {
  it("lays the rows beside, and changes nothing", async () => {
    const was = await rowsOf(source(), "public.tags");
    await query(source(), "delete from public.entry_tags; delete from public.tags where id % 2 = 0");
    const left = await rowsOf(source(), "public.tags");
    const document = await ok(["restore-table", "public.tags", backup]);
    expect(document).toMatchObject({ id: backup, ok: true, inserted: 0, mode: "beside", warnings: [] });
    expect(await rowsOf(source(), `${document["sideSchema"]}.tags`)).toEqual(was);
    expect(await rowsOf(source(), "public.tags")).toEqual(left);
    const [record] = await query(
      source(),
      "select status, scope, mode from backup.restores order by started_at desc limit 1",
    );
    expect(record).toEqual({ status: "beside", scope: "table", mode: "beside" });
    const plan = await ok(["restore-table", "public.tags", backup, "--apply", "missing", "--dry-run"]);
    expect(plan).toMatchObject({ dryRun: true, plan: [{ table: "public.tags", insert: was.length - left.length }] });
    expect(await rowsOf(source(), "public.tags")).toEqual(left);
    // What was only planned leaves nothing behind.
    expect(await query(source(), `select from pg_namespace where nspname = '${plan["sideSchema"]}'`)).toEqual([]);
    const done = await ok(["restore-table", "public.tags", backup.slice(0, 8), "--apply", "missing", ...quick()]);
    expect(done).toMatchObject({ ok: true, inserted: was.length - left.length, updated: 0, deleted: 0 });
    expect(await rowsOf(source(), "public.tags")).toEqual(was);
  }, 60_000);

  it("takes a safety backup before anything is changed, from which the state before can be had", async () => {
    const [entry] = await query(source(), "select id, body from public.journal_entries order by id limit 1");
    await query(source(), `update public.journal_entries set body = 'written later' where id = '${entry?.["id"]}'`);
    const done = await ok(["restore-table", "public.journal_entries", backup, "--apply", "merge", "--yes"]);
    expect(done).toMatchObject({ ok: true, inserted: 0, updated: 1, safetyRun: expect.any(String) });
    expect(await query(source(), `select body from public.journal_entries where id = '${entry?.["id"]}'`)).toEqual([
      { body: entry?.["body"] },
    ]);
    const [run] = await query(
      source(),
      `select tiers::text as tiers from backup.runs where id = '${done["safetyRun"]}'`,
    );
    expect(run).toEqual({ tiers: "{safety}" });
    const back = await ok([
      "restore-record",
      "public.journal_entries",
      String(done["safetyRun"]),
      "--where",
      `id=${entry?.["id"]}`,
      "--sql",
    ]);
    expect(String(back["sql"])).toContain("written later");
  }, 60_000);

  it("tells what an earlier call did that was ended behind its commit", async () => {
    const owner = cluster().plainUrl(cluster().superuser);
    const author = app.people[6]?.id;
    await query(source(), "update public.posts set author_id = null where id = 1");
    await query(
      owner,
      `create function public.boom() returns trigger language plpgsql as
         $$ begin if new.status = 'succeeded' then raise exception 'killed'; end if; return new; end $$;
       create trigger boom before update on backup.restores for each row execute function public.boom()`,
    );
    const args = ["restore-record", "public.posts", backup, "--where", "id=1", "--apply", "merge", ...quick()];
    expect((await cli([...args, "--json"], settings)).exit).not.toBe(0);
    await query(owner, "drop function public.boom cascade");
    expect(await query(source(), "select author_id from public.posts where id = 1")).toEqual([{ author_id: author }]);
    expect(await ok(args)).toMatchObject({ ok: true, inserted: 0, updated: 1, deleted: 0 });
    const [record] = await query(
      source(),
      "select status, tables from backup.restores order by started_at desc limit 1",
    );
    expect(record).toMatchObject({ status: "succeeded", tables: [{ name: "posts", updated: 1 }] });
  }, 60_000);

  it("does nothing without a confirmation, and says what it would do", async () => {
    await query(source(), "delete from public.mood_samples");
    const result = await cli(
      ["restore-table", "public.mood_samples", backup, "--apply", "missing", "--json"],
      settings,
    );
    expect(result.exit).toBe(2);
    expect(failure(result).code).toBe("confirmation_missing");
    expect(result.document).toMatchObject({ dryRun: true, plan: [{ insert: expect.any(Number), conflicts: [] }] });
    expect(await rowsOf(source(), "public.mood_samples")).toEqual([]);
    await ok(["restore-table", "public.mood_samples", backup, "--apply", "missing", ...quick()]);
    expect((await rowsOf(source(), "public.mood_samples")).length).toBeGreaterThan(100);
  }, 60_000);
});

describe("restore-record", () => {
  it("brings an entry of seven days ago back by its user and its date, and its owner sees it", async () => {
    const [entry] = await query(
      source(),
      `select e.id, e.user_id, e.date::text as date, e::text as row from public.journal_entries as e
        where e.user_id = '${sender}' and e.body = 'of a week ago'`,
    );
    await query(source(), `delete from public.journal_entries where id = '${entry?.["id"]}'`);
    const done = await ok([
      "restore-record",
      "public.journal_entries",
      backup,
      "--where",
      `user_id=${entry?.["user_id"]}`,
      "--where",
      `date=${entry?.["date"]}`,
      "--apply",
      "missing",
      ...quick(),
    ]);
    expect(done).toMatchObject({
      ok: true,
      inserted: 1,
      readBack: [{ user: entry?.["user_id"], rows: 1, visible: 1 }],
    });
    expect(await rowsOf(source(), `(select * from public.journal_entries where id = '${entry?.["id"]}')`)).toEqual([
      entry?.["row"],
    ]);
  }, 60_000);

  it("says so when its owner does not see it", async () => {
    const [entry] = await query(source(), "select id from public.journal_entries order by id offset 6 limit 1");
    await query(
      source(),
      `delete from public.journal_entries where id = '${
        entry?.["id"]
      }'; create policy nobody on public.journal_entries as restrictive for select using (false)`,
    );
    const where = ["--where", `id=${entry?.["id"]}`];
    const result = await cli([
      "restore-record",
      "public.journal_entries",
      backup,
      ...where,
      "--apply",
      "missing",
      ...quick(),
    ], settings);
    await query(source(), "drop policy nobody on public.journal_entries");
    expect(result.exit).toBe(0);
    expect(result.stdout).toContain("warning: their owner sees 0 of 1 rows");
  }, 60_000);

  it("prints INSERTs that make the very rows, in any role's SQL editor", async () => {
    const [entry] = await query(
      source(),
      "select id, e::text as row from public.journal_entries as e order by e.id offset 7 limit 1",
    );
    const { stdout } = await cli([
      "restore-record",
      "public.journal_entries",
      backup,
      "--where",
      `id=${String(entry?.["id"]).toUpperCase()}`,
      "--sql",
    ], settings);
    await query(source(), `delete from public.journal_entries where id = '${entry?.["id"]}'`);
    await query(source(), stdout);
    expect(await rowsOf(source(), `(select * from public.journal_entries where id = '${entry?.["id"]}')`)).toEqual([
      entry?.["row"],
    ]);
  }, 60_000);

  it("lists several rows with their keys, and takes them with --all", async () => {
    const several = ["restore-record", "public.journal_entries", backup, "--where", "mood=sad"];
    const result = await cli([...several, "--json"], settings);
    expect(result.exit).toBe(1);
    expect(failure(result).code).toBe("rows_ambiguous");
    expect((result.document as { matches: unknown[] }).matches).toHaveLength(20);
    const document = await ok([...several, "--all"]);
    const [count] = await query(source(), "select count(*)::int as n from public.journal_entries where mood = 'sad'");
    expect(document).toMatchObject({ tables: [{ rows: count?.["n"] }] });
  }, 60_000);

  it("refuses clearly what it cannot find or read", async () => {
    const cases: [string[], string, number][] = [
      [
        ["restore-record", "public.journal_entries", backup, "--where", "id=00000000-0000-0000-0000-000000000000"],
        "row_not_found",
        1,
      ],
      [["restore-record", "public.journal_entries", backup, "--where", "id=17"], "usage", 2],
      [["restore-record", "public.journal_entries", backup, "--where", "colour=red"], "usage", 2],
      [["restore-record", "public.profiles", backup, "--where", "home=(x,1,2)"], "row_not_found", 1],
      [["restore-record", "public.journal_entries", backup], "usage", 2],
      [["restore-table", "public.journal", backup], "table_not_found", 1],
      [["restore-table", "journal_entries", backup], "usage", 2],
      [["restore-table", "public.tags", "ffffffff"], "backup_not_found", 1],
      [["restore-table", "public.tags", backup, "--apply", "everything"], "usage", 2],
      [
        ["restore-table", "public.tags", backup, "--apply", "replace", "--yes", "--skip-safety-backup", "other"],
        "confirmation_wrong",
        2,
      ],
      [["restore-user", "00000000-0000-0000-0000-000000000000", backup], "user_not_found", 1],
      [["restore-user", "somebody", backup], "usage", 2],
    ];
    for (const [args, code, exit] of cases) {
      const result = await cli([...args, "--json"], settings);
      expect([failure(result).code, result.exit], args.join(" ") + result.stderr).toEqual([code, exit]);
    }
    expect(
      await query(
        source(),
        "select nspname from pg_namespace where nspname like 'restore_%' and nspname not in (select side_schema from backup.restores where status in ('beside', 'succeeded'))",
      ),
    ).toEqual([]);
  }, 120_000);
});

describe("a disk whose size is known", () => {
  it("is not filled by rows that do not fit, beside or in place", async () => {
    await query(source(), "update backup.settings set value = '1' where name = 'disk_mb'");
    await query(source(), "update public.posts set author_id = null where id = 1");
    try {
      // One row needs no room that is asked for before it lies beside.
      const record = ["public.posts", "--where", "id=1", "--apply", "merge", ...quick()];
      for (const args of [["restore-table", "public.journal_entries"], ["restore-record", ...record]]) {
        const result = await cli([...args, backup, "--json"], settings);
        expect([failure(result).code, result.exit]).toEqual(["space_missing", 1]);
        expect(failure(result).message).toMatch(
          /^the rows take about \d+ MB, and the databases leave 0 MB of the disk$/,
        );
      }
      expect(await query(source(), "select author_id from public.posts where id = 1")).toEqual([{ author_id: null }]);
    } finally {
      await query(source(), "update backup.settings set value = '0' where name = 'disk_mb'");
      await query(source(), "update public.posts set author_id = $1 where id = 1", [app.people[6]?.id]);
    }
    const left =
      "select nspname from pg_namespace where nspname in (select side_schema from backup.restores where status = 'cancelled')";
    expect(await query(source(), left)).toEqual([]);
  }, 60_000);
});

describe("a trigger that fires whatever a restore sets", () => {
  it("fires with --fire-triggers alone", async () => {
    const author = app.people[6]?.id;
    await query(
      source(),
      `update public.posts set author_id = null where id = 1; create table public.fired (author_id uuid);
       create function public.fires() returns trigger language plpgsql as
         'begin insert into public.fired values (new.author_id); return new; end';
       create trigger fires before update on public.posts for each row execute function public.fires();
       alter table public.posts enable always trigger fires`,
    );
    const args = ["restore-record", "public.posts", backup, "--where", "id=1", "--apply", "merge", ...quick()];
    expect(failure(await cli([...args, "--json"], settings)).code).toBe("triggers_would_fire");
    expect(await ok([...args, "--fire-triggers"])).toMatchObject({ updated: 1 });
    expect(await query(source(), "select author_id from public.fired")).toEqual([{ author_id: author }]);
    await query(source(), "drop function public.fires cascade; drop table public.fired");
  }, 60_000);
});

describe("restore-user", () => {
  const tables: readonly [string, string][] = [
    ["auth.users", "id"],
    ["auth.identities", "user_id"],
    ["public.profiles", "id"],
    ["public.journal_entries", "user_id"],
    ["public.tags", "user_id"],
  ];
  const attached = (id: string) =>
    rowsOf(
      source(),
      `(select a.* from public.attachments as a join public.journal_entries as e on e.id = a.entry_id where e.user_id = '${id}')`,
    );
  const tagged = (id: string) =>
    rowsOf(
      source(),
      `(select t.* from public.entry_tags as t join public.journal_entries as e on e.id = t.entry_id where e.user_id = '${id}')`,
    );
  const everything = async (id: string) => [
    ...await Promise.all(tables.map(([table, column]) => ofPerson(table, column, id))),
    await attached(id),
  ];

  beforeAll(async () => {
    // What tests above have taken.
    await ok(["restore-table", "public.entry_tags", backup, "--apply", "replace", ...quick()]);
  }, 60_000);

  it("brings back a person who was deleted, with all that went with them, and nobody else's rows", async () => {
    const id = sender;
    const was = await everything(id);
    const tags = await tagged(id);
    const others = await everything(recipient);
    expect(was.every((rows) => rows.length > 0)).toBe(true);
    await query(source(), `delete from auth.users where id = '${id}'`);
    expect((await everything(id)).flat()).toEqual([]);
    const done = await ok(["restore-user", id, backup, "--apply", "missing", ...quick()]);
    expect(await everything(id)).toEqual(was);
    // Entries can carry tags of others.
    const own = (await tagged(id)).length;
    expect(own).toBeLessThan(tags.length);
    expect(await everything(recipient)).toEqual(others);
    // A message to somebody else is theirs too: named, and left out until it is asked for.
    expect(String(done["warnings"])).toContain("1 row of public.messages are other users' as well; they stay out");
    expect(await query(source(), "select text from public.messages")).toEqual([{ text: "to myself" }]);
    const shared = await ok(["restore-user", id, backup, "--shared", "--apply", "missing", ...quick()]);
    expect(await tagged(id)).toEqual(tags);
    expect(await query(source(), "select count(*)::int as n from public.messages")).toEqual([{ n: 2 }]);
    expect(shared).toMatchObject({ updated: 0, deleted: 0 });
    const sessions = await query(source(), `select from auth.sessions where user_id = '${id}'`);
    expect(sessions).toEqual([]);
  }, 60_000);

  it("leaves password and second factors of a user who is there, unless they are asked for", async () => {
    const id = app.people[5]?.id ?? "";
    const password = async () =>
      String((await query(source(), `select encrypted_password as p from auth.users where id = '${id}'`))[0]?.["p"]);
    const was = await password();
    await query(source(), `update auth.users set encrypted_password = 'new', phone = '+100' where id = '${id}'`);
    const merged = await ok(["restore-user", id, backup, "--apply", "merge", ...quick()]);
    expect(merged).toMatchObject({ updated: 1 });
    expect(await query(source(), `select encrypted_password as p, phone from auth.users where id = '${id}'`)).toEqual([
      { p: "new", phone: null },
    ]);
    await ok(["restore-user", id, backup, "--credentials", "--apply", "merge", ...quick()]);
    expect(await password()).toBe(was);
  }, 60_000);

  it("gives the rows to the new account of somebody who signed up again", async () => {
    const [old, fresh] = [app.people[6]?.id ?? "", "77777777-7777-4777-8777-777777777777"];
    const count = async (id: string) => (await ofPerson("public.journal_entries", "user_id", id)).length;
    const entries = await count(old);
    await query(
      source(),
      `delete from auth.users where id = '${old}'; insert into auth.users (id, email) values ('${fresh}', 'again@journal.example')`,
    );
    await ok(["restore-user", old, backup, "--as", fresh, "--apply", "missing", ...quick()]);
    expect(await count(fresh)).toBe(entries);
    // Also where the id stands by way of another table.
    expect(await query(source(), "select id, author_id from public.posts order by id")).toEqual([
      { id: 1, author_id: fresh },
      { id: 2, author_id: recipient },
    ]);
    expect(await query(source(), `select email from auth.users where id in ('${old}', '${fresh}')`)).toEqual([
      { email: "again@journal.example" },
    ]);
    const missing = await cli(
      ["restore-user", old, backup, "--as", "11111111-1111-4111-8111-111111111111", "--json"],
      settings,
    );
    expect(failure(missing).code).toBe("user_not_found");
  }, 60_000);

  it("follows what the map says, where no key does, and replaces only what is the person's", async () => {
    const id = app.people[7]?.id ?? "";
    const map = join(folder, "map.json");
    writeFileSync(
      map,
      JSON.stringify({
        version: 1,
        users: [{ table: "public.events", column: "user_id" }, { table: "public.mood_samples", column: "user_id" }],
      }),
    );
    const was = await ofPerson("public.events", "user_id", id);
    const samples = await ofPerson("public.mood_samples", "user_id", id);
    const [others] = await query(source(), `select count(*)::int as n from public.events where user_id <> '${id}'`);
    expect(was.length * samples.length).toBeGreaterThan(0);
    await query(
      source(),
      `delete from public.events where user_id = '${id}' and id % 2 = 0; update public.events set kind = 'x' where user_id = '${id}';
       delete from public.mood_samples where user_id = '${id}';
       insert into public.tags (user_id, name) values ('${id}', 'made later')`,
    );
    const done = await ok(["restore-user", id, backup, "--map", map, "--apply", "replace", ...quick()]);
    expect(done["deleted"]).toBe(1);
    expect(await ofPerson("public.events", "user_id", id)).toEqual(was);
    expect(await ofPerson("public.mood_samples", "user_id", id)).toEqual(samples);
    expect(await query(source(), `select count(*)::int as n from public.events where user_id <> '${id}'`)).toEqual([
      others,
    ]);
    expect(await query(source(), "select from public.tags where name = 'made later'")).toEqual([]);
  }, 60_000);
});

describe("restore", () => {
  it("takes its scope from --scope", async () => {
    const beside = await ok(["restore", backup, "public.profiles", "--scope", "table"]);
    expect(beside).toMatchObject({ mode: "beside", tables: [{ table: "public.profiles" }] });
  }, 60_000);
});

describe("as of a moment", () => {
  it(
    "brings rows back that were written and deleted behind the full backup, and takes an incremental's id",
    async () => {
      await ok(["incremental"]);
      await ok(["create"]);
      await query(
        source(),
        "insert into public.tags (user_id, name) select id, 'short-lived' from auth.users order by id limit 3",
      );
      const first = await ok(["incremental"]);
      const moment = { at: await point() };
      const was = await rowsOf(source(), "public.tags");
      await query(
        source(),
        "delete from public.tags where name = 'short-lived'; update public.tags set colour = 'none'",
      );
      await ok(["incremental"]);
      const beside = await ok(["restore-table", "public.tags", "--at", moment.at]);
      expect(await rowsOf(source(), `${beside["sideSchema"]}.tags`)).toEqual(was);
      const done = await ok([
        "restore-table",
        "public.tags",
        "--at",
        moment.at,
        "--apply",
        "replace",
        ...quick(),
      ]);
      expect(done).toMatchObject({ inserted: 3, deleted: 0 });
      expect(await rowsOf(source(), "public.tags")).toEqual(was);
      // What a restore puts back is in the stream like everybody's changes: a moment behind it is exact.
      const behind = await point();
      await ok(["incremental"]);
      const after = await ok(["restore-table", "public.tags", "--at", behind]);
      expect(await rowsOf(source(), `${after["sideSchema"]}.tags`)).toEqual(was);
      expect(await query(source(), "select datname from pg_database where datname like 'holdfast_scratch_%'")).toEqual(
        [],
      );
      const late = await cli(["restore-table", "public.tags", "--at", "2019-01-01T00:00:00Z", "--json"], settings);
      expect(failure(late).code).toBe("point_uncovered");
      expect(first["id"]).toEqual(expect.any(String));
      const incremental = await ok(["restore-table", "public.tags", String(first["id"])]);
      expect(incremental["mode"]).toBe("beside");
    },
    120_000,
  );
});
