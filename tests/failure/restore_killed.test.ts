import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import { createLog } from "../../src/shared/log.ts";
import { proveCopy } from "../../src/shared/restore/prove.ts";
import { restoreBackup, type RestoreDeps, type RestoreProgress } from "../../src/shared/restore/run.ts";
import { createFileStore } from "../../src/shared/store/file.ts";
import { databaseOf, restoreDeps, writeBackup, type WrittenBackup } from "../integration/restore_fixture.ts";
import { type Cluster, clusterMs, freshDatabase, query, startTestCluster, withClient } from "../support/cluster.ts";
import type { ChildInput } from "./restore_child.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Tables with several chunks, keys, a trigger, a sequence, a materialised view: something in every phase. */
const sourceSql = `
  create table authors (id bigint generated always as identity primary key, name text not null unique);
  create table books (id uuid primary key default gen_random_uuid(), author bigint not null references authors, title text);
  create index on books (title);
  create table notes (book uuid references books on delete cascade, body text);
  create table nothing ();
  create sequence tickets increment 5;
  create function stamp() returns trigger language plpgsql as 'begin return new; end';
  create trigger stamp before insert on books for each row execute function stamp();
  insert into authors (name) select 'author ' || i from generate_series(1, 300) i;
  insert into books (author, title) select 1 + i % 300, repeat('title ' || i, 5) from generate_series(1, 3000) i;
  insert into notes select id, title from books;
  insert into nothing select from generate_series(1, 10);
  select setval('tickets', 77);
  create materialized view shelf as select a.name, count(*) from authors a join books b on b.author = a.id group by 1;
  alter table books enable row level security;
  create policy everyone on books for select using (true);
`;

