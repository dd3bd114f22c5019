/** Exports of one's own data: who gets one, what they get, and what is left of it. */
import { Buffer } from "node:buffer";
import { randomUUID } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { callFunction } from "../../src/cli/function_client.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { exportDocument } from "../../src/shared/export/document_format.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { cli } from "../integration/cli_fixture.ts";
import { factorUsedAgo, signedIn } from "../support/signed_in.ts";
import { eventually, setClock } from "../support/stack.ts";
import { hashOf, useExportWorld } from "./exports_world.ts";

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

const world = useExportWorld({
  BACKUP_PRIVATE_CHANNELS: "1",
  BACKUP_MAIL_API_URL: `http://127.0.0.1:${(mailApi.address() as AddressInfo).port}/emails`,
  BACKUP_MAIL_API_KEY: "key-of-the-mail-api",
});
const {
  project,
  people,
  contents,
  ask,
  call,
  codeOf,
  made,
  linked,
  proven,
  objectsOf,
  audited,
  forget,
} = world;
const folder = mkdtempSync(join(tmpdir(), "holdfast-exports-"));

afterAll(() => {
  mailApi.close();
  rmSync(folder, { recursive: true, force: true });
});

async function signed(request: Readonly<Record<string, unknown>>) {
  const { stack } = project();
  const settings = { need: () => stack.gateway.url, variable: () => stack.workerSecret };
  const context = { settings, clock: systemClock, random: webCryptoRandom, signal: new AbortController().signal };
  return await callFunction(context as unknown as Parameters<typeof callFunction>[0], "export", request);
}

describe("whoever is signed in, without a second factor", () => {
  it("gets their own rows and files by a link, is told by mail, and stands in the audit before each", async () => {
    const done = await made(people.anna);
    const link = await linked(people.anna, done.id);
    const document = await proven(link);
    expect(document.user).toBe(people.anna.userId);
    expect(document.leftOut.shared).toEqual([{ schema: "public", table: "letters", rowCount: 1 }]);
    expect(document.tables.find(({ table }) => table === "notes")?.description).toBe("What people write.");
    expect(link.files.length, "one of 9 MiB comes in parts").toBe(3);
    await eventually("the mail is sent", async () => {
      await ask("select backup.tick()");
      return (await call(people.anna, { action: "status", export: done.id }))["mail"] === "sent" ? true : null;
    });
    expect(mails.filter(({ to }) => to.includes(people.anna.email))).toMatchObject([{
      subject: "Your data is ready to download",
    }]);
    expect(mails[0]?.text).toContain("https://app.example.org/me");
    expect(mails[0]?.text).not.toContain("token=");
    const told = await audited(done.id);
    expect(told.slice(0, 2)).toEqual(["export.requested", "export.made"]);
    expect(told.slice(2).sort()).toEqual(["export.linked", "export.told"]);
    const [row] = await ask(
      "select actor = backup.person_hash($1) as theirs from backup.audit_log where action = 'export.requested' and subject = $2",
      [people.anna.userId, `export:${done.id}`],
    );
    expect(row).toEqual({ theirs: true });
    expect(await ask("select from backup.export_pieces")).toEqual([]);
  }, 120_000);

  it("sees their own progress in my_exports, and nobody else's", async () => {
    const seen = await people.anna.client.from("my_exports").select("id, status, rows, files_done");
    expect(seen.error).toBeNull();
    expect(seen.data).toMatchObject([{ status: "ready", files_done: 2 }]);
    expect((await people.bob.client.from("my_exports").select("id")).data).toEqual([]);
    expect((await people.anna.client.from("backup_exports").select("id")).data).toEqual([]);
  });

  it("gets nothing of another's: no order, no look, no link, no end, whether it is there or not", async () => {
    const [{ id } = {}] = await ask("select id from backup.exports where user_id = $1", [people.anna.userId]);
    expect(await codeOf(people.bob, { action: "request", user: people.anna.userId })).toBe("forbidden");
    for (const action of ["status", "link", "cancel"]) {
      expect(await codeOf(people.bob, { action, export: id }), action).toBe("forbidden");
      expect(await codeOf(people.bob, { action, export: randomUUID() }), action).toBe("forbidden");
    }
    expect(await call(people.bob, { action: "list" })).toEqual({ exports: [] });
    await ask("delete from backup.pauses");
  });

  it("asks a hundred times: one is made at a time, three a day, and then says when the next", async () => {
    const answers = await Promise.all(
      Array.from(
        { length: 8 },
        () => call(people.bob, { action: "request" }).catch((error: { code: string }) => error),
      ),
    );
    const ids = new Set(answers.flatMap((one) => "export" in one ? [String(one.export)] : []));
    expect(ids.size).toBeGreaterThan(0);
    expect(
      await ask("select count(*)::int as n from backup.exports where user_id = $1 and status in ('queued', 'making')", [
        people.bob.userId,
      ]),
    ).not.toEqual([{ n: 2 }]);
    while (ids.size < 3) ids.add((await made(people.bob)).id);
    // While one is under way, whoever asks is given that one.
    await eventually("none is under way", async () => {
      const [left] = await ask(
        "select count(*)::int as n from backup.exports where user_id = $1 and status in ('queued', 'making')",
        [people.bob.userId],
      );
      return left?.["n"] === 0 ? true : null;
    });
    const refused = await call(people.bob, { action: "request" }).catch((error: unknown) => error) as {
      code: string;
      status: number;
      hint: string;
    };
    expect(refused).toMatchObject({ code: "export_too_often", status: 429 });
    expect(refused.hint).toMatch(/from \d{4}-\d\d-\d\d \d\d:\d\d UTC on/);
    for (let time = 0; time < 92; time++) {
      expect(await codeOf(people.bob, { action: "request" })).toBe("export_too_often");
    }
    expect(await ask("select count(*)::int as n from backup.exports where user_id = $1", [people.bob.userId])).toEqual([
      {
        n: 3,
      },
    ]);
  }, 180_000);
});

