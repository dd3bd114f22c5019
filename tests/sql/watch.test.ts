import { randomUUID } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

/** Far from what this cluster does by itself. */
const start = Date.parse("2031-05-01T12:00:00Z");
const hour = 3_600_000;
const at = (hours: number) => new Date(start + hours * hour).toISOString();

const goTo = async (hours: number) => await setClock(postgres, at(hours));

/** A restore that began half an hour before it went well, at hour 0. */
async function restored(facts: Readonly<Record<string, unknown>> = {}): Promise<string> {
  await goTo(-0.5);
  const { rows } = await postgres.query("select * from backup.begin_restore($1)", [JSON.stringify({
    scope: "full",
    mode: "replace",
    source_backup: randomUUID(),
    target_label: "here/postgres",
    ...facts,
  })]);
  await goTo(0);
  await postgres.query("select backup.finish_restore($1, $2, $3)", [rows[0].id, rows[0].token, "{}"]);
  return rows[0].id;
}

async function failedRuns(count: number, hours: number): Promise<void> {
  await postgres.query(
    `insert into backup.runs (kind, tiers, status, origin, created_at, heartbeat_at, finished_at, error_code, error_message)
     select 'verify', '{}', 'failed', 'cli', $2::timestamptz - interval '1 second', $2, $2, 'internal', 'm' from generate_series(1, $1)`,
    [count, at(hours)],
  );
}

async function jobs(count: number, hours: number, status = "failed"): Promise<void> {
  await postgres.query(
    `insert into cron.job_run_details (jobid, runid, command, username, status, start_time, end_time)
     select 1, 900000 + i + coalesce((select max(runid) from cron.job_run_details), 0), 'select 1', current_user, $3,
       $2::timestamptz - interval '1 minute', $2 from generate_series(1, $1) as i`,
    [count, at(hours), status],
  );
}

async function answers(count: number, hours: number, values = "500, false, null"): Promise<void> {
  await postgres.query(
    `insert into net._http_response (id, created, status_code, timed_out, error_msg)
     select 900000 + i, $2::timestamptz, ${values} from generate_series(1, $1) as i`,
    [count, at(hours)],
  );
}

const tick = async () => await scalar(postgres, "select backup.watch_recoveries()");

async function watch(id: string): Promise<Record<string, unknown>> {
  const { rows } = await postgres.query(
    "select status, worse, before, since from backup.restore_watches where restore_id = $1",
    [id],
  );
  expect(rows).toHaveLength(1);
  const { status, worse, before, since } = rows[0];
  return { status, worse, before: JSON.parse(before), since: JSON.parse(since) };
}

const alert = async () =>
  await scalar(
    postgres,
    "select string_agg(status || ' ' || message, '|') from backup.alerts where kind = 'restore_worse'",
  );

