/**
 * A person is erased; then every way back is tried with the backup from before. The oracle is a search of every row of every
 * table for what only that person had: ids, address, and words of theirs.
 */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp } from "../support/sample_app/load.ts";
import { cli, type CliResult } from "../integration/cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-erase-"));
const map = join(folder, "backup.map.json");
let settings: Record<string, string> = {};
let app: SampleApp;
let backup = "";
let database = "";
/** Who is erased, and somebody who stays. */
let [person, other] = ["", ""];
let moment = "";
/** What only that person had. */
let needles: string[] = [];

const source = () => cluster().plainUrl("postgres");
const urlOf = (name: string) => cluster().plainUrl("supabase_admin", name);

async function run(args: readonly string[], given = settings): Promise<CliResult> {
  return await cli([...args, "--json"], given);
}

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await run(args, given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

async function refused(args: readonly string[], given = settings): Promise<{ code: string; message: string }> {
  const result = await run(args, given);
  expect(result.exit, result.stdout + result.stderr).not.toBe(0);
  return (result.document as { error: { code: string; message: string } }).error;
}

/** Tables with a row that holds one of the needles; `backup` keeps no needle either. By the superuser, whom no policy hides a row from. */
async function found(url: string, wanted: readonly string[] = needles): Promise<string[]> {
  const tables = await query(
    url,
    `select format('%I.%I', n.nspname, c.relname) as name from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
      where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_'
        and c.relispopulated`,
  );
  expect(tables.length).toBeGreaterThan(10);
  const hits: string[] = [];
  for (const { name } of tables) {
    const [row] = await query(
      url,
      `select count(*)::int as n from only ${name} as t where exists (
         select from unnest($1::text[]) as w (needle) where strpos(lower(t::text), lower(w.needle)) > 0)`,
      [wanted],
    );
    if (Number(row?.["n"]) > 0) hits.push(`${String(name)}: ${String(row?.["n"])}`);
  }
  return hits.sort();
}

const counts = async (url: string) =>
  (await query(
    url,
    `select (select count(*) from auth.users)::int as users, (select count(*) from public.journal_entries)::int as entries,
            (select count(*) from public.messages)::int as messages`,
  ))[0];

const quick = () => ["--yes", "--skip-safety-backup", database];

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
       join public.entry_tags as t on t.entry_id = e.id join public.events as v on v.user_id = e.user_id
       join public.mood_samples as s on s.user_id = e.user_id limit 1`,
  );
  person = String(writer?.["id"]);
  other = app.people.map(({ id }) => id).find((id) => id !== person) ?? "";
  await query(
    source(),
    `create table public.messages (id bigint generated always as identity primary key,
       sender_id uuid references auth.users on delete set null, recipient_id uuid references auth.users on delete set null,
       answers bigint references public.messages, text text);
     create table public.ratings (giver uuid not null references public.profiles, entry_id uuid not null references public.journal_entries,
       stars int, primary key (giver, entry_id));
     alter table public.profiles add column referred_by uuid references public.profiles (id);
     insert into public.messages (sender_id, recipient_id, answers, text) values
       ('${person}', '${person}', null, 'to myself'), ('${other}', '${other}', null, 'of another'),
       ('${person}', '${other}', null, 'to another'), ('${other}', '${other}', 1, 'an answer');
     insert into public.ratings select '${other}', id, 5 from public.journal_entries where user_id = '${other}' limit 1;
     update public.profiles set referred_by = '${person}' where id = '${other}';
     update public.journal_entries set body = 'hf-needle ' || body where user_id = '${person}';
     update public.tags set name = 'hf-needle ' || name where user_id = '${person}';
     update auth.users set email = 'hf-needle@example.org' where id = '${person}'`,
  );
  await query(
    urlOf(String((await query(source(), "select current_database() as name"))[0]?.["name"])),
    `insert into auth.audit_log_entries (id, payload, created_at, ip_address) values (gen_random_uuid(),
       json_build_object('action', 'login', 'actor_id', '${person}', 'actor_username', 'hf-needle@example.org'), now(), '10.9.8.7')`,
  );
  needles = ["hf-needle", person];
  await ok(["incremental"]);
  // What the person deleted before they asked to be erased is in the backup, and in no list of what was erased.
  await query(
    source(),
    `insert into public.journal_entries (id, user_id, date, body) values ('00000000-0000-4000-8000-00000000abcd', '${person}', current_date, 'hf-needle, soon gone');
     insert into public.attachments (entry_id, name, mime, content) values ('00000000-0000-4000-8000-00000000abcd', 'hf-needle.txt', 'text/plain', 'x')`,
  );
  backup = String((await ok(["create"]))["id"]);
  await query(source(), "delete from public.journal_entries where id = '00000000-0000-4000-8000-00000000abcd'");
  await query(
    source(),
    `insert into public.journal_entries (user_id, date, body) values ('${person}', current_date, 'hf-needle after the backup')`,
  );
  const [row] = await query(
    source(),
    `select current_database() as name, to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
  );
  database = String(row?.["name"]);
  moment = String(row?.["at"]);
  await ok(["incremental"]);
  writeFileSync(
    map,
    JSON.stringify({
      version: 1,
      users: [
        { table: "public.events", column: "user_id" },
        { table: "public.mood_samples", column: "user_id" },
      ],
      keys: [
        { table: "public.messages", columns: ["answers"], follow: false },
        { table: "public.profiles", columns: ["referred_by"], follow: false },
      ],
      // Other people's entries have tags of this person.
      tables: [{ table: "public.ratings", rows: "owned" }, { table: "public.entry_tags", rows: "owned" }],
    }),
  );
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("before it is done", () => {
  it("names what would go, what stays, and what has to be decided; nothing changes", async () => {
    const was = await counts(source());
    const plan = await ok(["erase", person, "--dry-run"]);
    expect(plan).toMatchObject({ dryRun: true });
    expect(JSON.stringify(plan)).not.toContain(person);
    expect(plan["suspects"]).toContain("public.events.user_id");
    // A key of a table to itself that nobody has decided.
    expect((plan["undecided"] as string[]).join("\n")).toMatch(/profiles.*referred_by/);
    expect(await refused(["erase", person, "--yes"])).toMatchObject({ code: "erasure_undecided" });
    expect(await counts(source())).toEqual(was);
    expect(readdirSync(join(folder, "store", "v1"))).not.toContain("erasures");
  });

  it("refuses who is not there, who is held, and the last administrator", async () => {
    expect(await refused(["erase", "00000000-0000-4000-8000-000000000000", "--yes"])).toMatchObject({
      code: "user_not_found",
    });
    await ok(["erase", "hold", person, "--reason", "a court order of 3 May"]);
    const held = await refused(["erase", person, "--map", map, "--yes"]);
    expect(held.code).toBe("erasure_held");
    expect(held.message).toContain("a court order of 3 May");
    await ok(["erase", "release", person]);
    await query(source(), `select backup.add_admin('${person}', '')`);
    expect(await refused(["erase", person, "--map", map, "--yes"])).toMatchObject({ code: "last_administrator" });
    await query(source(), `select backup.add_admin('${other}', '')`);
  });

  it("asks for the person's id", async () => {
    const result = await run(["erase", person, "--map", map]);
    expect((result.document as { error: { code: string } }).error.code).toBe("confirmation_missing");
    expect(result.exit).toBe(2);
    expect(result.document).toMatchObject({ dryRun: true, undecided: [] });
  });
});

