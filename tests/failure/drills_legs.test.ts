/** A drill of several legs on a whole project: begun by the cron job's call, one of its functions killed, and right all the same. */
import { describe, expect, it } from "vitest";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { verifyEvidence } from "../../src/shared/drills/evidence.ts";
import { eventually, runMs, useProject } from "../support/stack.ts";

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } }, async ({ query }) => {
  await query(
    `create table public.notes (id int primary key, t text not null);
     insert into public.notes select i, repeat(md5(i::text), 40) from generate_series(1, 40000) as i;
     create table public.people (id int primary key, name text);
     insert into public.people select i, 'person ' || i from generate_series(1, 100) as i;
     update backup.settings set value = '1000000' where name = 'disk_mb'`,
  );
});

/** The calendar says that this one is due and nothing else is. */
async function due(name: string): Promise<void> {
  await project().query("update backup.drills set started_at = started_at - interval '2 days'");
  await project().query(
    "update backup.drill_calendar set enabled = name = $1, since = now() - interval '400 days', last_good_at = null",
    [name],
  );
}

async function begun(): Promise<string> {
  return await eventually("the cron job begins a drill", async () => {
    const [row] = await project().query("select backup.call_drills() as run");
    return row?.["run"] == null ? null : String(row["run"]);
  });
}

async function drillOf(run: string) {
  const [row] = await project().query("select * from backup.drills where run_id = $1", [run]);
  return row as {
    ok: boolean;
    evidence: Record<string, unknown>;
    database_dropped_at: Date | null;
    rto_seconds: string;
  };
}

const leftovers = () => project().query("select datname from pg_database where datname ~ '^holdfast_drill'");

describe("the function drill", () => {
  it("restores and proves more than a leg can hold, goes on behind a kill, and drops what it made", async () => {
    const { startBackup, ended, story, killAt, isolates, stack } = project();
    const { run: backup } = await startBackup();
    expect(await ended(backup)).toMatchObject({ status: "succeeded" });
    await due("full");
    const kill = await killAt("restore.chunk", 3, "drill");
    const run = await begun();
    await kill.fired();
    // And in the middle of the proof, behind what no leg has written down yet.
    const second = await killAt("drill.proving", 2, "drill");
    const ending = ended(run);
    await second.fired(2 * runMs);
    // The clock has gone on once, for the first of them.
    await project().query(
      `update backup.calls set made_at = made_at - interval '1 hour', begun_at = begun_at - interval '1 hour'
        where run_id = $1 and status = 'begun'`,
      [run],
    );
    expect(await ending, await story(run)).toMatchObject({ status: "succeeded" });
    const { ok, evidence, database_dropped_at, rto_seconds } = await drillOf(run);
    expect(ok, JSON.stringify(evidence)).toBe(true);
    expect(evidence).toMatchObject({ backup: { id: backup }, failure: null, proof: { differencesTotal: 0 } });
    expect(await verifyEvidence(evidence, parseKeyRing(stack.keys))).toBe(true);
    expect(Number(rto_seconds)).toBeGreaterThan(0);
    expect(database_dropped_at).not.toBeNull();
    expect(await leftovers()).toEqual([]);
    const legs = await project().query("select count(*)::int as n from backup.calls where run_id = $1", [run]);
    expect(legs[0]?.["n"]).toBeGreaterThan(3);
    const killed = (await isolates()).filter((one) => one.function === "drill" && one.endedBy === "killed");
    expect(killed).toHaveLength(2);
    // What such a database cannot have is in the list, and nothing more.
    const { notCompared } = evidence["proof"] as { notCompared: { identity: string; reason: string }[] };
    expect(notCompared.some(({ identity }) => identity === "extension pg_cron")).toBe(true);
    const cpu = Math.max(...(await isolates()).map((isolate) => isolate.cpuMs));
    expect(cpu).toBeLessThan(2_000);
  }, 6 * runMs);

  it("restores a record beside by the function restore, and waits for it", async () => {
    await due("record");
    const run = await begun();
    expect(await project().ended(run), await project().story(run)).toMatchObject({ status: "succeeded" });
    const { ok, evidence } = await drillOf(run);
    expect(ok, JSON.stringify(evidence)).toBe(true);
    expect(evidence).toMatchObject({ proof: { rows: 1, differencesTotal: 0 } });
    expect(await project().query("select from pg_namespace where nspname ~ '^restore_'")).toEqual([]);
  }, 3 * runMs);

  it("leaves to people what takes an offline key", async () => {
    await project().query(
      "update backup.drill_calendar set enabled = true, done_by = 'system' where name = 'disaster'",
    );
    await due("disaster");
    const run = await begun();
    expect(await project().ended(run)).toMatchObject({ status: "failed", error_code: "usage" });
    expect((await drillOf(run)).ok).toBe(false);
  }, 2 * runMs);

  it("drops the database of a drill whose functions were all killed", async () => {
    await due("full");
    const run = await begun();
    await eventually("the drill's database", async () => {
      const rows = await leftovers();
      return rows.length > 0 ? rows : null;
    });
    await project().query("select backup.fail_run($1, 'run_stalled', 'killed by the test')", [run]);
    await project().query("delete from backup.calls where function_name = 'drill' and status <> 'begun'");
    await eventually("a sweep", async () => {
      await project().query(
        "update backup.calls set made_at = made_at - interval '2 hours' where function_name = 'drill'",
      );
      await project().query("select backup.tick()");
      return (await leftovers()).length === 0 ? true : null;
    });
  }, 3 * runMs);
});
