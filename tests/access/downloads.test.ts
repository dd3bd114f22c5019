/** Downloads by link: who gets one, what the audit knows before, when it ends. On the embedded stack under the platform's limits. */
import { Buffer } from "node:buffer";
import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { callFunction } from "../../src/cli/function_client.ts";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { type DownloadBucket, downloadBucket } from "../../src/shared/download/bucket.ts";
import { layOut } from "../../src/shared/download/lay_out.ts";
import { functionPartBytes, runDownloadLeg } from "../../src/shared/download/leg.ts";
import { makeLink } from "../../src/shared/download/link.ts";
import { namedTable, openContents } from "../../src/shared/download/open_contents.ts";
import { sweepDownloads } from "../../src/shared/download/sweep.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { silentLog } from "../../src/shared/log.ts";
import { beginDownload, readDownload } from "../../src/shared/jobs/download_queries.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { cli } from "../integration/cli_fixture.ts";
import { factorUsedAgo, type SignedIn, signedIn } from "../support/signed_in.ts";
import { eventually, type Project, setClock, useProject } from "../support/stack.ts";

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } }, fill);
const folder = mkdtempSync(join(tmpdir(), "holdfast-downloads-"));
const run = promisify(execFile);
let backup: string;
let admin: SignedIn;

async function fill({ query }: Project): Promise<void> {
  await query(
    `create table public.notes (id int primary key, body text, seen timestamptz);
     insert into public.notes select i, case i % 3 when 0 then null when 1 then '' else 'note "' || i || '", a' end, now()
       from generate_series(1, 500) as i;
     create table public.large (id int primary key, body text not null);
     insert into public.large select i, repeat(md5(i::text), 24) from generate_series(1, 90000) as i;
     create table public."../ünï/..\\" ("=1" text);
     insert into public."../ünï/..\\" values ('=2+3')`,
  );
}

