/** Smoke queries of a restore, run by the real pg_cron: one that hangs holds up neither the others nor the watchdog. */
import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { openSession } from "../../src/shared/backup/session.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { keepSmokes } from "../../src/shared/jobs/smoke_queries.ts";
import { smokeStatements } from "../../src/shared/restore/in_place/checks/smoke_statements.ts";
import { catalogFingerprint } from "../../src/shared/schema/fingerprint.ts";
import { clusterMs, query, useCluster, withClient } from "../support/cluster.ts";
import { eventually } from "../support/stack.ts";

const cluster = useCluster({ prepared: "installed" });
const ask = (text: string, values: readonly unknown[] = []) => query(cluster().plainUrl(), text, values);

/** As a file of the user's; the BEGIN and COMMIT that people write around such queries are no queries. */
const file = `begin;
select current_user = 'postgres' as ok, name from people;
select current_user = 'postgres' and current_setting('transaction_read_only') = 'on' as ok;
select pg_sleep(600); -- hangs
select 1 / 0;
select count(*) = 1 as ok from people;
commit;`;

let id = "";
let command = "";

beforeAll(async () => {
  await withClient(cluster().plainUrl(), async (client) => {
    await client.query(
      `create table public.people (name text); insert into public.people values ('a name');
       update backup.settings set value = '1' where name = 'smoke_seconds';
       select cron.unschedule(jobid) from cron.job`,
    );
    const { rows: [restore] } = await client.query("select * from backup.begin_restore($1)", [
      JSON.stringify({ scope: "full", mode: "replace", source_backup: randomUUID(), target_label: "here" }),
    ]);
    id = restore.id;
    const connection = await openDatabase({ url: cluster().plainUrl() }).connect("test");
    expect(await keepSmokes(connection, id, smokeStatements(file), true)).toEqual({ hourly: 5, leftOut: 2 });
    await connection.close();
    await client.query("select backup.finish_restore($1, $2, '{}')", [restore.id, restore.token]);
    await client.query("select backup.tick()");
    // pg_cron's clock has minutes only; a start of the server is sooner.
    const { rows: [job] } = await client.query(
      `select command, cron.alter_job(jobid, schedule => '@reboot') from cron.job where jobname ~ '^holdfast-smoke-'`,
    );
    command = job.command;
  });
}, clusterMs);

const outcomes = async () =>
  (await ask(
    "select number || ': ' || passed || '/' || failed || coalesce(' ' || last_error, '') as told from backup.restore_smokes order by number",
  )).map(({ told }) => told);

describe("the job of smoke queries", () => {
  it("is run by pg_cron; the watchdog ends what hangs, is not held up by it, and the others go through", async () => {
    await cluster().kill();
    await cluster().start();
    await eventually("the query that hangs", async () =>
      (await ask(
          "select from pg_stat_activity where application_name like 'holdfast-smoke-%' and wait_event = 'PgSleep'",
        )).length > 0 || null);
    let slowestMs = 0;
    const [run] = await eventually("the end of the run", async () => {
      const begun = performance.now();
      await ask("select backup.tick()");
      slowestMs = Math.max(slowestMs, performance.now() - begun);
      const rows = await ask(
        `select status, end_time - start_time < interval '30 seconds' as soon from cron.job_run_details
          where command like '%try_smoke%' and status in ('succeeded', 'failed')
            -- pg_cron writes it at the end of the first statement
            and not exists (select from pg_stat_activity where application_name like 'holdfast-smoke-%')`,
      );
      return rows.length > 0 ? rows : null;
    });
    expect(run).toEqual({ status: "succeeded", soon: true });
    expect(slowestMs).toBeLessThan(3_000);
    expect(await outcomes()).toEqual(["2: 1/0", "3: 1/0", "4: 0/1 57014", "5: 0/1 22012", "6: 1/0"]);
    expect(await ask("select status, message from backup.alerts where kind = 'smoke_failed'")).toEqual([{
      status: "open",
      message: "smoke queries fail that went through since the restore: " +
        "statement 4 (line 4): not done in time; statement 5 (line 5): SQLSTATE 22012",
    }]);
    expect(JSON.stringify(await ask("select * from cron.job_run_details"))).not.toContain("a name");
  }, 90_000);

  it("stops at its own time limit where pg_cron connects as a client does", async () => {
    const begun = performance.now();
    await ask(command);
    expect(performance.now() - begun).toBeLessThan(5_000);
    expect(await outcomes()).toEqual(["2: 2/0", "3: 2/0", "4: 0/2 57014", "5: 0/2 22012", "6: 2/0"]);
  });

  it("is gone when the day is over, and a backup that runs meanwhile does not start over for it", async () => {
    const connection = await openSession(openDatabase({ url: cluster().plainUrl() }), "test");
    const definitions = () => catalogFingerprint(connection, { leaveOutSchemas: ["backup"] });
    const before = await definitions();
    await ask(
      `create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = ''
       as $$ select pg_catalog.clock_timestamp() + interval '24 hours 10 minutes' $$`,
    );
    await ask("select backup.tick()");
    expect(await ask("select from cron.job where jobname ~ '^holdfast-smoke-'")).toEqual([]);
    expect(await definitions()).toBe(before);
    await connection.close();
    expect(await ask("select status, worse, smoke from public.backup_restore_watches")).toEqual([{
      status: "worse",
      worse: ["smoke"],
      smoke: { queries: 5, runs: 2, passed: 6, failed: 4, broke: 4, last_error: "22012" },
    }]);
    expect(await ask("select from backup.restore_smokes where statement is not null")).toEqual([]);
  });
});
