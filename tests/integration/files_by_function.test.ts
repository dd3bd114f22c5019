/** Files by the functions: back into Storage, of a backup and of a moment; downloaded by a link, one and those of a bucket. */
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { callFunction } from "../../src/cli/function_client.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { type SignedIn, signedIn } from "../support/signed_in.ts";
import { eventually, runMs, useProject } from "../support/stack.ts";
import { cli } from "./cli_fixture.ts";
import { Bucket, hashesIn, hashOf } from "./files_fixture.ts";
import { until } from "./gateway_fixture.ts";

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } });
const folder = mkdtempSync(join(tmpdir(), "holdfast-files-"));
const [ann, bob] = [randomUUID(), randomUUID()];
const many = Array.from({ length: 40 }, (_, n) => `many-${String(n).padStart(2, "0")}`);
/** Signs that Storage takes, and that addresses and shells take for theirs. */
const oddName = "of Ann/(1)'!*+,;=&$@:?.webm";
let notes: Bucket;
let admin: SignedIn;
let full = "";
/** Hashes of the full backup, by name. */
let then: Record<string, string> = {};
/** Of the full backup. */
let before: Record<string, unknown>[] = [];

const ask = (text: string, values: readonly unknown[] = []) => project().query(text, values);
const live = () =>
  ask(
    `select name, owner_id, created_at, updated_at, metadata ->> 'size' as size, metadata ->> 'eTag' as etag
     from storage.objects where bucket_id = 'voice-notes' order by name`,
  );
const moment = async () =>
  String(
    (await ask(
      `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as t from pg_sleep(0.01)`,
    ))[0]?.["t"],
  );

async function contentOf(name: string): Promise<string> {
  const { url, serviceRoleKey } = project().stack.gateway;
  const answer = await fetch(`${url}/storage/v1/object/${notes.path(name)}`, {
    headers: { authorization: `Bearer ${serviceRoleKey}` },
  });
  return answer.ok ? hashOf(new Uint8Array(await answer.arrayBuffer())) : `${answer.status}`;
}

async function drained(): Promise<void> {
  const waiting = async () => {
    await ask("select backup.call_drain()");
    await new Promise((resolve) => setTimeout(resolve, 400));
    const [row] = await ask(
      `select exists (select from backup.segments as s where s.recorded_at > $1) and backup.queued_files() = 0 as done`,
      [begun],
    );
    return row?.["done"];
  };
  const begun = (await ask("select backup.clock_now() as now"))[0]?.["now"];
  await until(waiting, (done) => done === true, 30_000);
}

beforeAll(async () => {
  const { stack } = project();
  notes = await Bucket.make(stack.gateway, "voice-notes");
  await ask(
    `create table public.notes (id int primary key, user_id uuid references auth.users (id) on delete cascade);
     insert into auth.users (id, email) values ('${ann}', 'ann@example.org'), ('${bob}', 'bob@example.org');
     insert into public.notes values (1, '${ann}'), (2, '${bob}')`,
  );
  for (const name of many) await notes.put(name, randomBytes(300_000));
  await notes.put("ann 1");
  await notes.put("bob");
  await notes.put(oddName);
  await notes.put("..hidden/...", randomBytes(3_000));
  await notes.put("empty", new Uint8Array(0));
  await notes.put("long", randomBytes(9 * 1024 * 1024 + 5));
  await ask(
    `set session_replication_role = replica;
     update storage.objects set owner_id = '${bob}', owner = '${bob}' where name = 'bob';
     update storage.objects set created_at = '2024-05-06 07:08:09.123456+00', updated_at = '2024-06-07 08:09:10.654321+00'`,
  );
  await drained();
  const { run } = await project().startBackup();
  expect(await project().ended(run), await project().story(run)).toMatchObject({ status: "succeeded" });
  full = run;
  before = await live();
  then = Object.fromEntries(
    Object.entries(hashesIn([notes])).map(([name, hash]) => [name.slice("voice-notes/".length), hash]),
  );
  admin = await signedIn(stack, { aal2: true });
  await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
}, 240_000);
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  const isolates = await project().isolates();
  expect(isolates.filter(({ endedBy }) => endedBy === "cpu" || endedBy === "memory")).toEqual([]);
});