beforeAll(async () => {
  const { run } = await project().startBackup();
  expect(await project().ended(run)).toMatchObject({ status: "succeeded" });
  backup = run;
  admin = await signedIn(project().stack, { aal2: true });
  await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
}, 180_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

const ask = (text: string, values: readonly unknown[] = []) => project().query(text, values);

interface Shown {
  readonly id: string;
  readonly status: string;
  readonly bytes: number;
  readonly sha256: string | null;
  readonly expiresAt: string;
  readonly url?: string;
  readonly files: readonly {
    readonly name: string;
    readonly bytes: number;
    readonly sha256: string;
    readonly url: string;
  }[];
  readonly error: { readonly code: string } | null;
}

/** As an administrator whose second factor is fresh; `signed`: by the worker secret. Errors: what the function answers. */
async function call(request: Readonly<Record<string, unknown>>, by: "person" | "signed" = "person") {
  const { stack } = project();
  if (by === "person") {
    const answer = await fetch(`${stack.gateway.url}/functions/v1/download`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${admin.accessToken}` },
      body: JSON.stringify(request),
    });
    const document = await answer.json() as Record<string, unknown>;
    if (answer.ok) return document;
    throw Object.assign(new Error(JSON.stringify(document)), document);
  }
  const settings = { need: () => stack.gateway.url, variable: () => stack.workerSecret };
  const context = { settings, clock: systemClock, random: webCryptoRandom, signal: new AbortController().signal };
  return await callFunction(context as unknown as Parameters<typeof callFunction>[0], "download", request) as Record<
    string,
    unknown
  >;
}

const shown = async (download: string) => await call({ action: "status", download }) as unknown as Shown;
const linked = async (download: string, more: Readonly<Record<string, unknown>> = {}) =>
  await call({ action: "link", download, ...more }) as unknown as Shown;

async function made(request: Readonly<Record<string, unknown>>): Promise<Shown> {
  const { download } = await call({ action: "start", backup, ...request });
  const end = await eventually("the download is made", async () => {
    const now = await shown(String(download));
    return now.status === "making" ? null : now;
  }, 120_000);
  expect(end.error, JSON.stringify(end)).toBeNull();
  return end;
}

/** Every byte behind the links, each part against its own hash. */
async function fetched({ files }: Shown): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (const { url, bytes, sha256 } of files) {
    const answer = await fetch(url);
    expect(answer.status).toBe(200);
    const part = Buffer.from(await answer.arrayBuffer());
    expect({ bytes: part.byteLength, sha256: hashOf(part) }).toEqual({ bytes, sha256 });
    parts.push(part);
  }
  return Buffer.concat(parts);
}

const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const objectsIn = async (download: string) =>
  (await ask("select name from storage.objects where bucket_id = 'holdfast-downloads' and name like $1", [
    `${download}/%`,
  ]))
    .map(({ name }) => String(name));
const audited = async (download: string) =>
  (await ask("select action from backup.audit_log where subject = $1 order by id", [`download:${download}`]))
    .map(({ action }) => String(action));

function settings(): Record<string, string> {
  const { stack } = project();
  return {
    BACKUP_DB_URL: stack.cluster.url("postgres"),
    BACKUP_DB_CA: stack.cluster.caFile,
    BACKUP_STORE: "supabase://holdfast-backups",
    BACKUP_KEYS: stack.keys,
    SUPABASE_URL: stack.gateway.url,
    SUPABASE_SERVICE_ROLE_KEY: stack.gateway.serviceRoleKey,
  };
}

async function document(args: readonly string[], exit = 0): Promise<Record<string, unknown>> {
  const result = await cli(["download", ...args, "--json"], settings());
  expect(result.exit, result.stderr + result.stdout).toBe(exit);
  return result.document as Record<string, unknown>;
}

const codeOf = async (request: Readonly<Record<string, unknown>>) =>
  await call(request).then(() => "none", (error: { code: string }) => error.code);

/** What the server writes of the table that has not changed since. */
async function serverCsv(list: string, table: string): Promise<string> {
  const session = await openDatabase({
    url: project().stack.cluster.url("postgres"),
    caPem: readFileSync(project().stack.cluster.caFile, "utf8"),
  }).connect("oracle");
  try {
    const parts: Buffer[] = [];
    await session.execute("set timezone = 'UTC'; set datestyle = 'ISO, YMD'");
    await session.copyOut(
      `copy (select ${list} from ${table}) to stdout (format csv, header)`,
      (bytes) => void parts.push(Buffer.from(bytes)),
    );
    return Buffer.concat(parts).toString();
  } finally {
    await session.close();
  }
}

describe("the function", () => {
  it("lays out a table and links to it, with the audit before each", async () => {
    const done = await made({ format: "csv", table: "public.notes" });
    expect(done).toMatchObject({ status: "ready", fileName: `public.notes-${backup.slice(0, 8)}.csv`, links: 0 });
    expect(await audited(done.id)).toEqual(["download.begun", "key.used", "download.made"]);
    expect(
      await ask("select detail from backup.audit_log where action = 'key.used' and subject = $1", [
        `download:${done.id}`,
      ]),
    ).toEqual([{ detail: { keys: [project().stack.keys.split(":")[0]] } }]);
    const link = await linked(done.id);
    expect(link.url).toBe(link.files[0]?.url);
    expect((await fetched(link)).toString()).toBe(await serverCsv("id, body, seen", "public.notes"));
    expect(hashOf(await fetched(link))).toBe(done.sha256);
    await linked(done.id, { expirySeconds: 60 });
    expect((await audited(done.id)).slice(2)).toEqual(["download.made", "download.linked", "download.linked"]);
    const answer = await fetch(link.files[0]?.url ?? "", { method: "HEAD" });
    expect(answer.headers.get("content-disposition")).toContain(`public.notes-${backup.slice(0, 8)}.csv`);
  }, 120_000);

  it("lays out more than a part in legs within the platform's limits, and goes on where one was killed", async () => {
    const kill = await project().killAt("step:download.recorded", 1, "download");
    const { download } = await call({ action: "start", backup, format: "json" });
    const id = String(download);
    await kill.fired();
    await setClock(project(), 200);
    try {
      await eventually("another leg goes on", async () => {
        await ask("select backup.tick()");
        return (await shown(id)).status === "making" ? null : true;
      }, 120_000);
    } finally {
      await setClock(project(), 0);
    }
    const link = await linked(id);
    expect(link.files.length).toBeGreaterThan(3);
    expect(link.files.map(({ name }) => name.slice(-4))).toEqual(
      link.files.map((_, at) => `.${String(at + 1).padStart(3, "0")}`),
    );
    writeFileSync(join(folder, "tables.zip"), await fetched(link));
    const { stdout } = await run("python3", ["-c", readArchive, join(folder, "tables.zip")]);
    const [bad, count, first] = stdout.trim().split("\n");
    expect({ bad, count }).toEqual({ bad: "None", count: "90000" });
    expect(JSON.parse(first ?? "")).toEqual({ id: "1", body: createHash("md5").update("1").digest("hex").repeat(24) });
    const isolates = (await project().isolates()).filter((one) => one.function === "download");
    const worst = {
      cpuMs: Math.max(...isolates.map((one) => one.cpuMs)),
      peakMb: Math.max(...isolates.map((one) => one.peakBytes)) / 1e6,
    };
    expect(isolates.filter(({ endedBy }) => endedBy === "cpu" || endedBy === "memory"), JSON.stringify(worst)).toEqual(
      [],
    );
  }, 240_000);

  it("refuses what cannot be, by the right code", async () => {
    const start = { action: "start", backup };
    for (
      const [request, code] of [
        [{ ...start, format: "csv", table: "public.notes", expirySeconds: 86_401 }, "payload_invalid"],
        [{ ...start, format: "bundle", expirySeconds: 604_801 }, "payload_invalid"],
        [{ ...start, format: "bundle", table: "public.notes" }, "payload_invalid"],
        [{ ...start, format: "xlsx" }, "payload_invalid"],
        [{ ...start, format: "csv", table: "notes" }, "payload_invalid"],
        [{ action: "link", download: randomUUID() }, "run_not_found"],
        [{ action: "remove", download: randomUUID() }, "run_not_found"],
      ] as const
    ) expect(await codeOf(request), JSON.stringify(request)).toBe(code);
    for (const table of ["public.nowhere", 'public."../../notes"', `public."x' or 1=1 --"`]) {
      const { download } = await call({ ...start, format: "sql", table });
      const end = await eventually("it ends", async () => {
        const now = await shown(String(download));
        return now.status === "making" ? null : now;
      }, 60_000);
      expect(end, table).toMatchObject({ status: "failed", error: { code: "table_not_found" } });
      expect(await codeOf({ action: "link", download })).toBe("run_state");
    }
  }, 120_000);

  it("refuses rows that come out of a replay, before anything is made of it, and tells the way", async () => {
    await cli(["incremental", "--json"], settings());
    await ask("create table public.later as select 1 as id");
    const document = (await cli(["incremental", "--json"], settings())).document as { id: string };
    const before = await ask("select count(*)::int as n from backup.downloads");
    for (
      const asked of [
        { at: "2026-01-01T00:00:00Z", format: "csv", table: "public.notes" },
        { at: "2026-01-01T00:00:00Z", format: "bundle" },
        { backup: document.id, format: "json" },
      ]
    ) {
      await expect(call({ action: "start", ...asked }), JSON.stringify(asked)).rejects.toMatchObject({
        code: "usage",
        hint: expect.stringMatching(/holdfast download --at .* --out/) as string,
      });
    }
    expect(await codeOf({ action: "start", format: "bundle" })).toBe("payload_invalid");
    expect(await ask("select count(*)::int as n from backup.downloads")).toEqual(before);
  }, 60_000);

  it("gives a signed call sealed bundles, and rows to nobody but people", async () => {
    const start = { action: "start", backup };
    for (const format of ["csv", "json", "sql"]) {
      await expect(call({ ...start, format, table: "public.notes" }, "signed")).rejects.toMatchObject({
        code: "forbidden",
      });
    }
    const { id } = await made({ format: "csv", table: "public.notes" });
    await expect(call({ action: "link", download: id }, "signed")).rejects.toMatchObject({ code: "forbidden" });
    expect(await audited(id)).not.toContain("download.linked");
    const { download } = await call({ ...start, format: "bundle" }, "signed");
    await eventually("it is ready", async () => (await shown(String(download))).status === "ready" ? true : null);
    const link = await call({ action: "link", download }, "signed") as unknown as Shown;
    const bytes = await fetched(link);
    expect(bytes.includes(Buffer.from("restore-by-hand.mjs"))).toBe(true);
    expect(bytes.includes(Buffer.from('note "2"'))).toBe(false);
  }, 120_000);

  it("lists what lies there without where, and answers with no row", async () => {
    const { downloads } = await call({ action: "list" });
    expect((downloads as unknown[]).length).toBeGreaterThan(1);
    expect(JSON.stringify(downloads)).not.toMatch(/token=|note \\"|object/);
  });
});

const readArchive = `
import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
print(archive.testzip())
lines = archive.read("public.large.jsonl").decode().splitlines()
print(len(lines))
print(lines[0])
`;

describe("a person", () => {
  const post = async (body: unknown, token: string) => {
    const answer = await fetch(`${project().stack.gateway.url}/functions/v1/download`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
    return await answer.json() as Record<string, unknown>;
  };

  it("gets a link with a fresh second factor alone, and stands in the audit as a keyed hash", async () => {
    const start = { action: "start", backup, format: "csv", table: "public.notes" };
    const before = await ask("select count(*)::int as n from backup.downloads");
    const stale = await signedIn(project().stack, { email: admin.email, aal2: true });
    const stranger = await signedIn(project().stack, { aal2: true });
    const single = await signedIn(project().stack, { email: admin.email });
    expect(await post(start, await factorUsedAgo(project().stack, stale, 16 * 60))).toMatchObject({
      code: "second_factor_old",
    });
    expect(await post(start, single.accessToken)).toMatchObject({ code: "second_factor_missing" });
    expect(await post(start, stranger.accessToken)).toMatchObject({ code: "forbidden" });
    expect(await ask("select count(*)::int as n from backup.downloads")).toEqual(before);

    const fresh = await signedIn(project().stack, { email: admin.email, aal2: true });
    const { download } = await post(start, fresh.accessToken);
    await eventually("it is ready", async () => (await shown(String(download))).status === "ready" ? true : null);
    expect(await post({ action: "link", download }, stranger.accessToken)).toMatchObject({ code: "forbidden" });
    expect(await post({ action: "link", download }, fresh.accessToken)).toHaveProperty("url");
    const rows = await ask(
      `select l.action, l.actor = backup.person_hash($2) as theirs from backup.audit_log as l
       where l.subject = $1 and l.action in ('download.begun', 'download.linked') order by l.id`,
      [`download:${download}`, admin.userId],
    );
    expect(rows).toEqual([
      { action: "download.begun", theirs: true },
      { action: "download.linked", theirs: true },
    ]);
    const seen = await fresh.client.from("backup_downloads").select("id, actor, links").eq("id", String(download));
    expect(seen.data).toMatchObject([{ links: 1 }]);
    expect(seen.data?.[0]?.actor).toMatch(/^person:/);
    const others = await stranger.client.from("backup_downloads").select("id");
    expect(others.data).toEqual([]);
  }, 180_000);
});

describe("a link", () => {
  const bucketOf = (fetching: typeof fetch = fetch) =>
    downloadBucket(
      { projectUrl: project().stack.gateway.url, serviceKey: project().stack.gateway.serviceRoleKey },
      { fetch: (input, init) => fetching(input, init), clock: systemClock, random: webCryptoRandom },
    );
  const connect = () =>
    openDatabase({
      url: project().stack.cluster.url("postgres"),
      caPem: readFileSync(project().stack.cluster.caFile, "utf8"),
    }).connect("downloads");

  it(
    "is in the audit of every other session before it is asked for, and never asked for where the audit refuses",
    async () => {
      const { id } = await made({ format: "csv", table: "public.notes" });
      const connection = await connect();
      const seen: string[][] = [];
      const watching = async (input: string | URL | Request, init?: RequestInit) => {
        if (String(input).includes("/object/sign/")) seen.push(await audited(id));
        return await fetch(input, init);
      };
      try {
        await makeLink(connection, bucketOf(watching as typeof fetch), id, null);
        expect(seen).toEqual([["download.begun", "key.used", "download.made", "download.linked"]]);
        // Cut off between the two: the audit has a link that nobody got, never the other way round.
        const dying = (input: string | URL | Request, init?: RequestInit) =>
          String(input).includes("/object/sign/") ? Promise.reject(new Error("cut off")) : fetch(input, init);
        await expect(makeLink(connection, bucketOf(dying as typeof fetch), id, null)).rejects.toMatchObject({
          code: "store_unreachable",
        });
        expect((await audited(id)).filter((action) => action === "download.linked")).toHaveLength(2);
        seen.length = 0;
        await ask(
          `create function public.no_audit() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$;
         create trigger no_audit before insert on backup.audit_log for each row execute function public.no_audit()`,
        );
        try {
          await expect(makeLink(connection, bucketOf(watching as typeof fetch), id, null)).rejects.toThrow();
        } finally {
          await ask("drop trigger no_audit on backup.audit_log; drop function public.no_audit()");
        }
        expect(seen).toEqual([]);
        expect(await ask("select links from backup.downloads where id = $1", [id])).toEqual([{ links: 2 }]);
      } finally {
        await connection.close();
      }
    },
    120_000,
  );

  it("gives nothing without its signature, with another's, forged, or once it has ended", async () => {
    const { stack } = project();
    const [one, other] = [
      await made({ format: "csv", table: "public.notes" }),
      await made({ format: "sql", table: "public.notes" }),
    ];
    const second = await linked(other.id);
    const first = await linked(one.id, { expirySeconds: 6 });
    const url = new URL(first.url ?? "");
    const elsewhere = new URL(second.url ?? "");
    const status = async (address: string, headers: Record<string, string> = {}) =>
      (await fetch(address, { headers })).status;
    expect(await status(url.href)).toBe(200);

    const plain = url.href.replace("/object/sign/", "/object/").split("?")[0] ?? "";
    const open = url.href.replace("/object/sign/", "/object/public/").split("?")[0] ?? "";
    for (const address of [plain, open, url.href.split("?")[0] ?? ""]) expect(await status(address)).toBe(400);
    for (const key of [stack.gateway.anonKey, admin.accessToken]) {
      expect(await status(plain, { authorization: `Bearer ${key}`, apikey: stack.gateway.anonKey })).toBe(400);
    }
    expect(await status(`${elsewhere.origin}${elsewhere.pathname}${url.search}`), "another's signature").toBe(400);
    const path = decodeURIComponent(url.pathname.replace("/storage/v1/object/sign/", ""));
    const forged = await new SignJWT({ url: path }).setProtectedHeader({ alg: "HS256" }).setExpirationTime("1h")
      .sign(new TextEncoder().encode("f".repeat(40)));
    expect(await status(`${url.origin}${url.pathname}?token=${forged}`), "forged").toBe(400);
    const none = `${part({ alg: "none", typ: "JWT" })}.${part({ url: path, exp: 4102444800 })}.`;
    expect(await status(`${url.origin}${url.pathname}?token=${none}`), "unsigned").toBe(400);

    await eventually("the link ends", async () => await status(url.href) === 400 ? true : null, 20_000);
    const told = await (await fetch(url.href)).json() as Record<string, string>;
    expect(told).toMatchObject({ statusCode: "400", error: "InvalidJWT" });
    expect(await objectsIn(one.id), "the file stays for as long as was asked for it").toHaveLength(1);
  }, 120_000);

  const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");

  it("lasts no longer than its format may, however often it is renewed", async () => {
    const { id } = await made({ format: "csv", table: "public.notes", expirySeconds: 60 });
    await linked(id, { expirySeconds: 86_000 });
    expect(await codeOf({ action: "link", download: id, expirySeconds: 86_401 })).toBe("payload_invalid");
    await setClock(project(), 80_000);
    try {
      const connection = await connect();
      try {
        await expect(makeLink(connection, bucketOf(), id, 6_500)).rejects.toMatchObject({ code: "payload_invalid" });
        const { expiresAt } = await makeLink(connection, bucketOf(), id, 600);
        expect(Date.parse(expiresAt)).toBeGreaterThan(Date.now() + 80_000_000);
      } finally {
        await connection.close();
      }
    } finally {
      await setClock(project(), 0);
    }
    await call({ action: "remove", download: id });
  }, 120_000);

  it("is refused where somebody made the bucket public", async () => {
    const { id } = await made({ format: "csv", table: "public.notes" });
    const { supabase } = { supabase: project().stack.cluster.plainUrl("supabase_admin") };
    const { query } = await import("../support/cluster.ts");
    await query(supabase, "update storage.buckets set public = true where id = 'holdfast-downloads'");
    try {
      expect(await codeOf({ action: "link", download: id })).toBe("store_denied");
      expect(await audited(id)).not.toContain("download.linked");
    } finally {
      await query(supabase, "update storage.buckets set public = false where id = 'holdfast-downloads'");
    }
  }, 60_000);
});

describe("its file", () => {
  it("goes when its time is over, by the watchdog's call, and nothing else with it", async () => {
    const [short, long] = [
      await made({ format: "csv", table: "public.notes", expirySeconds: 1 }),
      await made({ format: "csv", table: "public.notes", expirySeconds: 3600 }),
    ];
    await eventually(
      "its time is over",
      async () =>
        (await ask("select from backup.due_downloads() where download = $1", [short.id])).length > 0 ? true : null,
    );
    expect(await codeOf({ action: "link", download: short.id }), "no link to one whose time is over").toBe("run_state");
    await ask("select backup.tick()");
    await eventually("it is gone", async () => (await shown(short.id)).status === "removed" ? true : null);
    expect(await objectsIn(short.id)).toEqual([]);
    expect(await audited(short.id)).toContain("download.removed");
    expect(await objectsIn(long.id)).toHaveLength(1);
    expect((await shown(long.id)).status).toBe("ready");
  }, 120_000);

  it("goes with whoever asks for a download next, where no watchdog runs", async () => {
    const { id } = await made({ format: "csv", table: "public.notes", expirySeconds: 1 });
    await eventually(
      "its time is over",
      async () => (await ask("select from backup.due_downloads() where download = $1", [id])).length > 0 ? true : null,
    );
    const next = await made({ format: "csv", table: "public.notes" });
    expect((await shown(id)).status).toBe("removed");
    expect(await objectsIn(id)).toEqual([]);
    expect(await objectsIn(next.id)).toHaveLength(1);
  }, 120_000);

  it("goes at once when a person says so, and what no download owns goes with a sweep", async () => {
    const { id } = await made({ format: "csv", table: "public.notes" });
    const link = await linked(id);
    expect(await call({ action: "remove", download: id })).toEqual({ download: id, removed: true });
    expect((await fetch(link.url ?? "")).status).toBe(400);
    const { stack } = project();
    const stray = randomUUID();
    await fetch(`${stack.gateway.url}/storage/v1/object/holdfast-downloads/${stray}/000001`, {
      method: "POST",
      headers: { authorization: `Bearer ${stack.gateway.serviceRoleKey}`, apikey: stack.gateway.serviceRoleKey },
      body: "left by a leg that was killed",
    });
    expect(await objectsIn(stray)).toHaveLength(1);
    const [row] = await ask(
      "select id from backup.begin_download($1)",
      [{ backup, format: "csv", file_name: "x", expires_seconds: 60, lease_seconds: 600, by_function: false }],
    );
    const begun = String(row?.["id"]);
    await fetch(`${stack.gateway.url}/storage/v1/object/holdfast-downloads/${begun}/000001`, {
      method: "POST",
      headers: { authorization: `Bearer ${stack.gateway.serviceRoleKey}`, apikey: stack.gateway.serviceRoleKey },
      body: "of one that is being made",
    });
    await call({ action: "sweep" }, "signed");
    expect(await objectsIn(stray)).toEqual([]);
    expect(await objectsIn(begun)).toHaveLength(1);
    await call({ action: "remove", download: begun });
    expect(await objectsIn(begun)).toEqual([]);
  }, 120_000);

  it("that does not go within an hour is an alert with its reason, until it has gone", async () => {
    const { id } = await made({ format: "csv", table: "public.notes" });
    await ask("select backup.end_download($1)", [id]);
    const connection = await openDatabase({
      url: project().stack.cluster.url("postgres"),
      caPem: readFileSync(project().stack.cluster.caFile, "utf8"),
    }).connect("downloads");
    try {
      const stuck = { names: () => Promise.reject(new Error("Storage is away")), remove: () => Promise.resolve() };
      await expect(sweepDownloads(connection, stuck)).rejects.toThrow();
    } finally {
      await connection.close();
    }
    const alerts = () =>
      ask("select status, message from backup.alerts where kind = 'download_not_removed' and subject = $1", [
        `download:${id}`,
      ]);
    await ask("begin; select backup.watch_downloads(); rollback");
    expect(await alerts()).toEqual([]);
    await setClock(project(), 3_700);
    try {
      await ask("select backup.watch_downloads()");
    } finally {
      await setClock(project(), 0);
    }
    expect(await alerts()).toMatchObject([{ status: "open" }]);
    await call({ action: "sweep" }, "signed");
    expect(await alerts()).toMatchObject([{ status: "resolved" }]);
  }, 120_000);
});

describe("the CLI", () => {
  it("prints a link that gives the table, and removes it", async () => {
    const made = await document(["latest", "--table", "public.notes", "--expires", "2m"]) as unknown as Shown & {
      url: string;
      format: string;
    };
    expect(made).toMatchObject({ backup, format: "csv", table: "public.notes", status: "ready" });
    const bytes = Buffer.from(await (await fetch(made.url)).arrayBuffer());
    expect({ bytes: bytes.byteLength, sha256: hashOf(bytes) }).toEqual({ bytes: made.bytes, sha256: made.sha256 });
    const leftMs = Date.parse(made.expiresAt) - Date.now();
    expect(leftMs).toBeGreaterThan(90_000);
    expect(leftMs).toBeLessThan(121_000);
    const listed = await document(["list"]) as unknown as Shown[];
    expect(listed.map(({ id }) => id)).toContain(made.id);
    expect(await document(["remove", made.id])).toEqual({ id: made.id, removed: true });
    expect((await fetch(made.url)).status).toBe(400);
    expect(await audited(made.id)).toEqual([
      "download.begun",
      "key.used",
      "download.made",
      "download.linked",
      "download.end_asked",
      "download.removed",
    ]);
  }, 120_000);

  it("writes a file of this machine for its owner alone, never over another, and tells the audit first", async () => {
    const out = join(folder, "notes.csv");
    const before = await ask("select count(*)::int as n from backup.downloads");
    const made = await document(["latest", "--table", "public.notes", "--format", "csv", "--out", out]);
    const bytes = readFileSync(out);
    expect(made).toMatchObject({
      id: null,
      file: out,
      bytes: bytes.byteLength,
      sha256: hashOf(bytes),
      expiresAt: null,
    });
    expect(bytes.toString()).toBe(await serverCsv("id, body, seen", "public.notes"));
    expect(statSync(out).mode & 0o777).toBe(0o600);
    const taken = await cli(["download", "latest", "--table", "public.large", "--out", out, "--json"], settings());
    expect(taken).toMatchObject({ exit: 2, document: { error: { code: "usage" } } });
    expect(readFileSync(out).equals(bytes)).toBe(true);
    expect(readdirSync(folder).filter((name) => name.endsWith(".part"))).toEqual([]);
    expect(await ask("select count(*)::int as n from backup.downloads")).toEqual(before);
    const [row] = await ask(
      "select subject, detail from backup.audit_log where action = 'download.saved' order by id desc limit 1",
    );
    expect(row).toEqual({
      subject: `backup:${backup}`,
      detail: { table: "public.notes", format: "csv", keys: [project().stack.keys.split(":")[0]] },
    });
  }, 120_000);

  it("takes a table of any name into a folder, under a name that leads nowhere", async () => {
    const made = await document(["latest", "--table", 'public."../ünï/..\\"', "--out", folder]);
    expect(String(made["file"])).toMatch(new RegExp(`^${folder}/public\\.%2E%2E%2F[A-Za-z0-9%.-]+\\.csv$`));
    expect(readFileSync(String(made["file"]), "utf8")).toBe("=1\n=2+3\n");
  }, 60_000);

  it("tells the size beforehand, exactly for a bundle, and makes nothing", async () => {
    const before = await ask("select count(*)::int as n from backup.downloads");
    const plan = await document(["latest", "--dry-run"]);
    expect(await ask("select count(*)::int as n from backup.downloads")).toEqual(before);
    const out = join(folder, "bundle.tar");
    await document(["latest", "--out", out]);
    expect(plan).toMatchObject({ dryRun: true, format: "bundle", isExact: true, bytes: statSync(out).size });
  }, 120_000);

  it("makes a bundle by which Holdfast itself restores, from the file and the keys alone", async () => {
    const out = join(folder, "alone.tar");
    await document(["latest", "--out", out]);
    await run("tar", ["--extract", "--file", out], { cwd: folder });
    const unpacked = join(folder, `holdfast-${backup.slice(0, 8)}`);
    const alone = { BACKUP_STORE: `file://${unpacked}`, BACKUP_KEYS: project().stack.keys };
    const verified = await cli(["verify", "latest", "--json"], alone);
    expect(verified, verified.stderr).toMatchObject({ exit: 0, document: { id: backup, ok: true, problems: [] } });
    expect(existsSync(join(unpacked, "restore-by-hand.mjs"))).toBe(true);
  }, 120_000);

  it.each([
    [["latest", "--expires", "8d"], /at most 168 h/],
    [["latest", "--format", "csv", "--expires", "25h"], /at most 24 h/],
    [["latest", "--expires", "15"], /no span of time/],
    [["latest", "--format", "xls"], /none of bundle, csv, json, sql/],
    [["latest", "--format", "bundle", "--table", "public.notes"], /whole backup/],
    [["latest", "--table", "notes"], /no table with its schema/],
    [["latest", "--out", "/nowhere/at/all"], /no folder/],
    [["remove"], /whole id/],
    [["remove", "../../etc"], /whole id/],
    [[], /no backup and no --at/],
  ])("refuses %j with exit 2", async (args, why) => {
    const result = await cli(["download", ...args], settings());
    expect(result.exit, result.stderr).toBe(2);
    expect(result.stderr).toMatch(why);
  });

  it("says that a table is not in the backup, and leaves nothing", async () => {
    const before = await ask("select count(*)::int as n from backup.downloads");
    const refused = await document(["latest", "--table", "public.nowhere"], 1);
    expect(refused).toMatchObject({ error: { code: "table_not_found" } });
    expect(await ask("select count(*)::int as n from backup.downloads")).toEqual(before);
  }, 60_000);
});

