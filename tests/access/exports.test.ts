/** Exports of one's own data: who gets one, what they get, and what is left of it. On the embedded stack under the platform's limits. */
import { Buffer } from "node:buffer";
import { createHash, randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { callFunction } from "../../src/cli/function_client.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { type ExportDocument, exportDocument } from "../../src/shared/export/document_format.ts";
import { documentFacts, verifySignature } from "../../src/shared/export/signature.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { cli } from "../integration/cli_fixture.ts";
import { query } from "../support/cluster.ts";
import { factorUsedAgo, type SignedIn, signedIn } from "../support/signed_in.ts";
import { eventually, type Project, setClock, useProject } from "../support/stack.ts";

/** A provider of mail by HTTPS, on loopback. */
const mails: { readonly to: readonly string[]; readonly subject: string; readonly text: string }[] = [];
const mailApi = createServer((request, response) => {
  const parts: Buffer[] = [];
  request.on("data", (part: Buffer) => parts.push(part));
  request.on("end", () => {
    mails.push(JSON.parse(Buffer.concat(parts).toString()));
    response.end("{}");
  });
});
await new Promise<void>((resolve) => mailApi.listen(0, "127.0.0.1", resolve));

const project = useProject({
  testing: true,
  environment: {
    BACKUP_LOG_LEVEL: "debug",
    BACKUP_PRIVATE_CHANNELS: "1",
    BACKUP_MAIL_API_URL: `http://127.0.0.1:${(mailApi.address() as AddressInfo).port}/emails`,
    BACKUP_MAIL_API_KEY: "key-of-the-mail-api",
  },
}, fill);
const folder = mkdtempSync(join(tmpdir(), "holdfast-exports-"));
const bucket = "voice-notes";
let admin: SignedIn;
let anna: SignedIn;
let bob: SignedIn;

async function fill({ query }: Project): Promise<void> {
  await query(
    `create table public.notes (id int primary key, user_id uuid not null references auth.users, body text);
     comment on table public.notes is 'What people write.';
     create table public.letters (id int primary key, sender uuid references auth.users, reader uuid references auth.users, body text);
     insert into storage.buckets (id, name, public) values ('${bucket}', '${bucket}', false);
     update backup.settings set value = 'exports@example.org' where name = 'mail_from';
     update backup.settings set value = 'https://app.example.org/me' where name = 'export_page'`,
  );
}

beforeAll(async () => {
  [admin, anna, bob] = await Promise.all([signedIn(project().stack, { aal2: true }), person(), person()]);
  await ask("insert into backup.admins (user_id) values ($1)", [admin.userId]);
  await ask(
    `insert into public.notes select i, case i % 2 when 0 then $1::uuid else $2::uuid end, 'note ' || i from generate_series(1, 60) as i`,
    [anna.userId, bob.userId],
  );
  await ask("insert into public.letters values (1, $1, $2, 'to Bob'), (2, $1, $1, 'to myself')", [
    anna.userId,
    bob.userId,
  ]);
  await upload(anna, "one.webm", Buffer.alloc(70_000, 1));
  // Of more than a part.
  await upload(anna, "Gespräch/две.webm", webCryptoRandom(40_000).slice(), 9 * 1024 * 1024);
  await upload(bob, "his.webm", Buffer.from("Bob's"));
}, 180_000);

afterAll(() => {
  mailApi.close();
  rmSync(folder, { recursive: true, force: true });
});

const ask = (text: string, values: readonly unknown[] = []) => project().query(text, values);
const person = () => signedIn(project().stack);
const hashOf = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const contents = new Map<string, Buffer>();

/** Into the bucket as this person's, repeated up to `size`. Names that Storage refuses as keys are renamed in the row. */
async function upload(who: SignedIn, name: string, bytes: Uint8Array, size = bytes.byteLength): Promise<void> {
  const { url, serviceRoleKey } = project().stack.gateway;
  const whole = Buffer.alloc(size);
  for (let at = 0; at < size; at += bytes.byteLength) {
    whole.set(bytes.subarray(0, Math.min(bytes.byteLength, size - at)), at);
  }
  const key = `${who.userId}/${name.replace(/[^A-Za-z0-9./]/g, "_")}`;
  const answer = await fetch(`${url}/storage/v1/object/${bucket}/${key}`, {
    method: "POST",
    headers: { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}`, "content-type": "audio/webm" },
    body: whole,
  });
  expect(answer.status, await answer.text()).toBe(200);
  await query(
    project().stack.cluster.plainUrl("supabase_admin"),
    "update storage.objects set owner_id = $1::uuid::text, owner = $1::uuid where bucket_id = $2 and name = $3",
    [who.userId, bucket, key],
  );
  contents.set(key, whole);
}

interface Linked {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly url: string;
}
interface Shown {
  readonly id: string;
  readonly user: string;
  readonly status: string;
  readonly rows: number;
  readonly mail: string | null;
  readonly expiresAt: string;
  readonly url?: string;
  readonly document: readonly Linked[];
  readonly files: readonly Linked[];
  readonly error: { readonly code: string } | null;
}

/** Errors: what the function answers, with its status. */
async function call(who: { readonly accessToken: string }, request: Readonly<Record<string, unknown>>) {
  const answer = await fetch(`${project().stack.gateway.url}/functions/v1/export`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${who.accessToken}` },
    body: JSON.stringify(request),
  });
  const document = await answer.json() as Record<string, unknown>;
  if (answer.ok) return document;
  throw Object.assign(new Error(JSON.stringify(document)), document, { status: answer.status });
}

