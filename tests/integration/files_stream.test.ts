/** Files between two full backups: copied as the stream tells of them, found by whoever has the store and the keys. */
import { createHash, randomBytes } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { parsePoint } from "../../src/shared/changes/plan/point.ts";
import { planPoint } from "../../src/shared/changes/plan/plan_point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { erasedFiles } from "../../src/shared/erase/erased_files.ts";
import { hashSql, keyTable, layHashes, rowHash } from "../../src/shared/erase/hashes.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import type { ProjectFiles } from "../../src/shared/files/project_files.ts";
import { filesOfPoint } from "../../src/shared/files/wanted_files.ts";
import type { ListedFile } from "../../src/shared/format/file_list.ts";
import { parseFileListName } from "../../src/shared/format/layout.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { emptyMap } from "../../src/shared/rows/ownership/map_file.ts";
import { readObject } from "../../src/shared/verify/read_object.ts";
import { recordedPart } from "../../src/shared/verify/read_file_list.ts";
import { useCluster } from "../support/cluster.ts";
import { backup, query } from "./backup_fixture.ts";
import { drainNow, leaseRunsOut } from "./changes_stream_fixture.ts";
import { Shelf } from "./files_shelf.ts";
import { copies, differences, type Pair, pairOfStores, smallBudget } from "./replicate_fixture.ts";
import { age, passGrace, prune, verified } from "./retention_fixture.ts";

const cluster = useCluster({ platform: true });
let pair: Pair;
let shelf: Shelf;
let deps: Pair["deps"];
let full: RunRow;

const sha256 = (content: Uint8Array) => createHash("sha256").update(content).digest("hex");
const lists = (store = pair.store) =>
  [...store.objects.keys()].filter((name) => parseFileListName(name) !== null).sort();

/** A moment that every commit before it is before, and every one after it behind. */
async function moment(): Promise<Point> {
  const [row] = await query(
    pair.url,
    `select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as t from pg_sleep(0.01)`,
  );
  await query(pair.url, "select pg_sleep(0.01)");
  return parsePoint(String(row?.["t"]), () => 0);
}

/** `name` → hash of the content, or why there is none: from the store and the keys. */
async function filesAt(point: Point, from = pair.store): Promise<Record<string, string>> {
  const read = { ...deps, store: from };
  const plan = await planPoint({ ...read, target: deps.database }, point);
  const files = await filesOfPoint(read, plan, () => true);
  const found: [string, string][] = [];
  for (const file of files) found.push([file.name, await contentOf(file, plan.full.epochOf)]);
  return Object.fromEntries(found.sort());
}

async function contentOf(
  { missed, parts }: ListedFile,
  epochOf: Parameters<typeof readObject>[0]["epochOf"],
): Promise<string> {
  if (missed !== null) return missed;
  const hash = createHash("sha256");
  for (const part of parts) hash.update(await readObject({ ...deps, epochOf }, recordedPart(part)));
  return hash.digest("hex");
}

beforeAll(async () => {
  pair = await pairOfStores(cluster());
  shelf = new Shelf(pair.url);
  deps = { ...pair.deps, files: shelf.files, database: pair.killer.mortal(pair.deps.database) };
  await query(pair.url, "insert into storage.buckets (id, name) values ('notes', 'notes')");
  await query(pair.url, "create table public.notes (id int primary key)");
  await drainNow(deps);
  await shelf.put("old");
  await shelf.put("kept");
  full = await backup(deps);
}, 120_000);

