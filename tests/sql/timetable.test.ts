/** Schedules as people change them: another time, a pause with an end, a run now; refused where it makes no sense. */
import { Cron } from "croner";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";
import { at } from "./monitor_fixture.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const run = async (sql: string, values: readonly unknown[] = []) => void await postgres.query(sql, [...values]);
const jobs = async () =>
  Object.fromEntries(
    (await postgres.query("select jobname, schedule from cron.job where jobname ~ '^holdfast-'")).rows.map((
      { jobname, schedule },
    ) => [jobname, schedule]),
  );

describe("backup.next_due", () => {
  it.each([
    ["* * * * *"],
    ["0 0 * * *"],
    ["*/15 * * * *"],
    ["17 * * * *"],
    ["43 3 1 * *"],
    ["5-50/20 4,22 * * *"],
    ["0 12 1,15 * *"],
    ["0 12 13 * 5"],
    ["30 3 * * 7"],
    ["59 23 31 12 *"],
    ["0 0 29 2 *"],
    ["0 6 * 1,7 1-5"],
  ])("agrees with an independent library for %s", async (cron) => {
    const library = new Cron(cron, { mode: "5-part", timezone: "UTC", sloppyRanges: true });
    for (
      const from of ["2026-11-22T00:00:00Z", "2027-02-28T23:59:59Z", "2028-02-29T00:00:00Z", "2026-12-31T23:59:30Z"]
    ) {
      const next = await scalar(postgres, "select backup.moment_text(backup.next_due($1, $2))", [cron, from]);
      expect(next, from).toBe(library.nextRun(new Date(from))?.toISOString().replace(".000Z", "Z"));
    }
  });

  it("is the other way round of last_due: nothing is due between the two", async () => {
    for (const cron of ["*/7 2-5 * * 1", "11 11 */3 * *", "0 0 1 1 *"]) {
      const next = await scalar(postgres, "select backup.next_due($1, '2026-11-22 00:00+00')", [cron]);
      expect(await scalar(postgres, "select backup.last_due($1, $2)", [cron, next])).toBe(next);
      expect(await scalar(postgres, "select backup.next_due($1, $2::timestamptz - interval '1 second')", [cron, next]))
        .toBe(next);
    }
  });
});

describe("another time for a schedule", () => {
  it("goes to its job at once, and says when it is due next", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, at(0));
      const next = await scalar(postgres, "select backup.moment_text(backup.set_schedule('daily', '  30  2 * * * '))");
      expect(next).toBe("2031-05-02T02:30:00Z");
      expect(await jobs()).toMatchObject({ "holdfast-daily": "30 2 * * *" });
    });
  });

  it("counts more than what somebody changed in cron.job before", async () => {
    await rolledBack(postgres, async () => {
      await run("select cron.alter_job(jobid, schedule => '1 1 * * *') from cron.job where jobname = 'holdfast-daily'");
      await run("select backup.set_schedule('daily', '2 2 * * *')");
      expect(await jobs()).toMatchObject({ "holdfast-daily": "2 2 * * *" });
    });
  });

  it.each([
    ["daily", "0 0 * *", "HF440"],
    ["daily", "0 0 * * sun", "HF440"],
    ["daily", "61 0 * * *", "HF440"],
    ["daily", "0 0 31 2 *", "HF440"],
    ["daily", "", "HF440"],
    ["dialy", "0 0 * * *", "HF008"],
  ])("is refused for %s at %j by %s, and nothing is changed", async (name, cron, code) => {
    await rolledBack(postgres, async () => {
      const before = await jobs();
      expect(await sqlstate(postgres, "select backup.set_schedule($1, $2)", [name, cron])).toBe(code);
      expect(await jobs()).toEqual(before);
    });
  });
});