async function signed(request: Readonly<Record<string, unknown>>) {
  const { stack } = project();
  const settings = { need: () => stack.gateway.url, variable: () => stack.workerSecret };
  const context = { settings, clock: systemClock, random: webCryptoRandom, signal: new AbortController().signal };
  return await callFunction(context as unknown as Parameters<typeof callFunction>[0], "export", request);
}

const codeOf = async (who: SignedIn, request: Readonly<Record<string, unknown>>) =>
  await call(who, request).then(() => "none", (error: { code: string }) => error.code);

/** Asked for, and made: the watchdog is called all the time, and the clock goes past a lease where a leg was lost. */
async function made(who: SignedIn, request: Readonly<Record<string, unknown>> = { action: "request" }, lost = false) {
  const { export: id } = await call(who, request);
  try {
    if (lost) await eventually("a leg is lost", async () => (await legsLost(String(id))) ? true : null, 60_000);
    return await eventually("the export is made", async () => {
      if (lost) await setClock(project(), 200);
      await ask("select backup.tick()");
      const now = await call(who, { action: "status", export: id }) as unknown as Shown;
      if (["queued", "making"].includes(now.status)) return null;
      return now;
    }, 120_000);
  } finally {
    if (lost) await setClock(project(), 0);
  }
}

/** Its worker holds a lease, and its isolate was killed. */
const legsLost = async (id: string) =>
  (await ask("select from backup.exports where id = $1 and (worker is not null or status = 'ready')", [id])).length > 0;

const linked = async (who: SignedIn, id: string, more: Readonly<Record<string, unknown>> = {}) =>
  await call(who, { action: "link", export: id, ...more }) as unknown as Shown;

async function fetched(parts: readonly Linked[]): Promise<Buffer> {
  const found: Buffer[] = [];
  for (const { url, bytes, sha256 } of parts) {
    const answer = await fetch(url);
    expect(answer.status).toBe(200);
    const part = Buffer.from(await answer.arrayBuffer());
    expect({ bytes: part.byteLength, sha256: hashOf(part) }).toEqual({ bytes, sha256 });
    found.push(part);
  }
  return Buffer.concat(found);
}

