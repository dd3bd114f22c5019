/** The change stream as people use it: the CLI as a process, a real server, a store in a folder. */
import { randomBytes } from "node:crypto";
import { chmodSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, freshDatabase, query, useCluster, withClient } from "../support/cluster.ts";
import { cli, type CliResult, startCli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-cli-changes-"));
let settings: Record<string, string> = {};
/** As it can be when the project is gone. */
let alone: Record<string, string> = {};

interface Point {
  readonly at: string;
  readonly lsn: string;
  readonly rows: string;
}
const points: Record<"start" | "filled" | "changed", Point> = {
  start: { at: "", lsn: "", rows: "" },
  filled: { at: "", lsn: "", rows: "" },
  changed: { at: "", lsn: "", rows: "" },
};
let deletion = "";
let incremental = "";
let installed: Record<string, unknown> = {};
/** What people are told of the table without a key. */
const keyless = /public\.visits.*primary key/;

const source = () => cluster().plainUrl("postgres");

/** Every row, in words that do not depend on how they lie. */
async function rowsOf(url: string): Promise<string> {
  const [row] = await query(
    url,
    "select coalesce(string_agg(id || '=' || text, ',' order by id), '') as rows from public.notes",
  );
  return String(row?.["rows"]);
}

/** The present moment by the server's clock, with the rows that it shows. */
async function point(): Promise<Point> {
  const [row] = await query(
    source(),
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at,
       pg_current_wal_insert_lsn()::text as lsn`,
  );
  return { at: String(row?.["at"]), lsn: String(row?.["lsn"]), rows: await rowsOf(source()) };
}

async function ok(args: readonly string[], given = settings): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

/** An empty database of the same server, and the settings that make it the target. */
async function target(): Promise<{ readonly url: string; readonly given: Record<string, string> }> {
  const name = await freshDatabase(cluster(), { platform: false });
  return {
    url: cluster().plainUrl("supabase_admin", name),
    given: { ...alone, BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", name) },
  };
}

function codeOf({ document }: CliResult): string {
  return (document as { error?: { code: string } }).error?.code ?? "";
}

beforeAll(async () => {
  const keys = { BACKUP_STORE: `file://${folder}/store`, BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}` };
  alone = { ...keys };
  settings = { ...keys, BACKUP_DB_URL: cluster().url("postgres") };
  await query(
    source(),
    `create table public.notes (id int primary key, text text not null);
     create table public.visits (page text, seen int);
     insert into public.notes values (1, 'one');
     insert into public.visits values ('home', 1)`,
  );
  installed = await ok(["init"]);
  // The guard of each minute would notice a lost slot as well, now and then before the test does.
  await query(source(), "update backup.schedules set enabled = false");
  await query(source(), "select backup.apply_schedules()");
}, clusterMs);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("a table without a key", () => {
  it("is named with the way out when Holdfast is set up, before anything can be lost", async () => {
    expect(installed["notices"]).toEqual(expect.arrayContaining([expect.stringMatching(keyless)]));
    const { stdout } = await cli(["doctor"], settings);
    expect(stdout).toMatch(keyless);
  }, 60_000);
});

describe("the first incremental", () => {
  it("begins the stream and says that a full backup is needed; so does status until there is one", async () => {
    const { exit, document, stderr } = await cli(["incremental", "--json"], settings);
    expect(exit, stderr).toBe(0);
    expect(document).toMatchObject({ begun: true, gap: null, id: null, changes: 0, chain: expect.any(String) });
    expect(stderr).toContain("holdfast create");
    expect(stderr).toMatch(keyless);
    const before = await cli(["status", "--json"], settings);
    const { chain } = document as { chain: string };
    expect(before.document).toMatchObject({ recoveryPointSeconds: null, stream: { chain, uncovered: 1 } });
    expect(JSON.stringify(before.document)).toContain(`no full backup is on chain ${chain}`);
    await ok(["create"]);
    const after = await ok(["status"]);
    expect(after).toMatchObject({ stream: { chain, lagSeconds: expect.any(Number), limitBytes: expect.any(Number) } });
    expect(JSON.stringify(after)).not.toContain("no full backup");
    // The table without a key: nothing else is in the way.
    expect(after).toMatchObject({
      verdict: "warning",
      reasons: [expect.stringMatching(keyless), expect.stringContaining("only one store")],
    });
  }, 120_000);
});

describe("an incremental", () => {
  it("stores what has changed, says how much, and is listed with the span that it covers", async () => {
    points.start = await point();
    await query(source(), "insert into public.notes select i, 'n' || i from generate_series(2, 11) as i");
    points.filled = await point();
    await query(source(), "update public.notes set text = 'changed' where id <= 3");
    points.changed = await point();
    const [row] = await query(
      source(),
      "with gone as (delete from public.notes) select pg_current_xact_id()::text as xid",
    );
    deletion = String(row?.["xid"]);
    const stored = await ok(["incremental"]);
    expect(stored).toMatchObject({ begun: false, gap: null, transactions: 3, changes: 10 + 3 + 11 });
    expect(stored["segments"]).toBeGreaterThanOrEqual(1);
    expect(stored["storedBytes"]).toBeGreaterThan(0);
    const [from, to] = [String(stored["from"]), String(stored["to"])];
    expect(from < points.start.at && points.changed.at < to, `${from} to ${to}`).toBe(true);
    expect(stored["coveredUntil"]).toBe(to);
    incremental = String(stored["id"]);
    const runs = (await cli(["list", "--json"], settings)).document as Record<string, unknown>[];
    const [listed, full] = runs;
    expect(full).toMatchObject({ kind: "full", from: null, full: null });
    expect(runs.length, "verifications and the like are not listed").toBe(2);
    expect(listed).toMatchObject({
      id: incremental,
      kind: "incremental",
      tier: "hourly",
      rows: 24,
      full: full?.["id"],
    });
    expect(new Date(String(listed?.["consistentAt"])).getTime()).toBe(new Date(to).getTime());
    expect(String(listed?.["from"]) < points.start.at).toBe(true);
    const people = await cli(["list"], settings);
    expect(people.stdout).toMatch(
      new RegExp(`^${incremental.slice(0, 8)} +hourly .* ${String(full?.["id"]).slice(0, 8)} `, "m"),
    );
  }, 120_000);

  it("of an idle database has no id, and moves the end of what is covered", async () => {
    const { at } = await point();
    const stored = await ok(["incremental"]);
    expect(stored).toMatchObject({ id: null, transactions: 0, changes: 0, begun: false });
    expect(String(stored["coveredUntil"]) > at).toBe(true);
    expect(String(stored["to"]) > at).toBe(true);
  }, 60_000);
});

describe("timeline", () => {
  it("shows the window from the full backup on, from store and keys alone, and draws it", async () => {
    const shown = await ok(["timeline"], alone);
    expect(shown).toMatchObject({ gaps: [], fulls: [{ id: expect.any(String) }], windows: [{}] });
    const [window] = shown["windows"] as { from: string; to: string }[];
    expect((window?.from ?? "") < points.start.at && points.changed.at < (window?.to ?? "")).toBe(true);
    const people = await cli(["timeline"], alone);
    expect(people.stdout).toContain("●");
    expect(people.stdout).toContain("full backup");
    expect(people.stdout).toContain(window?.from);
  }, 60_000);
});

describe("restore-point", () => {
  /** The table without a key. */
  const inDoubt = /right before the moment may be missing in public\.visits/;

  it("only plans until it is confirmed, and the plan says what it would reach", async () => {
    const asAdmin = { ...settings, BACKUP_DB_URL: cluster().url("supabase_admin") };
    const databases = () => query(source(), "select datname from pg_database order by 1");
    const before = await databases();
    const { exit, document, stderr } = await cli(["restore-point", points.filled.at, "--json"], asAdmin);
    expect(exit).toBe(2);
    expect(document).toMatchObject({
      dryRun: true,
      transactions: 1,
      error: { code: "confirmation_missing" },
      plan: expect.arrayContaining([{ step: "transactions replayed", count: 1, reason: expect.any(String) }]),
    });
    const { reachedAt } = document as { reachedAt: string };
    expect(points.start.at < reachedAt && reachedAt < points.filled.at).toBe(true);
    expect(stderr).toContain("transactions replayed");
    expect(stderr, "its counters were read seconds after the moment").toMatch(inDoubt);
    expect(await databases()).toEqual(before);
  }, 60_000);

  it("makes a database with the rows of a moment between two changes, named after that moment", async () => {
    const asAdmin = { ...settings, BACKUP_DB_URL: cluster().url("supabase_admin") };
    const { exit, document, stdout, stderr } = await cli(
      ["restore-point", points.filled.at, "--yes", "--json"],
      asAdmin,
    );
    expect(exit, stdout + stderr).toBe(0);
    const { database } = document as { database: string };
    const name = /\/(postgres_at_\d{8}t\d{6}z)/.exec(database)?.[1] ?? "";
    expect(name).toBe(`postgres_at_${points.filled.at.slice(0, 19).replace(/[-:]/g, "").toLowerCase()}z`);
    expect(await rowsOf(cluster().plainUrl("supabase_admin", name))).toBe(points.filled.rows);
    expect(document).toMatchObject({
      ok: true,
      transactions: 1,
      updated: 0,
      deleted: 0,
      warnings: expect.arrayContaining([expect.stringMatching(inDoubt)]),
    });
    const again = await cli(["restore-point", points.filled.at, "--yes", "--json"], asAdmin);
    expect([again.exit, codeOf(again)]).toEqual([1, "target_not_empty"]);
  }, 120_000);

  it("reaches a position, the last moment before a transaction, and all there is, with the project gone", async () => {
    const wanted: [readonly string[], string, number][] = [
      [[points.changed.lsn], points.changed.rows, 2],
      [["--before-xid", deletion], points.changed.rows, 2],
      [["latest"], "", 3],
    ];
    for (const [words, rows, transactions] of wanted) {
      const { url, given } = await target();
      const done = await ok(["restore-point", ...words, "--yes"], given);
      expect(await rowsOf(url), words.join(" ")).toBe(rows);
      expect(done).toMatchObject({ transactions, reachedLsn: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) });
    }
  }, 180_000);

  it("refuses a moment that is not covered, names what is, and leaves the target empty", async () => {
    const { url, given } = await target();
    const future = new Date(Date.now() + 3_600_000).toISOString();
    for (const moment of ["2001-01-01T00:00:00Z", future, "FFFFFFFF/0"]) {
      const refused = await cli(["restore-point", moment, "--yes", "--json"], given);
      expect([refused.exit, codeOf(refused)], moment).toEqual([1, "point_uncovered"]);
      expect(refused.stdout, moment).toMatch(/covered: \d{4}-.*Z to \d{4}-.*Z/);
    }
    expect(await query(url, "select from pg_class where relnamespace = 'public'::regnamespace")).toEqual([]);
  }, 60_000);

  it("refuses words that are no moment as usage, and shows both readings of one without a zone", async () => {
    const { given } = await target();
    for (const words of [["yesterday"], ["2024-02-30T12:00:00Z"], [], ["latest", "--before-xid", "7"]]) {
      const refused = await cli(["restore-point", ...words, "--yes", "--json"], given);
      expect([refused.exit, codeOf(refused)], words.join(" ")).toEqual([2, "usage"]);
    }
    for (const [zone, hour] of [["Europe/Vienna", "10"], ["America/New_York", "16"]] as const) {
      const refused = await cli(["restore-point", "2024-07-09T12:00:00", "--json"], { ...given, TZ: zone });
      expect([refused.exit, codeOf(refused)]).toEqual([2, "usage"]);
      expect(refused.stdout).toContain("As UTC it is 2024-07-09T12:00:00Z");
      expect(refused.stdout).toContain(`zone 2024-07-09T${hour}:00:00Z`);
    }
  }, 60_000);
});

