/** Content of files beside the rows: in the second store, swept once nothing names it, and never before. */
import { randomBytes } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import type { BackupDeps } from "../../src/shared/backup/deps.ts";
import type { ProjectFiles } from "../../src/shared/files/project_files.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import type { MemoryStore } from "../contract/memory_store.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, query } from "./backup_fixture.ts";
import { filesOf } from "./files_fixture.ts";
import { Shelf } from "./files_shelf.ts";
import { copies, differences, type Pair, pairOfStores, smallBudget } from "./replicate_fixture.ts";
import { age, passGrace, prune, verified } from "./retention_fixture.ts";

const cluster = useCluster({ platform: true });

/** What the manifests in the store name, and what lies there: told by reading the lists themselves. */
async function blobs(deps: BackupDeps, store: MemoryStore, runs: readonly RunRow[]) {
  const named = new Set<string>();
  for (const run of runs) {
    const { files, manifest } = await filesOf(deps, run.id);
    for (const file of files) for (const part of file.parts) named.add(part.object);
    for (const list of manifest.files?.lists ?? []) named.add(list.object);
  }
  const there = [...store.objects.keys()];
  return {
    named: [...named].sort(),
    lacking: [...named].filter((name) => !there.includes(name)),
    tooMuch: there.filter((name) => name.startsWith("v1/blobs/") && !named.has(name)),
  };
}

describe("content of files", () => {
  let pair: Pair;
  let shelf: Shelf;
  let deps: BackupDeps;
  const taken: RunRow[] = [];

  beforeAll(async () => {
    pair = await pairOfStores(cluster());
    shelf = new Shelf(pair.url);
    deps = { ...pair.deps, files: shelf.files };
    await query(pair.url, "insert into storage.buckets (id, name) values ('notes', 'notes')");
    await query(pair.url, "create table public.notes (id int primary key)");
    for (let n = 0; n < 90; n++) await shelf.put(`stays-${n}`);
    for (const name of ["same-1", "same-2"]) await shelf.put(name, new Uint8Array(4_000).fill(7));
    await shelf.put("goes");
    await shelf.put("changes", randomBytes(5 * 1024 * 1024));
    taken.push(await backup(deps));
    await shelf.remove("goes");
    await shelf.put("changes", randomBytes(5 * 1024 * 1024));
    taken.push(await backup(deps));
    taken.push(await backup(deps));
  }, 120_000);

  it("stands in the second store before the manifest does, in its layer", async () => {
    const run = await copies(pair, { budget: () => smallBudget(40) });
    expect(run).toMatchObject({ status: "succeeded" });
    expect(await differences(pair.store.objects, pair.second.objects, pair.identity)).toEqual([]);
    expect((await blobs(deps, pair.second, taken)).lacking).toEqual([]);
  }, 120_000);

  it("goes out of both stores two days after the last manifest that named it, and no other does", async () => {
    const [old, ...kept] = taken as [RunRow, RunRow, RunRow];
    await query(pair.url, "update backup.settings set value = '1' where name = 'keep_at_least'");
    await query(pair.url, "update backup.runs set origin = 'http' where kind = 'full'");
    await age(pair, old.id, 200);
    // Else the old one is the newest before the window of restores to a moment.
    await age(pair, kept[0]?.id ?? "", 20);
    await verified(pair, kept[1]?.id ?? "");
    const before = await blobs(deps, pair.store, taken);
    expect(before.tooMuch).toEqual([]);
    expect(await prune({ ...pair, deps }, { budget: () => smallBudget(150) })).toMatchObject({
      status: "succeeded",
      warnings: [],
    });
    // Condemned, and still there; a backup that names it once more saves it.
    const waiting = await blobs(deps, pair.store, kept);
    expect(waiting.tooMuch.length).toBe(4);
    await passGrace(pair);
    expect(await prune({ ...pair, deps })).toMatchObject({ status: "succeeded", warnings: [] });
    for (const store of [pair.store, pair.second]) {
      expect(await blobs(deps, store, kept)).toMatchObject({ lacking: [], tooMuch: [] });
    }
    const rows = await query(pair.url, "select name from backup.objects where kind = 'blob'");
    const there = [...pair.store.objects.keys()].filter((name) => name.startsWith("v1/blobs/"));
    expect(rows.map(({ name }) => name).sort()).toEqual(there.sort());
  }, 120_000);

  it("is not read again after that, and a version that came back is", async () => {
    shelf.read = 0;
    const next = await backup(deps);
    expect(shelf.read).toBe(0);
    await shelf.put("goes");
    const last = await backup(deps);
    expect(shelf.read).toBe(1);
    expect(await (await filesOf(deps, last.id)).hashes()).toEqual(shelf.hashes());
    // Two backups share all lists but the one of the file that came.
    const lists = async (run: RunRow) =>
      (await filesOf(deps, run.id)).manifest.files?.lists.map(({ object }) => object);
    const [before, after] = [await lists(next), await lists(last)];
    expect(after?.filter((name) => !before?.includes(name)).length).toBe(1);
    expect(after?.length).toBe(16);
  }, 120_000);

  it("is swept while nobody lists it, and not while a run that has found it in place is under way", async () => {
    await query(pair.url, "select backup.rescue_objects(array(select name from backup.objects))");
    const [row] = await query(
      pair.url,
      `select p.object from backup.file_parts as p join backup.copied_files as c on c.id = p.copy
       join storage.objects as o on o.id = c.object_id and o.name = 'stays-7'`,
    );
    const object = String(row?.["object"]);
    const needed = async () =>
      (await query(pair.url, "select backup.is_needed($1) as needed", [object]))[0]?.["needed"];
    await query(pair.url, "create temp table t (i int); delete from backup.opened_manifests");
    expect(await needed()).toBe(false);
    let during: unknown = null;
    await shelf.put("slow");
    const slow: ProjectFiles = {
      label: "a shelf",
      read: async (range) => {
        during ??= await needed();
        return await shelf.files.read(range);
      },
    };
    await backup({ ...deps, files: slow });
    expect(during).toBe(true);
  }, 120_000);
});