/** Held against its schema, its signature, the database and Storage. */
async function proven(shown: Shown): Promise<ExportDocument> {
  expect(shown).toMatchObject({ status: "ready", error: null });
  const bytes = await fetched(shown.document);
  const document = exportDocument.parse(JSON.parse(bytes.toString()));
  const read = (from: number, to: number) => Promise.resolve(bytes.subarray(from, to));
  const { id, install } = await documentFacts(read, bytes.byteLength);
  await verifySignature(parseKeyRing(project().stack.keys), { id, install, bytes: bytes.byteLength, read });
  const own = (await ask("select id from public.notes where user_id = $1 order by id", [shown.user])).map(({ id }) =>
    id
  );
  const notes = document.tables.find(({ table }) => table === "notes")?.rows.map(({ row }) => row["id"]) ?? [];
  expect(notes).toEqual(own);
  const files = await ask("select name from storage.objects where bucket_id = $1 and owner_id = $2 order by name", [
    bucket,
    shown.user,
  ]);
  expect(document.files.map(({ name }) => name)).toEqual(files.map(({ name }) => name));
  for (const file of document.files) {
    const parts = shown.files.filter(({ path }) => path === file.path || path.startsWith(`${file.path}.0`));
    expect(hashOf(await fetched(parts)), file.name).toBe(hashOf(contents.get(file.name) ?? Buffer.from("none")));
    expect(file.parts).toEqual(parts.map(({ bytes, sha256 }) => ({ bytes, sha256 })));
  }
  return document;
}

const objectsOf = async (id: string) =>
  (await ask("select name from storage.objects where bucket_id = 'data-exports' and name like $1", [
    `holdfast/${id}/%`,
  ]))
    .map(({ name }) => String(name));
const audited = async (id: string) =>
  (await ask("select action from backup.audit_log where subject = $1 order by id", [`export:${id}`]))
    .map(({ action }) => String(action));
/** As if a day had gone by: orders of before count no more. */
const forget = async (who: SignedIn) =>
  await ask("update backup.exports set created_at = created_at - interval '25 hours' where user_id = $1", [who.userId]);

describe("whoever is signed in, without a second factor", () => {
  it("gets their own rows and files by a link, is told by mail, and stands in the audit before each", async () => {
    const done = await made(anna);
    const link = await linked(anna, done.id);
    const document = await proven(link);
    expect(document.user).toBe(anna.userId);
    expect(document.leftOut.shared).toEqual([{ schema: "public", table: "letters", rowCount: 1 }]);
    expect(document.tables.find(({ table }) => table === "notes")?.description).toBe("What people write.");
    expect(link.files.length, "one of 9 MiB comes in parts").toBe(3);
    await eventually("the mail is sent", async () => {
      await ask("select backup.tick()");
      return (await call(anna, { action: "status", export: done.id }))["mail"] === "sent" ? true : null;
    });
    expect(mails.filter(({ to }) => to.includes(anna.email))).toMatchObject([{
      subject: "Your data is ready to download",
    }]);
    expect(mails[0]?.text).toContain("https://app.example.org/me");
    expect(mails[0]?.text).not.toContain("token=");
    const told = await audited(done.id);
    expect(told.slice(0, 2)).toEqual(["export.requested", "export.made"]);
    expect(told.slice(2).sort()).toEqual(["export.linked", "export.told"]);
    const [row] = await ask(
      "select actor = backup.person_hash($1) as theirs from backup.audit_log where action = 'export.requested' and subject = $2",
      [anna.userId, `export:${done.id}`],
    );
    expect(row).toEqual({ theirs: true });
    expect(await ask("select from backup.export_pieces")).toEqual([]);
  }, 120_000);

  it("sees their own progress in my_exports, and nobody else's", async () => {
    const seen = await anna.client.from("my_exports").select("id, status, rows, files_done");
    expect(seen.error).toBeNull();
    expect(seen.data).toMatchObject([{ status: "ready", files_done: 2 }]);
    expect((await bob.client.from("my_exports").select("id")).data).toEqual([]);
    expect((await anna.client.from("backup_exports").select("id")).data).toEqual([]);
  });

  it("gets nothing of another's: no order, no look, no link, no end, whether it is there or not", async () => {
    const [{ id } = {}] = await ask("select id from backup.exports where user_id = $1", [anna.userId]);
    expect(await codeOf(bob, { action: "request", user: anna.userId })).toBe("forbidden");
    for (const action of ["status", "link", "cancel"]) {
      expect(await codeOf(bob, { action, export: id }), action).toBe("forbidden");
      expect(await codeOf(bob, { action, export: randomUUID() }), action).toBe("forbidden");
    }
    expect(await call(bob, { action: "list" })).toEqual({ exports: [] });
    await ask("delete from backup.pauses");
  });

  it("asks a hundred times: one is made at a time, three a day, and then says when the next", async () => {
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => call(bob, { action: "request" }).catch((error: { code: string }) => error)),
    );
    const ids = new Set(answers.flatMap((one) => "export" in one ? [one.export] : []));
    expect(ids.size).toBe(1);
    await made(bob);
    await made(bob);
    await made(bob);
    const refused = await call(bob, { action: "request" }).catch((error: unknown) => error) as {
      code: string;
      status: number;
      hint: string;
    };
    expect(refused).toMatchObject({ code: "export_too_often", status: 429 });
    expect(refused.hint).toMatch(/from \d{4}-\d\d-\d\d \d\d:\d\d UTC on/);
    for (let time = 0; time < 92; time++) expect(await codeOf(bob, { action: "request" })).toBe("export_too_often");
    expect(await ask("select count(*)::int as n from backup.exports where user_id = $1", [bob.userId])).toEqual([{
      n: 3,
    }]);
  }, 180_000);
});

