/** Functions that the platform ends in the middle of a backup, at each named point of a run and before they answer. */
import { beforeAll, describe, expect, it } from "vitest";
import { sampled } from "../support/sampled.ts";
import { eventually, type Kill, type Project, type RunState, useProject } from "../support/stack.ts";

const project = useProject({ testing: true, environment: { BACKUP_LOG_LEVEL: "debug" } }, fill);

const letters = 60_000;
const stamps = 5_000;

async function fill({ query }: Project): Promise<void> {
  await query(
    `create table public.letters (id int primary key, body text not null);
     insert into letters select i, repeat(md5(i::text), 16) from generate_series(1, ${letters}) as i;
     create table public.stamps (letter int references letters, at timestamptz default now());
     insert into stamps select i from generate_series(1, ${stamps}) as i;
     create table public.nothing (i int);
     -- The tests call the watchdog themselves, so that a run goes on when they say so.
     select cron.unschedule('holdfast-watchdog')`,
  );
}

/** Otherwise the next backup takes everything over and reads nothing. */
async function change({ query }: Project): Promise<void> {
  await query("update letters set body = body || 'x' where id % 40 = 0; update stamps set at = now()");
}

/** A backup whose function is killed where `order` says, and that nobody has gone on with yet; its id. */
async function startKilled(order: () => Promise<Kill>): Promise<string> {
  await change(project());
  const kill = await order();
  const { run, joined } = await project().startBackup();
  expect(joined).toBe(false);
  try {
    await kill.fired();
  } catch (error) {
    throw new Error(await project().story(run), { cause: error });
  }
  return run;
}

async function expectSound(ended: RunState, attempt: number): Promise<void> {
  expect(ended, await project().story(ended.id)).toMatchObject({ status: "succeeded", attempt, error_code: null });
  expect(Number(ended.rows)).toBeGreaterThanOrEqual(letters + stamps);
  const counted = await project().query(
    `select c.table_name as name, sum(c.rows)::integer as rows from backup.chunks as c
      where c.run_id = $1 and c.attempt = $2 and c.schema_name = 'public' group by 1 order by 1`,
    [ended.id, attempt],
  );
  expect(counted.filter(({ rows }) => rows !== 0)).toEqual([
    { name: "letters", rows: letters },
    { name: "stamps", rows: stamps },
  ]);
  expect(await project().verify(ended.id)).toMatchObject({ ok: true, problems: [], rows: Number(ended.rows) });
  const keepers = () => project().query("select 1 from pg_stat_activity where application_name = 'holdfast:keeper'");
  await eventually("no keeper is left", async () => (await keepers()).length === 0 ? true : null);
}

interface Point {
  readonly at: string;
  /** Attempts that the run takes: a second one where the snapshot went with the function. */
  readonly attempts: 1 | 2;
  /** What the line to be killed behind contains; default: the point's name. */
  readonly line?: string;
  /** What the run's row says while the function is dead. */
  readonly meanwhile?: Partial<RunState>;
  /** Kind of the task that the dead function leaves leased; somebody else has to do it. */
  readonly leaves?: "plan" | "chunks";
}

const noSnapshot: Partial<RunState> = { status: "snapshotting", attempt: 1, snapshot_name: null };
const points: readonly Point[] = [
  // The first task of a run is its plan, so the name alone never meets a claim of chunks.
  { at: "chunk.claimed, of the plan,", attempts: 1, line: "step:chunk.claimed", leaves: "plan" },
  { at: "attempt.locked", attempts: 2, meanwhile: noSnapshot, leaves: "plan" },
  { at: "attempt.exported", attempts: 2, meanwhile: noSnapshot, leaves: "plan" },
  { at: "attempt.planned", attempts: 1 },
  // Only claims and failures name a kind, and the task's id stands between it and the step's name.
  { at: "chunk.claimed, of chunks,", attempts: 1, line: '"kind":"chunks"', leaves: "chunks" },
  { at: "chunk.read", attempts: 1, leaves: "chunks" },
  { at: "chunk.put", attempts: 1, leaves: "chunks" },
  { at: "chunk.recorded", attempts: 1 },
  { at: "counts.recorded", attempts: 1 },
  { at: "manifest.put", attempts: 1 },
];

const kindOf = ({ attempts, leaves, at }: Point) => [
  `${attempts} ${leaves ?? "no task"}`,
  ...(/put$/.test(at) ? [at] : []),
];

describe("a backup whose function is killed", () => {
  for (const { at, attempts, line = `step:${at}`, meanwhile = {}, leaves } of sampled("points", points, 5, kindOf)) {
    it(`at ${at} goes on and succeeds, in the ${attempts === 1 ? "same snapshot" : "next snapshot"}`, async () => {
      const run = await startKilled(() => project().killAt(line));
      const dead = await project().run(run);
      const left = await project().query(
        "select id, tries from backup.tasks where run_id = $1 and status = 'leased' and kind = $2",
        [run, leaves],
      );
      await expectSound(await project().ended(run), attempts);
      // Where it leaves nothing, the function that it called has gone on meanwhile.
      if (leaves === undefined) return;
      expect(dead).toMatchObject({ ...meanwhile, manifest_name: null });
      expect(left).toContainEqual({ id: expect.any(String), tries: 1 });
      const again = await project().query(
        "select 1 from backup.tasks where id = any ($1) and status = 'done' and tries > 1",
        [left.map(({ id }) => id)],
      );
      expect(again).not.toEqual([]);
    });
  }
});

describe("a backup whose function is killed, by the real clock and with legs of 5 s,", () => {
  beforeAll(async () => {
    // The smallest value; a lease is longer, so that only the call that was given up sets its tasks free.
    await project().query("update backup.settings set value = '5' where name = 'leg_wall_seconds'");
  });

  /** The clock of schema `backup` is left alone. */
  const ended = (run: string) => project().ended(run, Number.POSITIVE_INFINITY);

  async function expectGivenUp(run: string): Promise<void> {
    await eventually("the watchdog gives the call up", async () => {
      await project().query("select backup.tick()");
      const sql = "select 1 from backup.calls where run_id = $1 and status in ('lost', 'failed')";
      return (await project().query(sql, [run])).length > 0 ? true : null;
    });
  }

  const moments: readonly [string, () => Promise<Kill>][] = [
    ["before it has answered", () => project().killAtRequest()],
    ["once the plan is made", () => project().killAt("step:attempt.planned")],
    ["behind a put that is not recorded", () => project().killAt("step:chunk.put")],
    ["behind the manifest's put, with the run not recorded", () => project().killAt("step:manifest.put")],
  ];
  it.each(sampled("moments", moments, 2, ([when]) => [when.startsWith("before") ? "no answer" : "an answer"]))(
    "%s, goes on and succeeds, and its call is given up",
    async (_when, order) => {
      const run = await startKilled(order);
      await expectSound(await ended(run), 1);
      await expectGivenUp(run);
    },
  );

  it("at run.recorded has succeeded, its call is given up, and the next backup is another run", async () => {
    const run = await startKilled(() => project().killAt("step:run.recorded"));
    const recorded = await project().run(run);
    await expectSound(recorded, 1);
    await expectGivenUp(run);
    expect(await project().run(run)).toEqual(recorded);
    expect(
      await project().query(
        "select kind, message from backup.alerts where status <> 'resolved' and severity <> 'information'",
      ),
    ).toEqual([]);
    await change(project());
    const next = await project().startBackup();
    expect(next).toMatchObject({ joined: false });
    expect(next.run).not.toBe(run);
    await expectSound(await ended(next.run), 1);
  });
});
