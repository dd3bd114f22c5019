/** Files of Storage in full backups: of a running project, by workers in this process and by its functions. */
import { randomBytes } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { openProjectFiles, type ProjectFiles } from "../../src/shared/files/project_files.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { runMs, useProject } from "../support/stack.ts";
import { backup, type World, world } from "./backup_fixture.ts";
import { Bucket, filesOf, hashesIn } from "./files_fixture.ts";

const mib = 1024 * 1024;
let notes: Bucket;
let odd: Bucket;
let doomed: Bucket;
let here: World & { readonly files: ProjectFiles };

/** All that Storage takes in names, one of each kind; all have other contents. */
const oddNames = [
  "a b",
  "q?x=1&y=2",
  "plus+and,comma",
  "semi;colon:at@=$",
  "(paren)'!*",
  "deep/er/and//double",
  ".hidden",
  "0",
];

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } }, async ({ query }) => {
  await query("create table public.entries (id int primary key, note text)");
  await query("insert into public.entries select i, 'note ' || i from generate_series(1, 200) as i");
});

beforeAll(async () => {
  const { gateway, cluster } = project().stack;
  notes = await Bucket.make(gateway, "voice-notes");
  odd = await Bucket.make(gateway, "odd");
  doomed = await Bucket.make(gateway, "doomed");
  const unwanted = await Bucket.make(gateway, "unwanted");
  await Bucket.make(gateway, "data-exports").then((exports) => exports.put("of-a-user.json"));
  await unwanted.put("not-this");
  for (let n = 0; n < 80; n++) await notes.put(`user-${n % 7}/note-${n}.webm`);
  await notes.put("empty.webm", new Uint8Array(0));
  await notes.put("exactly-four-parts", randomBytes(8 * mib));
  await notes.put("large", randomBytes(20 * mib + 1));
  const same = randomBytes(5_000);
  await notes.put("same-1", same);
  await notes.put("same-2", same);
  for (const name of oddNames) await odd.put(name);
  for (let n = 0; n < 5; n++) await doomed.put(`d-${n}`);
  await project().query("update backup.settings set value = 'unwanted,not-there' where name = 'file_buckets_left_out'");
  const { serviceRoleKey, url } = gateway;
  const files = openProjectFiles({ projectUrl: url, serviceKey: serviceRoleKey }, (input, init) => fetch(input, init));
  here = { ...await world(cluster, { url: cluster.plainUrl() }), files };
}, runMs);

/** A backup by this process, with something done around each read of a file's stretch. */
async function backupHere(around: Partial<Record<"before" | "after", (name: string) => Promise<void>>> = {}) {
  const read: string[] = [];
  const files: ProjectFiles = {
    label: here.files.label,
    async read(range) {
      read.push(range.name);
      await around.before?.(range.name);
      const bytes = await here.files.read(range);
      await around.after?.(range.name);
      return bytes;
    },
  };
  // With one worker, what is done in a first read is done before anything is recorded.
  const run = await backup({ ...here.deps, files }, { workers: around.before === undefined ? 2 : 1 });
  return { run, read, ...await filesOf(here.deps, run.id) };
}

/** Codes of those that say something of files. */
function warningsOf({ warnings }: Pick<RunRow, "warnings">): string[] {
  return warnings.map(({ code }) => code).filter((code) => code.startsWith("files_"));
}