describe("others", () => {
  it("an administrator with a fresh second factor has one made for anybody, and no other administrator", async () => {
    await forget(bob);
    const done = await made(admin, { action: "request", user: bob.userId });
    await proven(await linked(admin, done.id));
    expect(await codeOf(admin, { action: "request", user: randomUUID() })).toBe("user_not_found");
    const again = await signedIn(project().stack, { email: admin.email, aal2: true });
    const stale = { ...again, accessToken: await factorUsedAgo(project().stack, again, 16 * 60) };
    expect(await codeOf(stale, { action: "request", user: bob.userId })).toBe("second_factor_old");
    const alone = await signedIn(project().stack, { email: admin.email });
    expect(await codeOf(alone, { action: "link", export: done.id })).toBe("second_factor_missing");
    await ask("delete from backup.pauses");
  }, 120_000);

  it("the worker secret orders none, lists none and opens none", async () => {
    const [{ id } = {}] = await ask("select id from backup.exports where status = 'ready' limit 1");
    for (
      const request of [{ action: "request", user: anna.userId }, { action: "list" }, { action: "link", export: id }]
    ) {
      await expect(signed(request)).rejects.toMatchObject({ code: "forbidden" });
    }
    expect(await codeOf(admin, { action: "leg", export: id })).toBe("forbidden");
  });

  it("nobody reads the bucket without a link, and no link is guessed or changed", async () => {
    const [{ id } = {}] = await ask("select id from backup.exports where status = 'ready' and user_id = $1", [
      anna.userId,
    ]);
    const { url = "" } = await linked(anna, String(id), { expirySeconds: 1 });
    const name = `holdfast/${id}/d000001`;
    expect((await anna.client.storage.from("data-exports").download(name)).error).not.toBeNull();
    expect((await anna.client.storage.from("data-exports").list(`holdfast/${id}`)).data).toEqual([]);
    const other = new URL(url);
    const token = other.searchParams.get("token") ?? "";
    other.searchParams.set("token", `${token.slice(0, -6)}AAAAAA`);
    expect((await fetch(other)).status).toBe(400);
    expect((await fetch(url.replace("d000001", "f000001-000001"))).status).toBe(400);
    expect(await codeOf(anna, { action: "link", export: id, expirySeconds: 8 * 24 * 3600 })).toBe("payload_invalid");
    await eventually("the link has ended", async () => (await fetch(url)).status === 400 ? true : null);
  }, 60_000);
});

