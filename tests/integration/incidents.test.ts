/** The emergency procedure by the CLI: a DELETE without its WHERE and a dropped table are found, and what is offered brings them back. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { keepPage } from "../../src/shared/incidents/keep_page.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { clusterMs, query, useCluster, withClient, withCluster } from "../support/cluster.ts";
import { shellWords } from "../unit/runbook_pages.ts";
import { cli, type CliResult, startCli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-incidents-"));
let settings: Record<string, string> = {};
/** As the server itself tells them, in the session that did it. */
const damage = { deleted: "", dropped: "", notes: "", letters: "", defined: "" };

const source = () => cluster().plainUrl("postgres");
const live = (text: string, values: readonly unknown[] = []) => query(source(), text, values);

/** Every row, in words that do not depend on how they lie. */
async function rowsOf(table: string, url = source()): Promise<string> {
  const [row] = await query(
    url,
    `select coalesce(string_agg(t::text, ';' order by t::text collate "C"), '') as rows from ${table} as t`,
  );
  return String(row?.["rows"]);
}

/** What pg_dump says of the dropped table, of what hung on it, and of the value of its sequences. */
function lettersDumped(): string {
  const text = execFileSync("pg_dump", [
    "--no-owner",
    "--exclude-table-data=public.letters",
    "--table=public.letters",
    "--table=public.letters_*",
    "--table=public.answers",
    cluster().plainUrl("supabase_admin"),
  ], { encoding: "utf8" });
  return text.replace(/^\\(un)?restrict .*$/gm, "");
}

/** In one transaction, whose id is returned. */
async function did(statement: string): Promise<string> {
  return await withClient(source(), async (client) => {
    await client.query("begin");
    const { rows: [row] } = await client.query<{ xid: string }>("select pg_current_xact_id()::text as xid");
    await client.query(statement);
    await client.query("commit");
    return row?.xid ?? "";
  });
}

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

interface Found {
  readonly incident: number | null;
  readonly joined: boolean;
  readonly stopped: { readonly writes: string; readonly why: string | null } | null;
  readonly suspects: readonly { xid: string; why: string; rows: number | null; before: string; committedAt: string }[];
  readonly tables: readonly { table: string; deleted: number }[];
  readonly counts: readonly { table: string; atBackup: number; now: number | null }[];
  readonly points: { windows: readonly unknown[]; stores: readonly { fulls: readonly unknown[] }[] };
  readonly offers: readonly {
    what: string;
    scope: string;
    rows: number | null;
    steps: readonly { command: string }[];
  }[];
  readonly notDone: readonly string[];
  readonly page: string | null;
}

/** The line that was offered, as a shell and npm would hand it over. */
function offered(found: Found, scope: string, word: string, step: number): string[] {
  const offer = found.offers.find((one) => one.scope === scope && one.what.includes(word));
  const line = offer?.steps[step]?.command ?? "";
  const [, command = "", rest = ""] = /^npm run -s backup:(\S+) ?(.*)$/.exec(line) ?? [];
  expect(command, JSON.stringify(found.offers)).not.toBe("");
  return [command, ...shellWords(rest).filter((one) => one !== "--")];
}

const pageState = () =>
  JSON.parse(readFileSync(`${folder}/page/status.json`, "utf8")) as { state: string; message: string };
const openArgs = ["incident", "open", "--reason", "notes are gone", "--message", "Notes are missing."];
let opened: Found;

