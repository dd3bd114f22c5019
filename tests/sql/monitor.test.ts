/** What the monitor sees: each fault once, as one alert that ends once it is mended. */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";
import { addBackup, addJobRun, alertsOf, at, look, slotOf, wellWorld } from "./monitor_fixture.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const run = async (sql: string, values: readonly unknown[] = []) => void await postgres.query(sql, [...values]);
const setting = (name: string, value: number) =>
  run("update backup.settings set value = $2 where name = $1", [name, String(value)]);

interface Fault {
  readonly what: string;
  readonly kind: string;
  readonly subject: string;
  readonly severity: "warning" | "critical";
  readonly message: RegExp;
  readonly inject: () => Promise<unknown>;
  readonly mend: () => Promise<unknown>;
}

/** A chain that was drained to its end so many minutes from the start, with a full backup on it. */
async function chainDrained(minutes: number): Promise<void> {
  await run(
    `insert into backup.chains (id, slot_name, publications, start_lsn, started_at, system_identifier, database_name)
     values ('c1', 'no_slot', '{}', '0/1', $1, 'x', 'x') on conflict do nothing`,
    [at(-600)],
  );
  await slotOf(postgres, "c1", 1_000);
  await run("update backup.runs set chain_id = 'c1' where kind = 'full'");
  await run("update backup.drain set drained_at = $1, failed_at = null", [at(minutes)]);
}

const callsOf = (status: string, times: number) =>
  run(
    `insert into backup.calls (nonce, function_name, status, made_at, expires_at, begun_at, ended_at)
     select replace(gen_random_uuid()::text, '-', ''), 'backup', $1, $2::timestamptz, $2::timestamptz + interval '5 minutes', $2, $2
     from generate_series(1, $3)`,
    [status, at(-10), times],
  );

/** Measured anew at the next look. */
const holding = async (bytes: number) => {
  await run("delete from backup.store_usage");
  await run(
    `insert into backup.objects (name, kind, raw_bytes, stored_bytes, hash, stored_hash) values ('o', 'chunk', 1, $1, 'h', 's')
     on conflict (name) do update set stored_bytes = excluded.stored_bytes`,
    [bytes],
  );
};

const secondHolding = async (bytes: number) => {
  await run("delete from backup.store_usage");
  await run("select backup.tell_stores('first', 'second')");
  await run(
    `insert into backup.copies (store, name, kind, status, second_bytes, second_hash, copied_at) values ('second', 'o', 'object', 'stored', $1, 'h', $2)
     on conflict (store, name) do update set second_bytes = excluded.second_bytes`,
    [bytes, at(-5)],
  );
};

