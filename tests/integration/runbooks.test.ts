/** The runbooks, followed command by command on the journal app: what a page says is lost is lost, and is back afterwards. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateIdentity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { clusterMs, query, useCluster } from "../support/cluster.ts";
import { startS3Server } from "../support/s3_server.ts";
import { loadSampleApp, type SampleApp } from "../support/sample_app/load.ts";
import { runbooks } from "../unit/runbook_pages.ts";
import { rowsOf } from "../restores/rows_fixture.ts";
import { Followed, preparePlace, shell as shellIn } from "./runbook_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-runbooks-"));
const pages = runbooks();
const pageMs = 180_000;
let storeAndKey: Record<string, string> = {};
let app: SampleApp;
let backup = "";
/** As the backup has them. */
let tags: readonly string[] = [];
let tagged: readonly string[] = [];

const source = () => cluster().plainUrl("postgres");
const live = (text: string, values: readonly unknown[] = []) => query(source(), text, values);
const shell = (text: string, settings: Readonly<Record<string, string>>) => shellIn({ folder }, text, settings);
const follow = (name: string, settings: Readonly<Record<string, string>>) =>
  new Followed({ folder, sql: live }, name, settings);
const withSource = () => ({ ...storeAndKey, BACKUP_DB_URL: cluster().url("postgres") });

async function rowOf(text: string): Promise<Record<string, unknown>> {
  const [row] = await live(text);
  if (row === undefined) throw new Error(`no row: ${text}`);
  return row;
}

/** The newest safety backup, as a person finds it in the list. */
const safetyBackup = async () =>
  String((await rowOf("select id from backup.runs where tiers = '{safety}' order by created_at desc limit 1"))["id"]);