beforeAll(async () => {
  settings = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
    BACKUP_DB_URL: cluster().url("postgres"),
    BACKUP_STATUS_PAGE: `file://${folder}/page`,
  };
  await live(
    `create table public.authors (id int primary key, name text not null);
     create table public.notes (id int primary key, author int references public.authors, body text not null);
     create type public.tone as enum ('kind', 'stern');
     create table public.letters (
       id int primary key, no int generated always as identity, serial_no serial, author int references public.authors,
       body text not null check (body <> ''), tone public.tone default 'kind', long int generated always as (length(body)) stored
     );
     comment on column public.letters.body is 'what it says';
     create index letters_by_body on public.letters (lower(body)) where id > 3;
     create function public.stamp() returns trigger language plpgsql as 'begin return new; end';
     create trigger stamped before insert on public.letters for each row execute function public.stamp();
     alter table public.letters enable row level security;
     create policy own on public.letters for select to authenticated using (author = 1);
     revoke all on public.letters from anon; grant select (id, body), insert on public.letters to authenticated;
     create table public.answers (id int primary key, letter int constraint answered references public.letters);
     create view public.long_letters as select id from public.letters where long > 5;
     insert into public.authors values (1, 'a'), (2, 'b');
     insert into public.notes select i, 1 + i % 2, md5(i::text) from generate_series(1, 300) as i;
     insert into public.letters (id, author, body) select i, 1 + i % 2, md5(i::text) from generate_series(1, 80) as i;
     insert into public.answers values (1, 1), (2, 2)`,
  );
  await ok(["init"]);
  await live("select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  await ok(["incremental"]);
  await ok(["create"]);
  await live("update public.notes set body = body || '!' where id % 10 = 0; delete from public.letters where id > 70");
  [damage.notes, damage.letters] = [await rowsOf("public.notes"), await rowsOf("public.letters")];
  damage.deleted = await did("delete from public.notes");
  await live("insert into public.notes values (1000, 1, 'written after it')");
  damage.defined = lettersDumped();
  damage.dropped = await did("drop table public.letters cascade");
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("an incident", () => {
  it("is not opened without a word: nothing is stopped, nobody is told", async () => {
    const { exit, document } = await cli([...openArgs, "--json"], settings);
    expect(exit).toBe(2);
    expect(document).toMatchObject({ error: { code: "confirmation_missing" } });
    expect(await live("select count(*)::int as n from backup.incidents")).toEqual([{ n: 0 }]);
    expect(await live("select closed from backup.maintenance")).toEqual([{ closed: false }]);
    const looked = await ok([...openArgs, "--dry-run"]) as unknown as Found;
    expect(looked.suspects.map(({ xid }) => xid).slice(0, 2)).toEqual([damage.dropped, damage.deleted]);
    expect(await live("select count(*)::int as n from backup.incidents")).toEqual([{ n: 0 }]);
  }, 120_000);

  it("stops writes, tells, and names what did it with the moment right before; nothing is restored", async () => {
    opened = await ok([...openArgs, "--yes"]) as unknown as Found;
    expect(opened).toMatchObject({
      incident: 1,
      joined: false,
      stopped: { writes: "stopped", why: null },
      notDone: ["nobody was told: no channel is set up"],
    });
    const [dropped, deleted] = opened.suspects;
    expect(dropped).toMatchObject({
      xid: damage.dropped,
      why: expect.stringContaining("dropped public.letters"),
      rows: 80,
    });
    expect(deleted).toMatchObject({ xid: damage.deleted, why: expect.stringContaining("deleted 300 rows"), rows: 300 });
    expect(opened.suspects).toHaveLength(3);
    expect([...opened.counts].sort((a, b) => a.table < b.table ? -1 : 1)).toEqual([
      { table: "public.letters", atBackup: 80, now: null },
      { table: "public.notes", atBackup: 300, now: 1 },
    ]);
    expect(opened.points.windows).toHaveLength(1);
    expect(opened.points.stores.map(({ fulls }) => fulls.length)).toEqual([1]);
    expect(await live("select closed, closed_by from backup.maintenance")).toEqual([{
      closed: true,
      closed_by: "incident:1",
    }]);
    expect(await live("select kind from backup.notices")).toEqual([{ kind: "incident_opened" }]);
    expect(await rowsOf("public.notes")).toBe('(1000,1,"written after it")');
    expect(pageState()).toMatchObject({ state: "incident", message: "Notes are missing." });
    expect(opened.page).toContain("/page");
    // No row's value is kept.
    const kept = JSON.stringify(await live("select assessment, offers from backup.incidents"));
    expect(kept).toContain(damage.deleted);
    expect(kept).not.toMatch(/[0-9a-f]{32}!?"|written after/);
  }, 120_000);

  it("is joined by whoever opens another, and does not stop again what somebody has let go on", async () => {
    await ok(["maintenance", "off"]);
    expect(pageState()).toMatchObject({ state: "incident" });
    const again = await ok([...openArgs, "--yes"]) as unknown as Found;
    expect(again).toMatchObject({ incident: 1, joined: true, stopped: { writes: "not stopped" } });
    expect(again.suspects.map(({ xid }) => xid)).toEqual(opened.suspects.map(({ xid }) => xid));
    expect(await live("select closed from backup.maintenance")).toEqual([{ closed: false }]);
    expect(await live("select count(*)::int as n from backup.incidents")).toEqual([{ n: 1 }]);
  }, 120_000);

  it("offers a line that shows what it would bring back, and one that does", async () => {
    const dry = await ok(offered(opened, "table", "public.notes", 0));
    expect(await rowsOf("public.notes")).toBe('(1000,1,"written after it")');
    expect(JSON.stringify(dry)).toContain("300");
    await ok([...offered(opened, "table", "public.notes", 1), "--yes"]);
    await live("delete from public.notes where id = 1000");
    expect(await rowsOf("public.notes")).toBe(damage.notes);
  }, 120_000);

  it("offers a line that makes the dropped table again: rows, keys, policies, grants, all or nothing", async () => {
    const dry = await ok(offered(opened, "table", "public.letters", 0));
    expect(await live("select to_regclass('public.letters') as there")).toEqual([{ there: null }]);
    expect(dry).toMatchObject({
      dryRun: true,
      definitions: expect.arrayContaining([
        "table public.letters",
        "table constraint answered on public.answers",
        "policy own on public.letters",
      ]) as unknown,
      warnings: [expect.stringMatching(/view public\.long_letters .* does not come back with it/) as unknown],
    });
    const does = offered(opened, "table", "public.letters", 1);
    // Something else that it needs is gone by now: nothing is made, and it is said what.
    await live("alter type public.tone rename to voice");
    const stuck = await cli([...does, "--yes", "--json"], settings);
    expect(stuck.document).toMatchObject({
      error: {
        code: "definitions_stuck",
        message: expect.stringContaining("public.tone, which is gone too") as unknown,
      },
    });
    await live("alter type public.voice rename to tone");
    // A row that its key refuses: nothing is left of it.
    await live("insert into public.answers values (3, 999)");
    const refused = await cli([...does, "--yes", "--json"], settings);
    expect(refused.document).toMatchObject({ error: { code: "rows_conflict" } });
    expect(await live("select to_regclass('public.letters') as there")).toEqual([{ there: null }]);
    await live("delete from public.answers where id = 3");
    const done = await ok([...does, "--yes"]);
    expect(done).toMatchObject({ ok: true, inserted: 70, updated: 0, deleted: 0 });
    expect(await rowsOf("public.letters")).toBe(damage.letters);
    expect(lettersDumped()).toBe(damage.defined);
    // Once more: there is nothing left to do.
    expect(await ok([...does, "--yes"])).toMatchObject({ ok: true, inserted: 0 });
    await live("drop table public.letters cascade");
  }, 180_000);

  it("offers the database as it was right before the drop, with the table in it", async () => {
    const line = offered(opened, "point", damage.dropped, 1);
    expect(line).toEqual(["restore-point", "--before-xid", damage.dropped, "--yes"]);
    const { database } = await ok(line) as { database: string };
    const name = /postgres_at_\w+/.exec(database)?.[0] ?? "";
    expect(await rowsOf("public.letters", cluster().plainUrl("postgres", name))).toBe(damage.letters);
    // What came before it is in there too: the DELETE, and what was written after that.
    expect(await rowsOf("public.notes", cluster().plainUrl("postgres", name))).toBe('(1000,1,"written after it")');
  }, 120_000);

  it("offers ways back for one transaction, and says which are known", async () => {
    const found = await ok(["incident", "offer", "--before-xid", damage.deleted]) as unknown as Found;
    expect(found.offers.filter(({ scope }) => scope === "point").map(({ steps }) => steps[0]?.command)).toEqual([
      `npm run -s backup:restore-point -- --before-xid ${damage.deleted}`,
    ]);
    const { exit, stderr } = await cli(["incident", "offer", "--before-xid", "3"], settings);
    expect(exit).toBe(2);
    expect(stderr).toContain("not among those");
  }, 120_000);

  it("tells people more, ends, and leaves a report with what was done and how long it took", async () => {
    await ok([
      "incident",
      "note",
      "--note",
      "it was a script",
      "--message",
      "Your notes are back.",
      "--next-update",
      "30m",
    ]);
    expect(pageState()).toMatchObject({ state: "incident", message: "Your notes are back." });
    const closed = await ok(["incident", "close", "--note", "all rows are back", "--message", "All is well again."]);
    expect(closed).toMatchObject({
      maintenanceOn: false,
      incident: { id: 1, status: "closed", summary: "all rows are back" },
    });
    expect(pageState()).toMatchObject({ state: "operational", message: null });
    const report = await ok(["incident", "report", "1"]);
    expect(report).toMatchObject({
      status: "closed",
      rowsBack: { inserted: 370, updated: 0, deleted: 0 },
      lostSeconds: null,
      recoveredAfterSeconds: expect.any(Number),
    });
    // Looking at a plan is a restore that was cancelled.
    const restores = (report["restores"] as { scope: string; status: string; objective: string }[])
      .filter(({ status }) => status !== "cancelled");
    expect(restores.filter(({ status }) => status !== "failed").map(({ scope }) => scope)).toEqual([
      "table",
      "table",
      "table",
      "point",
    ]);
    for (const { objective } of restores) expect(objective).toMatch(/ met$/);
    const text = await cli(["incident", "report", "1", "--out", `${folder}/report.md`], settings);
    expect(text.exit, text.stderr).toBe(0);
    const page = readFileSync(`${folder}/report.md`, "utf8");
    expect(page).toContain(`transaction ${damage.deleted}`);
    expect(page).toContain("it was a script");
    expect(page).toContain("maintenance.closed");
    expect(await ok(["incident", "list"])).toMatchObject([{ id: 1, status: "closed" }]);
    expect((await cli(["incident", "note", "1", "--message", "more"], settings)).stderr).toContain("incident_state");
  }, 120_000);
});

describe("a project whose database is gone", () => {
  it("is assessed from the store alone, and only the status page tells of it", async () => {
    const down = { ...settings, BACKUP_DB_URL: "postgresql://postgres@127.0.0.1:9/postgres" };
    const { exit, document, stderr } = await cli([...openArgs, "--yes", "--json"], down);
    expect(exit, stderr).toBe(3);
    const found = document as Found;
    expect(found).toMatchObject({ incident: null, stopped: null, counts: [] });
    expect(found.suspects.map(({ xid }) => xid)).toEqual(expect.arrayContaining([damage.dropped, damage.deleted]));
    expect(found.notDone.join("\n")).toMatch(
      /is not recorded[^]*writes are not stopped[^]*channels were not told[^]*database was not asked/,
    );
    expect(offered(found, "point", damage.dropped, 0)).toEqual(["restore-point", "--before-xid", damage.dropped]);
    expect(pageState()).toMatchObject({ state: "incident", message: "Notes are missing." });
    // The database is back: the page is its again.
    await ok(["incident", "page"]);
    expect(pageState()).toMatchObject({ state: "operational" });
    const { stdout } = await cli(["incident", "page", "--print"], settings);
    expect(stdout).toBe(
      readFileSync(`${folder}/page/status.html`, "utf8").replace(
        /Written at .*/,
        stdout.match(/Written at .*/)?.[0] ?? "",
      ),
    );
  }, 120_000);
});

describe("an incident whose procedure is broken off", () => {
  it("goes on where it was broken off, as the same incident", async () => {
    const run = startCli([...openArgs, "--yes", "--json"], { ...settings, HOLDFAST_DEBUG: "1" });
    const deadline = performance.now() + 60_000;
    for (;;) {
      const [row] = await live("select stopped_at is not null as stopped from backup.incidents where status = 'open'");
      if (row?.["stopped"] === true) break;
      if (performance.now() > deadline) throw new Error("it never stopped writes");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    run.signal("SIGTERM");
    const broken: CliResult = await run.result;
    const [before] = await live(
      "select id, assessed_at is null as unassessed from backup.incidents where status = 'open'",
    );
    // It may have come to its end before the signal did: then there was nothing to break off.
    if (broken.exit !== 0) expect(before).toMatchObject({ unassessed: true });
    const again = await ok([...openArgs, "--yes"]) as unknown as Found;
    expect(again).toMatchObject({ incident: Number(before?.["id"]), joined: true, stopped: { writes: "stopped" } });
    expect(await live("select count(*)::int as n from backup.incident_events where kind = 'stopped'")).toEqual([{
      n: 2,
    }]);
    await ok(["incident", "close", "--note", "a test"]);
    await ok(["maintenance", "off"]);
  }, 120_000);
});

describe("the status page", () => {
  it("waits for nobody who stands still while he holds its lock, and is put once it is free", async () => {
    const connection = await openDatabase({ url: source() }).connect("test");
    const page = { label: "test", files: [], put: () => Promise.resolve(), present: () => Promise.resolve(null) };
    try {
      await withClient(source(), async (holder) => {
        await holder.query("select pg_advisory_lock(hashtextextended('holdfast:page', 0))");
        await expect(keepPage(connection, () => page, systemClock, 200)).rejects.toMatchObject({
          code: "lock_timeout",
        });
      });
      expect(await keepPage(connection, () => page, systemClock, 5_000)).toEqual({ place: "test", isOriginal: true });
      expect(await live("select from pg_locks where locktype = 'advisory'")).toEqual([]);
    } finally {
      await connection.close();
    }
  }, 60_000);
});

describe("a plain PostgreSQL", () => {
  it("has no API that could be closed: that is said, and the rest is done", async () => {
    await withCluster({ platform: false }, async (plain) => {
      const given = {
        BACKUP_STORE: `file://${folder}/plain`,
        BACKUP_KEYS: settings["BACKUP_KEYS"] ?? "",
        BACKUP_DB_URL: plain.url(plain.superuser),
      };
      await query(
        plain.plainUrl(plain.superuser),
        "create table public.t as select i from generate_series(1, 50) as i",
      );
      for (const command of ["init", "create"]) await ok([command], given);
      await query(plain.plainUrl(plain.superuser), "drop table public.t");
      const found = await ok([...openArgs, "--yes"], given) as unknown as Found;
      expect(found).toMatchObject({
        incident: 1,
        stopped: { writes: "not stopped", why: expect.stringContaining("no API") },
        counts: [{ table: "public.t", atBackup: 50, now: null }],
        page: null,
      });
      expect(found.notDone.join("; ")).toMatch(/there is no change stream.*does not reach there/);
      expect(offered(found, "full", "in place", 0)).toEqual(expect.arrayContaining(["restore-full", "--dry-run"]));
    });
  }, 120_000);
});
