/** Files put back into a project by the CLI: what is gone, what differs, into a folder; and nothing else. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import { bringFiles, processBounds } from "../../src/shared/files/bring_files.ts";
import { planPutBack } from "../../src/shared/files/plan_put_back.ts";
import { readPresentFiles } from "../../src/shared/files/put_back.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { openBackup } from "../../src/shared/verify/find_backup.ts";
import { query } from "../support/cluster.ts";
import { runMs, useProject } from "../support/stack.ts";
import { cli } from "./cli_fixture.ts";
import { Bucket, filesOf, hashOf } from "./files_fixture.ts";

const project = useProject();
const folder = mkdtempSync(join(tmpdir(), "holdfast-files-"));
let notes: Bucket;
let settings: Record<string, string> = {};
let backupId = "";
let rows: Record<string, unknown>[] = [];

/** All of a file's row but what Storage gives anew to content that is put. */
const rowsNow = () =>
  project().query(
    `select name, owner_id, owner::text, created_at, updated_at, user_metadata, metadata ->> 'mimetype' as type,
       metadata ->> 'cacheControl' as cache, metadata ->> 'size' as size, metadata ->> 'eTag' as etag
     from storage.objects where bucket_id = 'voice-notes' order by name`,
  );

async function content(name: string, bucket = notes): Promise<string> {
  const { url, serviceRoleKey } = project().stack.gateway;
  const answer = await fetch(`${url}/storage/v1/object/${bucket.path(name)}`, {
    headers: { authorization: `Bearer ${serviceRoleKey}` },
  });
  return answer.ok ? hashOf(new Uint8Array(await answer.arrayBuffer())) : `${answer.status}`;
}

const large = randomBytes(7 * 1024 * 1024 + 5);