describe("a file that comes after the full backup", () => {
  it("is copied with the next drain, and is there at its moments though it was removed since", async () => {
    const before = await moment();
    const [first, second] = [await shelf.put("note"), randomBytes(5 * 1024 * 1024 + 3)];
    await drainNow(deps);
    const withFirst = await moment();
    await shelf.put("note", second);
    expect((await drainNow(deps)).outcome).toBe("caught_up");
    const withSecond = await moment();
    await shelf.remove("note");
    await shelf.remove("old");
    await drainNow(deps);
    const old = await filesAt(before);
    expect(Object.keys(old)).toEqual(["kept", "old"]);
    expect((await filesAt(withFirst))["note"]).toBe(sha256(first));
    expect((await filesAt(withSecond))["note"]).toBe(sha256(second));
    expect(await filesAt(withSecond)).toMatchObject(old);
    expect(Object.keys(await filesAt({ by: "end" }))).toEqual(["kept"]);
    expect(lists().length).toBe(2);
    // Nothing has changed: no list, no segment, no read.
    const reads = shelf.read;
    await drainNow(deps, { idleSeconds: 600 });
    expect([lists().length, shelf.read]).toEqual([2, reads]);
  }, 60_000);

  it("is named as missed where it was overwritten before a drain came", async () => {
    await shelf.put("hasty");
    const lost = await moment();
    const later = await shelf.put("hasty");
    await drainNow(deps);
    expect((await filesAt(lost))["hasty"]).toBe("changed");
    expect((await filesAt({ by: "end" }))["hasty"]).toBe(sha256(later));
  }, 60_000);

  it("has the row of the moment, whatever its owner and its dates became", async () => {
    const content = await shelf.put("moved");
    await query(
      pair.url,
      `update storage.objects set owner_id = 'f3a1c1de-0000-4000-8000-000000000001', user_metadata = '{"n": 12345678901234567890}'
       where name = 'moved'`,
    );
    const [row] = await query(
      pair.url,
      "select (to_jsonb(o) - 'path_tokens' - 'level')::text as r from storage.objects as o where name = 'moved'",
    );
    await drainNow(deps);
    const then = await moment();
    await query(pair.url, "update storage.objects set owner_id = null, last_accessed_at = now() where name = 'moved'");
    await drainNow(deps);
    const plan = await planPoint({ ...deps, target: deps.database }, then);
    const [file] = await filesOfPoint(deps, plan, ({ name }) => name === "moved");
    const [same] = await query(
      pair.url,
      `select to_jsonb(r) - 'path_tokens' - 'level' = $2::jsonb as same
         from jsonb_populate_record(null::storage.objects, $1::jsonb) as r`,
      [file?.row, row?.["r"]],
    );
    expect(same).toEqual({ same: true });
    expect((await filesAt({ by: "end" }))["moved"]).toBe(sha256(content));
  }, 60_000);

  it("in a bucket that is left out, or in one of ours, is nobody's to copy", async () => {
    await query(
      pair.url,
      `insert into storage.buckets (id, name) values ('data-exports', 'data-exports'), ('unwanted', 'unwanted');
       update backup.settings set value = 'unwanted' where name = 'file_buckets_left_out';
       insert into storage.objects (bucket_id, name, version) values ('data-exports', 'x', 'v'), ('unwanted', 'y', 'v')`,
    );
    const before = [lists().length, shelf.read];
    await drainNow(deps);
    expect([lists().length, shelf.read]).toEqual(before);
    expect(await query(pair.url, "select count(*)::int as n from backup.run_files")).toEqual([{ n: 0 }]);
  }, 60_000);
});

