/** Files that come with the rows: into another project, in place, of a moment, of one person; and none of who was erased. */
import { randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GatewayReady } from "../../src/local/gateway/settings.ts";
import { openVoiceNote } from "../../src/shared/checks/open_voice_note.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { freshDatabase, query } from "../support/cluster.ts";
import { runMs, useProject } from "../support/stack.ts";
import { cli } from "./cli_fixture.ts";
import { Bucket, hashOf } from "./files_fixture.ts";
import { startTestGateway, type TestGateway, until } from "./gateway_fixture.ts";

const project = useProject();
const [ann, bob, eve] = [randomUUID(), randomUUID(), randomUUID()];
let notes: Bucket;
let settings: Record<string, string> = {};
let target: { readonly gateway: TestGateway; readonly url: string; readonly settings: Record<string, string> };

async function ok(args: readonly string[], given = settings, exit = 0): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], given);
  expect(result.exit, result.stdout + result.stderr).toBe(exit);
  return result.document as Record<string, unknown>;
}

const rowsOf = (url: string) =>
  query(
    url,
    `select bucket_id, name, owner_id, owner::text, created_at, updated_at, user_metadata, metadata ->> 'mimetype' as type,
       metadata ->> 'cacheControl' as cache, metadata ->> 'size' as size, metadata ->> 'eTag' as etag
     from storage.objects where bucket_id = 'voice-notes' order by name`,
  );
const live = () => rowsOf(project().stack.cluster.plainUrl());

async function contentOf(name: string, { url, serviceRoleKey }: GatewayReady = project().stack.gateway) {
  const headers = { authorization: `Bearer ${serviceRoleKey}` };
  const answer = await fetch(`${url}/storage/v1/object/${notes.path(name)}`, { headers });
  return answer.ok ? hashOf(new Uint8Array(await answer.arrayBuffer())) : `${answer.status}`;
}

async function give(name: string, owner: string): Promise<void> {
  await project().query(
    `set session_replication_role = replica;
     update storage.objects set owner = '${owner}', owner_id = '${owner}', created_at = '2024-05-06 07:08:09.123456+00',
       updated_at = '2024-06-07 08:09:10.654321+00', user_metadata = '{"n": 12345678901234567890}' where name = '${name}'`,
  );
}

async function drainedByFunction(): Promise<void> {
  const lists = async () =>
    Number((await project().query("select count(*)::int as n from backup.file_lists"))[0]?.["n"]);
  const before = await lists();
  await until(
    async () => {
      await project().query("select backup.call_drain()");
      await new Promise((resolve) => setTimeout(resolve, 400));
      return await lists();
    },
    (now) => now > before,
    30_000,
  );
}

const moment = async () =>
  String(
    (await project().query(
      `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as t from pg_sleep(0.01)`,
    ))[0]?.["t"],
  );

let rows: Record<string, unknown>[] = [];
let withTake = "";
let take: Uint8Array;

beforeAll(async () => {
  const { gateway, cluster, keys } = project().stack;
  settings = {
    BACKUP_DB_URL: cluster.url("postgres"),
    BACKUP_DB_CA: cluster.caFile,
    BACKUP_KEYS: keys,
    BACKUP_STORE: "supabase://holdfast-backups",
    SUPABASE_URL: gateway.url,
    SUPABASE_SERVICE_ROLE_KEY: gateway.serviceRoleKey,
  };
  notes = await Bucket.make(gateway, "voice-notes");
  await project().query(
    `create table public.notes (id int primary key, user_id uuid references auth.users (id) on delete cascade);
     create policy own on storage.objects for select to authenticated using (owner_id = (select auth.uid()::text));
     insert into auth.users (id, email) values ('${ann}', 'ann@example.org'), ('${bob}', 'bob@example.org'), ('${eve}', 'eve@example.org');
     insert into public.notes values (1, '${ann}'), (2, '${bob}'), (3, '${eve}')`,
  );
  for (const [name, owner] of [["ann 1", ann], ["ann/2", ann], ["bob", bob], ["eve", eve]] as const) {
    await notes.put(name);
    await give(name, owner);
  }
  await notes.put("large", randomBytes(5 * 1024 * 1024 + 1));
  await ok(["incremental"]);
  await ok(["create"]);
  rows = await live();
  // Recorded after the full backup, and removed before the next.
  take = await notes.put("take");
  await give("take", ann);
  await drainedByFunction();
  withTake = await moment();
  await notes.remove("take");
  await ok(["incremental"]);
  const name = await freshDatabase(cluster, { platform: true });
  const other = await startTestGateway(cluster, {}, name);
  target = {
    gateway: other,
    url: cluster.plainUrl("supabase_admin", name),
    settings: {
      ...settings,
      BACKUP_TARGET_DB_URL: cluster.url("postgres", name),
      BACKUP_TARGET_PROJECT_URL: other.url,
      BACKUP_TARGET_SECRET_KEY: other.serviceRoleKey,
    },
  };
}, 240_000);
afterAll(async () => {
  await target?.gateway.stop();
});