describe("the erasure", () => {
  it("takes every row of the person, and no other", async () => {
    expect((await found(urlOf(database))).length).toBeGreaterThan(8);
    const kept = `select count(*)::int as n from public.journal_entries where user_id <> '${person}'`;
    const was = await query(urlOf(database), kept);
    const done = await ok(["erase", person, "--map", map, "--yes"]);
    expect(done).toMatchObject({ dryRun: false, status: "done", files: 0, mentions: [] });
    expect(await found(urlOf(database))).toEqual([]);
    expect(await query(urlOf(database), kept)).toEqual(was);
    expect(await query(urlOf(database), "select count(*)::int as n from public.journal_entries")).toEqual(was);
    // What others can read as well stays, without the person.
    expect(await query(source(), "select text from public.messages where sender_id is null order by id")).toEqual([
      { text: "to myself" },
      { text: "to another" },
    ]);
    expect(await query(source(), `select referred_by from public.profiles where id = '${other}'`)).toEqual([
      { referred_by: null },
    ]);
    expect(await query(source(), "select status, person ~ '^person:' as hashed from backup.erasures")).toEqual([
      { status: "done", hashed: true },
    ]);
    expect(await query(source(), "select kind, result from backup.maintenance_log where kind = 'erasure'")).toEqual([
      { kind: "erasure", result: "Success" },
    ]);
    expect(readdirSync(join(folder, "store", "v1", "erasures"))).toEqual(["000000000000001"]);
  });

  it("is not done twice", async () => {
    expect(await refused(["erase", person, "--map", map, "--yes"])).toMatchObject({ code: "user_erased" });
  });
});