describe("the day after a full restore in place", () => {
  it("is counted each hour and no more often, to its end, and the result is in the audit", async () => {
    await rolledBack(postgres, async () => {
      await failedRuns(2, -3);
      await jobs(1, -20);
      await answers(2, -1);
      const id = await restored();
      // not of the day before, nor of the restore itself, nor failures
      await failedRuns(9, -25);
      await jobs(9, -0.25);
      await jobs(9, -2, "succeeded");
      await answers(9, -1, "200, false, null");
      expect(await tick()).toBe("0");
      expect(await watch(id)).toMatchObject({ status: "watching", before: { runs: 2, jobs: 1 }, since: {} });
      await failedRuns(1, 0.1);
      await goTo(1);
      expect(await tick()).toBe("0");
      await goTo(1.2);
      expect(await tick()).toBe("1");
      expect(await tick()).toBe("0");
      expect(await watch(id)).toMatchObject({ since: { runs: 1, jobs: 0, answers: 0 } });
      await jobs(2, 5);
      await goTo(6.1);
      expect(await tick()).toBe("1");
      // written down late, and past the end
      await failedRuns(1, 23.99);
      await failedRuns(9, 24.01);
      await goTo(24.05);
      expect(await tick()).toBe("1");
      expect(await watch(id)).toMatchObject({ status: "watching" });
      await goTo(24.1);
      expect(await tick()).toBe("1");
      expect(await watch(id)).toMatchObject({
        status: "calm",
        worse: "{}",
        since: { runs: 2, jobs: 2, answers: 0 },
      });
      const told = await scalar(
        postgres,
        "select detail from backup.audit_log where action = 'restore.watched' and subject = $1",
        [`restore:${id}`],
      );
      expect(JSON.parse(told ?? "")).toMatchObject({
        before: { runs: 2, jobs: 1 },
        since: { runs: 2, jobs: 2 },
        worse: [],
      });
      expect(await alert()).toBeNull();
      await goTo(30);
      expect(await tick()).toBe("0");
    });
  });

  it.each([
    ["nothing before and four since", 0, 4, false],
    ["nothing before and five since", 0, 5, true],
    ["three before and six since", 3, 6, false],
    ["three before and seven since", 3, 7, true],
  ])("is clearly worse at more than twice and at least five: %s", async (_, before, since, worse) => {
    await rolledBack(postgres, async () => {
      await jobs(before, -3);
      const id = await restored();
      await jobs(since, 0.5);
      await tick();
      await goTo(2);
      await tick();
      expect((await watch(id))["worse"]).toBe(worse ? "{jobs}" : "{}");
      const message =
        `open more failures since the restore in place than in the day before it: jobs ${since}, not ${before}`;
      expect(await alert()).toBe(worse ? message : null);
    });
  });

  it("keeps its alert until the day is over and somebody has seen it", async () => {
    await rolledBack(postgres, async () => {
      const id = await restored();
      await tick();
      await failedRuns(8, 0.5);
      await goTo(2);
      await tick();
      const open = await scalar(postgres, "select id from backup.alerts where kind = 'restore_worse'");
      await postgres.query("select backup.acknowledge_alert($1)", [open]);
      await goTo(4);
      await tick();
      expect(await alert()).toMatch(/^acknowledged /);
      await goTo(25);
      await tick();
      expect(await watch(id)).toMatchObject({ status: "worse", worse: "{runs}" });
      expect(await alert()).toMatch(/^resolved /);
    });
  });

  it("keeps an alert that nobody has seen, however long ago", async () => {
    await rolledBack(postgres, async () => {
      await restored();
      await tick();
      await failedRuns(8, 0.5);
      await goTo(25);
      await tick();
      await goTo(100);
      await tick();
      expect(await alert()).toMatch(/^open /);
    });
  });

  it("counts answers of every bad kind, and takes the hours that pg_net keeps for the whole day", async () => {
    await rolledBack(postgres, async () => {
      // kept for 6 hours: of the day before the restore began 5.5 are left
      await answers(11, -2);
      await answers(99, -7);
      const id = await restored();
      await tick();
      expect(await watch(id)).toMatchObject({ before: { answers: 48 } });
      await answers(1, 0.5, "404, false, null");
      await answers(1, 0.5, "503, false, null");
      await answers(1, 0.5, "null, true, null");
      await answers(1, 0.5, "null, false, 'refused'");
      await answers(1, 0.5, "302, false, null");
      await goTo(2);
      await tick();
      expect(await watch(id)).toMatchObject({ since: { answers: 4 } });
      // what was counted stays counted when pg_net has forgotten it
      await postgres.query("delete from net._http_response where id >= 900000");
      await goTo(8);
      await tick();
      expect(await watch(id)).toMatchObject({ since: { answers: 4 } });
    });
  });

  it("counts each job that could not even be started, once, though it bears no time", async () => {
    const unstarted = async (count: number) =>
      await postgres.query(
        `insert into cron.job_run_details (jobid, runid, command, username, status, return_message)
         select 1, 900000 + i + (select coalesce(max(runid), 0) from cron.job_run_details), 'select 1', current_user, 'failed',
           'connection failed' from generate_series(1, $1) as i`,
        [count],
      );
    await rolledBack(postgres, async () => {
      await jobs(1, -30, "succeeded");
      await unstarted(3);
      await jobs(1, -20, "succeeded");
      await unstarted(2);
      await jobs(1, -0.4, "succeeded");
      await unstarted(4);
      const id = await restored();
      await tick();
      // the three came after the run of the day before that, and before the first of this day: of this day, as far as is known
      expect(await watch(id)).toMatchObject({ before: { jobs: 5 } });
      await unstarted(6);
      await goTo(1.2);
      await tick();
      expect(await watch(id)).toMatchObject({ since: { jobs: 6 } });
      await unstarted(1);
      await jobs(1, 2);
      await goTo(3);
      await tick();
      expect(await watch(id)).toMatchObject({ since: { jobs: 8 } });
      await goTo(5);
      await tick();
      expect(await watch(id)).toMatchObject({ since: { jobs: 8 } });
    });
  });

  it("counts failures of smoke queries by themselves, and not as jobs", async () => {
    await rolledBack(postgres, async () => {
      const id = await restored();
      await tick();
      await jobs(3, 0.5);
      await postgres.query(
        `update cron.job_run_details set command = 'set statement_timeout = ''30s''; select backup.try_smoke(''x'', 1); '
         where runid = (select max(runid) from cron.job_run_details)`,
      );
      await goTo(2);
      await tick();
      expect(await watch(id)).toMatchObject({ since: { jobs: 2 } });
    });
  });

  it("counts more often where pg_net keeps its answers for less than an hour", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("set local pg_net.ttl = '20 minutes'");
      const id = await restored();
      await tick();
      await answers(2, 0.1);
      await goTo(0.25);
      expect(await tick()).toBe("0");
      await goTo(0.31);
      expect(await tick()).toBe("1");
      await postgres.query("delete from net._http_response where id >= 900000");
      await goTo(2);
      await tick();
      expect(await watch(id)).toMatchObject({ since: { answers: 2 } });
      // too briefly to be counted at all
      await postgres.query("set local pg_net.ttl = '5 minutes'");
      const other = await restored();
      await tick();
      expect((await watch(other))["before"]).not.toHaveProperty("answers");
    });
  });

  it("compares nothing with what is not known any more", async () => {
    await rolledBack(postgres, async () => {
      const id = await restored();
      await goTo(8);
      await answers(9, 1);
      await tick();
      expect(await watch(id)).toMatchObject({ worse: "{}", before: { runs: 0, jobs: 0 }, since: { answers: 9 } });
    });
  });

  it("is watched for full restores that went well in place here, and no others", async () => {
    await rolledBack(postgres, async () => {
      const watched = [await restored(), await restored({ scope: "point", point_at: at(-1), mode: "merge" })];
      await restored({ mode: "beside" });
      await restored({ scope: "table" });
      await restored({ target_is_here: false });
      const old = await restored();
      await postgres.query(
        "update backup.restores set started_at = started_at - interval '2 days', finished_at = finished_at - interval '2 days' where id = $1",
        [old],
      );
      await goTo(-0.5);
      const { rows: [broken] } = await postgres.query("select * from backup.begin_restore($1)", [
        JSON.stringify({ scope: "full", mode: "replace", source_backup: randomUUID(), target_label: "here" }),
      ]);
      await postgres.query("select backup.fail_restore($1, $2, $3)", [broken.id, broken.token, "{}"]);
      await goTo(0.1);
      expect(JSON.parse(await scalar(postgres, "select backup.tick()") ?? "")).toMatchObject({ watch_recoveries: 0 });
      const { rows } = await postgres.query("select restore_id as id from backup.restore_watches");
      expect(rows.map(({ id }) => id).sort()).toEqual(watched.sort());
    });
  });
});