describe("copying", () => {
  it("goes on leg by leg, and the stream before it", async () => {
    const contents = new Map<string, string>();
    for (let n = 0; n < 9; n++) contents.set(`leg-${n}`, sha256(await shelf.put(`leg-${n}`)));
    contents.set("leg-large", sha256(await shelf.put("leg-large", randomBytes(9 * 1024 * 1024))));
    let legs = 0;
    for (let left = true; left; legs++) {
      const result = await drainNow(deps, { budget: smallBudget(6), idleSeconds: 600 });
      left = result.outcome === "work_left";
      if (legs === 0) await query(pair.url, "insert into public.notes values (1)");
    }
    expect(legs).toBeGreaterThan(3);
    const files = await filesAt({ by: "end" });
    for (const [name, hash] of contents) expect(files[name], name).toBe(hash);
  }, 60_000);

  it.each(["files.next", "files.put", "files.recorded", "files.listed"])("killed at %s loses nothing", async (step) => {
    const name = `killed-${step}`;
    const content = await shelf.put(name, randomBytes(2 * 1024 * 1024 + 7));
    pair.killer.arm(`step:${step}`);
    await drainNow(deps).catch(() => {});
    expect(pair.killer.fired).toBe(1);
    pair.killer.disarm();
    await leaseRunsOut(pair.url);
    expect((await drainNow(deps)).outcome).toBe("caught_up");
    expect((await filesAt({ by: "end" }))[name]).toBe(sha256(content));
    expect(await query(pair.url, "select name from backup.run_files")).toEqual([]);
  }, 60_000);

  it("waits while Storage stays away, with an alert, and the stream goes on", async () => {
    const away: ProjectFiles = {
      label: "a shelf",
      read: () => Promise.reject(new HoldfastError("store_unreachable", "nobody is there")),
    };
    const content = await shelf.put("patient");
    const alerts = () =>
      query(pair.url, "select kind, status from backup.alerts where kind like 'files%' and status <> 'resolved'");
    expect((await drainNow({ ...deps, files: away })).outcome).toBe("caught_up");
    expect(await alerts()).toEqual([]);
    await query(pair.url, "update backup.run_files set noted_at = noted_at - interval '6 minutes'");
    await drainNow({ ...deps, files: away });
    expect(await alerts()).toEqual([{ kind: "files_behind", status: "open" }]);
    // Nobody who drains knows Storage: the same.
    await drainNow({ ...deps, files: null });
    expect(await alerts()).toEqual([{ kind: "files_behind", status: "open" }]);
    await drainNow(deps);
    expect(await alerts()).toEqual([]);
    expect((await filesAt({ by: "end" }))["patient"]).toBe(sha256(content));
  }, 60_000);

  it("says what Storage lists and does not give, and asks again", async () => {
    const holes: ProjectFiles = {
      label: "a shelf",
      read: async (range) => {
        if (range.name === "hole") throw new HoldfastError("object_missing", "it is not there");
        return await shelf.files.read(range);
      },
    };
    const content = await shelf.put("hole");
    expect((await drainNow({ ...deps, files: holes })).outcome).toBe("caught_up");
    expect((await filesAt({ by: "end" }))["hole"]).toBe("changed");
    const [alert] = await query(pair.url, "select subject, status from backup.alerts where kind = 'files_unreadable'");
    expect(alert).toEqual({ subject: "stream", status: "open" });
    await query(pair.url, "update backup.run_files set noted_at = noted_at - interval '11 minutes'");
    await drainNow(deps);
    expect((await filesAt({ by: "end" }))["hole"]).toBe(sha256(content));
    expect(await query(pair.url, "select from backup.alerts where kind = 'files_unreadable' and status <> 'resolved'"))
      .toEqual([]);
  }, 60_000);

  it("ends where a file changes each time it is read", async () => {
    await shelf.put("restless");
    const restless: ProjectFiles = {
      label: "a shelf",
      read: async (range) => {
        const content = await shelf.files.read(range);
        if (range.name === "restless") await shelf.put("restless");
        return content;
      },
    };
    expect((await drainNow({ ...deps, files: restless })).outcome).toBe("caught_up");
    await shelf.put("restless");
    await drainNow(deps);
    expect((await filesAt({ by: "end" }))["restless"]).toBe(shelf.hashes()["notes/restless"]);
  }, 60_000);
});