describe("others", () => {
  it("an administrator with a fresh second factor has one made for anybody, and no other administrator", async () => {
    await forget(people.bob);
    const done = await made(people.admin, { action: "request", user: people.bob.userId });
    await proven(await linked(people.admin, done.id));
    expect(await codeOf(people.admin, { action: "request", user: randomUUID() })).toBe("user_not_found");
    const again = await signedIn(project().stack, { email: people.admin.email, aal2: true });
    const stale = { ...again, accessToken: await factorUsedAgo(project().stack, again, 16 * 60) };
    expect(await codeOf(stale, { action: "request", user: people.bob.userId })).toBe("second_factor_old");
    const alone = await signedIn(project().stack, { email: people.admin.email });
    expect(await codeOf(alone, { action: "link", export: done.id })).toBe("second_factor_missing");
    await ask("delete from backup.pauses");
  }, 120_000);

  it("the worker secret orders none, lists none and opens none", async () => {
    const [{ id } = {}] = await ask("select id from backup.exports where status = 'ready' limit 1");
    for (
      const request of [{ action: "request", user: people.anna.userId }, { action: "list" }, {
        action: "link",
        export: id,
      }]
    ) {
      await expect(signed(request)).rejects.toMatchObject({ code: "forbidden" });
    }
    expect(await codeOf(people.admin, { action: "leg", export: id })).toBe("forbidden");
  });

  it("nobody reads the bucket without a link, and no link is guessed or changed", async () => {
    const [{ id } = {}] = await ask("select id from backup.exports where status = 'ready' and user_id = $1", [
      people.anna.userId,
    ]);
    const { url = "" } = await linked(people.anna, String(id), { expirySeconds: 1 });
    const name = `holdfast/${id}/d000001`;
    expect((await people.anna.client.storage.from("data-exports").download(name)).error).not.toBeNull();
    expect((await people.anna.client.storage.from("data-exports").list(`holdfast/${id}`)).data).toEqual([]);
    const other = new URL(url);
    const token = other.searchParams.get("token") ?? "";
    other.searchParams.set("token", `${token.slice(0, -6)}AAAAAA`);
    expect((await fetch(other)).status).toBe(400);
    expect((await fetch(url.replace("d000001", "f000001-000001"))).status).toBe(400);
    expect(await codeOf(people.anna, { action: "link", export: id, expirySeconds: 8 * 24 * 3600 })).toBe(
      "payload_invalid",
    );
    await eventually("the link has ended", async () => (await fetch(url)).status === 400 ? true : null);
  }, 60_000);
});

describe("the end", () => {
  it("comes after seven days: the links end, the objects go, what an app put into the bucket stays", async () => {
    await forget(people.anna);
    const done = await made(people.anna);
    const { url = "" } = await linked(people.anna, done.id);
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
    expect(await codeOf(people.anna, { action: "link", export: done.id })).toBe("run_state");
    await eventually("it is gone", async () => {
      await ask("select backup.tick()");
      return (await call(people.anna, { action: "status", export: done.id }))["status"] === "removed" ? true : null;
    });
    expect(await objectsOf(done.id)).toEqual([]);
    expect((await fetch(url)).status).toBe(400);
    expect(await audited(done.id)).toContain("export.removed");
    expect(await ask("select name from storage.objects where bucket_id = 'data-exports' and name = 'of-the-app.txt'"))
      .toHaveLength(1);
    expect(await ask("select from backup.export_files where export_id = $1", [done.id])).toEqual([]);
  }, 120_000);

  it("comes at once when its person says so", async () => {
    await forget(people.anna);
    const done = await made(people.anna);
    expect(await call(people.anna, { action: "cancel", export: done.id })).toEqual({ export: done.id, removed: true });
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
    const result = await cli(["export", people.anna.email, "--out", folder, "--json"], settings());
    expect(result.exit, result.stderr + result.stdout).toBe(0);
    const told = result.document as Record<string, unknown>;
    const path = String(told["folder"]);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    const bytes = readFileSync(join(path, "export.json"));
    expect(told).toMatchObject({
      user: people.anna.userId,
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
    expect(verified.document).toMatchObject({ ok: true, user: people.anna.userId });
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
    const closed = await cli(["export", people.anna.userId, "--out", out, "--json"], without);
    expect(closed).toMatchObject({ exit: 2, document: { error: { code: "setting_missing" } } });
    expect(readdirSync(out)).toEqual([]);
  }, 60_000);
});
