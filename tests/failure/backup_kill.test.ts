import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createFileStore } from "../../src/shared/store/file.ts";
import { useCluster } from "../support/cluster.ts";
import {
  backup,
  installedDatabase,
  manifestOf,
  query,
  tableIn,
  textOf,
  until,
  world,
} from "../integration/backup_fixture.ts";
import { sampled } from "../support/sampled.ts";

const cluster = useCluster();
let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "holdfast-kill-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const rows = 40_000;

async function prepared(): Promise<string> {
  const url = await installedDatabase(cluster());
  await query(
    url,
    `create table t (i int, v text); insert into t select i, md5(i::text) from generate_series(1, ${rows}) as i`,
  );
  await query(url, "create table other as select i from generate_series(1, 100) as i");
  return url;
}

/** A backup in a process of its own. `nth` time the step is logged, the process is killed. Resolves with how it ended. */
async function runUntil(url: string, step: string, nth: number): Promise<"killed" | number | null> {
  const child = spawn(
    fileURLToPath(new URL("../../node_modules/.bin/deno", import.meta.url)),
    ["run", "-A", "--no-lock", fileURLToPath(new URL("./backup_child.ts", import.meta.url))],
    {
      env: { ...process.env, TEST_DATABASE_URL: url, TEST_STORE: folder, TEST_KILL_STEP: step },
      stdio: ["ignore", "pipe", "ignore"],
      detached: true,
    },
  );
  const closed = new Promise<number | null>((resolve) => child.once("close", (code) => resolve(code)));
  let seen = 0;
  let killed = false;
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line !== `step:${step}` || ++seen < nth || killed) return;
    killed = true;
    killGroup(child);
  });
  const timer = setTimeout(() => killGroup(child), 60_000);
  const code = await closed;
  clearTimeout(timer);
  return killed ? "killed" : code;
}

/** npm's `deno` starts the real one: both have to go. */
function killGroup(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended already.
  }
}

/** What the table holds, by an aggregate that no part of the backup uses. */
async function witness(url: string): Promise<string> {
  const [row] = await query(url, "select md5(string_agg(i || e'\\t' || v || e'\\n', '' order by i)) as h from t");
  return String(row?.["h"]);
}

describe("a backup whose process is killed", () => {
  const points: readonly (readonly [string, number])[] = [
    ["attempt.locked", 1],
    ["attempt.exported", 1],
    ["attempt.planned", 1],
    ["chunk.claimed", 2],
    ["chunk.read", 2],
    ["chunk.put", 2],
    ["chunk.recorded", 3],
    ["counts.recorded", 1],
    ["manifest.put", 1],
    ["run.recorded", 1],
  ];
  /** What the dead one leaves: no snapshot, its task, an object or a manifest that nobody recorded, or nothing to do. */
  const leaves = ([step]: typeof points[number]) => [
    /put$|^run/.test(step) ? step : /locked|exported/.test(step) ? "no snapshot" : "its task",
  ];
  it.each(sampled("points", points, 5, leaves))(
    "at %s (%i) is finished by the next one, under the same id, and holds every row",
    async (step, nth) => {
      const url = await prepared();
      expect(await runUntil(url, step, nth)).toBe("killed");
      const [first] = await query(url, "select id, status from backup.runs");
      if (step !== "run.recorded") {
        expect(["snapshotting", "copying", "finishing"]).toContain(first?.["status"]);
        // Nothing is called a backup before it is one.
        expect(await query(url, "select 1 from backup.runs where manifest_name is not null")).toEqual([]);
        await query(url, "update backup.tasks set lease_until = backup.clock_now() where status = 'leased'");
      }
      const { deps } = await world(cluster(), { url, store: createFileStore(folder) });
      const row = await backup(deps);
      expect(row.status).toBe("succeeded");
      if (step !== "run.recorded") expect(row.id).toBe(first?.["id"]);
      const manifest = await manifestOf(deps, row);
      const table = tableIn(manifest, "public", "t");
      expect(table.rows).toBe(rows);
      const [text] = await query(url, "select md5($1) as h", [await textOf(deps, table)]);
      expect(text?.["h"]).toBe(await witness(url));
      expect(
        await query(
          url,
          "select count(*)::int as n from backup.runs where status in ('queued', 'snapshotting', 'copying', 'finishing')",
        ),
      )
        .toEqual([{ n: 0 }]);
      await until("no keeper is left", async () => (await keepers(url)).length === 0 ? true : null);
    },
  );
});

describe("a backup whose sessions are ended by the server", () => {
  it.each(["holdfast:leg", "holdfast:keeper"])("goes on: %s", async (name) => {
    const url = await prepared();
    let ended: Promise<unknown[]> | null = null;
    const { deps } = await world(cluster(), {
      url,
      store: createFileStore(folder),
      onLine: (line) => {
        if (line.event === "step:chunk.recorded") {
          ended ??= query(
            url,
            `select pg_terminate_backend(pid) from pg_stat_activity
              where application_name = $1 and datname = current_database()`,
            [name],
          );
        }
      },
    });
    const row = await backup(deps, { workers: 1, leaseSeconds: 2 });
    expect(await ended).not.toEqual([]);
    expect(row.status).toBe("succeeded");
    expect(tableIn(await manifestOf(deps, row), "public", "t").rows).toBe(rows);
  });
});

async function keepers(url: string): Promise<unknown[]> {
  return await query(
    url,
    "select 1 from pg_stat_activity where application_name = 'holdfast:keeper' and datname = current_database()",
  );
}