describe("a restore that is killed and run again ends as if it had never been killed", () => {
  let cluster: Cluster;
  let source = "";
  let backup: WrittenBackup;
  const folder = mkdtempSync(join(tmpdir(), "holdfast-restore-"));

  beforeAll(async () => {
    cluster = await startTestCluster({ platform: false });
    source = await freshDatabase(cluster);
    await withClient(cluster.plainUrl("postgres", source), (client) => client.query(sourceSql));
    // A crash moves sequences ahead of what they gave out, unless a checkpoint wrote them as they are.
    await query(cluster.plainUrl(), "checkpoint");
    backup = await writeBackup(databaseOf(cluster, "postgres", source), createFileStore(folder));
    expect(backup.manifest.tables.flatMap((table) => table.chunks).length).toBeGreaterThan(15);
  }, clusterMs);

  afterAll(async () => {
    await cluster?.destroy();
    rmSync(folder, { recursive: true, force: true });
  }, clusterMs);

  const depsOf = async (target: string): Promise<RestoreDeps> =>
    await restoreDeps(createFileStore(folder), backup.ring, databaseOf(cluster, "postgres", target));

  /** Markers that a restore which ended early has left in the target. */
  async function doneBefore(target: string): Promise<{ chunks: number; steps: number }> {
    const steps = await query(cluster.plainUrl("postgres", target), "select step from holdfast.done");
    const chunks = steps.filter(({ step }) => String(step).startsWith("chunk ")).length;
    return { chunks, steps: steps.length - chunks };
  }

  /** Runs the same restore again and compares the outcome with the source, and leaves nothing of ours behind. */
  async function runAgain(target: string): Promise<void> {
    const seen: RestoreProgress[] = [];
    const before = await doneBefore(target);
    const result = await restoreBackup(await depsOf(target), backup.id, { onProgress: (at) => seen.push(at) });
    // What an earlier call has done counts from the start, and everything has been counted once at the end.
    expect(seen[0]?.rawBytes === 0).toBe(before.chunks === 0);
    expect(seen[0]?.steps === 0).toBe(before.steps === 0);
    const last = seen.at(-1);
    expect(last).toMatchObject({
      rows: backup.manifest.totals.rows,
      rawBytes: backup.manifest.totals.rawBytes,
      steps: last?.stepsTotal,
      rowsTotal: backup.manifest.totals.rows,
      rawBytesTotal: backup.manifest.totals.rawBytes,
    });
    expect(result).toMatchObject({ ok: true, resumed: true, inserted: backup.manifest.totals.rows });
    const from = await databaseOf(cluster, "postgres", source).connect("prove");
    const to = await databaseOf(cluster, "postgres", target).connect("prove");
    try {
      expect(await proveCopy(from, to, result)).toEqual([]);
    } finally {
      await from.close();
      await to.close();
    }
    const url = cluster.plainUrl("postgres", target);
    expect(await query(url, "select 1 from pg_namespace where nspname = 'holdfast'")).toEqual([]);
    const [view] = await query(url, "select count(*)::int as rows from shelf");
    expect(view).toEqual({ rows: 300 });
  }

  const points: readonly [step: string, occurrence: number][] = [
    ["restore.pre-data", 1],
    ["restore.chunk", 1],
    ["restore.chunk", 9],
    ["restore.post-data", 1],
    ["restore.post-data", 5],
    ["restore.last", 1],
  ];
  for (const [step, occurrence] of points) {
    it(`killed at ${step}, time ${occurrence}`, async () => {
      const target = await freshDatabase(cluster);
      const ended = await killedAt({
        folder,
        keys: backup.keys,
        url: cluster.url("postgres", target),
        caFile: cluster.caFile,
        id: backup.id,
        step,
        occurrence,
      });
      expect(ended).toBe("killed");
      await runAgain(target);
    });
  }

  it("the server crashes while rows are loaded, and loses its last commits", async () => {
    const target = await freshDatabase(cluster);
    const deps = await depsOf(target);
    let chunks = 0;
    let crashed: Promise<void> | undefined;
    const log = createLog((line) => {
      if (line.event === "step:restore.chunk" && ++chunks === 6) crashed = cluster.kill();
    }, "debug");
    await expect(restoreBackup({ ...deps, log }, backup.id)).rejects.toBeInstanceOf(HoldfastError);
    expect(crashed).toBeDefined();
    await crashed;
    await cluster.start();
    await runAgain(target);
  });

  it("a session is ended by the server in the middle", async () => {
    const target = await freshDatabase(cluster);
    const deps = await depsOf(target);
    let chunks = 0;
    let ended: Promise<unknown> | undefined;
    const log = createLog((line) => {
      if (line.event !== "step:restore.chunk" || ++chunks !== 4) return;
      ended = query(
        cluster.plainUrl(),
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and application_name = 'holdfast:restore'",
        [target],
      );
    }, "debug");
    await expect(restoreBackup({ ...deps, log }, backup.id)).rejects.toMatchObject({ code: "database_unreachable" });
    expect(ended).toBeDefined();
    await ended;
    await runAgain(target);
  });

  it("a person cancels it", async () => {
    const target = await freshDatabase(cluster);
    const deps = await depsOf(target);
    const abort = new AbortController();
    const log = createLog((line) => {
      if (line.event === "step:restore.chunk") abort.abort();
    }, "debug");
    await expect(restoreBackup({ ...deps, log }, backup.id, { signal: abort.signal })).rejects.toMatchObject({
      code: "cancelled",
    });
    await runAgain(target);
  });

  it("an unfinished restore is not gone on with from another backup", async () => {
    const target = await freshDatabase(cluster);
    const other = await writeBackup(databaseOf(cluster, "postgres", source), createFileStore(folder), {
      keys: backup.keys,
    });
    const abort = new AbortController();
    const deps = await depsOf(target);
    const log = createLog((line) => {
      if (line.event === "step:restore.chunk") abort.abort();
    }, "debug");
    await restoreBackup({ ...deps, log }, backup.id, { signal: abort.signal }).catch(() => {});
    await expect(restoreBackup(deps, other.id)).rejects.toMatchObject({
      code: "target_not_empty",
      message: expect.stringContaining(backup.id),
    });
    await runAgain(target);
  });

  it("a restore that has finished is named where the same backup is restored again", async () => {
    const held = await freshDatabase(cluster);
    await withClient(cluster.plainUrl("postgres", held), (client) =>
      client.query(`
        create table kept as select 1 as i;
        create subscription far connection 'dbname=nowhere' publication p with (connect = false, slot_name = none)`));
    const other = await writeBackup(databaseOf(cluster, "postgres", held), createFileStore(folder), {
      keys: backup.keys,
    });
    const target = await freshDatabase(cluster);
    const deps = await depsOf(target);
    const again = (id: string) => restoreBackup(deps, id).catch((error: unknown) => error);
    expect(await restoreBackup(deps, other.id)).toMatchObject({ held: [expect.anything()] });
    const url = cluster.plainUrl("postgres", target);
    const [record] = await query(
      url,
      `select to_char(finished_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as at from holdfast.restore`,
    );
    expect(await again(other.id)).toMatchObject({
      code: "target_not_empty",
      message: `the target holds the restore of backup ${other.id} that finished at ${
        record?.["at"]
      }: table public.kept`,
      hint: expect.stringMatching(/new database.*`holdfast release`/),
    });
    // Of what the target's record does not say nothing is said.
    const plain = { code: "target_not_empty", message: "the target holds table public.kept" };
    expect(await again(backup.id)).toMatchObject(plain);
    await query(url, "drop schema holdfast cascade");
    expect(await again(other.id)).toMatchObject(plain);
  });

  it("two restores do not work on one target at the same time", async () => {
    const target = await freshDatabase(cluster);
    const deps = await depsOf(target);
    let second: Promise<unknown> | undefined;
    const log = createLog((line) => {
      if (line.event === "step:restore.chunk") second ??= restoreBackup(deps, backup.id).catch((error) => error);
    }, "debug");
    await restoreBackup({ ...deps, log }, backup.id);
    expect(await second).toMatchObject({ code: "run_state" });
  });
});

/** Starts the child and kills it where it stands still. `ended`: it came to its end without reaching the step. */
function killedAt(input: ChildInput): Promise<"killed" | "ended"> {
  const child = spawn(
    // The program itself: the script in node_modules/.bin starts it as a child that a signal would not reach.
    join(root, "node_modules/deno/deno"),
    ["run", "-A", join(root, "tests/failure/restore_child.ts")],
    { cwd: root, env: { ...process.env, HOLDFAST_CHILD: JSON.stringify(input) }, stdio: ["ignore", "pipe", "inherit"] },
  );
  return new Promise((resolve, reject) => {
    let text = "";
    let killed = false;
    child.stdout.on("data", (bytes) => {
      text += String(bytes);
      if (!killed && text.includes("reached")) {
        killed = true;
        child.kill("SIGKILL");
      }
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (killed) resolve("killed");
      else if (text.includes("ended")) resolve("ended");
      else reject(new Error(`the child ended with ${code}`));
    });
  });
}