describe("restore-full with the id of an incremental", () => {
  it("gives the state at its end, not what a later incremental holds", async () => {
    // As when the hour is over: what follows is owned by another run.
    await query(
      source(),
      `update backup.runs set status = 'succeeded', finished_at = now(), request_key = request_key || ' is over'
       where id = '${incremental}'`,
    );
    await query(source(), "insert into public.notes values (40, 'of the next hour')");
    const next = await ok(["incremental"]);
    expect(next["id"]).not.toBe(incremental);
    const { url, given } = await target();
    const done = await ok(["restore-full", incremental.slice(0, 8), "--yes"], { ...settings, ...given });
    expect(done).toMatchObject({ transactions: 3 });
    expect(await rowsOf(url)).toBe("");
    const later = await target();
    await ok(["restore-full", String(next["id"]), "--yes"], { ...settings, ...later.given });
    expect(await rowsOf(later.url)).toBe("40=of the next hour");
    await query(source(), "delete from public.notes");
  }, 60_000);
});

describe("verify with the id of an incremental", () => {
  it("reads, opens and counts its segments, and finds a byte that was changed", async () => {
    const [counted] = await query(
      source(),
      `select count(*)::int as objects, sum(changes)::int as rows, (array_agg(name order by changes desc))[1] as largest
       from backup.segments where run_id = $1`,
      [incremental],
    );
    const { objects, rows, largest } = counted ?? {};
    expect(Number(rows)).toBeGreaterThan(0);
    const sound = await ok(["verify", incremental.slice(0, 8)]);
    expect(sound).toMatchObject({ id: incremental, ok: true, objects, rows, problems: [] });

    const file = join(folder, "store", String(largest));
    const bytes = readFileSync(file);
    bytes.writeUInt8(bytes.readUInt8(100) ^ 1, 100);
    chmodSync(file, 0o600);
    writeFileSync(file, bytes);
    try {
      const flipped = await cli(["verify", incremental, "--json"], settings);
      expect(flipped.exit).toBe(3);
      expect(flipped.document).toMatchObject({ ok: false, problems: [{ object: largest, code: "object_damaged" }] });
    } finally {
      bytes.writeUInt8(bytes.readUInt8(100) ^ 1, 100);
      writeFileSync(file, bytes);
    }
  }, 60_000);
});

