import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CommandName, commandNames } from "../../src/cli/command_table.ts";
import { pushMigrations } from "../../src/local/push.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp } from "../support/sample_app/load.ts";
import { root } from "../unit/project_files.ts";
import { cli, startCli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-cli-"));
const keys = `test:${randomBytes(32).toString("base64url")}`;
const store = `file://${folder}/store`;
let settings: Record<string, string> = {};
let app: SampleApp;
let backupId = "";

afterAll(() => rmSync(folder, { recursive: true, force: true }));

beforeAll(async () => {
  app = await loadSampleApp({
    owner: { connectionString: cluster().plainUrl("postgres") },
    admin: { connectionString: cluster().plainUrl("supabase_admin") },
  }, { scale: 0.05 });
  settings = { BACKUP_DB_URL: cluster().url("postgres"), BACKUP_STORE: store, BACKUP_KEYS: keys };
}, clusterMs);

/** What a command wants behind its name, besides settings. */
const usualWords: Readonly<Partial<Record<CommandName, readonly string[]>>> = {
  "verify": ["latest"],
  "restore": ["latest", "--scope", "full"],
  "restore-full": ["latest"],
  "restore-table": ["public.t", "latest"],
  "restore-record": ["public.t", "latest", "--where", "id=1"],
  "restore-user": ["00000000-0000-0000-0000-000000000000", "latest"],
  "restore-file": ["all", "latest"],
  "restore-point": ["latest"],
  "accept": ["latest"],
  "download": ["latest"],
  "export": ["00000000-0000-0000-0000-000000000000"],
  "erase": ["00000000-0000-0000-0000-000000000000"],
  "import-export": ["list"],
  "report": ["00000000-0000-0000-0000-000000000000"],
  "guardians": ["list"],
  "release": ["all"],
  "maintenance": ["off"],
  "incident": ["list"],
  "admins": ["list"],
  "keys": ["check"],
  "log": ["list"],
  "drills": ["list"],
  "schedules": ["list"],
};

describe("the CLI before anything is installed", () => {
  it("says for every command what is missing, as exit 2 or 1 with one line and no document", async () => {
    const settled = await Promise.all(
      commandNames.filter((name) => name !== "keygen" && name !== "doctor").map(async (name) => {
        const words = usualWords[name] ?? [];
        return { name, ...(await cli([name, ...words], {})) };
      }),
    );
    for (const { name, exit, stdout, stderr } of settled) {
      expect(exit, `${name}: ${stderr}`).toBe(2);
      expect(stdout, name).toBe("");
      expect(stderr, name).toMatch(/^(setting_missing|key_missing): .* \(.*\)\n$/);
    }
  }, 120_000);

  it("names `holdfast init` where the schema is missing", async () => {
    const { exit, document } = await cli(["status", "--json"], settings);
    expect(exit).toBe(1);
    expect(document).toMatchObject({ error: { code: "schema_missing", hint: expect.stringContaining("init") } });
  });

  it("gives help on stdout for each command", async () => {
    const { exit, stdout, stderr } = await cli(["create", "--help"], {});
    expect(exit).toBe(0);
    expect(stdout).toContain("--tier <tier>");
    expect(stderr).toBe("");
  });
});

describe("init", () => {
  it(
    "installs every migration as role postgres, records it as the Supabase CLI does, and does nothing again",
    async () => {
      const first = await cli(["init", "--json"], settings);
      expect(first.exit, first.stderr).toBe(0);
      const files = readdirSync(join(root, "supabase/migrations")).filter((name) => name.endsWith(".sql")).sort();
      expect(first.document).toMatchObject({ applied: files.map((name) => name.replace(".sql", "")), store });
      const recorded = await query(
        cluster().plainUrl("postgres"),
        "select version || '_' || name || '.sql' as file, statements[1] as text from supabase_migrations.schema_migrations order by version",
      );
      expect(recorded.map((row) => row["file"])).toEqual(files);
      expect(recorded.map((row) => row["text"])).toEqual(
        files.map((name) => readFileSync(join(root, "supabase/migrations", name), "utf8")),
      );
      const second = await cli(["init", "--json"], settings);
      expect(second.exit, second.stderr).toBe(0);
      expect(second.document).toMatchObject({ applied: [] });
    },
    120_000,
  );

  it("leaves `supabase db push` nothing to do", async () => {
    const history = () =>
      query(cluster().plainUrl("postgres"), "select * from supabase_migrations.schema_migrations order by version");
    const before = await history();
    await pushMigrations(cluster());
    expect(await history()).toEqual(before);
  }, 60_000);
});

describe("a backup by the CLI alone", () => {
  it("is taken over TLS by two workers and holds every row", async () => {
    const { exit, document, stderr, stdout } = await cli(["create", "--json", "--tier", "weekly"], settings);
    expect(exit, stdout + stderr).toBe(0);
    expect(document).toMatchObject({ tier: "weekly", status: "succeeded", joined: false });
    const { id, rows } = document as { id: string; rows: number };
    backupId = id;
    expect(rows).toBeGreaterThanOrEqual(Object.values(app.rows).reduce((sum, each) => sum + each, 0));
    expect(stderr).not.toContain(keys.slice(5));
  }, 120_000);

  it("is listed alike from the database and from store and key alone, in full and for people", async () => {
    const { BACKUP_STORE, BACKUP_KEYS } = settings;
    const alone = { BACKUP_STORE: BACKUP_STORE ?? "", BACKUP_KEYS: BACKUP_KEYS ?? "" };
    const [database, storeOnly, people] = await Promise.all([
      cli(["list", "--json"], settings),
      cli(["list", "--json"], alone),
      cli(["list"], alone),
    ]);
    const [fromDatabase] = database.document as Record<string, unknown>[];
    const [fromStore] = storeOnly.document as Record<string, unknown>[];
    expect(fromDatabase).toMatchObject({
      id: backupId,
      tier: "weekly",
      status: "succeeded",
      complete: true,
      verifiedAt: null,
    });
    for (const field of ["id", "tier", "rows", "rawBytes"]) {
      expect(fromStore?.[field], field).toEqual(fromDatabase?.[field]);
    }
    expect(people.stdout).toContain(backupId.slice(0, 8));
  }, 60_000);

  it("verifies by a shortened id, and the database then knows when", async () => {
    const { exit, document } = await cli(["verify", backupId.slice(0, 6), "--json"], settings);
    expect(exit).toBe(0);
    expect(document).toMatchObject({ id: backupId, ok: true, problems: [] });
    const listed = await cli(["list", "--json"], settings);
    expect(listed.document).toMatchObject([{ id: backupId, verifiedAt: expect.stringMatching(/^\d{4}-.*Z$/) }]);
  }, 60_000);

  it("leaves the status with one warning, the missing second store; its acts are in the audit", async () => {
    const status = await cli(["status", "--json"], settings);
    const reasons = [expect.stringContaining("only one store is configured")];
    expect(status.document).toMatchObject({ verdict: "warning", reasons, alerts: [] });
    const second = { BACKUP_SECONDARY: "s3://copies", BACKUP_RECIPIENTS: "age1" };
    expect((await cli(["status", "--json"], { ...settings, ...second })).document).toMatchObject({ verdict: "ok" });
    expect(status.exit).toBe(0);
    const audit = await cli(["audit", "--json"], settings);
    const actions = (audit.document as { action: string; subject: string }[])
      .filter((entry) => entry.subject === `run:${backupId}`).map((entry) => entry.action);
    expect(actions).toEqual(["backup.verified", "run.succeeded", "run.requested"]);
  }, 60_000);

  it("is refused with another key by name, with exit 1", async () => {
    const other = { ...settings, BACKUP_KEYS: `other:${randomBytes(32).toString("base64url")}` };
    const { exit, document } = await cli(["verify", "latest", "--json"], other);
    expect(exit).toBe(1);
    expect(document).toMatchObject({ error: { code: "key_wrong", message: expect.stringContaining("test") } });
  }, 60_000);

  it("is found damaged with exit 3 when an object is flipped, and sound again when it is mended", async () => {
    const [file] = readdirSync(join(folder, "store/v1/objects"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile());
    if (file === undefined) throw new Error("the store has no object");
    const path = join(file.parentPath ?? file.path, file.name);
    const sound = readFileSync(path);
    const damaged = sound.map((byte, at) => at === sound.length - 1 ? byte ^ 1 : byte);
    writeFileSync(path, damaged);
    const { exit, document } = await cli(["verify", "latest", "--json"], settings);
    expect(exit).toBe(3);
    expect(document).toMatchObject({ ok: false, problems: [{ code: "object_damaged" }] });
    const critical = await cli(["status", "--json"], settings);
    expect(critical.exit).toBe(3);
    expect(critical.document).toMatchObject({ verdict: "critical" });
    writeFileSync(path, sound);
    expect((await cli(["verify", "latest"], settings)).exit).toBe(0);
    expect((await cli(["status"], settings)).exit).toBe(0);
  }, 120_000);
});

describe("doctor", () => {
  it("finds all of it well, and leaves no probe behind", async () => {
    const { document } = await cli(["doctor", "--json"], settings);
    const { checks } = document as { checks: { name: string; state: string; message: string }[] };
    const failing = checks.filter((check) => check.state === "fail");
    // Vault has no secrets here: the stack gives them, a cluster alone does not.
    expect(failing.map((check) => check.name)).toEqual(["Vault", "Vault"]);
    expect(checks).toEqual(expect.arrayContaining([
      expect.objectContaining({ name: "schema backup", state: "ok" }),
      expect.objectContaining({ name: "store", state: "ok" }),
      expect.objectContaining({ name: "change stream", state: "ok", message: "can begin" }),
      expect.objectContaining({ name: "clock", state: "ok" }),
    ]));
    expect(readdirSync(join(folder, "store/v1"))).not.toContain("probe");
  }, 60_000);

  it("names each thing that is wrong, with a way out", async () => {
    const { exit, document } = await cli(["doctor", "--json"], {
      BACKUP_DB_URL: cluster().url("authenticator"),
      BACKUP_STORE: `file://${folder}/absent`,
      BACKUP_KEYS: "test:tooshort",
    });
    expect(exit).toBe(1);
    const { checks } = document as { checks: { name: string; state: string; message: string; hint: string }[] };
    const failing = checks.filter((check) => check.state === "fail");
    expect(failing.map((check) => check.name)).toEqual(expect.arrayContaining(["row security", "store", "keys"]));
    for (const check of failing) expect(check.hint, check.name).not.toBe("");
    expect(checks).toContainEqual(expect.objectContaining({ name: "change stream", state: "warn" }));
  }, 60_000);
});

describe("Ctrl-C", () => {
  it.each(["SIGINT", "SIGTERM"] as const)(
    "ends a backup cleanly: %s leaves a cancelled run and no session",
    async (signal) => {
      await withClient(cluster().plainUrl("postgres"), async (blocker) => {
        await blocker.query("begin; lock table public.journal_entries in access exclusive mode");
        const run = startCli(["create", "--json"], settings);
        await until(async () => (await waitingKeepers()) === 1);
        run.signal(signal);
        const { exit, document, stderr } = await run.result;
        expect(exit, stderr).toBe(1);
        expect(document).toMatchObject({ error: { code: "cancelled" } });
        await blocker.query("rollback");
      });
      const [run] = await query(
        cluster().plainUrl("postgres"),
        "select status from backup.runs order by created_at desc limit 1",
      );
      expect(run).toEqual({ status: "cancelled" });
      await until(async () => {
        const left = await query(
          cluster().plainUrl("postgres"),
          "select application_name from pg_stat_activity where application_name like 'holdfast:%'",
        );
        return left.length === 0;
      });
      expect((await cli(["create"], settings)).exit).toBe(0);
    },
    120_000,
  );
});

describe("a second backup at once", () => {
  it("joins the first: the same id and a notice; a worker with another store writes nothing there", async () => {
    const other = join(folder, "other");
    mkdirSync(other);
    const runs = await withClient(cluster().plainUrl("postgres"), async (blocker) => {
      await blocker.query("begin; lock table public.journal_entries in access exclusive mode");
      const first = startCli(["create", "--json"], settings);
      await until(async () => (await waitingKeepers()) === 1);
      const second = startCli(["create", "--json", "--tier", "daily"], {
        ...settings,
        BACKUP_STORE: `file://${other}`,
      });
      await until(async () => {
        const [row] = await query(
          cluster().plainUrl("postgres"),
          "select tiers from backup.runs order by created_at desc limit 1",
        );
        return String(row?.["tiers"]) === "daily,manual";
      });
      await blocker.query("rollback");
      return await Promise.all([first.result, second.result]);
    });
    for (const { exit, stdout, stderr } of runs) expect(exit, stdout + stderr).toBe(0);
    const [first, second] = runs.map((run) => run.document as { id: string; joined: boolean });
    expect(second).toMatchObject({ id: first?.id, joined: true });
    expect(runs[1]?.stderr).toContain(`notice: backup ${first?.id} is under way already`);
    expect(readdirSync(other)).toEqual([]);
    expect((await cli(["verify", "latest"], settings)).exit).toBe(0);
  }, 120_000);
});

describe("restore-full", () => {
  it("only plans until it is confirmed, and is refused where the disk is too small: nothing is made", async () => {
    const before = await query(cluster().plainUrl("postgres"), "select datname from pg_database order by 1");
    const { exit, document } = await cli(["restore-full", "latest", "--json"], settings);
    expect(exit).toBe(2);
    expect(document).toMatchObject({ dryRun: true, error: { code: "confirmation_missing" } });
    expect(await query(cluster().plainUrl("postgres"), "select datname from pg_database order by 1")).toEqual(before);
    const disk = (mb: number) =>
      query(cluster().plainUrl("postgres"), "update backup.settings set value = $1 where name = 'disk_mb'", [
        String(mb),
      ]);
    await disk(1);
    try {
      const full = await cli(["restore-full", "latest", "--yes", "--json"], settings);
      expect([full.exit, full.document]).toMatchObject([1, { error: { code: "space_missing" } }]);
    } finally {
      await disk(0);
    }
    expect(await query(cluster().plainUrl("postgres"), "select datname from pg_database order by 1")).toEqual(before);
  }, 60_000);

  it("without a target makes a database beside the source, and says so", async () => {
    const asAdmin = { ...settings, BACKUP_DB_URL: cluster().url("supabase_admin") };
    const { exit, document, stderr, stdout } = await cli(["restore-full", "latest", "--yes", "--json"], asAdmin);
    expect(exit, stdout + stderr).toBe(0);
    const { database, inserted } = document as { database: string; inserted: number };
    const name = /\/(postgres_at_\d{8}t\d{6}z)$/.exec(database)?.[1] ?? "";
    expect(name).not.toBe("");
    expect(inserted).toBeGreaterThan(0);
    const counted =
      "select count(*)::int as rows, md5(string_agg(t::text, ',' order by id)) as hash from public.journal_entries t";
    expect(await query(cluster().plainUrl("supabase_admin", name), counted)).toEqual(
      await query(cluster().plainUrl("supabase_admin"), counted),
    );
    const [closed] = await query(
      cluster().plainUrl("supabase_admin"),
      "select has_database_privilege('anon', $1, 'connect') as open",
      [name],
    );
    expect(closed).toEqual({ open: false });
  }, 120_000);

  it("refuses the source itself, and anything else that is not empty", async () => {
    const { exit, document } = await cli(["restore-full", "latest", "--yes", "--json"], {
      ...settings,
      BACKUP_TARGET_DB_URL: cluster().url("postgres"),
    });
    expect(exit).toBe(1);
    expect(["target_is_source", "target_not_empty"]).toContain((document as { error: { code: string } }).error.code);
  }, 60_000);
});

describe("release", () => {
  it("shows first, then turns on what the restore left off, and is quiet once nothing is held", async () => {
    const [made] = await query(
      cluster().plainUrl("supabase_admin"),
      "select datname from pg_database where datname like 'postgres\\_at\\_%'",
    );
    const name = String(made?.["datname"]);
    const target = { BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", name) };
    const enabled = () =>
      query(
        cluster().plainUrl("supabase_admin", name),
        "select tgenabled <> 'D' as on from pg_trigger where tgname = 'announce_entry'",
      );
    expect(await enabled()).toEqual([{ on: false }]);
    const shown = await cli(["release", "webhook", "--json"], target);
    expect(shown.exit).toBe(2);
    expect(shown.document).toMatchObject({ dryRun: true, held: [{ kind: "webhook" }] });
    expect(await enabled()).toEqual([{ on: false }]);
    const done = await cli(["release", "webhook", "--yes", "--json"], target);
    expect(done.exit, done.stdout + done.stderr).toBe(0);
    expect(done.document).toMatchObject({ released: [expect.stringContaining("announce_entry")] });
    expect(await enabled()).toEqual([{ on: true }]);
  }, 60_000);
});

async function waitingKeepers(): Promise<number> {
  const rows = await query(
    cluster().plainUrl("postgres"),
    "select from pg_stat_activity where application_name = 'holdfast:keeper' and wait_event_type = 'Lock'",
  );
  return rows.length;
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + 30_000;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error("waited 30 seconds in vain");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