describe("a leg that Storage keeps from its end", () => {
  it("is followed by others, and ends the download when five came to none", async () => {
    const { stack } = project();
    const connection = await openDatabase({
      url: stack.cluster.url("postgres"),
      caPem: readFileSync(stack.cluster.caFile, "utf8"),
    }).connect("downloads");
    const away = {
      prepare: () => Promise.resolve(),
      put: () => Promise.reject(new HoldfastError("store_unreachable", "Storage is away")),
    };
    const leg = async (id: string, bucket: Partial<DownloadBucket>) =>
      await runDownloadLeg(
        {
          open: async () => await project().readDeps(),
          bucket: () => bucket as DownloadBucket,
          log: silentLog,
        },
        connection,
        id,
        { worker: "test", budget: unlimited },
      );
    const begin = async () =>
      (await beginDownload(connection, {
        backup,
        table: "public.notes",
        format: "csv",
        files: null,
        fileName: "x",
        expirySeconds: 60,
        worker: "test",
        leaseSeconds: -1,
        byFunction: true,
      })).id;
    const put: string[] = [];
    const well = { prepare: away.prepare, put: (name: string) => Promise.resolve(void put.push(name)) };
    try {
      const [healed, lost] = [await begin(), await begin()];
      for (let time = 0; time < 5; time++) {
        await setClock(project(), time * 200);
        if (time === 1) await leg(healed, well);
        if (time === 0) await expect(leg(healed, away)).rejects.toMatchObject({ code: "store_unreachable" });
        await expect(leg(lost, away)).rejects.toMatchObject({ code: "store_unreachable" });
        expect((await readDownload(connection, lost)).status).toBe("making");
        // Its lease is not over: nobody else begins.
        await leg(lost, well);
      }
      await setClock(project(), 1000);
      await leg(lost, well);
      expect(await readDownload(connection, healed)).toMatchObject({ status: "ready", error: null });
      expect(put).toEqual([`${healed}/000001`]);
      expect(await readDownload(connection, lost)).toMatchObject({ status: "failed", error: { code: "run_stalled" } });
    } finally {
      await setClock(project(), 0);
      await connection.close();
    }
  }, 120_000);
});

