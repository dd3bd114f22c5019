/** The first store and the project are gone: everything comes back from the second provider, by the CLI as people run it. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { generateX25519Identity, identityToRecipient } from "age-encryption";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/shared/clock.ts";
import { generateRecoveryKey } from "../../src/shared/crypto/recovery_key.ts";
import { webCryptoRandom as random } from "../../src/shared/random.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { isLayered, openSecondary, type Secondary } from "../../src/shared/store/secondary.ts";
import { clusterMs, freshDatabase, query, useCluster } from "../support/cluster.ts";
import { type S3Server, startS3Server } from "../support/s3_server.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-second-"));
const person = "5b0d3c0e-0000-4000-8000-000000000001";
/** What makes backups: a key, and the public half of the recovery key, whose private half is all that is left. */
const keys = `test:${randomBytes(32).toString("base64url")}`;
let recoveryKey = "";
let server: S3Server;
let second: Secondary;
let identity = "";
/** What is left: the second store with its credentials, the recovery key, the identity. */
let left: Record<string, string> = {};
let settings: Record<string, string> = {};
let backup = "";
/** Rows when the full backup was taken, at a moment, and at the end of the stream. */
const rows = { full: "", moment: "", end: "" };
let moment = "";

const source = () => cluster().plainUrl("postgres");

async function rowsOf(url: string): Promise<string> {
  const [row] = await query(url, "select string_agg(id || '=' || text, ',' order by id) as rows from public.notes");
  return String(row?.["rows"]);
}

async function ok(args: readonly string[], given: Record<string, string>): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

async function failure(args: readonly string[], given: Record<string, string>) {
  const { exit, document } = await cli([...args, "--json"], given);
  return { exit, ...(document as { error: { code: string; message: string; hint: string } }).error };
}

/** An empty database of the same server, and what makes it the target. */
async function target() {
  const name = await freshDatabase(cluster(), { platform: false });
  const url = cluster().plainUrl("supabase_admin", name);
  return { name, url, given: { ...left, BACKUP_TARGET_DB_URL: cluster().url("supabase_admin", name) } };
}

const atSecond = ["--store", "second"];

