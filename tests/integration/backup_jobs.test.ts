import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { HoldfastError } from "../../src/shared/errors.ts";
import * as jobs from "../../src/shared/jobs/queries.ts";
import type { Connection } from "../../src/shared/postgres/connection.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { useCluster } from "../support/cluster.ts";
import { installedDatabase, query } from "./backup_fixture.ts";

const cluster = useCluster();
let url = "";
let connections: Connection[] = [];
let connection: Connection;

beforeAll(async () => {
  url = await installedDatabase(cluster());
  const database = openDatabase({ url });
  connections = await Promise.all(Array.from({ length: 8 }, () => database.connect("holdfast:test")));
  connection = connections[0] as Connection;
}, 180_000);
afterAll(async () => {
  for (const each of connections) await each.close();
});
beforeEach(async () => {
  await query(url, "delete from backup.runs; delete from backup.alerts");
});

const full = { kind: "full", tiers: ["manual"], origin: "cli", requestKey: null } as const;
const count = async (text: string) => Number((await query(url, `select count(*) as n from ${text}`))[0]?.["n"]);

/** A run whose plan is done: `tasks` chunk tasks, then its manifest. */
async function planned(tasks = 3): Promise<{ run: string; plan: jobs.Task }> {
  const { run } = await jobs.requestRun(connection, full);
  const plan = await jobs.claimTask(connection, run, "planner", 60);
  if (plan === null) throw new Error("a new run has no plan to make");
  await jobs.beginAttempt(connection, plan);
  await jobs.addTasks(connection, plan, {
    tables: [],
    tasks: [
      ...Array.from({ length: tasks }, () => ({ kind: "chunks", detail: {}, estimated_bytes: 10 })),
      { kind: "manifest", detail: {}, estimated_bytes: 0 },
    ],
    bytes_total: tasks * 10,
  });
  return { run, plan };
}

async function claimed(run: string, leaseSeconds = 60): Promise<jobs.Task> {
  const task = await jobs.claimTask(connection, run, "worker", leaseSeconds);
  if (task === null) throw new Error("nothing to claim");
  return task;
}

const outrun = (task: jobs.Task) =>
  query(url, "update backup.tasks set lease_until = backup.clock_now() - interval '1 second' where id = $1", [task.id]);

describe("asking for a full backup", () => {
  it("eight times at once gives one run, which seven have joined", async () => {
    const answers = await Promise.all(
      connections.map((each, index) => jobs.requestRun(each, { ...full, requestKey: `${randomUUID()}-${index}` })),
    );
    expect(new Set(answers.map((answer) => answer.run)).size).toBe(1);
    expect(answers.filter((answer) => answer.joined)).toHaveLength(7);
    expect(await count("backup.run_requests")).toBe(8);
  });

  it("with the same key at once gives the same run, also after it has ended", async () => {
    const answers = await Promise.all(
      connections.map((each) => jobs.requestRun(each, { ...full, requestKey: "noon" })),
    );
    expect(new Set(answers.map((answer) => answer.run)).size).toBe(1);
    await jobs.cancelRun(connection, answers[0]?.run ?? "");
    expect(await jobs.requestRun(connection, { ...full, requestKey: "noon" })).toEqual({
      run: answers[0]?.run,
      joined: true,
    });
  });
});

