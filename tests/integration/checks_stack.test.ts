/** The cron job's call on a whole project: the function makes the daily checks in legs, also where one of them is killed. */
import { describe, expect, it } from "vitest";
import { eventually, runMs, useProject } from "../support/stack.ts";

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } }, async ({ query }) => {
  await query("create table public.notes (id int primary key, t text not null)");
  await query("insert into public.notes select i, repeat(md5(i::text), 8) from generate_series(1, 4000) as i");
});

/** The run of checks that came last, once the cron job's call has made one behind so many. */
async function called(after: number): Promise<string> {
  await project().query("select backup.call_checks('daily')");
  return await eventually("a run of checks", async () => {
    const rows = await project().query(
      "select id from backup.runs where kind = 'verify' and subject_run is null order by created_at",
    );
    return rows.length > after ? String(rows.at(-1)?.["id"]) : null;
  });
}

const outcomes = async (run: string) =>
  Object.fromEntries(
    (await project().query("select check_name, outcome from backup.check_results where run_id = $1", [run]))
      .map((row) => [String(row["check_name"]), row["outcome"]]),
  );

describe("the function verify", () => {
  it("makes the daily checks, and has the newest backup verified whole", async () => {
    const { query, startBackup, ended } = project();
    const { run: backup } = await startBackup();
    expect(await ended(backup)).toMatchObject({ status: "succeeded" });
    const run = await called(0);
    expect(await ended(run), await project().story(run)).toMatchObject({ status: "succeeded" });
    expect(await outcomes(run)).toMatchObject({
      newest_backup: "passed",
      stores_complete: "passed",
      storage_use: "passed",
      manifests: "passed",
      objects: "passed",
    });
    const [verifying] = await query("select id from backup.runs where kind = 'verify' and subject_run = $1", [backup]);
    expect(await ended(String(verifying?.["id"]))).toMatchObject({ status: "succeeded" });
    expect(await query("select verified_at is not null as verified from backup.runs where id = $1", [backup]))
      .toEqual([{ verified: true }]);
  }, 3 * runMs);

  it("goes on behind a leg that was killed, and opens what is due", async () => {
    const { query, ended, killAt } = project();
    await query(
      "update backup.inventory set looked_at = now() - interval '40 days', opened_at = now() - interval '40 days'",
    );
    const kill = await killAt("checks.opened", 1, "verify");
    const run = await called(1);
    const end = await ended(run);
    await kill.fired();
    expect(end, await project().story(run)).toMatchObject({ status: "succeeded" });
    expect(await outcomes(run)).toMatchObject({ objects: "passed", newest_verified: "passed" });
    expect(
      await query(
        "select from backup.inventory where name not like 'v1/backups/%' and looked_at < now() - interval '1 day'",
      ),
    )
      .toEqual([]);
  }, 3 * runMs);
});
