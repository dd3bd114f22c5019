import { randomUUID } from "node:crypto";
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;
/** For what a transaction that is rolled back cannot see: somebody else at work. */
let other: pg.Client;

beforeAll(async () => {
  const cluster = await installedCluster();
  postgres = await session(cluster);
  other = await session(cluster);
});
afterAll(async () => {
  await postgres?.end();
  await other?.end();
});

/** Far from what this cluster does by itself. */
const start = Date.parse("2032-05-01T12:07:00Z");
const goTo = async (hours: number) => await setClock(postgres, new Date(start + hours * 3_600_000).toISOString());

interface Given {
  readonly statements: readonly string[];
  readonly wereGood?: boolean;
}

const keep = async (id: string, { statements, wereGood = true }: Given) =>
  await postgres.query("select backup.keep_smokes($1, $2, $3)", [
    id,
    JSON.stringify(statements.map((text, index) => ({ number: index + 1, line: 10 * (index + 1), text }))),
    wereGood,
  ]);

/** A restore in place that ended well at hour 0, and is watched. */
async function watched(given: Given | null): Promise<string> {
  await goTo(-0.5);
  const { rows } = await postgres.query("select * from backup.begin_restore($1)", [
    JSON.stringify({ scope: "full", mode: "replace", source_backup: randomUUID(), target_label: "here/postgres" }),
  ]);
  if (given !== null) await keep(rows[0].id, given);
  await goTo(0);
  await postgres.query("select backup.finish_restore($1, $2, $3)", [rows[0].id, rows[0].token, "{}"]);
  await postgres.query("select backup.watch_recoveries()");
  return rows[0].id;
}

const job = async (id: string) =>
  (await postgres.query(
    "select jobname, schedule, command, username, active from cron.job where jobname = 'holdfast-smoke-' || left($1, 8)",
    [id],
  )).rows;

/** What the job does, statement by statement; in one transaction, as pg_cron does it. */
async function runJob(id: string): Promise<void> {
  const { rows } = await postgres.query("select number from backup.restore_smokes where restore_id = $1 order by 1", [
    id,
  ]);
  for (const { number } of rows) await postgres.query("select backup.try_smoke($1, $2)", [id, number]);
  await postgres.query("select backup.tell_smokes($1)", [id]);
}

const outcomes = async (id: string) =>
  (await postgres.query(
    "select passed || '/' || failed || coalesce(' ' || last_error, '') as told from backup.restore_smokes where restore_id = $1 order by number",
    [id],
  )).rows.map(({ told }) => told);

const watch = async (id: string) => {
  const { rows } = await postgres.query(
    "select status, worse, smoke from backup.restore_watches where restore_id = $1",
    [id],
  );
  return { status: rows[0].status, worse: rows[0].worse, smoke: JSON.parse(rows[0].smoke) };
};

const alert = async () =>
  await scalar(
    postgres,
    "select string_agg(status || ' ' || message, '|') from backup.alerts where kind = 'smoke_failed'",
  );

