/**
 * Files of a person that were copied between two backups: out of the queue, the lists beside segments and the parts, in both stores. The
 * oracle opens every object by node and zstd alone, and looks for the person's id, the names of their files, and the content of those.
 */
import { createHash, randomBytes } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { planPoint } from "../../src/shared/changes/plan/plan_point.ts";
import { parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { filesOfPoint } from "../../src/shared/files/wanted_files.ts";
import { seal } from "../../src/shared/format/container.ts";
import { encodeFileList } from "../../src/shared/format/file_list.ts";
import { parseFileListName } from "../../src/shared/format/layout.ts";
import { objectName } from "../../src/shared/format/object_name.ts";
import { openBackup } from "../../src/shared/verify/find_backup.ts";
import { readObject } from "../../src/shared/verify/read_object.ts";
import { recordedPart } from "../../src/shared/verify/read_file_list.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { backup, query } from "../integration/backup_fixture.ts";
import { drainNow, leaseRunsOut } from "../integration/changes_stream_fixture.ts";
import { Shelf } from "../integration/files_shelf.ts";
import { copies, differences, type Pair, pairOfStores } from "../integration/replicate_fixture.ts";
import { passGrace, prune, verified } from "../integration/retention_fixture.ts";
import { useCluster } from "../support/cluster.ts";
import { failureOf } from "../unit/format_fixture.ts";
import { certified, eraseFrom, holding, opened, rewriteNow } from "./erase_rewrite_fixture.ts";

const cluster = useCluster({ platform: true });
const [person, other] = ["0b1f9d7e-5f0e-4c57-9d0c-0e4f3f4d2a11", "5f0c6f2b-8e0a-4d1c-9b7a-3e2d1f0c9b8a"];
const words = [person, "hf-needle"];
let pair: Pair;
let shelf: Shelf;
let deps: Pair["deps"];
let full: RunRow;
/** Positions in the log, each with what the files of others are there. */
const points = new Map<string, Record<string, string>>();
/** What only the person's files held. */
const theirs: Uint8Array[] = [];

const sha256 = (content: Uint8Array) => createHash("sha256").update(content).digest("hex");
const lists = (objects: ReadonlyMap<string, Uint8Array> = pair.store.objects) =>
  [...objects.keys()].filter((name) => parseFileListName(name) !== null).sort();

async function put(name: string, content?: Uint8Array): Promise<void> {
  const owner = name.startsWith("hf-needle") ? person : other;
  const held = await shelf.put(name, content, owner);
  if (owner === person && content === undefined) theirs.push(held);
}

/** By name, as the lists of the full backup and those beside the segments have it at the position. */
async function filesAt(lsn: string): Promise<Record<string, string>> {
  const read = { ...deps, store: pair.store };
  const plan = await planPoint({ ...read, target: deps.database }, { by: "lsn", lsn: parseLsn(lsn) }, {
    uncoveredAtFull: true,
  });
  const found: [string, string][] = [];
  for (const { name, missed, parts } of await filesOfPoint(read, plan, () => true)) {
    const hash = createHash("sha256");
    for (const part of parts) {
      hash.update(await readObject({ ...deps, epochOf: plan.full.epochOf }, recordedPart(part)));
    }
    found.push([name, missed ?? hash.digest("hex")]);
  }
  return Object.fromEntries(found.sort());
}

const ofOthers = (files: Record<string, string>) =>
  Object.fromEntries(Object.entries(files).filter(([name]) => !name.startsWith("hf-needle")));

async function point(): Promise<void> {
  const [row] = await query(pair.url, "select pg_current_wal_insert_lsn()::text as lsn");
  await drainNow(deps);
  points.set(String(row?.["lsn"]), {});
}

/** Names of objects of a store that hold a content of the person's. */
async function holdingContent(objects: ReadonlyMap<string, Uint8Array>): Promise<string[]> {
  const wanted = new Set(theirs.map(sha256));
  return [...await opened(pair, objects)].filter(([, plain]) => wanted.has(sha256(plain))).map(([name]) => name);
}

beforeAll(async () => {
  pair = await pairOfStores(cluster());
  shelf = new Shelf(pair.url);
  deps = { ...pair.deps, files: shelf.files, database: pair.killer.mortal(pair.deps.database) };
  await query(
    pair.url,
    `insert into storage.buckets (id, name) values ('notes', 'notes');
     insert into auth.users (id, email) values ('${person}', 'p@example.org'), ('${other}', 'o@example.org');
     create table public.notes (id int primary key)`,
  );
  await copies(pair);
  await drainNow(deps);
  await put("hf-needle old");
  await put("old");
  full = await backup(deps);
  // A list of both; one of theirs alone; content that both have; what they removed before they asked to be erased.
  const common = randomBytes(2_000);
  await put("hf-needle one");
  await put("one");
  await point();
  await put("hf-needle two");
  await point();
  await put("hf-needle same", common);
  await put("same", common);
  await put("hf-needle removed");
  await point();
  await shelf.remove("hf-needle removed");
  await put("one");
  await point();
  // A list whose drainer died before it was recorded, and one that was never put.
  await put("hf-needle three");
  await put("three");
  pair.killer.arm("step:files.listed");
  await expect(drainNow(deps)).rejects.toThrow();
  expect(pair.killer.fired).toBe(1);
  pair.killer.disarm();
  await leaseRunsOut(pair.url);
  await copies(pair);
}, 180_000);

describe("files that were copied between two backups", () => {
  it("are out of the queue with the erasure, and in no list that is made from then on", async () => {
    const queued = async () =>
      await query(pair.url, "select name from backup.run_files where run_id = backup.queue_id() order by 1");
    expect((await queued()).map(({ name }) => name)).toContain("hf-needle three");
    expect((await holding(pair, pair.store.objects, words)).filter((name) => parseFileListName(name) !== null).length)
      .toBe(4);
    const removed: string[] = [];
    await eraseFrom(pair, person, {
      removeFiles: async (_, names) => {
        for (const name of names) await shelf.remove(name);
        removed.push(...names);
      },
    });
    expect(removed.sort()).toEqual([
      "hf-needle old",
      "hf-needle one",
      "hf-needle same",
      "hf-needle three",
      "hf-needle two",
    ]);
    expect((await queued()).map(({ name }) => name)).toEqual(["three"]);
    const before = new Set(lists());
    await point();
    const fresh = new Map([...pair.store.objects].filter(([name]) => lists().includes(name) && !before.has(name)));
    expect(fresh.size).toBe(1);
    expect(await holding(pair, withKeys(fresh), words)).toEqual([]);
    await copies(pair);
    for (const lsn of points.keys()) points.set(lsn, ofOthers(await filesAt(lsn)));
    expect([...points.values()].at(-1)).toMatchObject({ one: /./, same: /./, three: /./ } as object);
  }, 60_000);

  it("leave the lists wherever a rewriting is killed, and what others have stays as it was", async () => {
    for (const at of ["rewrite.segments", "rewrite.list", "rewrite.listed_files", "rewrite.lists"]) {
      await expect(rewriteNow(pair, { at }), at).rejects.toThrow("killed");
    }
    const { result } = await rewriteNow(pair);
    expect(result.held).toEqual([]);
    expect((await rewriteNow(pair)).result).toMatchObject({ backups: 0, segments: 0, lists: 0 });
    // In the place of each that had files of others too there is one list more, until retention takes those from before.
    const known = await query(pair.url, "select name, replaces from backup.file_lists");
    expect(known.filter(({ replaces }) => replaces !== null).length).toBe(3);
    for (const [lsn, files] of points) {
      expect(ofOthers(await filesAt(lsn)), lsn).toEqual(files);
    }
    expect(await verifyBackup(pair.deps, full.id)).toMatchObject({ ok: true, problems: [] });
  }, 120_000);

  it("are in no object of either store, once retention swept; others' are, and nothing more is copied", async () => {
    await verified(pair, full.id);
    // The second store lacks what was put in their place: they stay.
    await prune(pair);
    const due = async () =>
      (await holding(pair, pair.store.objects, words)).filter((name) => parseFileListName(name) !== null).length;
    expect(await due()).toBeGreaterThan(0);
    expect((await copies(pair)).warnings).toEqual([]);
    await rewriteNow(pair);
    expect(await failureOf(() => certified(pair))).toMatchObject({ code: "certificate_not_due" });
    await prune(pair);
    expect(await due()).toBe(0);
    await passGrace(pair);
    await prune(pair);
    await copies(pair);
    await query(pair.url, "select backup.watch_erasures()");
    expect((await rewriteNow(pair)).settled).toMatchObject({ left: [], cleaned: 1 });
    for (const objects of [pair.store.objects, pair.second.objects]) {
      expect(await holding(pair, objects, words)).toEqual([]);
      expect(await holdingContent(objects)).toEqual([]);
    }
    for (const [lsn, files] of points) expect(await filesAt(lsn), lsn).toEqual(files);
    await copies(pair);
    const common = new Map([...pair.store.objects].filter(([name]) => !name.startsWith("v1/terms/")));
    expect(await differences(common, pair.second.objects, pair.identity)).toEqual([]);
    // Of a backup that never came to its manifest: no mention of theirs in somebody else's file, and to be swept first.
    const { manifest, epochOf } = await openBackup(pair.deps, full.id);
    const none = {
      id: person,
      bucket: "notes",
      name: "hf-needle one",
      size: null,
      inSnapshot: true,
      parts: [],
      row: "{}",
    };
    const plaintext = encodeFileList([{ ...none, missed: "removed" }]);
    const epoch = await epochOf(manifest.epoch);
    const { name } = await objectName(epoch, "files", plaintext);
    pair.store.objects.set(name, await seal(pair.deps, epoch, { kind: "files", name, plaintext }));
    const refused = await failureOf(() => certified(pair));
    expect(refused).toMatchObject({ code: "certificate_not_due" });
    expect(String(refused)).toContain(name);
    pair.store.objects.delete(name);
    expect((await certified(pair)).mentions).toEqual([]);
    // Nothing that is on record is away.
    const known = await query(pair.url, "select name from backup.file_lists order by name");
    expect(known.map(({ name }) => name)).toEqual(lists());
  }, 120_000);
});

/** With what opens them. */
function withKeys(objects: ReadonlyMap<string, Uint8Array>): Map<string, Uint8Array> {
  return new Map([...[...pair.store.objects].filter(([name]) => name.startsWith("v1/keys/")), ...objects]);
}