beforeAll(async () => {
  preparePlace(folder);
  storeAndKey = {
    BACKUP_STORE: `file://${folder}/store`,
    BACKUP_KEYS: `test:${randomBytes(32).toString("base64url")}`,
  };
  app = await loadSampleApp({
    owner: { connectionString: source() },
    admin: { connectionString: cluster().plainUrl("supabase_admin") },
  }, { scale: 0.01 });
  for (const command of ["init", "incremental", "create"]) {
    const { exit, stderr } = await shell(`npm run -s backup:${command}`, withSource());
    expect(exit, stderr).toBe(0);
  }
  [tags, tagged] = [await rowsOf(source(), "public.tags"), await rowsOf(source(), "public.entry_tags")];
  backup = String((await rowOf("select id from backup.runs where kind = 'full' and status = 'succeeded'"))["id"]);
}, clusterMs + 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the runbook", () => {
  it(
    "a-deleted-row: an entry is back with what went with it, a wrong one is right, and is undone",
    async () => {
      const { id } = await rowOf("select entry_id as id from public.attachments order by id limit 1");
      const theirs = `(select * from public.journal_entries where id = '${id}')`;
      const attached = `(select * from public.attachments where entry_id = '${id}')`;
      const [entry, attachments] = [await rowsOf(source(), theirs), await rowsOf(source(), attached)];
      expect(attachments.length).toBeGreaterThan(0);
      await live(`delete from public.journal_entries where id = '${id}'`);

      const page = follow("a-deleted-row.md", {
        ...withSource(),
        TABLE: "public.journal_entries",
        ROW: `id=${id}`,
        BACKUP: backup.slice(0, 8),
        CHILD: "public.attachments",
        OF: `entry_id=${id}`,
      });
      expect(await page.follow("Decide")).toContain(backup.slice(0, 8));
      await page.follow("Look");
      expect(await rowsOf(source(), theirs)).toEqual([]);
      expect(await rowsOf(source(), `${page.side}.journal_entries`)).toHaveLength(1);
      await page.follow("Do", 1);
      expect(await rowsOf(source(), theirs)).toEqual(entry);
      await live(`update public.journal_entries set body = 'wrong' where id = '${id}'`);
      const wrong = await rowsOf(source(), theirs);
      await page.follow("Do", 1);
      expect(await rowsOf(source(), theirs)).toEqual(entry);
      expect(await rowsOf(source(), `${page.side}."holdfast before 1"`)).toEqual(wrong);
      page.settings["SAFETY"] = await safetyBackup();
      expect(await page.follow("Do")).toContain("attachments");
      expect(await rowsOf(source(), attached)).toEqual(attachments);
      await page.follow("Check");
      await page.follow("Undo");
      expect(await rowsOf(source(), theirs)).toEqual(wrong);
      page.end();
    },
    pageMs,
  );

  it(
    "a-table: what was deleted is back with what went with it, what was changed is undone",
    async () => {
      await live("delete from public.tags where id % 2 = 0; update public.tags set colour = 'none' where id % 3 = 0");
      const lost = await rowsOf(source(), "public.tags");

      const page = follow("a-table.md", {
        ...withSource(),
        TABLE: "public.tags",
        BACKUP: backup.slice(0, 8),
        CHILD: "public.entry_tags",
      });
      await page.follow("Decide");
      await page.follow("Look");
      expect(await rowsOf(source(), "public.tags")).toEqual(lost);
      expect(await rowsOf(source(), `${page.side}.tags`)).toEqual(tags);
      await page.follow("Do", 1);
      const there = await rowsOf(source(), "public.tags");
      expect(there).toHaveLength(tags.length);
      expect(there).not.toEqual(tags);
      await page.follow("Do", 1);
      expect(await rowsOf(source(), "public.tags")).toEqual(tags);
      page.settings["SAFETY"] = await safetyBackup();
      expect(await page.follow("Do")).toContain("entry_tags");
      expect(await rowsOf(source(), "public.entry_tags")).toEqual(tagged);
      await page.follow("Check");
      await page.follow("Undo");
      expect(await rowsOf(source(), "public.tags")).toEqual(there);
      page.end();
    },
    pageMs,
  );

  it(
    "a-person: an account is found by its address and back, with the rows that are theirs",
    async () => {
      const person = app.people[11];
      const theirs = (table: string, column: string) =>
        rowsOf(source(), `(select * from ${table} where ${column} = '${person?.id}')`);
      const everything = async () => [
        await theirs("auth.users", "id"),
        await theirs("auth.identities", "user_id"),
        await theirs("public.profiles", "id"),
        await theirs("public.journal_entries", "user_id"),
        await theirs("public.tags", "user_id"),
      ];
      // A page above leaves tags as they were before it was followed.
      await live("update public.tags as t set colour = '#' || repeat(left(t.name, 1), 2) || 'aaff'");
      const was = await everything();
      expect(was.every((rows) => rows.length > 0)).toBe(true);
      await live("delete from auth.users where id = $1", [person?.id]);

      const page = follow("a-person.md", {
        ...withSource(),
        EMAIL: person?.email ?? "",
        BACKUP: backup.slice(0, 8),
      });
      expect(await page.follow("Decide")).toContain(`"id":"${person?.id}"`);
      page.settings["PERSON"] = person?.id ?? "";
      expect(await page.follow("Look")).toContain("other users' as well");
      expect((await everything()).flat()).toEqual([]);
      await page.follow("Do", 1);
      expect(await everything()).toEqual(was);
      await live("update public.profiles set display_name = 'somebody' where id = $1", [person?.id]);
      const wrong = await everything();
      await page.follow("Do", 1);
      expect(await everything()).toEqual(was);
      page.settings["SAFETY"] = await safetyBackup();
      await page.follow("Do");
      await page.follow("Check");
      await page.follow("Undo");
      expect(await everything()).toEqual(wrong);
      page.end();
    },
    pageMs,
  );

  it(
    "a-whole-database: from store and key alone, equal, and acting only on release",
    async () => {
      const copy = await cluster().createDatabase("copy");
      const page = follow("a-whole-database.md", {
        ...storeAndKey,
        BACKUP_TARGET_DB_URL: cluster().url("postgres", copy),
        BACKUP: backup,
      });
      await page.follow("Decide");
      await page.follow("Look");
      const entries = "select count(*)::int as n from public.journal_entries";
      const webhook = async () => {
        const [trigger] = await query(
          cluster().plainUrl("postgres", copy),
          "select tgenabled as state from pg_trigger where tgname = 'announce_entry'",
        );
        return trigger?.["state"];
      };
      const restored = () => query(cluster().plainUrl("postgres", copy), entries);
      await expect(restored()).rejects.toThrow("does not exist");
      expect(await page.follow("Do")).toContain("webhook");
      expect(await webhook()).toBe("D");
      expect(await restored()).toEqual([{ n: app.rows["public.journal_entries"] }]);
      await page.follow("Check");
      expect(await webhook()).toBe("O");
      page.end();
    },
    pageMs,
  );

  it(
    "the-first-provider-is-gone: from the second store, a recovery key and an age identity alone",
    async () => {
      const identity = await generateIdentity();
      const { publicEntry, privateEntry } = await generateRecoveryKey(webCryptoRandom);
      const server = await startS3Server();
      const second = {
        BACKUP_SECONDARY: `s3://${server.bucket}/project?endpoint=${encodeURIComponent(server.endpoint)}`,
        BACKUP_SECONDARY_S3_ACCESS_KEY_ID: server.accessKeyId,
        BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
      };
      const withBoth = {
        ...withSource(),
        ...second,
        BACKUP_RECIPIENTS: await identityToRecipient(identity),
        BACKUP_KEYS: `${storeAndKey["BACKUP_KEYS"]},${publicEntry}`,
      };
      for (const command of ["keys rotate -- --yes", "init", "replicate"]) {
        const { exit, stdout, stderr } = await shell(`npm run -s backup:${command}`, withBoth);
        expect(exit, stdout + stderr).toBe(0);
      }
      const copy = await cluster().createDatabase("elsewhere");
      // As they were printed, with nothing around them.
      writeFileSync(`${folder}/recovery.key`, `${privateEntry}\n`, { mode: 0o600 });
      writeFileSync(`${folder}/age.txt`, `${identity}\n`, { mode: 0o600 });
      renameSync(`${folder}/store`, `${folder}/store-gone`);
      try {
        const page = follow("the-first-provider-is-gone.md", {
          ...second,
          BACKUP_STORE: "second",
          BACKUP_KEYS_FILE: `${folder}/recovery.key`,
          BACKUP_IDENTITIES_FILE: `${folder}/age.txt`,
          BACKUP_TARGET_DB_URL: `postgresql://postgres@${cluster().host}:${cluster().port}/${copy}`,
          BACKUP_TARGET_DB_CA: cluster().caFile,
          PGPASSWORD: cluster().password("postgres"),
          BACKUP: backup.slice(0, 4),
        });
        expect(await page.follow("Decide")).toContain(backup.slice(0, 8));
        await page.follow("Look");
        await page.follow("Do");
        const entries = "select count(*)::int as n from public.journal_entries";
        expect(await query(cluster().plainUrl("postgres", copy), entries)).toEqual(await live(entries));
        await page.follow("Check");
        page.end();
      } finally {
        renameSync(`${folder}/store-gone`, `${folder}/store`);
        await server.close();
      }
    },
    pageMs,
  );

  it(
    "drills: each of the calendar, with what is kept offline, and its evidence",
    async () => {
      const identity = await generateIdentity();
      const { publicEntry, privateEntry } = await generateRecoveryKey(webCryptoRandom);
      const server = await startS3Server();
      const second = {
        BACKUP_SECONDARY: `s3://${server.bucket}/drills?endpoint=${encodeURIComponent(server.endpoint)}`,
        BACKUP_SECONDARY_S3_ACCESS_KEY_ID: server.accessKeyId,
        BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
        BACKUP_RECIPIENTS: await identityToRecipient(identity),
      };
      const both = `${storeAndKey["BACKUP_KEYS"]},${publicEntry}`;
      // Another page may have had another second store.
      await live("select backup.tell_stores(null, null)");
      for (const command of ["keys rotate -- --yes", "incremental", "replicate"]) {
        const { exit, stdout, stderr } = await shell(`npm run -s backup:${command}`, {
          ...withSource(),
          ...second,
          BACKUP_KEYS: both,
        });
        expect(exit, stdout + stderr).toBe(0);
      }
      for (
        const [file, text] of [["all.key", both], ["offline.key", privateEntry], ["offline.txt", identity]] as const
      ) {
        writeFileSync(`${folder}/${file}`, `${text}\n`, { mode: 0o600 });
      }
      await live("update backup.settings set value = '1000000' where name = 'disk_mb'");
      try {
        const page = follow("drills.md", {
          BACKUP_DB_URL: cluster().url("postgres"),
          BACKUP_STORE: storeAndKey["BACKUP_STORE"] ?? "",
          ...second,
          BACKUP_KEYS_FILE: `${folder}/all.key`,
          IDENTITY_FILE: `${folder}/offline.txt`,
          RECOVERY_FILE: `${folder}/offline.key`,
          EMPTY_SERVER: cluster().url("postgres"),
          FOUND: "nothing to mend",
        });
        expect(await page.follow("Decide")).toContain("never tested");
        const output = await page.follow("Do");
        expect(output.match(/: Success/g)).toHaveLength(8);
        const drill = await rowOf(
          "select id from backup.drills where drill = 'disaster' order by started_at desc limit 1",
        );
        page.settings["DRILL"] = String(drill["id"]).slice(0, 8);
        expect(await page.follow("Check")).toMatch(/Success[^]*as it was signed[^]*a-person/);
        page.end();
        expect(await live("select from pg_database where datname ~ '^holdfast_drill'")).toEqual([]);
      } finally {
        await server.close();
      }
    },
    2 * pageMs,
  );

  it("a-moment: the second before in a copy, and a table back from it", async () => {
    await live(
      "insert into public.tags (user_id, name) select id, 'made that day' from auth.users order by id limit 3",
    );
    const was = await rowsOf(source(), "public.tags");
    const { at } = await rowOf(
      `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at`,
    );
    await live("update public.tags set colour = 'broken'");

    const page = follow("a-moment.md", { ...withSource(), TABLE: "public.tags", MOMENT: String(at) });
    await page.follow("Decide");
    const output = await page.follow("Look");
    const [copy = ""] = output.match(/postgres_at_\w+/) ?? [];
    expect(await rowsOf(cluster().plainUrl("postgres", copy), "public.tags")).toEqual(was);
    await page.follow("Do", 1);
    expect(await rowsOf(source(), "public.tags")).not.toEqual(was);
    await page.follow("Do");
    expect(await rowsOf(source(), "public.tags")).toEqual(was);
    await page.follow("Check");
    page.end();
  }, pageMs);

  it("an-incident: what did it is named, what is offered brings it back, and the report tells of both", async () => {
    await live("delete from public.entry_tags");
    expect(await rowsOf(source(), "public.entry_tags")).toEqual([]);
    const page = follow("an-incident.md", {
      ...withSource(),
      REASON: "tags are gone",
      MESSAGE: "Some tags are missing, we are on it.",
    });
    expect(await page.follow("Decide")).toContain("from public.entry_tags");
    const found = await page.follow("Do", 1);
    expect(await live("select closed from backup.maintenance")).toEqual([{ closed: true }]);
    const offered = found.split("\n").find((line) => /restore-table public\.entry_tags .*--apply missing$/.test(line));
    const { exit, stderr } = await shell(`${offered?.trim()} --yes`, withSource());
    expect(exit, stderr).toBe(0);
    expect(await rowsOf(source(), "public.entry_tags")).toEqual(tagged);
    await page.follow("Do");
    expect(await live("select closed from backup.maintenance")).toEqual([{ closed: false }]);
    const report = await page.follow("Check");
    expect(report).toContain("from public.entry\\_tags");
    expect(report).toContain("all rows are back");
    page.end();
  }, pageMs);

  it(
    "a-whole-database-in-place: what a migration did is taken back, watched, and undone",
    async () => {
      const taken = await shell("npm run -s backup:create -- --json", withSource());
      expect(taken.exit, taken.stderr).toBe(0);
      const { id } = JSON.parse(taken.stdout) as { id: string };
      const [was, profiles] = [await rowsOf(source(), "public.entry_tags"), await rowsOf(source(), "public.profiles")];
      await live(
        `update public.profiles set display_name = 'wrong'; delete from public.entry_tags;
         alter table public.profiles add column wrong int`,
      );
      const page = follow("a-whole-database-in-place.md", { ...withSource(), BACKUP: id });
      await page.follow("Decide");
      expect(await page.follow("Look")).toContain("public.profiles");
      const wrong = await rowsOf(source(), "public.profiles");
      expect(wrong).not.toEqual(profiles);
      await page.follow("Do");
      expect(await rowsOf(source(), "public.entry_tags")).toEqual(was);
      expect(await rowsOf(source(), "public.profiles")).toEqual(profiles);
      // Each minute, where there is pg_cron.
      await live("select backup.watch_recoveries()");
      expect(await page.follow("Check")).toContain("watching");
      page.settings["SAFETY"] = await safetyBackup();
      await page.follow("Undo");
      expect(await rowsOf(source(), "public.profiles")).toEqual(wrong);
      page.end();
      await live("alter table public.profiles drop column wrong");
    },
    pageMs,
  );
});

it("no runbook is left out: maintenance, retention and erase-a-person are followed in tests of their own", () => {
  const followed = [
    "a-deleted-row",
    "a-moment",
    "a-person",
    "a-table",
    "a-whole-database-in-place",
    "a-whole-database",
    "an-incident",
    "drills",
    "erase-a-person",
    "maintenance",
    "retention",
    "the-first-provider-is-gone",
  ];
  expect(pages.map(({ name }) => name.replace(".md", ""))).toEqual(followed);
});