describe("the newest run of pg_cron", () => {
  it("is the one before those that have not begun, unless these never will; read of the newest 10,000 alone", async () => {
    await rolledBack(postgres, async () => {
      const newest = () => scalar(postgres, "select backup.newest_cron_run()");
      const add = (run: number, status: string, begun: string | null) =>
        postgres.query(
          `insert into cron.job_run_details (jobid, runid, command, username, status, start_time)
           values (1, $1, 'select 1', current_user, $2, $3)`,
          [run, status, begun],
        );
      await add(5_000_000, "succeeded", at(0));
      expect(await newest()).toBe("5000000");
      await add(5_000_001, "starting", null);
      await add(5_000_002, "running", at(0));
      expect(await newest()).toBe("5000000");
      await add(5_010_000, "failed", null);
      expect(await newest()).toBe("5000000");
      // A server that crashed left one that never begins: ten thousand later nobody waits for it.
      await add(5_010_001, "succeeded", at(1));
      expect(await newest()).toBe("5010001");
      const { rows } = await postgres.query<{ "QUERY PLAN": string }>(
        `explain select max(d.runid) from cron.job_run_details as d
          where d.runid > (select max(n.runid) - 10000 from cron.job_run_details as n)`,
      );
      expect(rows.map((row) => row["QUERY PLAN"]).join("\n")).not.toContain("Seq Scan");
    });
  });
});
