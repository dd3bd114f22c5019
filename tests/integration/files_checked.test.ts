/** Files of backups and of moments looked at: list by list, by `verify`, and by drills. */
import { randomBytes } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { unlimited } from "../../src/shared/backup/budget.ts";
import { parsePoint } from "../../src/shared/changes/plan/point.ts";
import { planPoint, type PointPlan } from "../../src/shared/changes/plan/plan_point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { listsOf, segmentsOf, verifyIncremental } from "../../src/shared/changes/segments/verify_incremental.ts";
import {
  fileDifferences,
  isChosen,
  noFilesYet,
  proveFiles,
  type ProvenFiles,
  provenFilesFormat,
  shareOf,
} from "../../src/shared/drills/prove_files.ts";
import { sha256Hex } from "../../src/shared/crypto/digest.ts";
import { type FilesByList, filesOfFull, filesOfMoment } from "../../src/shared/files/files_by_list.ts";
import type { ProjectFiles } from "../../src/shared/files/project_files.ts";
import { filesOfBackup, filesOfPoint } from "../../src/shared/files/wanted_files.ts";
import type { ListedFile } from "../../src/shared/format/file_list.ts";
import { parseFileListName } from "../../src/shared/format/layout.ts";
import type { Manifest } from "../../src/shared/format/manifest.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openBackup } from "../../src/shared/verify/find_backup.ts";
import { readObject } from "../../src/shared/verify/read_object.ts";
import { recordedPart } from "../../src/shared/verify/read_file_list.ts";
import { verifyBackup } from "../../src/shared/verify/run.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, query } from "./backup_fixture.ts";
import { drainNow } from "./changes_stream_fixture.ts";
import { Shelf } from "./files_shelf.ts";
import { checks, rot, unopened } from "./checks_fixture.ts";
import { type Pair, pairOfStores, smallBudget } from "./replicate_fixture.ts";

const cluster = useCluster({ platform: true });
/** As rows may have them, whatever Storage takes in a request. */
const oddNames = [
  "100%",
  "%2F",
  "caf\u00e9",
  "cafe\u0301",
  " lead",
  "trail ",
  "..",
  "a/../b",
  ".hidden",
  "a//b",
  "日本\u{1F600}",
];
let w: Pair;
let shelf: Shelf;
let deps: Pair["deps"];
let full: RunRow;
let atFull: Point;