describe("tasks", () => {
  it("are given to one worker each, however many ask at once; the manifest comes last", async () => {
    const { run } = await planned(40);
    const got: string[] = [];
    await Promise.all(connections.map(async (each, index) => {
      for (let task = await jobs.claimTask(each, run, `w${index}`, 60); task !== null;) {
        if (task.kind === "manifest") throw new Error("the manifest came before the end");
        got.push(task.id);
        task = await jobs.claimTask(each, run, `w${index}`, 60);
      }
    }));
    expect(got).toHaveLength(40);
    expect(new Set(got).size).toBe(40);
    await query(url, "update backup.tasks set status = 'done', done_at = backup.clock_now() where kind = 'chunks'");
    expect((await claimed(run)).kind).toBe("manifest");
  });

  it("whose lease ran out are given again, and the first worker's token changes nothing any more", async () => {
    const { run } = await planned(1);
    const slow = await claimed(run);
    await outrun(slow);
    const quick = await claimed(run);
    expect(quick.id).toBe(slow.id);
    expect(Number(quick.token)).toBeGreaterThan(Number(slow.token));
    const late = [
      () => jobs.renewLease(connection, slow, 60),
      () => jobs.completeTask(connection, slow, {}),
      () => jobs.returnTask(connection, slow, new HoldfastError("internal", "x")),
      () => jobs.addTasks(connection, slow, { tables: [], tasks: [] }),
      () => jobs.beginAttempt(connection, slow),
      () => jobs.finishRun(connection, slow, {}),
    ];
    for (const attempt of late) await expect(attempt()).rejects.toMatchObject({ code: "lease_lost" });
    expect(await query(url, "select status, token from backup.tasks where id = $1", [quick.id]))
      .toEqual([{ status: "leased", token: quick.token }]);
    await jobs.completeTask(connection, quick, {});
    await expect(jobs.completeTask(connection, quick, {})).rejects.toMatchObject({ code: "lease_lost" });
  });

  it("begun five times and never ended fail the run", async () => {
    const { run } = await planned(1);
    for (let time = 0; time < 5; time++) await outrun(await claimed(run));
    expect(await jobs.claimTask(connection, run, "sixth", 60)).toBeNull();
    const row = await jobs.readRun(connection, run);
    expect([row.status, row.errorCode]).toEqual(["failed", "internal"]);
    expect(await count("backup.alerts where kind = 'backup_failed' and status = 'open'")).toBe(1);
  });

  it("given back for a reason that heals wait a little; for another, they fail the run with it", async () => {
    const { run } = await planned(2);
    const first = await claimed(run);
    await jobs.returnTask(connection, first, new HoldfastError("store_unreachable", "away"));
    expect((await claimed(run)).id).not.toBe(first.id);
    expect(await jobs.claimTask(connection, run, "w", 60)).toBeNull();
    await query(url, "update backup.tasks set not_before = null");
    const again = await claimed(run);
    expect(again.tries).toBe(2);
    await jobs.returnTask(connection, again, new HoldfastError("store_full", "no room", { hint: "make room" }));
    expect(await jobs.readRun(connection, run)).toMatchObject({
      status: "failed",
      errorCode: "store_full",
      errorMessage: "no room",
      hint: "make room",
    });
  });

  it("left over by a leg become tasks of their own and count as a part of the whole", async () => {
    const { run } = await planned(1);
    await jobs.completeTask(connection, await claimed(run), { rest: [{ detail: { left: 1 }, estimated_bytes: 4 }] });
    expect(await jobs.readRun(connection, run)).toMatchObject({
      tasksTotal: 3,
      tasksDone: 1,
      bytesDone: 6,
      bytesTotal: 10,
    });
    expect((await claimed(run)).detail).toEqual({ left: 1 });
  });
});

describe("an attempt", () => {
  it("that lost its keeper makes its tasks void and the plan open; the fifth fails the run", async () => {
    const { run } = await planned(2);
    for (let attempt = 1; attempt <= 5; attempt++) {
      const task = await claimed(run);
      expect(task.kind).toBe(attempt === 1 ? "chunks" : "plan");
      if (task.kind === "plan") expect(await jobs.beginAttempt(connection, task)).toBe(attempt);
      const other = task.kind === "chunks" ? await claimed(run) : null;
      await jobs.returnTask(connection, task, new HoldfastError("keeper_lost", "gone"));
      if (other !== null) {
        await expect(jobs.completeTask(connection, other, {})).rejects.toMatchObject({ code: "lease_lost" });
      }
    }
    expect(await jobs.readRun(connection, run)).toMatchObject({
      status: "failed",
      errorCode: "keeper_lost",
      attempt: 5,
    });
  });
});