beforeAll(async () => {
  server = await startS3Server();
  identity = await generateX25519Identity();
  const { publicEntry, privateEntry } = await generateRecoveryKey(random);
  recoveryKey = privateEntry;
  const secondSettings: Record<string, string> = {
    BACKUP_SECONDARY: `s3://${server.bucket}/copy?endpoint=${
      encodeURIComponent(server.endpoint)
    }&region=${server.region}`,
    BACKUP_SECONDARY_S3_ACCESS_KEY_ID: server.accessKeyId,
    BACKUP_SECONDARY_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
  };
  const recipients = [await generateX25519Identity(), identity].map(identityToRecipient);
  settings = {
    ...secondSettings,
    BACKUP_RECIPIENTS: (await Promise.all(recipients)).join(","),
    BACKUP_STORE: `file://${folder}/first`,
    BACKUP_KEYS: `${keys},${publicEntry}`,
    BACKUP_DB_URL: cluster().url("postgres"),
  };
  left = { ...secondSettings, BACKUP_KEYS: recoveryKey, BACKUP_IDENTITIES: identity };
  await query(
    source(),
    `insert into auth.users (id, email) values ('${person}', 'anna@example.com');
     create table public.notes (id int primary key, owner uuid references auth.users, text text not null);
     insert into public.notes select i, case when i % 4 = 0 then '${person}'::uuid end, repeat(md5(i::text), 100) from generate_series(1, 400) as i`,
  );
  await ok(["init"], settings);
  await query(source(), "select cron.unschedule(jobname) from cron.job where jobname like 'holdfast-%'");
  await ok(["incremental"], settings);
  backup = String((await ok(["create"], settings))["id"]);
  rows.full = await rowsOf(source());
  await query(source(), "update public.notes set text = 'changed' where id <= 100");
  rows.moment = await rowsOf(source());
  const [now] = await query(
    source(),
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at from pg_sleep(0.05)`,
  );
  moment = String(now?.["at"]);
  await query(source(), "delete from public.notes where id > 200");
  rows.end = await rowsOf(source());
  await ok(["incremental"], settings);

  const fetchIt = (url: string, init: RequestInit) => fetch(url, init);
  const opened = openSecondary((name) => settings[name], { fetch: fetchIt, clock: systemClock, random });
  if (opened === null) throw new Error("it is set");
  second = opened;
  const first = createFileStore(`${folder}/first`);
  let layered = 0;
  for await (const { name } of first.list("v1/")) {
    await second.store.create(name, await second.wrap(name, await first.read(name)));
    if (isLayered(name)) layered++;
  }
  expect(layered).toBeGreaterThan(3);
}, clusterMs + 60_000);

afterAll(async () => {
  await server?.close();
  rmSync(folder, { recursive: true, force: true });
});

describe("with both stores", () => {
  const lineOf = (document: unknown, name: string) =>
    (document as { checks: { name: string; state: string; message: string; hint: string }[] }).checks
      .filter((check) => check.name === name);

  it("doctor tells of the second store: apart, working, wrapped, without locks", async () => {
    const { document } = await cli(["doctor", "--json"], settings);
    expect(lineOf(document, "two stores")).toMatchObject([{ state: "ok" }]);
    expect(lineOf(document, "second store")).toMatchObject([{ state: "ok" }]);
    expect(lineOf(document, "age layer")).toMatchObject([{
      state: "ok",
      message: expect.stringContaining("for 2 recipients; no identity"),
    }]);
    expect(lineOf(document, "locks")).toMatchObject([{ state: "warn" }]);
    const withIdentity = await cli(["doctor", "--json"], { ...settings, BACKUP_IDENTITIES: identity });
    expect(lineOf(withIdentity.document, "age layer")).toMatchObject([{
      state: "ok",
      message: expect.stringContaining("opens them"),
    }]);
  }, 60_000);

  it("doctor refuses a second store that is the first, another installation's, or cannot be opened", async () => {
    const given = (more: Record<string, string>) => cli(["doctor", "--json"], { ...settings, ...more });
    const same = await given({ BACKUP_SECONDARY: settings["BACKUP_STORE"] ?? "" });
    expect(lineOf(same.document, "two stores")).toMatchObject([{ state: "fail" }]);
    expect(same.exit).toBe(1);
    const near = await given({ BACKUP_SECONDARY: `file://${folder}` + "-near" });
    expect(lineOf(near.document, "two stores")).toMatchObject([{ state: "warn" }]);
    expect(lineOf(near.document, "second store").at(-1)?.message).toContain("store_missing");
    const bare = await given({ BACKUP_RECIPIENTS: "" });
    expect(lineOf(bare.document, "second store")).toMatchObject([{ state: "fail" }]);
    const other = await generateX25519Identity();
    const wrong = await given({ BACKUP_IDENTITIES: other });
    expect(lineOf(wrong.document, "age layer")).toMatchObject([{ state: "fail" }]);
    expect(JSON.stringify(wrong) + wrong.stdout).not.toContain(other);
    const elsewhere = { BACKUP_STORE: `file://${folder}/other` };
    await ok(["init"], { ...settings, ...elsewhere });
    await ok(["create"], { ...settings, ...elsewhere });
    const foreign = await given(elsewhere);
    expect(lineOf(foreign.document, "second store").at(-1)).toMatchObject({
      state: "fail",
      message: expect.stringContaining("another installation"),
    });
  }, 120_000);

  it("nothing is written into the second store that belongs into the first", async () => {
    for (const command of ["create", "incremental"]) {
      expect(await failure([command, ...atSecond], settings)).toMatchObject({ code: "store_read_only" });
    }
  }, 60_000);
});

describe("rows that come back from the second store into a project that is there", () => {
  it("come after a safety backup, which is written into the first", async () => {
    await query(source(), "delete from public.notes where id <= 10");
    const given = { ...settings, BACKUP_IDENTITIES: identity };
    const back = ["restore-table", "public.notes", backup, "--apply", "missing", "--yes", ...atSecond];
    const { safetyRun } = await ok(back, given);
    expect(await query(source(), "select count(*)::int as n from public.notes where id <= 10")).toEqual([{ n: 10 }]);
    const listed = await ok(["list"], { ...given, BACKUP_DB_URL: "" });
    expect(listed).toEqual(expect.arrayContaining([expect.objectContaining({ id: safetyRun, tier: "safety" })]));
    expect(await ok(["list", ...atSecond], { ...given, BACKUP_DB_URL: "" })).toHaveLength(1);
    const nowhere = { ...given, BACKUP_STORE: "" };
    await query(source(), "delete from public.notes where id <= 10");
    expect(await failure(back, nowhere)).toMatchObject({
      code: "store_read_only",
      message: expect.stringContaining("nothing was changed"),
    });
    expect(await query(source(), "select count(*)::int as n from public.notes where id <= 10")).toEqual([{ n: 0 }]);
  }, 120_000);
});