describe("what happens meanwhile", () => {
  it.each(["export.laid", "export.copied", "export.put"])(
    "a kill at %s: another leg goes on, and all of it is right",
    async (line) => {
      await forget(anna);
      const kill = await project().killAt(`step:${line}`, 1, "export");
      const begun = call(anna, { action: "request" });
      const { export: id } = await begun;
      await kill.fired();
      const done = await made(anna, { action: "request" }, true);
      expect(done.id).toBe(id);
      await proven(await linked(anna, done.id));
    },
    120_000,
  );

  it("the bucket is removed: what is gone is put again", async () => {
    await forget(anna);
    const kill = await project().killAt("step:export.copied", 1, "export");
    await call(anna, { action: "request" });
    await kill.fired();
    const { url, serviceRoleKey } = project().stack.gateway;
    const headers = { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}` };
    for (const what of ["bucket/data-exports/empty", "bucket/data-exports"]) {
      const method = what.endsWith("empty") ? "POST" : "DELETE";
      expect((await fetch(`${url}/storage/v1/${what}`, { method, headers })).status).toBe(200);
    }
    await proven(await linked(anna, (await made(anna, { action: "request" }, true)).id));
  }, 120_000);

  it("the person is deleted: it fails, and nothing is left of it", async () => {
    const gone = await person();
    const kill = await project().killAt("step:export.laid", 1, "export");
    const { export: id } = await call(gone, { action: "request" });
    await kill.fired();
    await query(project().stack.cluster.plainUrl("supabase_admin"), "delete from auth.users where id = $1", [
      gone.userId,
    ]);
    await setClock(project(), 200);
    try {
      await eventually("it has failed and is removed", async () => {
        await ask("select backup.tick()");
        const [row] = await ask("select status, error_code from backup.exports where id = $1", [id]);
        return row?.["status"] === "removed" && row["error_code"] === "user_not_found" ? true : null;
      }, 60_000);
    } finally {
      await setClock(project(), 0);
    }
    expect(await objectsOf(String(id))).toEqual([]);
    expect(await ask("select from backup.export_pieces")).toEqual([]);
  }, 90_000);

  it("a file that goes, and one that changes: told, or as it is then", async () => {
    const carl = await person();
    await upload(carl, "goes.webm", Buffer.from("goes"));
    await upload(carl, "changes.webm", Buffer.from("before"));
    const kill = await project().killAt("step:export.laid", 1, "export");
    await call(carl, { action: "request" });
    await kill.fired();
    const { url, serviceRoleKey } = project().stack.gateway;
    const headers = { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}` };
    await fetch(`${url}/storage/v1/object/${bucket}/${carl.userId}/goes.webm`, { method: "DELETE", headers });
    await fetch(`${url}/storage/v1/object/${bucket}/${carl.userId}/changes.webm`, {
      method: "POST",
      headers: { ...headers, "x-upsert": "true", "content-type": "audio/webm" },
      body: "after, and longer",
    });
    const link = await linked(carl, (await made(carl, { action: "request" }, true)).id);
    const document = exportDocument.parse(JSON.parse((await fetched(link.document)).toString()));
    expect(document.files.map(({ name, state, why }) => [name.split("/")[1], state, why])).toEqual([
      ["changes.webm", "copied", null],
      ["goes.webm", "missing", "it was removed while the export was made"],
    ]);
    expect((await fetched(link.files)).toString()).toBe("after, and longer");
  }, 120_000);
});

