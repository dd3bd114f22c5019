/** Functions that are ended by the platform in the middle: the watchdog finds them and their run ends right. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Stack, startStack } from "../../src/local/stack.ts";

let stack: Stack;
let postgres: pg.Client;

/** What the setting leg_wall_seconds is lowered to: its smallest value. */
const wallSeconds = 5;
const rows = 60_000;

beforeAll(async () => {
  stack = await startStack({ durable: false, testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } });
  postgres = new pg.Client({ connectionString: stack.cluster.plainUrl() });
  await postgres.connect();
  await postgres.query(`
    create table public.notes (id bigint primary key, body text not null);
    insert into public.notes select n, repeat(md5(n::text), 12) from generate_series(1, ${rows}) as n;
    update backup.settings set value = '${wallSeconds}' where name = 'leg_wall_seconds';
    select cron.unschedule('holdfast-watchdog');
  `);
}, 300_000);

afterAll(async () => {
  await postgres?.end();
  await stack?.destroy();
}, 60_000);

async function orderKill(moment: Readonly<Record<string, unknown>>): Promise<string> {
  const answer = await fetch(`${stack.gateway.url}/__kill`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ function: "backup", ...moment }),
  });
  expect(answer.status).toBe(200);
  return (await answer.json()).id;
}

async function fired(order: string): Promise<boolean> {
  return (await (await fetch(`${stack.gateway.url}/__kill/${order}`)).json()).fired !== null;
}

/** What is known about a run that did not end. */
async function story(run: string): Promise<string> {
  const calls = await postgres.query("select status, answer, begun_at from backup.calls where run_id = $1", [run]);
  const tasks = await postgres.query(
    "select kind, status, tries, worker, lease_until, error from backup.tasks where run_id = $1 and status <> 'void'",
    [run],
  );
  const alerts = await postgres.query("select kind, subject, message from backup.alerts where status <> 'resolved'");
  return JSON.stringify({ calls: calls.rows, tasks: tasks.rows, alerts: alerts.rows }, null, 1);
}

/** The run once it has ended; until then the watchdog is called as pg_cron calls it, only more often. */
async function endedUnderWatch(run: string) {
  const deadline = performance.now() + 60_000;
  for (;;) {
    const { rows: [row] } = await postgres.query("select * from backup.runs where id = $1", [run]);
    if (["succeeded", "quarantined", "failed", "cancelled"].includes(row.status)) return row;
    if (performance.now() > deadline) throw new Error(`run ${run} is still ${row.status}: ${await story(run)}`);
    await postgres.query("select backup.tick()");
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Calls of the run that the watchdog gave up. */
async function givenUp(run: string): Promise<number> {
  await postgres.query("select backup.tick()");
  const sql = "select from backup.calls where run_id = $1 and status in ('lost', 'failed')";
  return (await postgres.query(sql, [run])).rows.length;
}

describe("a function that is killed", () => {
  it.each([
    ["before it has answered", { at: "request" }],
    ["once the plan is made", { at: "line", text: "step:attempt.planned" }],
    ["behind a put that is not recorded", { at: "line", text: "step:chunk.put" }],
    ["behind the manifest's put, with the run not recorded", { at: "line", text: "step:manifest.put" }],
  ])("%s leaves a run that ends right", async (_when, moment) => {
    const order = await orderKill(moment);
    // Something new to read each time, or the ranges would be taken over and nothing would be put.
    await postgres.query("update public.notes set body = md5(body) || repeat(md5(random()::text), 12)");
    const { rows: [started] } = await postgres.query("select run from backup.start_backup()");
    const run = await endedUnderWatch(started.run);
    expect(await fired(order), "the kill hit a function").toBe(true);
    expect(run).toMatchObject({ status: "succeeded", error_code: null });
    expect(Number(run.rows)).toBeGreaterThanOrEqual(rows);
    const counted = await postgres.query(
      `select sum(c.rows)::integer as rows from backup.chunks as c
       where c.run_id = $1 and c.table_name = 'notes' and c.attempt = $2`,
      [started.run, run.attempt],
    );
    expect(counted.rows).toEqual([{ rows }]);
    await expect.poll(() => givenUp(started.run), { timeout: 20_000 }).toBeGreaterThan(0);
    const keepers = await postgres.query(
      "select from pg_stat_activity where application_name = 'holdfast:keeper' and wait_event is not null",
    );
    expect(keepers.rows.length, "no keeper is left behind").toBe(0);
  }, 180_000);
});