/** Of a restore into a database of its own. */
const nameIn = (document: Record<string, unknown>) =>
  String(document["database"]).split("/").at(-1)?.split(" ")[0] ?? "";

describe("a restore of what was before", () => {
  it("of the whole database, beside", async () => {
    const restored = nameIn(await ok(["restore-full", backup, "--yes"]));
    expect(await found(urlOf(restored))).toEqual([]);
    const there = await counts(urlOf(restored));
    expect(there?.["users"]).toBe(app.people.length - 1);
    expect(there?.["messages"]).toBe(4);
    const orphans = await query(
      urlOf(restored),
      "select count(*)::int as n from public.attachments as a where not exists (select from public.journal_entries as e where e.id = a.entry_id)",
    );
    expect(orphans).toEqual([{ n: 0 }]);
  });

  it("to a moment, beside", async () => {
    const restored = nameIn(await ok(["restore-point", moment, "--yes"]));
    expect(await found(urlOf(restored))).toEqual([]);
    expect((await counts(urlOf(restored)))?.["users"]).toBe(app.people.length - 1);
  });

  it("of a table, beside and in place, of the backup and of a moment", async () => {
    for (const table of ["journal_entries", "entry_tags", "tags", "mood_samples", "messages"]) {
      const document = await ok(["restore-table", `public.${table}`, backup]);
      expect(String(document["sideSchema"])).toMatch(/^restore_/);
    }
    expect(await found(urlOf(database))).toEqual([]);
    await ok(["restore-table", "public.journal_entries", backup, "--apply", "missing", ...quick()]);
    await ok(["restore-table", "auth.users", backup, "--apply", "merge", ...quick()]);
    await ok(["restore-table", "public.events", "--at", moment, "--apply", "merge", ...quick()]);
    expect(await found(urlOf(database))).toEqual([]);
  });

  it("of rows, and of the person", async () => {
    expect(await refused(["restore-record", "public.journal_entries", backup, "--where", `user_id=${person}`]))
      .toMatchObject({
        code: "row_not_found",
      });
    for (const more of [[], ["--apply", "missing", ...quick()], ["--as", other, "--apply", "merge", ...quick()]]) {
      expect(await refused(["restore-user", person, backup, ...more])).toMatchObject({ code: "user_erased" });
    }
    await ok(["restore-user", other, backup, "--map", map, "--apply", "merge", ...quick()]);
    expect(await found(urlOf(database))).toEqual([]);
  });

  it("of the whole database, in place; whoever signed up again stays", async () => {
    const again = "00000000-0000-4000-8000-00000000000a";
    await query(
      urlOf(database),
      `insert into auth.users (id, email) values ('${again}', 'hf-needle@example.org');
       insert into public.profiles (id, handle, display_name) values ('${again}', 'again', 'back');
       delete from public.ratings; delete from public.journal_entries where user_id = '${other}'`,
    );
    await ok(["restore-full", backup, "--apply", "merge", "--without-maintenance", ...quick()]);
    expect(await found(urlOf(database), [person])).toEqual([]);
    expect(await found(urlOf(database), ["hf-needle"])).toEqual(["auth.users: 1"]);
    expect(await query(source(), `select display_name from public.profiles where id = '${again}'`)).toEqual([
      { display_name: "back" },
    ]);
    const replaced = await ok(["restore-full", backup, "--apply", "replace", "--without-maintenance", ...quick()]);
    expect(replaced["differences"], JSON.stringify(replaced["differences"])).toEqual([]);
    // Whoever signed up again was not there then, and stands among the rows that the restore keeps of before.
    expect(await found(urlOf(database), [person, "hf-needle "])).toEqual([]);
    expect((await counts(source()))?.["users"]).toBe(app.people.length - 1);
  });

  it("is refused without the ledger, and goes on once it can be read", async () => {
    const entry = join(folder, "store", "v1", "erasures", "000000000000001");
    renameSync(entry, join(folder, "kept"));
    expect(await refused(["restore-table", "public.tags", backup])).toMatchObject({ code: "ledger_unreadable" });
    const bytes = readFileSync(join(folder, "kept"));
    bytes[100] = (bytes[100] ?? 0) ^ 1;
    writeFileSync(entry, bytes);
    await query(source(), "create database beside_nothing");
    const full = ["restore-full", backup, "--target-db-url", cluster().url("postgres", "beside_nothing"), "--yes"];
    expect(await refused(full)).toMatchObject({ code: "ledger_unreadable" });
    expect(await refused(["verify", backup])).toMatchObject({ code: "ledger_unreadable" });
    rmSync(entry);
    renameSync(join(folder, "kept"), entry);
    await ok(full);
    expect(await found(urlOf("beside_nothing"))).toEqual([]);
  });
});