describe("smoke queries of a restore", () => {
  it("are kept in place of those before; too many, and those of no restore, are refused", async () => {
    await rolledBack(postgres, async () => {
      const id = await watched({ statements: ["select 1", "select 2"] });
      await keep(id, { statements: ["select 3"] });
      expect(await scalar(postgres, "select string_agg(statement, ';') from backup.restore_smokes")).toBe("select 3");
      const call = "select backup.keep_smokes($1, $2, true)";
      const many = (count: number) =>
        JSON.stringify(Array.from({ length: count }, (_, index) => ({ number: index + 1, line: 1, text: "select 1" })));
      expect(await sqlstate(postgres, call, [id, many(101)])).toBe("HF003");
      expect(await sqlstate(postgres, call, [randomUUID(), many(1)])).toBe("HF414");
      expect(await sqlstate(postgres, call, [id, many(100)])).toBe("none");
    });
  });

  it("have a job of their own from the begin of the watch, each hour, the first in the next minute", async () => {
    await rolledBack(postgres, async () => {
      const id = await watched({ statements: ["select 'a secret'", "select 2"] });
      expect(await job(id)).toEqual([{
        jobname: `holdfast-smoke-${id.slice(0, 8)}`,
        schedule: "8 * * * *",
        command: `set statement_timeout = '30s'; select backup.try_smoke('${id}', 1); ` +
          `select backup.try_smoke('${id}', 2); select backup.tell_smokes('${id}')`,
        username: "postgres",
        active: "t",
      }]);
      expect(await watch(id)).toMatchObject({ status: "watching", smoke: { queries: 2, runs: 0, failed: 0 } });
      expect(await scalar(postgres, "select count(*) from backup.user_jobs() where label ~ 'smoke'")).toBe("0");
      // none without queries, and none for a restore that is not watched
      expect(await job(await watched(null))).toEqual([]);
      await goTo(30);
      await postgres.query("select backup.tick()");
      expect(await job(id)).toEqual([]);
    });
  });

  it.each([
    ["select 1", "1/0"],
    ["(select true as ok)", "1/0"],
    ["with x as (select 1) select false as ok, 1 as other from x", "1/0"],
    ["values (1), (2)", "1/0"],
    ["show work_mem", "1/0"],
    ["do $$ begin perform 1; end $$", "1/0"],
    ["select own_name from smoke_subject", "1/0"],
    ["select count(*) = 1 as ok from smoke_subject", "1/0"],
    ["select count(*) = 2 as ok from smoke_subject", "0/1 not_ok"],
    ["select i < 70 as ok from generate_series(1, 100) as i", "0/1 not_ok"],
    ["select (own_name || 'x')::int from smoke_subject", "0/1 22P02"],
    ["select * from gone_since", "0/1 42P01"],
    ["selec", "0/1 42601"],
    ["insert into smoke_subject values ('b')", "0/1 25006"],
    ["with x as (delete from smoke_subject returning 1) select * from x", "0/1 25006"],
    ["select smoke_writer()", "0/1 25006"],
    ["create table public.smoke_made ()", "0/1 25006"],
    ["select set_config('transaction_read_only', 'off', true)", "0/1 25001"],
    ["do $$ begin raise exception 'own'; end $$", "0/1 P0001"],
    ["do $$ begin assert false; end $$", "0/1 P0004"],
    ["commit", "0/1 0A000"],
  ])("%s: %s", async (statement, outcome) => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `create table public.smoke_subject (own_name text); insert into public.smoke_subject values ('a value');
         create function public.smoke_writer() returns void language sql security definer
           as 'insert into public.smoke_subject values (1)'`,
      );
      const id = await watched({ statements: [statement, "select true as ok"] });
      await runJob(id);
      expect(await outcomes(id)).toEqual([outcome, "1/0"]);
      expect(await scalar(postgres, "select count(*) from public.smoke_subject")).toBe("1");
      expect(await scalar(postgres, "select current_setting('transaction_read_only')")).toBe("off");
      expect(await scalar(postgres, "select to_jsonb(q)::text from backup.restore_smokes as q where number = 1")).not
        .toContain("a value");
    });
  });

  it("leave nothing behind, not even by a way out of the read-only transaction", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("create table public.smoke_subject (own_name text)");
      const id = await watched({
        statements: [
          "do $$ begin reset transaction_read_only; insert into public.smoke_subject values ('b'); end $$",
          "select set_config('work_mem', '77MB', false)",
        ],
      });
      await runJob(id);
      expect(await scalar(postgres, "select count(*) from public.smoke_subject")).toBe("0");
      expect(await scalar(postgres, "select current_setting('work_mem')")).not.toBe("77MB");
    });
  });

  it("raise an alert when one fails that was good, which goes when it is good again", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query("create table public.smoke_subject (own_name text)");
      const id = await watched({ statements: ["select 1", "select * from public.smoke_subject"] });
      await runJob(id);
      expect(await alert()).toBeNull();
      await postgres.query("alter table public.smoke_subject rename to gone");
      await runJob(id);
      await runJob(id);
      expect(await alert()).toBe(
        "open smoke queries fail that went through since the restore: statement 2 (line 20): SQLSTATE 42P01",
      );
      await postgres.query("alter table public.gone rename to smoke_subject");
      await runJob(id);
      expect(await alert()).toMatch(/^resolved /);
      await goTo(2);
      await postgres.query("select backup.watch_recoveries()");
      expect(await watch(id)).toEqual({
        status: "watching",
        worse: "{smoke}",
        smoke: { queries: 2, runs: 4, passed: 6, failed: 2, broke: 2, last_error: "42P01" },
      });
    });
  });

  it("that never went through raise none, until they have", async () => {
    await rolledBack(postgres, async () => {
      const id = await watched({ statements: ["select * from public.smoke_subject"], wereGood: false });
      await runJob(id);
      expect(await alert()).toBeNull();
      await postgres.query("create table public.smoke_subject (ok boolean)");
      await runJob(id);
      await postgres.query("insert into public.smoke_subject values (false)");
      await runJob(id);
      expect(await alert()).toMatch(/^open .*statement 1 \(line 10\): a row says that it is not ok$/);
      expect((await watch(id)).smoke).toMatchObject({ queries: 1 });
      await goTo(2);
      await postgres.query("select backup.watch_recoveries()");
      expect((await watch(id)).smoke).toMatchObject({ failed: 2, broke: 1, passed: 1, last_error: "not_ok" });
    });
  });

  it("end with the day: job and text go, the result says how they did, a run under way is waited for", async () => {
    await rolledBack(postgres, async () => {
      const id = await watched({ statements: ["select 1", "select * from gone_since"] });
      // as the transaction of a run holds it
      const key = await scalar(postgres, "select backup.smoke_key($1)", [id]);
      await other.query("select pg_advisory_lock($1)", [key]);
      try {
        await goTo(24.1);
        await postgres.query("select backup.watch_recoveries()");
      } finally {
        await other.query("select pg_advisory_unlock($1)", [key]);
      }
      expect(await job(id)).toHaveLength(1);
      expect((await watch(id)).status).toBe("watching");
      await runJob(id);
      const open = await scalar(postgres, "select id from backup.alerts where kind = 'smoke_failed'");
      await postgres.query("select backup.watch_recoveries()");
      expect(await job(id)).toEqual([]);
      const smoke = { queries: 2, runs: 1, passed: 1, failed: 1, broke: 1, last_error: "42P01" };
      expect(await watch(id)).toEqual({ status: "worse", worse: "{smoke}", smoke });
      expect(await scalar(postgres, "select count(statement) from backup.restore_smokes")).toBe("0");
      const told = await scalar(postgres, "select detail from backup.audit_log where action = 'restore.watched'");
      expect(JSON.parse(told ?? "")).toMatchObject({ smoke, worse: ["smoke"] });
      // a job that comes late finds nothing to do
      await runJob(id);
      expect(await outcomes(id)).toEqual(["1/0", "0/1 42P01"]);
      expect(await alert()).toMatch(/^open /);
      await postgres.query("select backup.acknowledge_alert($1)", [open]);
      await postgres.query("select backup.watch_recoveries()");
      expect(await alert()).toMatch(/^resolved /);
    });
  });

  it("whose job pg_cron does not take are told of, and the day is watched all the same", async () => {
    await rolledBack(postgres, async () => {
      await postgres.query(
        `create or replace function backup.smoke_job(restore uuid) returns text language sql immutable strict
         set search_path = '' as 'select null::text'`,
      );
      const id = await watched({ statements: ["select 1"] });
      expect(await watch(id)).toMatchObject({ status: "watching" });
      expect(await alert()).toMatch(
        /^open pg_cron takes no job for the smoke queries after the restore \(SQLSTATE \w{5}\)$/,
      );
    });
  });
});