describe("a file that was recorded after the full backup", { timeout: runMs }, () => {
  it("is copied by the function, within its limits", async () => {
    const isolates = await project().isolates();
    expect(isolates.filter(({ endedBy }) => endedBy === "cpu" || endedBy === "memory")).toEqual([]);
    const lists = await project().query("select files from backup.file_lists");
    expect(lists).toEqual([{ files: 1 }]);
  });

  it("comes back by its moment, its row as it was then", async () => {
    const plan = await ok(["restore-file", "voice-notes/take", "--at", withTake]);
    expect(plan).toMatchObject({ dryRun: true, put: 1, lost: 0 });
    expect(await ok(["restore-file", "voice-notes/take", "--at", withTake, "--apply", "missing", "--yes"]))
      .toMatchObject({ ok: true, put: 1, failed: [] });
    expect(await contentOf("take")).toBe(hashOf(take));
    expect((await live()).find(({ name }) => name === "take")).toEqual({
      ...rows.find(({ name }) => name === "ann 1"),
      name: "take",
      size: "1000",
      etag: expect.any(String) as string,
    });
    await notes.remove("take");
  });
});

describe("restores of a whole database", { timeout: runMs }, () => {
  it("say what they would put, and leave the files with --without-files", async () => {
    const { BACKUP_TARGET_SECRET_KEY: _, ...keyless } = target.settings;
    const planned = ["restore-full", "latest", "--dry-run", "--json"];
    // One at a time for each target.
    const [beside, all] = await Promise.all([cli(planned, settings), cli(planned, target.settings)]);
    const without = await cli([...planned, "--without-files"], target.settings);
    const told = await cli(planned, keyless);
    expect(all.document, all.stderr).toMatchObject({ dryRun: true, files: { put: 5, lost: 0 } });
    expect(without.document).toMatchObject({ dryRun: true });
    expect(without.document).not.toHaveProperty("files");
    expect(told.document).toMatchObject({ files: null });
    expect(told.stderr).toContain("BACKUP_TARGET_SECRET_KEY");
    expect(beside.document).toMatchObject({ isNew: true, files: null });
    expect(beside.stderr).toContain("a new database has no Storage");
  });

  it("bring the files of the moment into the other project, equal in bytes and rows", async () => {
    const done = await ok(["restore-point", withTake, "--yes"], target.settings);
    expect(done).toMatchObject({ ok: true, files: { put: 6, lost: 0, erased: 0, orphans: [], failed: [] } });
    expect((await rowsOf(target.url)).filter(({ name }) => name !== "take")).toEqual(rows);
    for (const name of ["ann 1", "ann/2", "bob", "eve", "large"]) {
      expect(await contentOf(name, target.gateway), name).toBe(await contentOf(name));
    }
    expect(await contentOf("take", target.gateway)).toBe(hashOf(take));
    // Under the restored policies an owner reads theirs, and nobody else.
    const readAs = async (user: string) => {
      const result = await query(
        target.url,
        `begin; set local role authenticated; select set_config('request.jwt.claims', '{"sub": "${user}"}', true);
         select name from storage.objects where bucket_id = 'voice-notes' order by name`,
      );
      return result.map(({ name }) => name);
    };
    expect(await readAs(ann)).toEqual(["ann 1", "ann/2", "take"]);
    expect(await readAs(randomUUID())).toEqual([]);
    const { url, anonKey } = target.gateway;
    const stranger = await fetch(`${url}/storage/v1/object/${notes.path("bob")}`, {
      headers: { authorization: `Bearer ${anonKey}` },
    });
    await stranger.body?.cancel();
    expect(stranger.status).toBe(400);
  });

  it("put back in place what is gone, name what came later, and remove nothing", async () => {
    await notes.remove("ann 1", "large");
    await notes.put("later");
    const args = ["restore-full", "latest", "--apply", "missing", "--yes", "--without-maintenance"];
    const done = await ok([...args, "--skip-safety-backup", "postgres"]);
    expect(done).toMatchObject({ files: { put: 2, same: 3, orphans: ["voice-notes/later"] } });
    expect((await live()).filter(({ name }) => name !== "later")).toEqual(rows);
  });
});