const faults: readonly Fault[] = [
  {
    what: "a newest backup that is older than a day and two hours",
    kind: "backup_old",
    subject: "kind:full",
    severity: "warning",
    message: /older than it should be/,
    inject: () => run("update backup.runs set consistent_at = $1 where kind = 'full'", [at(-27 * 60)]),
    mend: () => addBackup(postgres, -30),
  },
  {
    what: "a newest backup that is older than two days",
    kind: "backup_old",
    subject: "kind:full",
    severity: "critical",
    message: /older than two intervals/,
    inject: () => run("update backup.runs set consistent_at = $1 where kind = 'full'", [at(-51 * 60)]),
    mend: () => addBackup(postgres, -30),
  },
  {
    what: "a first store above 80 %",
    kind: "store_filling",
    subject: "store:first",
    severity: "warning",
    message: /^the first store holds 7\.8 GiB of its 9\.3 GiB \(84 %\), 1 objects$/,
    inject: async () => {
      await setting("primary_quota_bytes", 10_000_000_000);
      await holding(8_400_000_000);
    },
    mend: () => holding(8_000_000_000),
  },
  {
    what: "a second store above 95 %",
    kind: "store_filling",
    subject: "store:second",
    severity: "critical",
    message: /^the second store holds .* \(96 %\)/,
    inject: async () => {
      await setting("secondary_quota_bytes", 1_000_000);
      await secondHolding(960_000);
    },
    mend: () => setting("secondary_quota_bytes", 0),
  },
  {
    what: "a store that does not answer",
    kind: "store_unreachable",
    subject: "store:first",
    severity: "critical",
    message: /the first store \(supabase:\/\/b\).*no answer \(store_unreachable\)/,
    inject: () => tell("store:first", { label: "supabase://b", failure: "no answer (store_unreachable)" }),
    // while there is an alert the probe writes
    mend: () => tell("store:first", { label: "supabase://b", failure: null, wrote: true }),
  },
  {
    what: "a change stream that nobody drains",
    kind: "stream_late",
    subject: "stream",
    severity: "warning",
    message: /last drained to its end 20 min 0 s ago/,
    inject: () => chainDrained(-20),
    mend: () => chainDrained(-1),
  },
  {
    what: "a watchdog that stands still",
    kind: "watchdog_still",
    subject: "schedule:watchdog",
    severity: "critical",
    message: /came to its end last 11 min 0 s ago/,
    inject: () => run("update backup.pulse set ticked_at = $1", [at(-11)]),
    mend: () => run("update backup.pulse set ticked_at = $1", [at(0)]),
  },
  {
    what: "a job that was due and did not begin",
    kind: "job_missed",
    subject: "schedule:anchor",
    severity: "critical",
    message: /holdfast-anchor was due at 2031-05-01 11:17 UTC and did not begin/,
    inject: () => run("update backup.job_runs set started_at = $1 where schedule = 'anchor'", [at(-103)]),
    mend: () => addJobRun(postgres, "anchor", -2, "succeeded"),
  },
  {
    what: "a job that is gone",
    kind: "job_missed",
    subject: "schedule:replicate",
    severity: "critical",
    message: /holdfast-replicate is gone/,
    inject: () => run("select cron.unschedule('holdfast-replicate')"),
    mend: () => run("select * from backup.apply_schedules()"),
  },
  {
    what: "the job of the daily backup, switched off",
    kind: "job_missed",
    subject: "schedule:daily",
    severity: "critical",
    message: /switched off in cron\.job/,
    inject: () => run("select cron.alter_job(jobid, active => false) from cron.job where jobname = 'holdfast-daily'"),
    mend: () => run("select cron.alter_job(jobid, active => true) from cron.job where jobname = 'holdfast-daily'"),
  },
  {
    what: "a job that failed",
    kind: "job_failed",
    subject: "schedule:security",
    severity: "warning",
    message: /holdfast-security failed at 2031-05-01 12:00 UTC: ERROR: out of luck$/,
    inject: () => addJobRun(postgres, "security", 0, "failed", "ERROR: out of luck\nDETAIL: row (secret)"),
    mend: () => addJobRun(postgres, "security", 1, "succeeded"),
  },
  {
    what: "calls of a function that are lost",
    kind: "calls_lost",
    subject: "function:backup",
    severity: "warning",
    message: /3 of 23 calls of the function backup in the last hour did not come to their end \(3 lost, 0 not taken\)/,
    inject: async () => {
      await callsOf("ended", 20);
      await callsOf("lost", 3);
    },
    mend: () => callsOf("ended", 20),
  },
  {
    what: "a key that is in use for more than a year",
    kind: "key_old",
    subject: "key:k-old",
    severity: "warning",
    message: /in use since 2030-0/,
    inject: async () => {
      await run("select backup.tell_keys('{k-old}')");
      await run("update backup.told_facts set first_told_at = $1 where subject = 'key:k-old'", [at(-366 * 1440)]);
    },
    mend: () => run("delete from backup.told_facts where subject = 'key:k-old'"),
  },
  {
    what: "functions whose clock is two minutes behind",
    kind: "clock_skewed",
    subject: "clock:function",
    severity: "warning",
    message: /clock of the functions is 2 min 0 s behind the database's/,
    inject: () => tell("clock:function", { aheadSeconds: -120 }),
    mend: () => tell("clock:function", { aheadSeconds: 3.2 }),
  },
  {
    what: "a store whose clock is ten minutes ahead",
    kind: "clock_skewed",
    subject: "clock:second",
    severity: "critical",
    message: /clock of the second store is 10 min 0 s ahead of the database's/,
    inject: () => tell("clock:second", { aheadSeconds: 600 }),
    mend: () => tell("clock:second", { aheadSeconds: 0 }),
  },
  {
    what: "a session that stood still and was ended",
    kind: "session_stalled",
    subject: "application:holdfast:leg",
    severity: "warning",
    message: /^1 sessions of ours \(holdfast:leg\) had sent nothing for over a minute/,
    inject: () =>
      run(
        `insert into backup.stalled_sessions (pid, backend_start, application, progress, seen_from, ended_at)
         values (1, now(), 'holdfast:leg', 5, now(), clock_timestamp())`,
      ),
    mend: () => run("update backup.stalled_sessions set ended_at = clock_timestamp() - interval '61 minutes'"),
  },
  {
    what: "a backup that took five times as long, for more rows",
    kind: "run_slow",
    subject: "tier:daily",
    severity: "warning",
    message:
      /^the newest daily backup took 25 min 0 s; up to 7 min 30 s was expected \(median of the last 6: 5 min 0 s\); likeliest: more rows: 5000, usually 1000; also: new objects: 47\.7 MiB were written, usually 9\.5 MiB$/,
    inject: async () => {
      for (const day of [5, 4, 3, 2, 1]) await addBackup(postgres, -60 - day * 1440);
      await addBackup(postgres, -50, { seconds: 1500, rows: 5_000, newBytes: 50_000_000 });
    },
    mend: () => addBackup(postgres, -10),
  },
];

