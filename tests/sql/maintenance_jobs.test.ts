/** Jobs of pg_cron while the project is closed. */
import { describe, expect, it } from "vitest";
import { rolledBack, scalar } from "./cluster.ts";
import { useProject } from "./maintenance_fixture.ts";

describe("cron jobs", () => {
  const project = useProject();

  const jobs = async () =>
    Object.fromEntries(
      (await project().client.query("select coalesce(jobname, command) as name, active from cron.job order by jobid"))
        .rows
        .filter((row) => !row.name.startsWith("holdfast-")).map((row) => [row.name, row.active === "t"]),
    );
  const prepare = `
    select cron.schedule('app-busy', '0 0 * * *', 'select 1'), cron.schedule('app-idle', '0 0 * * *', 'select 2'),
      cron.schedule('app-dropped', '0 0 * * *', 'select 3'), cron.schedule('0 0 * * *', 'select 4'),
      cron.schedule('holdfast-lookalike', '0 0 * * *', 'select backup.tick(); delete from app');
    select cron.alter_job(jobid, active => false) from cron.job where jobname = 'app-idle'`;

  it("of the user are paused and put back as they were; one added meanwhile is left alone", async () => {
    await project().closed(async () => {
      expect(await jobs()).toEqual({ "app-busy": false, "app-idle": false, "app-dropped": false, "select 4": false });
      expect(await scalar(project().client, "select active from cron.job where jobname = 'holdfast-lookalike'")).toBe(
        "f",
      );
      await project().client.query(
        "select cron.unschedule('app-dropped'), cron.schedule('app-new', '0 0 * * *', 'select 5')",
      );
      await project().client.query(
        "select cron.alter_job(jobid, active => false) from cron.job where jobname = 'app-new'",
      );
      const outcome = JSON.parse(await scalar(project().client, "select backup.maintenance_off()") ?? "null");
      expect(await jobs()).toEqual({ "app-busy": true, "app-idle": false, "select 4": true, "app-new": false });
      expect(outcome.left).toEqual([expect.stringContaining("app-dropped")]);
      expect(outcome.restored).toHaveLength(3);
      expect(await scalar(project().client, "select count(*) from backup.maintenance_jobs")).toBe("0");
    }, prepare);
  });

  it("that are made again while it is closed are paused in the place of those before, and run again", async () => {
    await rolledBack(project().client, async () => {
      await project().client.query("select cron.schedule('of the app', '0 3 * * *', 'select 1')");
      await project().client.query("select backup.maintenance_on('x')");
      await project().client.query("select cron.unschedule('of the app')");
      await project().client.query("select cron.schedule('of the app', '0 4 * * *', 'select 1')");
      expect(await scalar(project().client, "select backup.pause_jobs()")).toBe("1");
      expect(await scalar(project().client, "select active from cron.job where jobname = 'of the app'")).toBe("f");
      const off = JSON.parse(await scalar(project().client, "select backup.maintenance_off()") ?? "null");
      expect(off).toMatchObject({ restored: ["of the app"], left: [] });
      expect(await scalar(project().client, "select active from cron.job where jobname = 'of the app'")).toBe("t");
      await project().client.query("select backup.pause_jobs()");
      expect(await scalar(project().client, "select active from cron.job where jobname = 'of the app'")).toBe("t");
    });
  });

  it("of ours go on", async () => {
    await project().closed(async () => {
      const ours =
        "select count(*) filter (where active) = count(*) and count(*) > 2 from cron.job where jobname ~ '^holdfast-'";
      expect(await scalar(project().client, `${ours} and jobname <> 'holdfast-lookalike'`)).toBe("t");
    }, prepare);
  });

  it("may take jobs of pg_cron away, by functions that are named", async () => {
    await project().closed(
      async () => {
        const outcome = await project().request({ method: "POST", path: "/rpc/forget" }, ["select public.forget()"]);
        expect(outcome).toBeNull();
        const named = JSON.parse(
          await scalar(project().client, "select backup.maintenance_state() -> 'scheduling'") ?? "null",
        );
        expect(named).toEqual(["public.forget()"]);
      },
      `select cron.schedule('of the app', '0 3 * * *', 'select 1');
       create function public.forget() returns void language sql security definer
         as $$ select cron.unschedule('of the app') $$`,
    );
  });
});