describe("who was erased", () => {
  it.each([["abc"], ["ä 日本 \u{1F600}/x y"], ["a:1,b"]])(
    "is told from others by the hash that the server makes: %s",
    async (text) => {
      const key = { inner: randomBytes(64), outer: randomBytes(64) };
      const identity = { schema: "storage", name: "objects", columns: ["bucket_id", "name"] };
      const connection = await pair.deps.database.connect("holdfast:test");
      try {
        await connection.execute("begin");
        await layHashes(connection, [key], []);
        const [row] = await connection.query(
          `select pg_catalog.encode(${
            hashSql(identity, ["'notes'", "$1::text"])
          }, 'hex') as hash from ${keyTable} as k`,
          [text],
        );
        expect(await rowHash(key, identity, ["notes", text])).toBe(row?.["hash"]);
        const entry = {
          number: 1,
          erasure: "",
          at: "",
          map: emptyMap,
          rows: [identity],
          hashes: [row?.["hash"] ?? ""],
        };
        const file = { id: "i", bucket: "notes", name: text, owners: [] };
        const erased = await erasedFiles({ entries: [entry], keys: [key] }, [file, { ...file, name: `${text}2` }]);
        expect([...erased]).toEqual([file]);
      } finally {
        await connection.execute("rollback");
        await connection.close();
      }
    },
  );
});

describe("copies of the stream", () => {
  it("stand in the second store, in its layer", async () => {
    expect(await copies(pair, { budget: () => smallBudget(60) })).toMatchObject({ status: "succeeded" });
    const lacking = await differences(pair.store.objects, pair.second.objects, pair.identity);
    // What was overwritten while it was copied is named by nothing: it waits for a sweep.
    expect(lacking.filter((one) => !/^v1\/blobs\/.* is missing$/.test(one))).toEqual([]);
    expect(lacking.length).toBeLessThan(6);
    expect(lists(pair.second)).toEqual(lists());
    expect(lists().length).toBeGreaterThan(8);
  }, 60_000);

  it("are swept by nobody while a moment needs them, and go with the last one that did", async () => {
    const there = (store = pair.store) =>
      [...store.objects.keys()].filter((name) => name.startsWith("v1/blobs/")).sort();
    const expected = await filesAt({ by: "end" });
    // All that is named was copied there.
    const [blobs, names] = [there(pair.second), lists()];
    await query(pair.url, "update backup.settings set value = '1' where name = 'keep_at_least'");
    await query(pair.url, "update backup.runs set origin = 'http' where kind = 'full'");
    await verified(pair, full.id);
    for (let n = 0; n < 2; n++) {
      expect(await prune({ ...pair, deps })).toMatchObject({ status: "succeeded", warnings: [] });
      await passGrace(pair);
    }
    expect([there(), lists()]).toEqual([blobs, names]);
    expect(await filesAt({ by: "end" })).toEqual(expected);
    for (let n = 0; n < 5; n++) {
      await query(pair.url, "insert into public.notes values ($1)", [100 + n]);
      await drainNow(deps);
    }
    const [next, newest] = [await backup(deps), await backup(deps)];
    await drainNow(deps);
    await copies(pair);
    await query(pair.url, "update backup.runs set origin = 'http' where kind = 'full'");
    await age(pair, full.id, 200);
    await age(pair, next.id, 20);
    await verified(pair, newest.id);
    for (let n = 0; n < 2; n++) {
      expect(await prune({ ...pair, deps })).toMatchObject({ status: "succeeded", warnings: [] });
      await passGrace(pair);
    }
    expect([lists(), lists(pair.second)]).toEqual([[], []]);
    expect(await query(pair.url, "select from backup.file_lists")).toEqual([]);
    const left = there();
    expect(left.length).toBeGreaterThan(0);
    expect(left.length).toBeLessThan(blobs.length);
    const hashes = shelf.hashes();
    expect(Object.entries(await filesAt({ by: "end" })).map(([name, hash]) => [`notes/${name}`, hash]).sort())
      .toEqual(Object.entries(hashes).sort());
  }, 120_000);
});