beforeAll(async () => {
  const { gateway, cluster, keys } = project().stack;
  notes = await Bucket.make(gateway, "voice-notes");
  for (const name of ["kept", "lost one", "lost/deep", "changed"]) await notes.put(name);
  await notes.put("large", large);
  await notes.put("empty", new Uint8Array(0));
  await project().query(
    `set session_replication_role = replica;
     update storage.objects set owner_id = 'f3a1c1de-0000-4000-8000-000000000001', owner = 'f3a1c1de-0000-4000-8000-000000000001',
       created_at = '2024-05-06 07:08:09.123456+00', updated_at = '2024-06-07 08:09:10.654321+00', user_metadata = '{"n": 12345678901234567890}'
     where bucket_id = 'voice-notes'`,
  );
  settings = {
    BACKUP_DB_URL: cluster.url("postgres"),
    BACKUP_DB_CA: cluster.caFile,
    BACKUP_KEYS: keys,
    BACKUP_STORE: "supabase://holdfast-backups",
    SUPABASE_URL: gateway.url,
    SUPABASE_SERVICE_ROLE_KEY: gateway.serviceRoleKey,
  };
  const made = await cli(["create", "--json"], settings);
  expect(made.exit, made.stderr).toBe(0);
  backupId = (made.document as { readonly id: string }).id;
  rows = await rowsNow();
}, runMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("restore-file", { timeout: runMs }, () => {
  it("shows what is gone and what differs, and changes nothing", async () => {
    await notes.remove("lost one", "lost/deep", "large", "empty");
    await notes.put("changed", randomBytes(44));
    await notes.put("came-later");
    const before = await rowsNow();
    const { exit, document, stderr } = await cli(["restore-file", "voice-notes/", "latest", "--json"], settings);
    expect(exit, stderr).toBe(0);
    expect(document).toMatchObject({
      dryRun: true,
      put: 5,
      same: 1,
      differs: 1,
      lost: 0,
      orphans: ["voice-notes/came-later"],
    });
    expect(await rowsNow()).toEqual(before);
  });

  it("refuses without a yes, what it cannot know, and a mode that would remove", async () => {
    const exits = [
      ["restore-file", "voice-notes/", "latest", "--apply", "missing"],
      ["restore-file", "voice-notes", "latest"],
      ["restore-file", "voice-notes/", "latest", "--apply", "replace", "--yes"],
      ["restore-file", "voice-notes/none", "latest"],
    ].map(async (args) => (await cli(args, settings)).exit);
    expect(await Promise.all(exits)).toEqual([2, 2, 2, 1]);
    expect(await content("lost one")).toBe("400");
    expect(await project().query("select from backup.audit_log where action like 'files.%'")).toEqual([]);
  });

  it("puts one file back as it was, its row too", async () => {
    const args = ["restore-file", "voice-notes/lost one", "latest", "--apply", "missing", "--yes", "--json"];
    const { exit, document, stderr } = await cli(args, settings);
    expect(exit, stderr).toBe(0);
    expect(document).toMatchObject({ ok: true, put: 1, orphans: [] });
    const now = (await rowsNow()).find(({ name }) => name === "lost one");
    expect(now).toEqual(rows.find(({ name }) => name === "lost one"));
    expect(await content("large")).toBe("400");
  });

  it("goes on where it was broken off between a file's bytes and its row", async () => {
    const args = ["restore-file", "voice-notes/lost/deep", "latest", "--apply", "missing", "--yes", "--json"];
    const admin = project().stack.cluster.plainUrl("supabase_admin");
    await query(
      admin,
      `create function public.halt() returns trigger language plpgsql as $$ begin raise 'halted'; end $$;
       create trigger halt before update of owner_id on storage.objects for each row execute function public.halt();
       alter table storage.objects enable always trigger halt`,
    );
    const broken = await cli(args, settings);
    await query(admin, "drop function public.halt() cascade");
    expect(broken.exit).not.toBe(0);
    const rowOf = async () => (await rowsNow()).find(({ name }) => name === "lost/deep");
    expect(await rowOf()).toMatchObject({ owner_id: null });
    const { exit, document, stderr } = await cli(args, settings);
    expect(exit, stderr).toBe(0);
    expect(document).toMatchObject({ ok: true, put: 1, same: 0, files: [{ state: "half", puts: true }] });
    expect(await rowOf()).toEqual(rows.find(({ name }) => name === "lost/deep"));
  });

  it("leaves alone what came to its place after the plan", async () => {
    const { gateway: { url, serviceRoleKey }, cluster } = project().stack;
    const { store, compressor, ring } = await project().readDeps();
    const backup = await openBackup({ store, compressor, ring }, backupId);
    const { files } = await filesOf({ store, compressor, ring }, backupId);
    const session = await openSession(openDatabase({ url: cluster.plainUrl() }), "holdfast:files");
    try {
      const plan = planPutBack(
        files.filter(({ name }) => name === "large"),
        await readPresentFiles(session, ["voice-notes"]),
        "missing",
      );
      expect(plan.files).toMatchObject([{ state: "gone", puts: true }]);
      const theirs = await notes.put("large", randomBytes(77));
      const brought = await bringFiles(
        {
          reader: { store, compressor, epochOf: backup.epochOf },
          target: { projectUrl: url, serviceKey: serviceRoleKey },
          session,
          fetch: (input, init) => fetch(input, init),
        },
        plan,
        [],
        processBounds,
      );
      expect(brought).toMatchObject({ put: 0, failed: [{ file: "voice-notes/large", code: "target_differs" }] });
      expect(await content("large")).toBe(hashOf(theirs));
    } finally {
      await session.close();
      await notes.remove("large");
    }
  });

  it("puts all back but what differs, and that too with merge; what came later stays", async () => {
    const changed = await content("changed");
    const missing = await cli(
      ["restore-file", "voice-notes/", "latest", "--apply", "missing", "--yes", "--json"],
      settings,
    );
    expect(missing.exit, missing.stderr).toBe(0);
    expect(missing.document).toMatchObject({ put: 2, differs: 1 });
    expect(await content("changed")).toBe(changed);
    expect(await content("large")).toBe(hashOf(large));
    const merge = await cli(["restore-file", "all", "latest", "--apply", "merge", "--yes", "--json"], settings);
    expect(merge.exit, merge.stderr).toBe(0);
    expect(merge.document).toMatchObject({ put: 1, ok: true });
    expect((await rowsNow()).filter(({ name }) => name !== "came-later")).toEqual(rows);
  });

  it("makes a bucket that is gone, and another user still gets nothing", async () => {
    await notes.drop();
    const { exit, stderr, document } = await cli(
      ["restore-file", "all", "latest", "--apply", "missing", "--yes", "--json"],
      settings,
    );
    expect(exit, stderr).toBe(0);
    expect(document).toMatchObject({ put: 6, madeBuckets: ["voice-notes"] });
    expect(await rowsNow()).toEqual(rows);
    const { url, anonKey } = project().stack.gateway;
    const stranger = await fetch(`${url}/storage/v1/object/${notes.path("kept")}`, {
      headers: { authorization: `Bearer ${anonKey}` },
    });
    await stranger.body?.cancel();
    expect(stranger.status).toBe(400);
  });

  it("writes them into a folder", async () => {
    const { exit, document, stderr } = await cli(
      ["restore-file", "voice-notes/", "latest", "--out", folder, "--json"],
      settings,
    );
    expect(exit, stderr).toBe(0);
    expect(document).toMatchObject({ ok: true, written: 6, lost: 0 });
    expect(hashOf(readFileSync(join(folder, "voice-notes/large")))).toBe(hashOf(large));
    expect(readFileSync(join(folder, "voice-notes/empty")).byteLength).toBe(0);
    const audited = await project().query(
      "select action, count(*)::int as times from backup.audit_log where action like 'files.%' group by 1 order by 1",
    );
    expect(audited).toEqual([{ action: "files.restored", times: 6 }, { action: "files.saved", times: 1 }]);
  });
});