describe("a person", { timeout: runMs }, () => {
  it("gets their files with their rows, and nobody else's", async () => {
    await notes.remove("ann 1", "ann/2", "bob");
    await project().query(`delete from public.notes where user_id = '${ann}'`);
    const args = ["restore-user", ann, "latest", "--apply", "missing", "--yes", "--skip-safety-backup", "postgres"];
    expect(await ok(args)).toMatchObject({ inserted: 1, files: { put: 2, orphans: [] } });
    expect((await live()).filter(({ owner_id }) => owner_id === ann)).toEqual(
      rows.filter(({ owner_id }) => owner_id === ann),
    );
    expect(await contentOf("bob")).toBe("400");
  });

  it("who signed up again owns them under the new id", async () => {
    await notes.remove("ann 1");
    const again = randomUUID();
    await project().query(
      `delete from public.notes where user_id = '${ann}'; delete from auth.users where id = '${ann}';
      insert into auth.users (id, email) values ('${again}', 'anew@example.org')`,
    );
    const args = ["restore-user", ann, "latest", "--as", again, "--apply", "missing", "--yes"];
    expect(await ok([...args, "--skip-safety-backup", "postgres"])).toMatchObject({ files: { put: 1, same: 1 } });
    expect((await live()).find(({ name }) => name === "ann 1")).toMatchObject({ owner_id: again, owner: again });
  });

  it("who was erased does not come back in a file: by none of the ways", async () => {
    await ok(["erase", eve, "--yes"]);
    expect(await contentOf("eve")).toBe("400");
    const all = await ok(["restore-file", "all", "latest", "--apply", "missing", "--yes"]);
    expect(all).toMatchObject({ erased: 1, put: 1 });
    expect(await contentOf("eve")).toBe("400");
    expect(await ok(["restore-file", "all", "--at", withTake, "--apply", "merge", "--yes"])).toMatchObject({
      erased: 1,
    });
    expect(await contentOf("eve")).toBe("400");
    const full = ["restore-full", "latest", "--apply", "missing", "--yes", "--without-maintenance"];
    expect(await ok([...full, "--skip-safety-backup", "postgres"])).toMatchObject({ files: { erased: 1 } });
    expect((await live()).map(({ name }) => name)).not.toContain("eve");
  });
});

describe("the weekly check of a recording", { timeout: runMs }, () => {
  async function made() {
    const { store, ...deps } = await project().readDeps();
    const { url, serviceRoleKey } = project().stack.gateway;
    const database = openDatabase({ url: project().stack.cluster.plainUrl() });
    const connection = await database.connect("holdfast:test");
    try {
      return await openVoiceNote({
        ...deps,
        connection,
        database,
        first: store,
        second: null,
        project: { projectUrl: url, serviceKey: serviceRoleKey, fetch: (input, init) => fetch(input, init) },
      });
    } finally {
      await connection.close();
    }
  }

  it("opens it by a signed link, as its copy has it, and sees others refused", async () => {
    // What was put back has other versions, and the stream began anew behind the restore in place.
    await ok(["create"]);
    const { document } = await cli(["checks", "run", "weekly", "--json"], settings);
    const { checks } = document as { readonly checks: readonly { readonly name: string }[] };
    expect(checks.find(({ name }) => name === "voice_notes")).toMatchObject({
      outcome: "passed",
      evidence: { ownerReads: true, strangerReads: false, openedByLink: true, openedByForgedLink: false },
    });
  });

  it("warns where the project's policies let everybody read it", async () => {
    await project().query("create policy open on storage.objects for select to authenticated using (true)");
    expect(await made()).toMatchObject({ outcome: "warning", evidence: { strangerReads: true } });
    await project().query("drop policy open on storage.objects");
    expect(await made()).toMatchObject({ outcome: "passed" });
  });

  it("fails where the copy is another than what Storage gives", async () => {
    await project().query(
      `update backup.file_parts as p set object = (select max(o.name) from backup.objects as o where o.kind = 'blob' and o.raw_bytes = 1000 and o.name <> p.object)
       where exists (select from backup.objects as o where o.name = p.object and o.raw_bytes = 1000)`,
    );
    expect(await made()).toMatchObject({ outcome: "failed" });
  });
});

describe("a drill of the whole project", { timeout: runMs }, () => {
  it("reads the files back, holds them against the rows that it restored, and says how many", async () => {
    await project().query("update backup.settings set value = '1000000' where name = 'disk_mb'");
    await ok(["incremental"]);
    const { document, stderr } = await cli(["test-recovery", "--json"], settings);
    const { evidence } = document as { readonly evidence: Record<string, unknown> };
    const rows = (await live()).length;
    expect(evidence, stderr).toMatchObject({
      ok: true,
      files: { files: rows, withoutContent: 0, checked: rows, sameMd5: rows },
    });
  });
});