async function tell(subject: string, facts: unknown): Promise<void> {
  await run("select backup.tell_fact($1, $2)", [subject, JSON.stringify(facts)]);
}

describe("the monitor", () => {
  it("finds nothing where all is well, and says so in one line", async () => {
    await wellWorld(postgres, async () => {
      const { verdict, line, reasons } = await look(postgres);
      expect(reasons).toEqual([]);
      expect(verdict).toBe("ok");
      expect(line).toBe("ok: the newest backup shows 2031-05-01 11:00 UTC, 1 h 0 min ago");
    });
  });

  it.each(faults)("makes one alert of $what, and ends it once it is mended", async (fault) => {
    const { kind, subject, severity, message, inject, mend } = fault;
    await wellWorld(postgres, async () => {
      expect((await look(postgres)).reasons).toEqual([]);
      await inject();
      const ill = await look(postgres);
      expect(ill.verdict).toBe(severity);
      expect(ill.line.startsWith(`${severity}: `)).toBe(true);
      const open = { subject, severity, status: "open", message: expect.stringMatching(message) as string };
      expect(await alertsOf(postgres, kind)).toEqual([open]);
      await look(postgres);
      expect(await alertsOf(postgres, kind), "told once").toEqual([open]);
      await setClock(postgres, at(2));
      await mend();
      const well = await look(postgres);
      expect(well.reasons).toEqual([]);
      expect(await alertsOf(postgres, kind)).toEqual([{ ...open, status: "resolved" }]);
      await look(postgres);
      expect(await alertsOf(postgres, kind), "ended once").toHaveLength(1);
      const told = await scalar(
        postgres,
        "select string_agg(action, ' ' order by id) from backup.audit_log where subject = $1 and recorded_at >= $2",
        [`${kind}:${subject}`, at(0)],
      );
      expect(told).toBe("alert.raised alert.resolved");
    });
  });

  it("tells of each kind in docs/monitoring.md, and of no other", async () => {
    const kinds = JSON.parse(
      await scalar(postgres, "select jsonb_agg(k order by k) from backup.checks_of_conditions(), unnest(kinds) as k") ??
        "",
    );
    const { readFileSync } = await import("node:fs");
    const page = readFileSync(new URL("../../docs/monitoring.md", import.meta.url), "utf8");
    const listed = [...page.matchAll(/^\| `([a-z_]+)` +\|/gm)].map(([, kind]) => kind);
    for (const kind of [...kinds, "monitor_failed", "look_failed"]) expect(listed).toContain(kind);
    expect([...new Set(faults.map(({ kind }) => kind))].sort()).toEqual(kinds);
  });

  it("goes on where one of its checks fails, names it, and leaves what that check told before as it is", async () => {
    await wellWorld(postgres, async () => {
      await tell("clock:function", { aheadSeconds: 500 });
      await look(postgres);
      const body = await scalar(postgres, "select pg_get_functiondef('backup.see_clocks()'::regprocedure)") ?? "";
      await run(
        `create or replace function backup.see_clocks()
         returns table (kind text, subject text, severity text, message text, is_alert boolean)
         language plpgsql set search_path = '' as $$ begin raise exception 'broken for the test'; end $$`,
      );
      await run("update backup.pulse set ticked_at = $1", [at(-11)]);
      const ill = await look(postgres);
      expect(ill.verdict).toBe("critical");
      expect(await alertsOf(postgres, "monitor_failed")).toMatchObject([
        { subject: "check:see_clocks", status: "open", message: expect.stringContaining("broken for the test") },
      ]);
      expect(await alertsOf(postgres, "clock_skewed")).toMatchObject([{ status: "open" }]);
      expect(await alertsOf(postgres, "watchdog_still")).toMatchObject([{ status: "open" }]);
      await run(body);
      await look(postgres);
      expect(await alertsOf(postgres, "monitor_failed")).toMatchObject([{ status: "resolved" }]);
      expect(await alertsOf(postgres, "clock_skewed")).toMatchObject([{ status: "open" }]);
    });
  });

  it("calls nobody for what is paused, or for a fresh install without a backup, and says it all the same", async () => {
    await wellWorld(postgres, async () => {
      await run("update backup.job_runs set started_at = $1", [at(-600)]);
      await run(
        "select backup.pause_schedule(name, backup.clock_now() + interval '3 hours', 'import') from backup.schedules where kind not in ('watchdog', 'alerts', 'full')",
      );
      await run("update backup.job_runs set started_at = $1 where schedule in ('watchdog', 'alerts')", [at(0)]);
      const paused = await look(postgres);
      expect(paused.verdict).toBe("warning");
      expect(paused.reasons).toContainEqual("the schedule anchor is paused until 2031-05-01 15:00 UTC (import)");
      expect(await alertsOf(postgres, "job_missed")).toEqual([]);
      await run("delete from backup.runs");
      await run("update backup.identity set installed_at = $1", [at(-60)]);
      expect((await look(postgres)).reasons).toContainEqual("there is no backup");
      expect(await alertsOf(postgres, "backup_old")).toEqual([]);
    });
  });

  it("has no verdict on how long a backup takes below five of its tier, and one that is under way is judged as well", async () => {
    await wellWorld(postgres, async () => {
      for (const day of [3, 2, 1]) await addBackup(postgres, -60 - day * 1440);
      const slow = await addBackup(postgres, -50, { seconds: 3_000 });
      const durations = async () => JSON.parse(await scalar(postgres, "select backup.status() -> 'durations'") ?? "");
      expect(await durations()).toMatchObject([{ tier: "daily", compared: 4, limitSeconds: null }]);
      expect((await look(postgres)).verdict).toBe("ok");
      await run("delete from backup.runs where id = $1", [slow]);
      await addBackup(postgres, -60 - 4 * 1440);
      await run(
        `insert into backup.runs (kind, tiers, status, origin, created_at, started_at, attempt)
         values ('full', '{daily,weekly}', 'copying', 'schedule', $1, $1, 3)`,
        [at(-8)],
      );
      expect((await look(postgres)).reasons).toEqual([
        expect.stringMatching(
          /^the newest daily backup has been under way for 8 min 0 s; .*likeliest: it began 3 times, since its snapshot/,
        ),
      ]);
    });
  });

  it("names the transaction that holds the slot back", async () => {
    const other = await session(await installedCluster());
    try {
      await other.query("set application_name = 'somebody''s import'; begin; select pg_current_xact_id()");
      const { rows: [row] } = await other.query("select pg_backend_pid() as pid");
      const deadline = performance.now() + 10_000;
      for (;;) {
        // the cluster's own jobs are older now and then, for some milliseconds
        const [holder] = (await postgres.query("select * from backup.slot_holder()")).rows;
        if (holder?.pid === row.pid) {
          expect(holder).toMatchObject({ database: "postgres", application: "somebody's import", prepared: null });
          break;
        }
        expect(performance.now(), "it holds the slot").toBeLessThan(deadline);
      }
      expect(await scalar(postgres, "select backup.oldest_transaction()")).toMatch(
        new RegExp(
          `^the oldest transaction is that of process ${row.pid} in database postgres, since .* old, somebody's import\\)$`,
        ),
      );
    } finally {
      await other.end();
    }
  });
});