describe("the end of a run", () => {
  it("is refused while counts differ from what was read, and nothing is recorded", async () => {
    const { run } = await planned(0);
    await query(
      url,
      `insert into backup.run_tables (run_id, table_oid, schema_name, table_name, relfilenode, columns, fingerprint, data_owner, counted_rows)
       values ($1, 1, 'public', 't', 1, '[]', '', 'user', 7)`,
      [run],
    );
    const task = await claimed(run);
    const manifest = { name: "v1/backups/x/manifest", hash: "h", generation: 1, epoch: "e", totals: { rows: 0 } };
    await expect(jobs.finishRun(connection, task, manifest)).rejects.toMatchObject({ code: "counts_differ" });
    expect((await jobs.readRun(connection, run)).status).toBe("finishing");
    await query(url, "update backup.run_tables set counted_rows = 0");
    expect(await jobs.finishRun(connection, task, manifest)).toBe("succeeded");
    expect(await count("backup.runs where complete_at is not null and keeper_pid is null")).toBe(1);
  });

  it("can be cancelled while it is active, and never afterwards", async () => {
    const { run } = await planned(1);
    const task = await claimed(run);
    await jobs.cancelRun(connection, run);
    await expect(jobs.completeTask(connection, task, {})).rejects.toMatchObject({ code: "lease_lost" });
    await expect(jobs.cancelRun(connection, run)).rejects.toMatchObject({ code: "run_state" });
    await expect(jobs.cancelRun(connection, randomUUID())).rejects.toMatchObject({ code: "run_not_found" });
    expect(await jobs.failRun(connection, run, new HoldfastError("internal", "late"))).toBe(false);
    expect((await jobs.readRun(connection, run)).status).toBe("cancelled");
  });

  it("accepts only what is quarantined, and holds only what is a backup", async () => {
    const { run } = await planned(0);
    await expect(jobs.acceptRun(connection, run, "why")).rejects.toMatchObject({ code: "run_state" });
    const hold = () => connection.query("select backup.hold_backup($1::uuid, 'law', now() + interval '1 year')", [run]);
    await expect(hold()).rejects.toMatchObject({ code: "run_state" });
    await jobs.finishRun(connection, await claimed(run), {
      name: "v1/backups/x/manifest",
      hash: "h",
      generation: 1,
      totals: {},
      quarantine_reason: "shrank",
    });
    await expect(jobs.acceptRun(connection, run, "  ")).rejects.toMatchObject({ code: "payload_invalid" });
    await hold();
    await jobs.acceptRun(connection, run, "looked at");
    expect(await query(url, "select status, hold_reason, accepted_reason from backup.runs where id = $1", [run]))
      .toEqual([{ status: "succeeded", hold_reason: "law", accepted_reason: "looked at" }]);
    await connection.query("select backup.release_hold($1::uuid)", [run]);
    await expect(connection.query("select backup.release_hold($1::uuid)", [run])).rejects.toMatchObject({
      code: "run_state",
    });
    const said = await query(url, "select action from backup.audit_log where subject = $1 order by id", [`run:${run}`]);
    expect(said.map((row) => row["action"])).toEqual([
      "run.requested",
      "run.quarantined",
      "backup.held",
      "run.accepted",
      "backup.released",
    ]);
  });
});

describe("what the engine keeps", () => {
  it("is nobody's but the installer's: row security is on, and no other role was granted anything by these migrations", async () => {
    const tables = ["runs", "run_requests", "attempts", "tasks", "run_tables", "objects", "chunks"];
    const rows = await query(
      url,
      `select c.relname, c.relrowsecurity,
              has_table_privilege('anon', c.oid, 'select') or has_table_privilege('service_role', c.oid, 'insert, update, delete') as open
         from pg_class as c where c.relnamespace = 'backup'::regnamespace and c.relname = any ($1)`,
      [tables],
    );
    expect(rows).toHaveLength(tables.length);
    for (const row of rows) expect(row).toMatchObject({ relrowsecurity: true, open: false });
    expect(
      await query(
        url,
        `select p.oid::regprocedure::text as name from pg_proc as p
          where p.pronamespace = 'backup'::regnamespace and p.proname = any ($1)
            and (has_function_privilege('anon', p.oid, 'execute') or has_function_privilege('authenticated', p.oid, 'execute')
              or has_function_privilege('service_role', p.oid, 'execute'))`,
        [[
          "request_run",
          "claim_task",
          "complete_task",
          "return_task",
          "finish_run",
          "fail_run",
          "keep",
          "end_keeper",
          "accept_run",
        ]],
      ),
    ).toEqual([]);
  });
});