describe("the function restore", { timeout: runMs }, () => {
  let begun: unknown;
  const invoke = async (body: object) => {
    begun = (await ask("select clock_timestamp() as now"))[0]?.["now"];
    await ask("select backup.invoke('restore', $1::jsonb)", [JSON.stringify(body)]);
  };
  const ended = async (scope: string, status: string) =>
    await until(async () => {
      const [row] = await ask(
        `select id, status, state, error_code, error_message from backup.restores where scope = $1 and next_leg_at is not null
         and (started_at > $2 or scope = 'user') order by started_at desc limit 1`,
        [scope, begun],
      );
      if (row?.["status"] === "failed" && status !== "failed") throw new Error(JSON.stringify(row));
      return row;
    }, (row) =>
      row?.["status"] === status, 40_000);

  it("brings files back leg by leg, equal in bytes and rows, and leaves the large to the CLI", async () => {
    const hashes = new Map(
      await Promise.all([...many, "bob"].map(async (name) => [name, await contentOf(name)] as const)),
    );
    await notes.remove(...many, "bob", "empty", "long");
    await invoke({ action: "files", backup: "latest", bucket: "voice-notes", confirm: "postgres" });
    const row = await ended("files", "succeeded");
    expect(row?.["state"]).toMatchObject({
      files: { put: 42, lost: 0, failed: 0, tooLarge: 1, done: true },
      warnings: ["1 files are too large for a function: `restore-file` brings them"],
    });
    expect(await live()).toEqual(before.filter(({ name }) => name !== "long"));
    for (const [name, hash] of hashes) expect(await contentOf(name), name).toBe(hash);
  });

  it("brings them as they were at a moment, though they are gone since", async () => {
    const taken = await notes.put("take");
    const wasAnn = await contentOf("ann 1");
    await ask(
      `set session_replication_role = replica; update storage.objects set owner_id = '${ann}' where name = 'take'`,
    );
    await drained();
    const at = await moment();
    await notes.put("ann 1");
    await notes.remove("take", many[0] ?? "");
    await notes.put("later");
    await drained();
    await invoke({ action: "files", at, bucket: "voice-notes", mode: "merge", confirm: "postgres" });
    const row = await ended("files", "succeeded");
    // "long" is left to the CLI.
    expect(row?.["state"]).toMatchObject({ at, files: { put: 3, failed: 0, done: true } });
    expect(await contentOf("take")).toBe(hashOf(taken));
    expect(await contentOf("ann 1")).toBe(wasAnn);
    expect((await live()).find(({ name }) => name === "take")).toMatchObject({ owner_id: ann });
    expect((await live()).map(({ name }) => name)).toContain("later");
    const [restore] = await ask(
      "select source_backup, point_at is not null as has_point from backup.restores where id = $1",
      [
        row?.["id"],
      ],
    );
    expect(restore).toEqual({ source_backup: full, has_point: true });
  });

  it("says what covers a moment that nothing covers, and puts nothing", async () => {
    const count = async () => (await live()).length;
    const there = await count();
    await invoke({ action: "files", at: "2099-01-01T00:00:00Z", confirm: "postgres" });
    expect(await ended("files", "failed")).toMatchObject({ error_code: "point_uncovered" });
    expect(await count()).toBe(there);
  });

  it("brings a person's files with their rows", async () => {
    await notes.remove("bob");
    await ask(`delete from public.notes where user_id = '${bob}'`);
    await invoke({ action: "plan", scope: "user", backup: full, user: bob, mode: "missing" });
    const planned = await ended("user", "beside");
    const restore = String(planned?.["id"]);
    await invoke({ action: "apply", restore, mode: "missing", confirm: "postgres", skipSafetyBackup: "postgres" });
    const row = await ended("user", "succeeded");
    expect(row?.["state"]).toMatchObject({ files: { put: 1, done: true } });
    expect((await live()).find(({ name }) => name === "bob")).toEqual(before.find(({ name }) => name === "bob"));
  });
});

describe("the function drill", { timeout: runMs }, () => {
  it("reads files back leg by leg and says how many", async () => {
    await ask("update backup.settings set value = '1000000' where name = 'disk_mb'");
    // What is live now is in the stream that the drill replays.
    await notes.put("before the drill");
    await drained();
    await ask("select backup.start_drill('recovery')");
    const ended = await until(
      async () => {
        await ask("select backup.tick()");
        return (await ask("select ok, evidence from backup.drills where finished_at is not null"))[0];
      },
      (row) => row !== undefined,
      70_000,
    );
    const files = (await live()).length;
    expect(ended).toMatchObject({
      ok: true,
      evidence: { files: { files, withoutContent: 0, checked: files }, failure: null },
    });
  });
});