describe("a pause", () => {
  const pause = "select backup.pause_schedule($1, backup.clock_now() + $2::interval, $3)";

  it("takes the job away until its end, when the watchdog brings it back, and what was due meanwhile is not missed", async () => {
    await rolledBack(postgres, async () => {
      await setClock(postgres, "2031-05-01 23:50+00");
      await run("update backup.schedules set enabled_since = '2031-04-01'");
      await run(pause, ["daily", "2 hours", "import"]);
      expect(await jobs()).not.toHaveProperty("holdfast-daily");
      expect(await scalar(postgres, "select backup.resume_schedules()")).toBe("0");
      const missed = async () => {
        await run("select backup.watch_schedules()");
        return await scalar(
          postgres,
          "select string_agg(status, ' ') from backup.alerts where kind = 'run_missed' and subject = 'schedule:daily'",
        );
      };
      await setClock(postgres, "2031-05-02 01:00+00");
      expect(await missed(), "paused").toBeNull();
      await setClock(postgres, "2031-05-02 01:51+00");
      expect(await scalar(postgres, "select backup.resume_schedules()")).toBe("1");
      expect(await jobs()).toMatchObject({ "holdfast-daily": "0 0 * * *" });
      expect(await missed(), "due in the pause").toBeNull();
      await setClock(postgres, "2031-05-03 01:00+00");
      expect(await missed(), "due behind it").toBe("open");
      await run(pause, ["daily", "2 hours", "import"]);
      expect(await missed(), "and nobody is called for what is paused").toBe("resolved");
    });
  });

  it("of one schedule leaves its tier out of the run that another one asks for", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      await setClock(postgres, "2026-11-22 00:00:02+00");
      await run(pause, ["weekly", "2 hours", "import"]);
      const id = await scalar(postgres, "select backup.run_schedule('daily')");
      expect(await scalar(postgres, "select tiers from backup.runs where id = $1", [id])).toBe("{daily}");
    });
  });

  it("is no finding of the security audit, whose jobs would be gone", async () => {
    await rolledBack(postgres, async () => {
      const found = "select count(*) from backup.check_jobs()";
      expect(await scalar(postgres, found)).toBe("0");
      await run(pause, ["daily", "2 hours", "import"]);
      expect(await scalar(postgres, found)).toBe("0");
      await run("select cron.unschedule('holdfast-weekly')");
      expect(await scalar(postgres, found)).toBe("1");
    });
  });

  it("of the drain leaves the slot guarded, so that it cannot fill the disk", async () => {
    await rolledBack(postgres, async () => {
      await run(
        `insert into backup.chains (id, slot_name, publications, start_lsn, system_identifier, database_name)
         values ('c1', 'gone', '{}', '0/1', 'x', 'x')`,
      );
      const open = () => scalar(postgres, "select count(*) from backup.chains where ended_at is null");
      await run("select backup.resume_schedules()");
      expect(await open(), "the drain's own guard does it").toBe("1");
      await run(pause, ["changes", "2 hours", "import"]);
      await run("select backup.resume_schedules()");
      expect(await open()).toBe("0");
    });
  });

  it.each([
    ["the watchdog", "watchdog", "1 hour", "why", "HF441"],
    ["the telling of alerts", "alerts", "1 hour", "why", "HF441"],
    ["an end that has been", "daily", "-1 second", "why", "HF441"],
    ["no time at all", "daily", "0 seconds", "why", "HF441"],
    ["more than a week", "daily", "169 hours", "why", "HF441"],
    ["no end", "daily", null, "why", "HF441"],
    ["no reason", "daily", "1 hour", "  ", "HF441"],
    ["no schedule of that name", "nightly", "1 hour", "why", "HF008"],
  ])("is refused for %s", async (_what, name, span, reason, code) => {
    await rolledBack(postgres, async () => {
      expect(await sqlstate(postgres, pause, [name, span, reason])).toBe(code);
      expect(await scalar(postgres, "select count(*) from backup.schedules where paused_until is not null")).toBe("0");
    });
  });

  it("is refused for the watchdog by the table as well, and for a schedule that is off", async () => {
    await rolledBack(postgres, async () => {
      const directly =
        "update backup.schedules set paused_until = now() + interval '1 hour', paused_by = 'me', pause_reason = 'why' where name = 'watchdog'";
      expect(await sqlstate(postgres, directly)).toBe("23514");
      await run("update backup.schedules set enabled = false where name = 'daily'");
      expect(await sqlstate(postgres, pause, ["daily", "1 hour", "why"])).toBe("HF441");
    });
  });

  it("may be as long as the setting says, be changed, and ended before its time", async () => {
    await rolledBack(postgres, async () => {
      await run("update backup.settings set value = '720' where name = 'pause_at_most_hours'");
      await run(pause, ["daily", "700 hours", "holidays"]);
      await run(pause, ["daily", "1 hour", "shorter"]);
      expect(await scalar(postgres, "select pause_reason from backup.schedules where name = 'daily'")).toBe("shorter");
      expect(await scalar(postgres, "select backup.resume_schedule('daily')")).toBe("t");
      expect(await scalar(postgres, "select backup.resume_schedule('daily')")).toBe("f");
      expect(await jobs()).toMatchObject({ "holdfast-daily": "0 0 * * *" });
    });
  });
});

describe("a schedule that is run now", () => {
  it("begins a backup of its tier, or joins the one that is under way", async () => {
    await rolledBack(postgres, async () => {
      await fillVault(postgres);
      expect(await scalar(postgres, "select backup.run_now('weekly')")).toMatch(/^run [0-9a-f-]{36}: started/);
      expect(await scalar(postgres, "select backup.run_now('daily')")).toMatch(/joined it$/);
      expect(await scalar(postgres, "select tiers from backup.runs where kind = 'full'")).toBe("{daily,weekly}");
    });
  });

  it("does what its job does, and says where there was nothing to do or nobody to call", async () => {
    await rolledBack(postgres, async () => {
      expect(await scalar(postgres, "select backup.run_now('security')")).toMatch(/^done: \d+$/);
      expect(await scalar(postgres, "select backup.run_now('retention')")).toMatch(/^nothing was begun: /);
      expect(await sqlstate(postgres, "select backup.run_now('nightly')")).toBe("HF008");
    });
  });
});