describe("legs that have time for one step each", () => {
  const spent = { spendText: () => {}, spendCalls: () => {}, spent: () => true };

  /** The notes as CSV into a bucket in memory, leg by leg. */
  async function scene(connection: Connection) {
    const objects = new Map<string, Buffer>();
    const bucket = {
      prepare: () => Promise.resolve(),
      put: (name: string, bytes: Uint8Array) => Promise.resolve(void objects.set(name, Buffer.from(bytes))),
      read: (name: string) => Promise.resolve(objects.get(name) ?? Buffer.from("nothing")),
    };
    const asked = { backup, table: "public.notes", format: "csv" } as const;
    const lease = await beginDownload(connection, {
      ...asked,
      fileName: "x",
      expirySeconds: 60,
      worker: "test",
      leaseSeconds: 60,
      byFunction: false,
    });
    const read = await project().readDeps();
    const leg = async () => {
      const contents = await openContents(read, connection, { ...asked, table: namedTable(asked.table) }, {
        ahead: false,
      });
      const options = { budget: spent, leaseSeconds: 60, partBytes: functionPartBytes };
      const row = await readDownload(connection, lease.id);
      return await layOut({ connection, bucket, log: silentLog }, lease, row, contents, options);
    };
    return { id: lease.id, objects, leg };
  }

  async function connected(act: (connection: Connection) => Promise<void>): Promise<void> {
    const { cluster } = project().stack;
    const caPem = readFileSync(cluster.caFile, "utf8");
    const connection = await openDatabase({ url: cluster.url("postgres"), caPem }).connect("downloads");
    try {
      await act(connection);
    } finally {
      await connection.close();
    }
  }

  it("make one part of a small table, whatever a leg that was killed left behind it", async () => {
    await connected(async (connection) => {
      const { id, objects, leg } = await scene(connection);
      let legs = 1;
      for (; await leg() === "rest"; legs++) {
        for (const [name, bytes] of objects) objects.set(name, Buffer.concat([bytes, Buffer.from("not recorded")]));
      }
      expect(legs).toBeGreaterThan(2);
      const whole = await serverCsv("id, body, seen", "public.notes");
      expect([...objects].map(([name, bytes]) => [name, bytes.toString()])).toEqual([[`${id}/000001`, whole]]);
      const { parts, bytes } = await readDownload(connection, id);
      const length = Buffer.byteLength(whole);
      expect({ parts, bytes }).toEqual({
        parts: [{ object: `${id}/000001`, bytes: length, sha256: hashOf(Buffer.from(whole)) }],
        bytes: length,
      });
    });
  });

  it("go no further where the bucket does not give back what was put", async () => {
    await connected(async (connection) => {
      const { objects, leg } = await scene(connection);
      expect(await leg()).toBe("rest");
      for (const bytes of objects.values()) bytes.reverse();
      await expect(leg()).rejects.toMatchObject({ code: "object_damaged" });
    });
  });

  it("never lose a part: the database refuses to forget or to shorten one", async () => {
    await connected(async (connection) => {
      const { id, leg } = await scene(connection);
      await leg();
      const { parts } = await readDownload(connection, id);
      const record = (kept: number, put: unknown) =>
        ask(
          "select backup.record_download(d.id, d.token, $2, $3, null, interval '1 minute') from backup.downloads as d where d.id = $1",
          [
            id,
            kept,
            JSON.stringify(put),
          ],
        );
      const shorter = [{ ...parts[0], bytes: (parts[0]?.bytes ?? 0) - 1 }];
      for (const [kept, put] of [[0, []], [0, shorter], [2, parts], [-1, parts]] as const) {
        await expect(record(kept, put), `${kept} ${JSON.stringify(put)}`).rejects.toMatchObject({ code: "22023" });
      }
      expect((await readDownload(connection, id)).parts).toEqual(parts);
    });
  });
});

describe("beginning", () => {
  it("is refused by the database itself for a time that is too long, whoever asks", async () => {
    const connection = await openDatabase({
      url: project().stack.cluster.url("postgres"),
      caPem: readFileSync(project().stack.cluster.caFile, "utf8"),
    }).connect("downloads");
    const request = {
      backup,
      table: null,
      files: null,
      fileName: "x",
      worker: "test",
      leaseSeconds: 1,
      byFunction: false,
    } as const;
    try {
      for (const [format, seconds] of [["csv", 86_401], ["sql", 604_800], ["bundle", 604_801], ["json", 0]] as const) {
        await expect(beginDownload(connection, { ...request, format, expirySeconds: seconds })).rejects.toMatchObject({
          code: "payload_invalid",
        });
      }
    } finally {
      await connection.close();
    }
  });
});