describe("the function download", { timeout: runMs }, () => {
  interface Shown {
    readonly id: string;
    readonly status: string;
    readonly fileName: string;
    readonly files: readonly { readonly url: string; readonly sha256: string }[];
    readonly error: { readonly code: string } | null;
  }

  async function call(request: object): Promise<Record<string, unknown>> {
    const answer = await fetch(`${project().stack.gateway.url}/functions/v1/download`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${admin.accessToken}` },
      body: JSON.stringify(request),
    });
    return await answer.json() as Record<string, unknown>;
  }

  async function made(files: string): Promise<Shown> {
    const { download } = await call({ action: "start", backup: full, format: "files", files });
    return await eventually("the download has ended", async () => {
      const now = await call({ action: "status", download }) as unknown as Shown;
      return now.status === "making" ? null : now;
    }, 60_000);
  }

  async function fetched(download: string): Promise<Buffer> {
    const link = await call({ action: "link", download }) as unknown as Shown;
    const parts: Buffer[] = [];
    for (const { url, sha256 } of link.files) {
      const part = Buffer.from(await (await fetch(url)).arrayBuffer());
      expect(hashOf(part)).toBe(sha256);
      parts.push(part);
    }
    return Buffer.concat(parts);
  }

  it("links to one file as it is, with the audit before it, which names no file", async () => {
    const done = await made(`voice-notes/${oddName}`);
    expect(done).toMatchObject({ status: "ready", fileName: `file-${full.slice(0, 8)}.webm`, error: null });
    expect(await ask("select action from backup.audit_log where subject = $1 order by id", [`download:${done.id}`]))
      .toEqual(["download.begun", "key.used", "download.made"].map((action) => ({ action })));
    expect(hashOf(await fetched(done.id))).toBe(then[oddName]);
    const audit = await ask("select action, detail from backup.audit_log where subject = $1 order by id", [
      `download:${done.id}`,
    ]);
    expect(audit.map(({ action }) => action)).toContain("download.linked");
    expect(audit[0]?.["detail"]).toMatchObject({ bucket: "voice-notes", one_file: true, format: "files" });
    expect(JSON.stringify(audit)).not.toContain("Ann");
    const [row] = await ask("select file from backup.downloads where id = $1", [done.id]);
    expect(row).toEqual({ file: oddName });
    await call({ action: "remove", download: done.id });
    expect(await ask("select status, file from backup.downloads where id = $1", [done.id])).toEqual([
      { status: "removed", file: null },
    ]);
  });

  it("links to an archive of a bucket, of more than a part, made in legs, that stock tar unpacks", async () => {
    const done = await made("voice-notes/");
    expect(done).toMatchObject({ status: "ready", fileName: `files-voice-notes-${full.slice(0, 8)}.tar` });
    const archive = await fetched(done.id);
    writeFileSync(join(folder, "files.tar"), archive);
    execFileSync("tar", ["-xf", "files.tar"], { cwd: folder });
    const found = readdirSync(join(folder, "voice-notes"), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path.slice(join(folder, "voice-notes/").length), hashOf(readFileSync(path))]);
    expect(Object.fromEntries(found)).toEqual(then);
    const about = JSON.parse(readFileSync(join(folder, "about.json"), "utf8")) as object;
    expect(about).toMatchObject({ backup: full, bucket: "voice-notes", files: 46, missed: 0, erased: 0 });
  });

  it("ends as failed for a file that is not there, and refuses what names none", async () => {
    expect(await made("voice-notes/none")).toMatchObject({ status: "failed", error: { code: "not_found" } });
    const start = { action: "start", backup: full };
    for (
      const request of [
        { ...start, format: "files" },
        { ...start, format: "files", files: "all" },
        { ...start, format: "files", files: "voice-notes" },
        { ...start, format: "files", files: "voice-notes/a", table: "public.notes" },
        { ...start, format: "csv", files: "voice-notes/" },
        { ...start, format: "bundle", files: "all" },
      ]
    ) expect(await call(request), JSON.stringify(request)).toMatchObject({ code: "payload_invalid" });
    expect(await call({ action: "start", at: "2026-01-01T00:00:00Z", format: "files", files: "voice-notes/a" }))
      .toMatchObject({
        code: "usage",
      });
  });

  it("sends none to a call of the worker secret", async () => {
    const { stack } = project();
    const settings = { need: () => stack.gateway.url, variable: () => stack.workerSecret };
    const context = { settings, clock: systemClock, random: webCryptoRandom, signal: new AbortController().signal };
    const request = { action: "start", backup: full, format: "files", files: "voice-notes/" };
    await expect(callFunction(context as unknown as Parameters<typeof callFunction>[0], "download", request))
      .rejects.toMatchObject({ code: "forbidden" });
  });
});

describe("the CLI", { timeout: runMs }, () => {
  it("downloads a file of a moment, and an archive, into a folder", async () => {
    const { gateway, cluster, keys } = project().stack;
    const settings = {
      BACKUP_DB_URL: cluster.url("postgres"),
      BACKUP_DB_CA: cluster.caFile,
      BACKUP_KEYS: keys,
      BACKUP_STORE: "supabase://holdfast-backups",
      SUPABASE_URL: gateway.url,
      SUPABASE_SERVICE_ROLE_KEY: gateway.serviceRoleKey,
    };
    await drained();
    const later = notes.contents.get("later") ?? new Uint8Array(0);
    const at = ["download", "--at", "latest", "--files", "voice-notes/later", "--out", join(folder, "later"), "--json"];
    const one = await cli(at, settings);
    expect(one.exit, one.stderr).toBe(0);
    expect(one.document).toMatchObject({ format: "files", bucket: "voice-notes", sha256: hashOf(later) });
    expect(hashOf(readFileSync(join(folder, "later")))).toBe(hashOf(later));
    const wrong = await cli(["download", full, "--files", "voice-notes", "--out", folder], settings);
    expect(wrong.exit).toBe(2);
    const planned = await cli(["download", full, "--files", "voice-notes/", "--dry-run", "--json"], settings);
    expect(planned.document).toMatchObject({ dryRun: true, format: "files", files: 47 });
  });
});