describe("calls that are lost", () => {
  it("are told from three on, and from a tenth of an hour's", async () => {
    await wellWorld(postgres, async () => {
      const told = () => scalar(postgres, "select count(*) from backup.see_calls()");
      await run("delete from backup.calls");
      await callsOf("lost", 2);
      expect(await told()).toBe("0");
      await callsOf("failed", 1);
      expect(await told()).toBe("1");
      await callsOf("ended", 27);
      expect(await told()).toBe("0");
      await callsOf("lost", 1);
      expect(await told()).toBe("1");
    });
  });
});

describe("the function's part of the look", () => {
  it("is an alert while it cannot look, which the monitor's own look leaves alone", async () => {
    await wellWorld(postgres, async () => {
      const end = "select backup.end_look('0123456789abcdef', $1)";
      await run(end, [JSON.stringify({ code: "key_missing", message: "BACKUP_KEYS is not set" })]);
      await look(postgres);
      expect(await alertsOf(postgres, "look_failed")).toEqual([{
        subject: "function:monitor",
        severity: "warning",
        status: "open",
        message: "the function monitor could not look: BACKUP_KEYS is not set (key_missing)",
      }]);
      await run(end, [null]);
      expect(await alertsOf(postgres, "look_failed")).toMatchObject([{ status: "resolved" }]);
    });
  });
});