describe("with the second store alone", () => {
  beforeAll(() => rmSync(`${folder}/first`, { recursive: true }));

  it("backups, moments and keys are listed, and every object is read, opened and counted", async () => {
    expect(await ok(["list", ...atSecond], left)).toMatchObject([{ id: backup }]);
    expect(await ok(["verify", "latest", ...atSecond], left)).toMatchObject({ id: backup, ok: true, problems: [] });
    expect(await ok(["keys", "list", ...atSecond], left)).toHaveLength(1);
    expect(await ok(["keys", "check", ...atSecond], left)).toMatchObject({ ok: true, backup });
    expect(JSON.stringify(await ok(["timeline", ...atSecond], left))).toContain(backup);
  }, 120_000);

  it("it is opened as the only store too, and with the file that age-keygen wrote", async () => {
    const file = join(folder, "identity.txt");
    writeFileSync(file, `# created: 2026-11-21T18:45:00Z\n${identity}\n`);
    const only = {
      BACKUP_STORE: left["BACKUP_SECONDARY"] ?? "",
      BACKUP_S3_ACCESS_KEY_ID: server.accessKeyId,
      BACKUP_S3_SECRET_ACCESS_KEY: server.secretAccessKey,
      BACKUP_KEYS: recoveryKey,
    };
    expect(await ok(["verify", "latest", "--identities-file", file], only)).toMatchObject({ ok: true });
  }, 60_000);

  it("is not opened without an identity, nor with another one, and says which is meant", async () => {
    const { BACKUP_IDENTITIES: _, ...without } = left;
    expect(await failure(["verify", "latest", ...atSecond], without)).toMatchObject({
      exit: 2,
      code: "identity_missing",
      hint: expect.stringContaining("--identities-file"),
    });
    const to = await target();
    const missing = await failure(["restore-full", "latest", "--yes", ...atSecond], {
      ...without,
      BACKUP_TARGET_DB_URL: to.given.BACKUP_TARGET_DB_URL ?? "",
    });
    expect(missing).toMatchObject({ exit: 2, code: "identity_missing" });
    const other = await generateX25519Identity();
    const wrong = await cli(["verify", "latest", "--json", ...atSecond], { ...left, BACKUP_IDENTITIES: other });
    expect(wrong.exit).toBe(3);
    expect(wrong.stdout).toContain("identity_wrong");
    expect(wrong.stdout).toContain(await identityToRecipient(other));
    expect(wrong.stdout + wrong.stderr).not.toContain(other);
  }, 120_000);

  it("a full restore brings back every row", async () => {
    const to = await target();
    await ok(["restore-full", "latest", "--yes", ...atSecond], to.given);
    expect(await rowsOf(to.url)).toBe(rows.full);
  }, 120_000);

  it("a restore to a moment, and to the end, brings back the rows of then", async () => {
    for (const [what, expected] of [[moment, rows.moment], ["latest", rows.end]] as const) {
      const to = await target();
      await ok(["restore-point", what, "--yes", ...atSecond], to.given);
      expect(await rowsOf(to.url), what).toBe(expected);
    }
  }, 180_000);

  it("a table, a row and a person come back into a database that lost them", async () => {
    const to = await target();
    await ok(["restore-full", "latest", "--yes", ...atSecond], to.given);
    const back = ["--yes", "--apply", "missing", "--skip-safety-backup", to.name, ...atSecond];
    await query(to.url, "delete from public.notes where id % 2 = 0");
    await ok(["restore-table", "public.notes", backup, ...back], to.given);
    expect(await rowsOf(to.url)).toBe(rows.full);
    await query(to.url, "delete from public.notes where id = 7");
    await ok(["restore-record", "public.notes", backup, "--where", "id=7", ...back], to.given);
    expect(await rowsOf(to.url)).toBe(rows.full);
    await query(to.url, "delete from public.notes where owner is not null; delete from auth.users");
    await ok(["restore-user", person, backup, ...back], to.given);
    expect(await rowsOf(to.url)).toBe(rows.full);
  }, 180_000);

  it("an object that was cut there is found, by name", async () => {
    const names: string[] = [];
    for await (const { name } of second.store.list("v1/objects/")) names.push(name);
    const [name = ""] = names;
    const sound = await second.store.read(name);
    await second.store.replace(name, sound.slice(0, -7));
    try {
      const { exit, document } = await cli(["verify", "latest", "--json", ...atSecond], left);
      expect(exit).toBe(3);
      expect(document).toMatchObject({ ok: false, problems: [{ object: name, code: "object_damaged" }] });
    } finally {
      await second.store.replace(name, sound);
    }
  }, 60_000);
});