async function moment(): Promise<Point> {
  const [row] = await query(
    w.url,
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as t from pg_sleep(0.01)`,
  );
  await query(w.url, "select pg_sleep(0.01)");
  return parsePoint(String(row?.["t"]), () => 0);
}

const planOf = (point: Point) => planPoint({ ...deps, target: deps.database }, point);

async function inLists({ lists, read }: FilesByList): Promise<ListedFile[]> {
  const all: ListedFile[] = [];
  let after: string | null = null;
  for (const index of lists.keys()) {
    const part = await read(index, after);
    all.push(...part.files);
    after = part.after;
  }
  return all;
}

const sorted = (files: readonly ListedFile[]) => [...files].sort((a, b) => a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

beforeAll(async () => {
  w = await pairOfStores(cluster());
  shelf = new Shelf(w.url);
  deps = { ...w.deps, files: shelf.files };
  await query(w.url, "insert into storage.buckets (id, name) values ('notes', 'notes')");
  await drainNow(deps);
  // Enough for lists by the first digit of their ids.
  for (let n = 0; n < 90; n++) await shelf.put(`note-${n}`, randomBytes(1_000 + n));
  for (const name of oddNames) await shelf.put(name);
  await shelf.put("hasty");
  await shelf.put("large", randomBytes(5 * 1024 * 1024 + 3));
  // Overwritten before it is read: its version of the snapshot is missed.
  let overwritten = false;
  const files: ProjectFiles = {
    label: "a shelf",
    read: async (range) => {
      if (!overwritten) {
        overwritten = true;
        await shelf.put("hasty");
      }
      return await shelf.files.read(range);
    },
  };
  full = await backup({ ...deps, files }, { workers: 1 });
  await drainNow(deps);
  atFull = await moment();
  for (let n = 0; n < 90; n += 7) await shelf.put(`note-${n}`);
  for (let n = 1; n < 90; n += 7) await shelf.remove(`note-${n}`);
  for (let n = 0; n < 20; n++) await shelf.put(`later-${n}`);
  await query(w.url, "update storage.objects set owner_id = 'somebody' where name in ('note-3', 'large')");
  await drainNow(deps);
}, 120_000);

describe("files of a moment", () => {
  it("are the same list by list as all at once", async () => {
    for (const point of [atFull, { by: "end" } as const]) {
      const plan = await planOf(point);
      const byList = await filesOfMoment(deps, plan);
      expect(byList.lists.length).toBeGreaterThan(10);
      const found = await inLists(byList);
      expect(sorted(found)).toEqual(sorted(await filesOfPoint(deps, plan, () => true)));
      const rows = await query(w.url, "select count(*)::int as n from storage.objects");
      if (point.by === "end") expect(found.length).toBe(rows[0]?.["n"]);
    }
    const opened = await openBackup(deps, full.id);
    expect(await inLists(filesOfFull(deps, opened))).toEqual(await filesOfBackup(deps, opened, () => true));
  }, 60_000);
});

describe("files with odd names", () => {
  it("are in a backup by their names, with their content", async () => {
    const opened = await openBackup(deps, full.id);
    const files = await filesOfBackup(deps, opened, ({ name }) => oddNames.includes(name));
    expect(files.map(({ name }) => name).sort()).toEqual([...oddNames].sort());
    const hashes = shelf.hashes();
    for (const { name, parts } of files) {
      const [part] = parts;
      if (part === undefined) throw new Error(`${name} has no content`);
      const content = await readObject({ ...deps, epochOf: opened.epochOf }, recordedPart(part));
      expect(await sha256Hex(content), name).toBe(hashes[`notes/${name}`]);
    }
  });
});

describe("verify", () => {
  const problems = ({ problems: found }: { readonly problems: readonly { object: string; code: string }[] }) =>
    found.map(({ object, code }) => ({ object, code }));

  it("of a full backup counts rows without content, and content without its row", async () => {
    expect(await verifyBackup(deps, full.id)).toMatchObject({
      ok: true,
      files: { rows: 92 + oddNames.length, withoutContent: 1, withoutRow: 1 },
    });
  });

  it("of an incremental opens the lists beside its segments, and all that they name", async () => {
    const connection = await deps.database.connect("holdfast:test");
    try {
      const incrementals = await query(
        w.url,
        "select r.id from backup.runs as r where r.kind = 'incremental' and exists (select from backup.segments as s where s.run_id = r.id)",
      );
      const verified = async () => {
        const found = [];
        for (const { id } of incrementals) {
          const recorded = {
            segments: await segmentsOf(connection, String(id)),
            lists: await listsOf(connection, String(id)),
          };
          found.push({ recorded, result: await verifyIncremental(deps, String(id), recorded) });
        }
        return found;
      };
      const sound = await verified();
      expect(sound.flatMap(({ result }) => problems(result))).toEqual([]);
      // Each list of the chain is one incremental's.
      const there = [...w.store.objects.keys()].filter((name) => parseFileListName(name) !== null).sort();
      expect(sound.flatMap(({ recorded }) => recorded.lists.map(({ name }) => name)).sort()).toEqual(there);
      expect(there.length).toBeGreaterThan(0);
      expect(sound.reduce((sum, { result }) => sum + (result.files?.rows ?? 0), 0)).toBeGreaterThanOrEqual(33);

      const files = await inLists(await filesOfMoment(deps, await planOf({ by: "end" })));
      const blob = files.find(({ name }) => name === "later-7")?.parts[0]?.object ?? "";
      const [list = ""] = there;
      const was = [blob, list].map((name) => w.store.objects.get(name));
      w.store.objects.set(blob, new Uint8Array(10));
      expect((await verified()).flatMap(({ result }) => problems(result))).toEqual([{
        object: blob,
        code: "object_damaged",
      }]);
      w.store.objects.delete(list);
      expect((await verified()).flatMap(({ result }) => problems(result))).toContainEqual({
        object: list,
        code: "object_missing",
      });
      for (const [at, name] of [blob, list].entries()) w.store.objects.set(name, was[at] ?? new Uint8Array(0));
    } finally {
      await connection.close();
    }
  }, 60_000);
});

describe("the daily verification", () => {
  it("opens the lists beside the segments, and their parts, by turns, and finds what is damaged or gone", async () => {
    await checks(w);
    await unopened(w, 31);
    const sound = await checks(w);
    expect(sound.results["objects"]).toMatchObject({ outcome: "passed" });
    const lists = [...w.store.objects.keys()].filter((name) => parseFileListName(name) !== null);
    const opened = await query(
      w.url,
      `select count(*)::int as n from backup.inventory where store = 'memory' and opened_at > now() - interval '1 hour'
         and (name = any ($1) or name like 'v1/blobs/%')`,
      [lists],
    );
    const blobs = [...w.store.objects.keys()].filter((name) => name.startsWith("v1/blobs/"));
    expect(opened).toEqual([{ n: lists.length + blobs.length }]);
    const [list = ""] = lists;
    const was = w.store.objects.get(list) ?? new Uint8Array(0);
    rot(w.store.objects, list);
    await unopened(w, 31);
    expect((await checks(w)).results["objects"]).toMatchObject({
      outcome: "failed",
      message: expect.stringContaining(list) as string,
    });
    w.store.objects.delete(list);
    expect((await checks(w)).results["stores_complete"]).toMatchObject({ outcome: "failed" });
    w.store.objects.set(list, was);
    expect((await checks(w)).results).toMatchObject({
      objects: { outcome: "passed" },
      stores_complete: { outcome: "passed" },
    });
  }, 120_000);
});

describe("a drill of files", () => {
  let plan: PointPlan;
  let session: Connection;

  async function proven(legs: boolean, from: ProvenFiles = noFilesYet): Promise<ProvenFiles> {
    const source = await filesOfMoment(deps, plan);
    let state = from;
    for (let leg = 0; !state.done; leg++) {
      if (leg > 500) throw new Error("it never ends");
      state = provenFilesFormat.parse(JSON.parse(JSON.stringify(
        await proveFiles({
          drill: "a drill",
          session,
          manifest: plan.full.manifest,
          source,
          readPart: (part) => readObject({ ...deps, epochOf: plan.full.epochOf }, recordedPart(part)),
          budget: legs ? smallBudget(2) : unlimited,
        }, state),
      )));
    }
    return state;
  }

  beforeAll(async () => {
    plan = await planOf({ by: "end" });
    session = await deps.database.connect("holdfast:test");
  });

  it("reads all of them back, and finds a row for each, in one leg or in many", async () => {
    const [rows] = await query(
      w.url,
      "select count(*)::int as n, sum((metadata ->> 'size')::int)::int as bytes from storage.objects",
    );
    const whole = await proven(false);
    const files = Number(rows?.["n"]);
    expect(whole).toMatchObject({ files, checked: files, bytes: rows?.["bytes"], sameMd5: files, withoutContent: 0 });
    expect(fileDifferences(whole)).toEqual([]);
    // Of the large one's parts no leg sees all.
    expect(await proven(true)).toEqual({ ...whole, sameMd5: files - 1 });
  }, 60_000);

  it("finds what the rows have and the files have not, and the other way", async () => {
    await session.execute(
      "begin; set local session_replication_role = replica; set local storage.allow_delete_query = 'true'",
    );
    try {
      await session.execute(
        `delete from storage.objects where name = 'note-2';
         insert into storage.objects (id, bucket_id, name, version) values
           ('ffffffff-ffff-4fff-bfff-ffffffffffff', 'notes', 'alone', 'v'), ('00000000-0000-4000-8000-000000000000', 'notes', 'alone too', 'v');
         update storage.objects set version = 'other' where name = 'note-4'`,
      );
      const found = await proven(false);
      expect(found).toMatchObject({ rowsAlone: 3, filesAlone: 2 });
      expect(fileDifferences(found).map(({ detail }) => detail)).toEqual([
        "3 rows of storage.objects have no file in the backup",
        "2 files of the backup have no row in storage.objects",
      ]);
    } finally {
      await session.execute("rollback");
    }
  }, 60_000);

  it("names an object that is damaged, and goes on with the others", async () => {
    const [large] = await filesOfPoint(deps, plan, ({ name }) => name === "large");
    const object = large?.parts[1]?.object ?? "";
    const was = w.store.objects.get(object) ?? new Uint8Array(0);
    w.store.objects.delete(object);
    const all = [await proven(true), await proven(false)];
    w.store.objects.set(object, was);
    for (const found of all) {
      expect(found).toMatchObject({ checked: found.files - 1, problemsTotal: 1, problems: [{ object }] });
      expect(fileDifferences(found)).toMatchObject([{ kind: "rows", name: object }]);
    }
    await session.close();
  }, 60_000);

  it("takes a sample where there are many, others in each drill", () => {
    const ids = Array.from({ length: 4_000 }, (_, n) => `file ${n}`);
    const list = (files: number, partBytes: number) =>
      ({ files: { lists: [{ files, missed: 0, partBytes }] } }) as unknown as Manifest;
    expect(shareOf(list(1_000, 1e6))).toBe(1);
    expect(shareOf(list(4_000, 1e6))).toBe(0.25);
    expect(shareOf(list(10, 2 ** 30))).toBe(0.25);
    const [a, b] = ["a", "b"].map((drill) => ids.filter((id) => isChosen(drill, id, 0.25)));
    expect(a?.length).toBeGreaterThan(850);
    expect(a?.length).toBeLessThan(1_150);
    expect(a?.filter((id) => b?.includes(id)).length).toBeLessThan(400);
    expect(ids.filter((id) => isChosen("a", id, 1))).toEqual(ids);
  });
});