describe("the end", () => {
  it("comes after seven days: the links end, the objects go, what an app put into the bucket stays", async () => {
    await forget(anna);
    const done = await made(anna);
    const { url = "" } = await linked(anna, done.id);
    const { url: gateway, serviceRoleKey } = project().stack.gateway;
    const put = await fetch(`${gateway}/storage/v1/object/data-exports/of-the-app.txt`, {
      method: "POST",
      headers: { apikey: serviceRoleKey, authorization: `Bearer ${serviceRoleKey}` },
      body: "not ours",
    });
    expect(put.status).toBe(200);
    await setClock(project(), 7 * 24 * 3600 + 10);
    try {
      await ask("select backup.watch_exports()");
    } finally {
      await setClock(project(), 0);
    }
    // The function's own clock is of today: the sweep asks the database, so it is called with the row's time over.
    await ask(
      "update backup.exports set ready_at = ready_at - interval '8 days', expires_at = expires_at - interval '8 days' where id = $1",
      [done.id],
    );
    expect(await codeOf(anna, { action: "link", export: done.id })).toBe("run_state");
    await eventually("it is gone", async () => {
      await ask("select backup.tick()");
      return (await call(anna, { action: "status", export: done.id }))["status"] === "removed" ? true : null;
    });
    expect(await objectsOf(done.id)).toEqual([]);
    expect((await fetch(url)).status).toBe(400);
    expect(await audited(done.id)).toContain("export.removed");
    expect(await ask("select name from storage.objects where bucket_id = 'data-exports' and name = 'of-the-app.txt'"))
      .toHaveLength(1);
    expect(await ask("select from backup.export_files where export_id = $1", [done.id])).toEqual([]);
  }, 120_000);

  it("comes at once when its person says so", async () => {
    await forget(anna);
    const done = await made(anna);
    expect(await call(anna, { action: "cancel", export: done.id })).toEqual({ export: done.id, removed: true });
    expect(await objectsOf(done.id)).toEqual([]);
  }, 90_000);
});

describe("the CLI", () => {
  const settings = () => {
    const { stack } = project();
    return {
      BACKUP_DB_URL: stack.cluster.url("postgres"),
      BACKUP_DB_CA: stack.cluster.caFile,
      BACKUP_KEYS: stack.keys,
      SUPABASE_URL: stack.gateway.url,
      SUPABASE_SERVICE_ROLE_KEY: stack.gateway.serviceRoleKey,
    };
  };

  it("writes a folder for its owner alone, which it verifies, lists, and tells of changes", async () => {
    const result = await cli(["export", anna.email, "--out", folder, "--json"], settings());
    expect(result.exit, result.stderr + result.stdout).toBe(0);
    const told = result.document as Record<string, unknown>;
    const path = String(told["folder"]);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    const bytes = readFileSync(join(path, "export.json"));
    expect(told).toMatchObject({
      user: anna.userId,
      bytes: bytes.byteLength,
      sha256: hashOf(bytes),
      files: 2,
      missing: [],
    });
    const document = exportDocument.parse(JSON.parse(bytes.toString()));
    for (const file of document.files) {
      expect(hashOf(readFileSync(join(path, file.path)))).toBe(hashOf(contents.get(file.name) ?? Buffer.from("none")));
    }
    expect(await audited(String(told["id"]))).toEqual([
      "export.requested",
      "export.made",
      "export.downloaded",
      "export.removed",
    ]);
    const verified = await cli(["export", "verify", join(path, "export.json"), "--json"], settings());
    expect(verified.document).toMatchObject({ ok: true, user: anna.userId });
    writeFileSync(join(path, "export.json"), bytes.toString().replace("note 2", "note 3"));
    const changed = await cli(["export", "verify", join(path, "export.json"), "--json"], settings());
    expect(changed).toMatchObject({ exit: 3, document: { error: { code: "export_unsigned" } } });
    const listed = await cli(["export", "list", "--all", "--json"], settings());
    expect((listed.document as { id: string }[]).map(({ id }) => id)).toContain(told["id"]);
  }, 90_000);

  it("leaves nothing half made where a person is unknown or Storage cannot be read", async () => {
    const out = mkdtempSync(join(folder, "none-"));
    const unknown = await cli(["export", randomUUID(), "--out", out, "--json"], settings());
    expect(unknown).toMatchObject({ exit: 1, document: { error: { code: "user_not_found" } } });
    const { SUPABASE_SERVICE_ROLE_KEY: _, ...without } = settings();
    const closed = await cli(["export", anna.userId, "--out", out, "--json"], without);
    expect(closed).toMatchObject({ exit: 2, document: { error: { code: "setting_missing" } } });
    expect(readdirSync(out)).toEqual([]);
  }, 60_000);
});