describe("a full backup", { timeout: runMs }, () => {
  it("holds the content of every file, whatever its name and size, and none of the buckets that are left out", async () => {
    const { run, manifest, files, hashes } = await backupHere();
    expect([run.status, ...warningsOf(run)]).toEqual(["succeeded"]);
    expect(await hashes()).toEqual(hashesIn([notes, odd, doomed]));
    expect(manifest.files?.leftOut).toEqual(["unwanted"]);
    expect(files.filter(({ missed, inSnapshot }) => missed !== null || !inSnapshot)).toEqual([]);
    const parts = (name: string) => files.find((file) => file.name === name)?.parts.map((part) => part.rawBytes);
    expect(parts("empty.webm")).toEqual([]);
    expect(parts("exactly-four-parts")).toEqual([2 * mib, 2 * mib, 2 * mib, 2 * mib]);
    expect(parts("large")).toEqual([...Array.from({ length: 10 }, () => 2 * mib), 1]);
    const objects = (name: string) => files.find((file) => file.name === name)?.parts.map((part) => part.object);
    expect(objects("same-1")).toEqual(objects("same-2"));
    const [row] = await project().query(
      "select to_jsonb(o) - 'path_tokens' as row from storage.objects as o where name = 'large'",
    );
    expect(JSON.parse(files.find(({ name }) => name === "large")?.row ?? "")).toEqual(row?.["row"]);
    expect((await verifyBackup(here.deps, run.id)).problems).toEqual([]);
  });

  it("reads nothing but metadata where nothing has changed, and names the same lists", async () => {
    const before = await backupHere();
    const after = await backupHere();
    expect(after.read).toEqual([]);
    expect(after.manifest.files).toEqual(before.manifest.files);
    expect(await after.hashes()).toEqual(hashesIn([notes, odd, doomed]));
  });

  it("says which versions it missed, and holds what came in their place", async () => {
    await notes.put("overwritten-while-read", randomBytes(100));
    await notes.put("overwritten-before", randomBytes(200));
    await notes.put("removed-before", randomBytes(300));
    for (let n = 0; n < 3; n++) await doomed.put(`d-${n}`);
    const was = new Map(
      ["overwritten-while-read", "overwritten-before"].map((name) => [name, notes.contents.get(name)]),
    );
    let begun = false;
    let again = false;
    const { run, files, hashes } = await backupHere({
      async before() {
        if (begun) return;
        begun = true;
        await notes.put("overwritten-before", randomBytes(222));
        await notes.remove("removed-before");
        await doomed.drop();
      },
      async after(name) {
        if (name !== "overwritten-while-read" || again) return;
        again = true;
        await notes.put("overwritten-while-read", randomBytes(111));
      },
    });
    expect([run.status, ...warningsOf(run)]).toEqual(["succeeded"]);
    const of = (wanted: string) => files.filter(({ name }) => name === wanted);
    for (const name of ["overwritten-while-read", "overwritten-before"]) {
      expect(of(name).map(({ inSnapshot, missed, size }) => ({ inSnapshot, missed, size }))).toEqual([
        { inSnapshot: true, missed: "changed", size: was.get(name)?.byteLength },
        { inSnapshot: false, missed: null, size: notes.contents.get(name)?.byteLength },
      ]);
    }
    expect(of("removed-before").map(({ missed, parts }) => ({ missed, parts }))).toEqual([{
      missed: "removed",
      parts: [],
    }]);
    // Two of them did not change, and had been copied by an earlier backup.
    expect(files.filter(({ bucket }) => bucket === "doomed").map(({ missed }) => missed).sort()).toEqual(
      [null, null, "removed", "removed", "removed"],
    );
    const present = files.filter(({ missed, bucket }) => missed === null && bucket !== "doomed");
    expect(await hashes(present)).toEqual(hashesIn([notes, odd, doomed]));
  });

  it("copies again what the store has lost, and a verification names it before", async () => {
    const first = await backupHere();
    const part = first.files.find(({ name }) => name === "large")?.parts[1]?.object ?? "";
    const small = first.files.find(({ name }) => name === "same-1")?.parts[0]?.object ?? "";
    here.store.objects.delete(part);
    here.store.objects.set(small, new Uint8Array(10));
    const { problems } = await verifyBackup(here.deps, first.run.id);
    expect(problems.map(({ object, code }) => ({ object, code }))).toEqual(
      [{ object: part, code: "object_missing" }, { object: small, code: "object_damaged" }]
        .sort((a, b) => a.object < b.object ? -1 : 1).flatMap((each) => each.object === small ? [each, each] : [each]),
    );
    here.store.objects.delete(small);
    const second = await backupHere();
    expect([...new Set(second.read)].sort()).toEqual(["large", "same-1", "same-2"]);
    expect(await second.hashes()).toEqual(hashesIn([notes, odd, doomed]));
    expect((await verifyBackup(here.deps, second.run.id)).problems).toEqual([]);
  });

  it("goes on without what Storage does not give, and warns", async () => {
    await project().query(
      `insert into storage.objects (bucket_id, name, version, metadata)
       values ('odd', 'no-bytes', gen_random_uuid()::text, '{"size": 7, "eTag": "\\"x\\""}'), ('odd', 'no-size', null, null)`,
    );
    const { run, files, hashes } = await backupHere();
    expect([run.status, ...warningsOf(run)]).toEqual(["succeeded", "files_unreadable"]);
    const lost = files.filter(({ missed }) => missed !== null);
    expect(lost.map(({ name, missed }) => ({ name, missed })).sort((a, b) => a.name < b.name ? -1 : 1)).toEqual([
      { name: "no-bytes", missed: "unreadable" },
      { name: "no-size", missed: "unreadable" },
    ]);
    expect(await hashes(files.filter(({ missed }) => missed === null))).toEqual(hashesIn([notes, odd, doomed]));
    await odd.remove("no-bytes", "no-size");
  });

  it("without the address of Storage says that files are not in it", async () => {
    const run = await backup(here.deps);
    expect(warningsOf(run)).toEqual(["files_not_copied"]);
    expect((await filesOf(here.deps, run.id)).manifest.files).toBeNull();
  });
});

describe("the function backup", { timeout: 2 * runMs }, () => {
  it("copies files leg by leg within the hosted limits, and goes on where an isolate was killed", async () => {
    const { startBackup, killAt, ended, readDeps, isolates, verify } = project();
    const kill = await killAt("files.put", 3);
    const { run } = await startBackup();
    const end = await ended(run, 8_000);
    expect(end, await project().story(run)).toMatchObject({ status: "succeeded" });
    await kill.fired();
    const { files, hashes } = await filesOf(await readDeps(), run);
    expect(files.filter(({ missed }) => missed !== null)).toEqual([]);
    expect(await hashes()).toEqual(hashesIn([notes, odd, doomed]));
    expect((await verify(run)).problems).toEqual([]);
    const reasons = new Set((await isolates()).map(({ endedBy }) => endedBy));
    expect([...reasons].filter((reason) => reason === "cpu" || reason === "memory" || reason === "wall_clock")).toEqual(
      [],
    );
  });
});