describe("a table whose updates are not in the stream", () => {
  it(
    "is in the way of a moment behind its change, unless it is left out (exit 3) or taken as of the full",
    async () => {
      await query(source(), "update public.visits set seen = 2");
      await query(source(), "insert into public.notes values (50, 'after')");
      // The server's counters come a little later than the change.
      await until(async () => {
        const [row] = await query(
          source(),
          "select n_tup_upd::int as n from pg_stat_user_tables where relname = 'visits'",
        );
        return row?.["n"] === 1;
      });
      await ok(["incremental"]);
      const refused = await target();
      const blocked = await cli(["restore-point", "latest", "--yes", "--json"], refused.given);
      expect([blocked.exit, codeOf(blocked)]).toEqual([1, "tables_uncovered"]);
      expect(blocked.stdout).toContain("public.visits");
      const typo = await cli(
        ["restore-point", "latest", "--at-full", "public.visit", "--yes", "--json"],
        refused.given,
      );
      expect([typo.exit, codeOf(typo)]).toEqual([1, "tables_uncovered"]);
      const strange = ["restore-point", points.filled.at, "--at-full", "public.visit", "--yes", "--json"];
      const unknown = await cli(strange, refused.given);
      expect([unknown.exit, codeOf(unknown)]).toEqual([2, "usage"]);

      const asOf = await target();
      const kept = await ok(["restore-point", "latest", "--at-full", "public.visits", "--yes"], asOf.given);
      expect(JSON.stringify(kept["warnings"])).toContain("public.visits is as of");
      expect(await query(asOf.url, "select * from public.visits")).toEqual([{ page: "home", seen: 1 }]);
      expect(await rowsOf(asOf.url)).toBe("50=after");

      const without = await target();
      const left = await cli(
        ["restore-point", "latest", "--without-table", "public.visits", "--yes", "--json"],
        without.given,
      );
      expect(left.exit, left.stderr).toBe(3);
      expect(left.stdout).toContain("public.visits was left out");
      expect(await query(without.url, "select * from public.visits")).toEqual([]);
      expect(await rowsOf(without.url)).toBe("50=after");
    },
    180_000,
  );
});

