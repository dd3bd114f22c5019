/** The CLI with a running project: signed calls of its functions, and everything that a hosted project has. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { holdfast } from "../../src/local/demo/holdfast.ts";
import { entryCommands, isAsBefore, loseAndFind, signInBoth } from "../../src/local/demo/one_entry.ts";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { query } from "../support/cluster.ts";
import { loadSampleApp, type SampleApp, sampleBucket } from "../support/sample_app/load.ts";
import { cli } from "./cli_fixture.ts";

let stack: Stack;
let app: SampleApp;
let settings: Record<string, string> = {};

beforeAll(async () => {
  stack = await startStack({ durable: false, stream: false, prepared: true });
  app = await loadSampleApp({
    owner: { connectionString: stack.cluster.plainUrl("postgres") },
    admin: { connectionString: stack.cluster.plainUrl("supabase_admin") },
    gateway: stack.gateway,
  }, { scale: 0.02 });
  settings = {
    BACKUP_PROJECT_URL: stack.gateway.url,
    BACKUP_WORKER_SECRET: stack.workerSecret,
    BACKUP_KEYS: stack.keys,
    BACKUP_STORE: "supabase://holdfast-backups",
    SUPABASE_URL: stack.gateway.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.gateway.serviceRoleKey,
  };
}, 300_000);

afterAll(async () => {
  await stack?.destroy();
}, 60_000);

describe("the sample app", () => {
  it("has voice notes that their owners uploaded, a job, and 50 people who can sign in", async () => {
    const [facts] = await query(
      stack.cluster.plainUrl("supabase_admin"),
      `select
         (select array_agg(name order by name) from storage.objects where bucket_id = $1) as notes,
         (select count(*)::int from storage.objects where bucket_id = $1 and owner_id = split_part(name, '/', 1)) as owned,
         (select count(*)::int from auth.users u join auth.identities i on i.user_id = u.id
          where u.encrypted_password = extensions.crypt('correct horse battery staple', u.encrypted_password)) as people,
         (select count(*)::int from cron.job where jobname = 'refresh-mood-by-month') as jobs`,
      [sampleBucket],
    );
    expect(facts).toEqual({ notes: [...app.voiceNotes].sort(), owned: app.voiceNotes.length, people: 50, jobs: 1 });
    expect(app.voiceNotes.length).toBe(12);
  });
});

describe("the CLI with a running project", () => {
  it(
    "finds nothing wrong, but a table without a key, and that the backups go when the project goes",
    async () => {
      const all = { ...settings, BACKUP_DB_URL: stack.cluster.url("postgres") };
      const { exit, document, stdout } = await cli(["doctor", "--json"], all);
      expect(exit, stdout).toBe(0);
      const { checks } = document as { checks: { name: string; state: string }[] };
      expect(checks.filter((check) => check.state !== "ok").sort((a, b) => a.name < b.name ? -1 : 1)).toMatchObject([
        { name: "alerts", state: "warn" },
        { name: "changes", state: "warn", message: expect.stringContaining("public.mood_samples") as unknown },
        { name: "emergency contact", state: "warn" },
        { name: "heartbeat", state: "warn" },
        { name: "second store", state: "warn" },
        { name: "store", state: "warn" },
      ]);
      expect(checks.map((check) => check.name)).toContain("project");
    },
    60_000,
  );

  it("asks the functions for a backup, waits for it, and finds it sound in the project's Storage", async () => {
    const created = await cli(["create", "--wait", "--tier", "daily", "--json"], settings);
    expect(created.exit, created.stdout + created.stderr).toBe(0);
    expect(created.document).toMatchObject({ tier: "daily", status: "succeeded", joined: false });
    const { id } = created.document as { id: string };
    const verified = await cli(["verify", id, "--json"], settings);
    expect(verified.exit, verified.stdout).toBe(0);
    const listed = await cli(["list", "--json"], settings);
    expect(listed.document).toMatchObject([{ id, tier: "daily" }]);
  }, 180_000);

  it("brings an entry back that its owner deleted in the app, as the demo shows it", async () => {
    const [{ email: one } = { email: "" }, { email: two } = { email: "" }] = app.people;
    const people = await signInBoth(stack.gateway, [one, two]);
    const seen = await loseAndFind(people, async (id) => {
      for (const { args } of entryCommands("latest", id)) {
        await holdfast(args, { ...settings, BACKUP_DB_URL: stack.cluster.url("postgres") });
      }
    });
    expect(seen).toEqual({ gone: true, back: true, othersSee: 0 });
    expect(isAsBefore(seen)).toBe(true);
    expect(isAsBefore({ ...seen, back: false })).toBe(false);
  }, 60_000);

  it("says what is wrong with the call: secret, address, function", async () => {
    const secret = await cli(["create", "--json"], { ...settings, BACKUP_WORKER_SECRET: "x".repeat(40) });
    expect(secret.exit).toBe(1);
    expect(secret.document).toMatchObject({ error: { code: "unauthorised" } });
    const address = await cli(["create", "--json"], { ...settings, BACKUP_PROJECT_URL: "http://127.0.0.1:9" });
    expect(address.exit).toBe(1);
    expect(address.document).toMatchObject({ error: { code: "project_unreachable" } });
    const missing = await cli(["create", "--json"], { ...settings, BACKUP_WORKER_SECRET: "" });
    expect(missing.exit).toBe(2);
    expect(missing.document).toMatchObject({ error: { code: "setting_missing" } });
  }, 60_000);
});