describe("a session of ours whose client takes nothing", () => {
  it("is ended after a minute in which it has sent nothing, and not before, nor one of somebody else's", async () => {
    const cluster = await installedCluster();
    const stalled = new pg.Client({ connectionString: cluster.plainUrl("postgres"), application_name: "holdfast:leg" });
    const theirs = new pg.Client({ connectionString: cluster.plainUrl("postgres"), application_name: "psql" });
    for (const client of [stalled, theirs]) client.on("error", () => {});
    try {
      for (const client of [stalled, theirs]) {
        await client.connect();
        const socket = (client as unknown as { connection: { stream: { pause(): void } } }).connection.stream;
        void client.query("select repeat('x', 1000000) from generate_series(1, 200)").catch(() => {});
        socket.pause();
      }
      const pids = [stalled, theirs].map((client) => (client as unknown as { processID: number }).processID);
      const deadline = performance.now() + 20_000;
      // Until the kernel's buffers are full they go on now and then.
      for (let seen = 0; seen < 20;) {
        const { rows } = await postgres.query(
          "select count(*)::text as waiting from pg_stat_activity, pg_sleep(0.02) where pid = any ($1) and wait_event = 'ClientWrite'",
          [pids],
        );
        seen = rows[0].waiting === "2" ? seen + 1 : 0;
        expect(performance.now(), "both wait for their client").toBeLessThan(deadline);
      }
      const step = () => scalar(postgres, "select backup.end_stalled_sessions()");
      expect(await step()).toBe("0");
      expect(await step(), "not before its minute is over").toBe("0");
      await run("update backup.stalled_sessions set seen_from = seen_from - interval '61 seconds', progress = 7");
      expect(await step(), "it had sent something meanwhile").toBe("0");
      await run("update backup.stalled_sessions set seen_from = seen_from - interval '61 seconds'");
      expect(await step()).toBe("1");
      const left = async () =>
        (await postgres.query("select pid from pg_stat_activity where pid = any ($1)", [pids])).rows;
      while ((await left()).length > 1) expect(performance.now(), "it is gone").toBeLessThan(deadline);
      expect(await left()).toEqual([{ pid: String(pids[1]) }]);
      expect(await scalar(postgres, "select application from backup.stalled_sessions where ended_at is not null")).toBe(
        "holdfast:leg",
      );
      expect(await step(), "once").toBe("0");
    } finally {
      for (const client of [stalled, theirs]) {
        (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
      }
      await run("delete from backup.stalled_sessions");
    }
  }, 60_000);
});

describe("what a look costs", () => {
  it("is little: stores are measured once an hour, and reads of pg_cron only what is new", async () => {
    await wellWorld(postgres, async () => {
      expect(await scalar(postgres, "select backup.measure_usage()")).toBe("t");
      expect(await scalar(postgres, "select backup.measure_usage()")).toBe("f");
      await setClock(postgres, at(61));
      expect(await scalar(postgres, "select backup.measure_usage()")).toBe("t");
      await scalar(postgres, "select backup.count_job_runs()");
      expect(await scalar(postgres, "select backup.count_job_runs()")).toBe("0");
      await addJobRun(postgres, "anchor", 5, "succeeded");
      expect(await scalar(postgres, "select backup.count_job_runs()")).toBe("1");
    });
  });

  it("is nothing where the quota is 0: not known, and said so", async () => {
    await rolledBack(postgres, async () => {
      await setting("primary_quota_bytes", 0);
      await run("delete from backup.store_usage; select backup.measure_usage()");
      const stores = JSON.parse(await scalar(postgres, "select backup.status() -> 'stores'") ?? "");
      expect(stores).toMatchObject([{ place: "first", quotaBytes: null }]);
    });
  });
});