describe("follow", () => {
  it(
    "keeps the recovery point within 5 seconds while rows are written, outlives a lost session, and ends with Ctrl-C",
    async () => {
      const run = startCli(["follow", "--interval", "1", "--json"], settings);
      let ended = false;
      void run.result.then(() => (ended = true));
      let written = 0;
      const writing = { goes: true };
      const writer = (async () => {
        while (writing.goes) {
          await query(source(), `insert into public.notes values (${1000 + written}, 'w')`);
          written++;
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      })();
      const changed = async () =>
        Number((await query(source(), "select sum(changes) as n from backup.segments"))[0]?.["n"]);
      const before = await changed();
      try {
        // Rows come through, and the recovery point is near, ten times in a row.
        await until(async () => (await changed()) > before + 5);
        for (let look = 0; look < 10; look++) {
          const { recoveryPointSeconds } = await statusOf();
          expect(recoveryPointSeconds, `look ${look}`).toBeLessThanOrEqual(5);
          // Not only by our word: the newest segment was taken so long ago.
          const [newest] = await query(
            source(),
            "select extract(epoch from clock_timestamp() - max(taken_at))::float as age from backup.segments",
          );
          expect(newest?.["age"], `look ${look}`).toBeLessThanOrEqual(5);
        }
        await loseItsSession();
        const lost = await changed();
        await until(async () => (await changed()) > lost + 5 && (await statusOf()).recoveryPointSeconds <= 5);
      } finally {
        writing.goes = false;
        await writer;
        expect(ended, ended ? (await run.result).stderr : "").toBe(false);
        run.signal("SIGINT");
      }
      const { exit, document, stderr } = await run.result;
      expect(exit, stderr).toBe(0);
      expect(stderr).toMatch(/warning: database_\w+: .*; tried again in 1 s/);
      expect(stderr).toContain("following");
      const done = document as Record<string, number>;
      expect(Object.keys(done).sort()).toEqual(["changes", "seconds", "segments", "storedBytes", "transactions"]);
      expect(done["changes"]).toBe((await changed()) - before);
      const left = await query(source(), "select from pg_stat_activity where application_name = 'holdfast:drain'");
      expect(left).toEqual([]);
      const rest = await ok(["incremental"]);
      expect(Number(done["changes"]) + Number(rest["changes"])).toBe(written);
    },
    180_000,
  );
});

describe("a stream that lost its slot", () => {
  it("is begun again with the reason, and status and timeline show the gap until the next full and after", async () => {
    await query(source(), "select pg_drop_replication_slot(slot_name) from pg_replication_slots");
    const { document, stderr } = await cli(["incremental", "--json"], settings);
    expect(document).toMatchObject({ begun: true, gap: "the slot is gone" });
    expect(stderr).toContain("interrupted: the slot is gone");
    const status = await cli(["status", "--json"], settings);
    expect(status.document).toMatchObject({ verdict: "critical" });
    expect(status.stdout).toContain("no full backup is on chain");
    await query(source(), "insert into public.notes values (59, 'in the gap')");
    await ok(["incremental"]);
    const open = await ok(["timeline"]);
    expect(open).toMatchObject({ windows: [{}], gaps: [{ reason: "the slot is gone" }], fulls: [{}] });
    expect((await ok(["timeline"], alone))["gaps"]).toHaveLength(1);
    await ok(["create"]);
    await query(source(), "insert into public.notes values (60, 'behind the gap')");
    await ok(["incremental"]);
    const shown = await ok(["timeline"]);
    expect(shown).toMatchObject({ windows: [{}, {}], gaps: [{ reason: "the slot is gone" }], fulls: [{}, {}] });
    const [gap] = (await ok(["timeline"], alone))["gaps"] as { from: string; to: string; reason?: string }[];
    expect(gap?.reason).toBeUndefined();
    const inGap = new Date((Date.parse(gap?.from ?? "") + Date.parse(gap?.to ?? "")) / 2).toISOString();
    const refused = await cli(["restore-point", inGap, "--yes", "--json"], (await target()).given);
    expect([refused.exit, codeOf(refused)]).toEqual([1, "point_uncovered"]);
  }, 180_000);
});

describe("a segment that does not open", () => {
  /** Restores from a copy of the store in which something was done to the folder of a chain. */
  async function restoredFrom(act: (chains: string, chain: string) => void, moment: string) {
    const place = mkdtempSync(join(folder, "damaged-"));
    cpSync(`${folder}/store`, place, { recursive: true });
    const [oldest] = (await ok(["timeline"], alone))["fulls"] as { chain: string }[];
    act(join(place, "v1/changes"), oldest?.chain ?? "");
    const { url, given } = await target();
    const result = await cli(["restore-point", moment, "--yes", "--json"], {
      ...given,
      BACKUP_STORE: `file://${place}`,
    });
    return { code: codeOf(result), exit: result.exit, rows: result.exit === 0 ? await rowsOf(url) : null, result };
  }

  it("refuses moments of its own chain by its name, and no others", async () => {
    const spoil = (chains: string, chain: string) => {
      const [first = ""] = readdirSync(join(chains, chain)).sort();
      writeFileSync(join(chains, chain, first), "spoilt");
    };
    const done = await restoredFrom(spoil, "latest");
    expect([done.exit, done.rows], done.result.stderr).toEqual([0, await rowsOf(source())]);
    const refused = await restoredFrom(spoil, points.filled.at);
    expect([refused.exit, refused.code]).toEqual([1, "object_damaged"]);
    expect(refused.result.stdout).toContain("v1/changes/");
  }, 120_000);

  it("stands in nobody's way where no backup is on its chain", async () => {
    const done = await restoredFrom((chains, chain) =>
      cpSync(join(chains, chain), join(chains, "stray"), {
        recursive: true,
      }), "latest");
    expect([done.exit, done.rows], done.result.stderr).toEqual([0, await rowsOf(source())]);
  }, 120_000);
});

describe("a slot that nobody but the CLI guards", () => {
  it("is given up past its limit, also while no drain succeeds", async () => {
    await query(source(), "update backup.settings set value = '1' where name = 'slot_limit_mb'");
    await query(
      source(),
      "insert into public.notes select i, repeat('x', 1000) from generate_series(100001, 105000) as i",
    );
    const failing = { ...settings, BACKUP_KEYS: `other:${randomBytes(32).toString("base64url")}` };
    expect((await cli(["incremental", "--json"], failing)).exit).toBe(1);
    expect(await query(source(), "select from pg_replication_slots")).toEqual([]);
    expect(await query(source(), "select reason from backup.gaps where to_at is null")).toEqual([
      { reason: expect.stringMatching(/^the slot held back \d+ MB of WAL, more than 1 MB$/) as string },
    ]);
  }, 60_000);
});

async function statusOf(): Promise<{ recoveryPointSeconds: number }> {
  return (await cli(["status", "--json"], settings)).document as { recoveryPointSeconds: number };
}

/** Holds the drain at a lock, so that its session is surely there, and ends it. */
async function loseItsSession(): Promise<void> {
  await withClient(cluster().plainUrl("supabase_admin"), async (blocker) => {
    const drains = "select from pg_stat_activity where application_name = 'holdfast:drain'";
    // Between two drains: in the middle of one its lease would have to run out first.
    await until(async () => {
      await blocker.query("begin; lock table backup.drain in access exclusive mode");
      if ((await query(cluster().plainUrl("supabase_admin"), drains)).length === 0) return true;
      await blocker.query("rollback");
      return false;
    });
    // From another session: within one transaction the view stays as it was first seen.
    await until(async () => {
      const ended = await query(
        cluster().plainUrl("supabase_admin"),
        `select pg_terminate_backend(pid) from pg_stat_activity
         where application_name = 'holdfast:drain' and wait_event_type = 'Lock'`,
      );
      return ended.length === 1;
    });
    await blocker.query("rollback");
  });
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error("waited 30 seconds in vain");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