describe("what is kept", () => {
  const out = (name: string) => join(folder, name);

  it("leaves the person out of a download of rows", async () => {
    await ok(["download", backup, "--table", "public.journal_entries", "--format", "csv", "--out", out("entries.csv")]);
    const text = readFileSync(out("entries.csv"), "utf8");
    expect(text).toContain(other);
    expect(text).not.toContain(person);
  });

  it("loses the person by the CLI, is sound, and restores as before", async () => {
    await run(["incremental"]);
    const ahead = await ok(["erase", "rewrite", "--dry-run"]);
    expect((ahead["backups"] as string[]).some((name) => name.includes(backup))).toBe(true);
    const unasked = await run(["erase", "rewrite"]);
    expect(unasked.exit).toBe(2);
    const done = await ok(["erase", "rewrite", "--jobs", "2", "--yes"]);
    expect(Number(done["backups"])).toBeGreaterThan(0);
    expect(Number(done["rows"])).toBeGreaterThan(5);
    expect(await ok(["erase", "rewrite", "--jobs", "2", "--yes"])).toMatchObject({ backups: 0, segments: 0, rows: 0 });
    expect(await ok(["verify", backup])).toMatchObject({ ok: true, problems: [] });
    await query(source(), "create database rewritten");
    await ok(["restore-full", backup, "--target-db-url", cluster().url("postgres", "rewritten"), "--yes"]);
    expect(await found(urlOf("rewritten"))).toEqual([]);
    expect((await counts(urlOf("rewritten")))?.["users"]).toBe(app.people.length - 1);
    const erasures = await run(["erase", "list"]);
    const [erasure] = erasures.document as { id: string; rewritten: string | null; clean: string | null }[];
    expect(erasure).toMatchObject({ rewritten: expect.any(String), clean: null });
    expect(await refused(["erase", "certificate", erasure?.id ?? ""])).toMatchObject({ code: "certificate_not_due" });
  }, 120_000);
});
