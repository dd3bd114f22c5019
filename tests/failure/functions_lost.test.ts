/** What a backup through the functions stands on goes away in the middle: its keeper, PostgreSQL, the whole project. */
import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Stack, startStack } from "../../src/local/stack.ts";
import { stackDirectory } from "../../src/local/unprivileged.ts";
import { eventually, type Project, projectOf, stackMs } from "../support/stack.ts";

const directory = join(stackDirectory(), "stacks", `test-${randomBytes(6).toString("hex")}`);
const options = { directory, durable: false, testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } };
let stack: Stack;
let project: Project;

beforeAll(async () => {
  await start();
  await project.query(
    `create table public.letters (id int primary key, body text not null);
     insert into letters select i, repeat(md5(i::text), 16) from generate_series(1, 60000) as i;
     create table public.stamps as select i, now() as at from generate_series(1, 5000) as i;
     update backup.settings set value = '1' where name = 'concurrency'`,
  );
}, stackMs);

afterAll(async () => {
  await stack?.destroy();
  rmSync(directory, { recursive: true, force: true });
}, stackMs);

async function start(): Promise<void> {
  stack = await startStack({ stream: false, prepared: true, ...options });
  project = projectOf(stack);
}

/** Starts a backup and does `act` while it stands still in the middle; its id. */
async function inTheMiddle(act: (run: string) => Promise<void>): Promise<string> {
  await project.query("update letters set body = reverse(body)");
  const { run } = await project.startBackup();
  await project.holding(run, "letters", () => act(run));
  return run;
}

async function expectSound(run: string, attempt: number): Promise<void> {
  const ended = await project.ended(run);
  expect(ended, await project.story(run)).toMatchObject({ status: "succeeded", attempt, error_code: null });
  expect(await project.verify(run)).toMatchObject({ ok: true, problems: [], rows: Number(ended.rows) });
  const keepers = () => project.query("select 1 from pg_stat_activity where application_name = 'holdfast:keeper'");
  await eventually("no keeper is left", async () => (await keepers()).length === 0 ? true : null);
}

describe("a backup through the functions", () => {
  it("that loses its keeper takes a new snapshot, takes over what did not change, and ends right", async () => {
    let before: Record<string, unknown>[] = [];
    let told: Record<string, unknown> | undefined;
    const run = await inTheMiddle(async (run) => {
      before = await project.query(
        "select object, from_block from backup.chunks where run_id = $1 and attempt = 1 and table_name = 'letters'",
        [run],
      );
      await project.query("update stamps set at = now()");
      [told] = await project.query(
        `select pg_terminate_backend(a.pid) as ended, clock_timestamp() as at
         from backup.runs as r join pg_stat_activity as a on a.pid = r.keeper_pid and a.application_name = 'holdfast:keeper'
         where r.id = $1`,
        [run],
      );
    });
    expect(before.length).toBeGreaterThan(0);
    expect(told).toMatchObject({ ended: true });
    await expectSound(run, 2);
    // An object that is put or read again is recorded again: these were not.
    const after = await project.query(
      `select c.object, c.from_block from backup.chunks as c join backup.objects as o on o.name = c.object
       where c.run_id = $1 and c.attempt = 2 and c.table_name = 'letters' and o.recorded_at < $2`,
      [run, told?.["at"]],
    );
    expect(after).toEqual(expect.arrayContaining(before));
  });

  it("that loses PostgreSQL in the middle goes on once it is there again, in a new snapshot", async () => {
    const run = await inTheMiddle(() => stack.cluster.kill());
    await stack.cluster.start();
    await expectSound(run, 2);
  });

  it("goes on when the whole project is stopped in the middle and started again", async () => {
    const run = await inTheMiddle(() => stack.stop());
    await start();
    expect((await project.run(run)).status).toBe("copying");
    await expectSound(run, 2);
  });
});
