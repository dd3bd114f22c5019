/** Alerts under what goes wrong: channels that cannot be used, a clock that was set back, two tellers, two workers at once. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

type Teller = "function" | "cli";

const tellChannels = (names: readonly string[], problem: string | null = null, teller: Teller = "function") =>
  postgres.query("select backup.tell_channels($1, $2)", [
    teller,
    JSON.stringify(names.map((name) => ({ name, target: `${name}.${teller}.example.org`, problem }))),
  ]);

/** A project whose function told these channels, at a moment that stands still. */
async function set(work: () => Promise<void>, told: readonly string[] = ["email", "slack"]): Promise<void> {
  await rolledBack(postgres, async () => {
    await fillVault(postgres);
    await postgres.query("delete from backup.notices; delete from backup.alerts; delete from backup.channels");
    await at(0);
    await tellChannels(told);
    await work();
  });
}

async function at(seconds: number): Promise<void> {
  await setClock(postgres, new Date(Date.UTC(2026, 10, 21) + seconds * 1000).toISOString());
}

const raise = (kind: string, subject: string, severity = "critical") =>
  postgres.query("select backup.raise_alert($1, $2, 'message', $3)", [kind, subject, severity]);

async function told(): Promise<string[]> {
  const before = await scalar(postgres, "select coalesce(max(id), 0) from backup.notices");
  await postgres.query("select backup.tell_alerts()");
  const { rows } = await postgres.query<{ line: string }>(
    "select concat_ws(' ', event, kind, subject) as line from backup.notices where id > $1 order by id",
    [before],
  );
  return rows.map(({ line }) => line);
}

interface Claimed {
  readonly delivery: string;
  readonly token: string;
}

async function claim(channel = "email"): Promise<Claimed | null> {
  const { rows } = await postgres.query<Claimed>("select * from backup.claim_delivery($1, 'worker', 60)", [channel]);
  return rows[0] ?? null;
}

const record = (one: Claimed | null, failure: string | null) =>
  scalar(postgres, "select backup.record_delivery($1, $2, $3)", [one?.delivery, one?.token, failure]);
const isDue = () => scalar(postgres, "select backup.deliveries_are_due()");
const channelsOf = (event: string) =>
  scalar(
    postgres,
    "select coalesce(string_agg(d.channel, ',' order by d.channel), '') from backup.deliveries as d join backup.notices as n on n.id = d.notice_id where n.event = $1",
    [event],
  );
const statuses = () =>
  scalar(postgres, "select string_agg(channel || ' ' || status, ', ' order by channel) from backup.deliveries");

describe("a channel whose settings are wrong", () => {
  it("keeps nothing due: the function is not called again and again for what it cannot send", async () => {
    await set(async () => {
      await tellChannels(["email"], "BACKUP_SMTP_URL is no address");
      await raise("backup_failed", "kind:full");
      await told();
      expect(await scalar(postgres, "select count(*) from backup.deliveries where status = 'open'")).not.toBe("0");
      expect(await isDue()).toBe("f");
      const calls = "select count(*) from backup.calls where function_name = 'notify'";
      const before = await scalar(postgres, calls);
      await postgres.query("select backup.end_notify('n', null)");
      expect(await scalar(postgres, calls)).toBe(before);
      // Mended, it gets what waited.
      await at(600);
      await tellChannels(["email"]);
      expect(await isDue()).toBe("t");
    }, ["email"]);
  });

  it("is given up after a day and two hours, so that nobody gets last month's messages once it is mended", async () => {
    await set(async () => {
      await tellChannels(["email"], "BACKUP_SMTP_URL is no address");
      await raise("backup_failed", "kind:full");
      await told();
      const old = "select string_agg(distinct status, ',') from backup.deliveries where notice_id <= $1";
      const last = await scalar(postgres, "select max(id) from backup.notices");
      await at(26 * 3600 - 1);
      await told();
      expect(await scalar(postgres, old, [last])).toBe("open");
      await at(26 * 3600 + 1);
      await told();
      expect(await scalar(postgres, old, [last])).toBe("failed");
      // What is still open was told anew meanwhile.
      expect(await scalar(postgres, "select count(*) > 0 from backup.deliveries where status = 'open'")).toBe("t");
    }, ["email"]);
  });
});

describe("a channel that is down for hours", () => {
  it("is tried a dozen times an hour, however much waits for it, and by a test at once", async () => {
    await set(async () => {
      for (let one = 0; one < 40; one++) {
        await postgres.query("select backup.send_notice('incident_opened', $1, 'words')", [`incident:${one}`]);
      }
      let tries = 0;
      for (let minute = 0; minute < 90; minute++) {
        await at(minute * 60);
        // As the function works: until its channel has failed once, and again while something is due.
        for (let again = 0; again < 100 && await isDue() === "t"; again++) {
          if (await record(await claim(), "the answer was 500") !== null && minute >= 30) tries++;
        }
      }
      expect(tries).toBeGreaterThanOrEqual(10);
      expect(tries).toBeLessThanOrEqual(12);
      await postgres.query("select backup.test_channels()");
      expect(await isDue()).toBe("t");
      const test = await claim();
      expect(
        await scalar(postgres, "select count(*) from backup.deliveries where id = $1 and status = 'leased'", [
          test?.delivery,
        ]),
      ).toBe("1");
      await record(test, null);
      // Well again, it gets everything at once.
      expect(await isDue()).toBe("t");
      expect(await claim()).not.toBeNull();
    }, ["email"]);
  });
});

describe("an escalation", () => {
  it("goes to all where none of the named channels can be used", async () => {
    await set(async () => {
      await postgres.query("update backup.settings set value = 'webhook slack' where name = 'alert_escalate_to'");
      await raise("backup_failed", "kind:full");
      await told();
      await at(3600);
      await told();
      expect(await channelsOf("escalated")).toBe("slack");
      await raise("copies_lost", "store:second");
      await tellChannels(["email"]);
      await told();
      await at(7300);
      await told();
      expect(await channelsOf("escalated")).toContain("email");
    });
  });
});

describe("a clock that was set back by a year", () => {
  const year = 365 * 86_400;

  it("silences nothing: what comes is told, in one message where it is much, and what is open is told again", async () => {
    await set(async () => {
      await at(year);
      await raise("copies_late", "store:second", "warning");
      expect(await told()).toEqual(["raised copies_late store:second"]);
      await postgres.query(
        "select backup.raise_alert('leg_failed', 'run:' || n, 'm', 'warning') from generate_series(1, 30) as n",
      );
      expect(await told()).toEqual(["digest digest alerts"]);
      await raise("backup_failed", "kind:full");
      await told();
      await postgres.query(
        "select backup.resolve_alert(kind, subject) from backup.alerts where kind in ('leg_failed', 'backup_failed')",
      );
      await at(year + 400);
      await told();

      await at(0);
      // Of what was told in a year to come nobody remembers anything.
      await raise("backup_failed", "kind:full");
      expect((await told()).sort()).toEqual(["raised backup_failed kind:full", "reminded copies_late store:second"]);
      await at(400);
      await postgres.query(
        "select backup.raise_alert('leg_failed', 'run:' || n, 'm', 'warning') from generate_series(1, 30) as n",
      );
      expect(await told()).toEqual(["digest digest alerts"]);
      expect(await told()).toEqual([]);
    });
  });

  it("holds no delivery back, nor a lease, nor a channel that had failed", async () => {
    await set(async () => {
      await at(year);
      await raise("backup_failed", "kind:full");
      await told();
      await record(await claim("email"), "no answer");
      await claim("slack");
      await at(0);
      expect(await isDue()).toBe("t");
      expect(await claim("email")).not.toBeNull();
      expect(await claim("slack")).not.toBeNull();
    });
  });

  it("does not hide that there is no backup any more, nor a job that does not run", async () => {
    await set(async () => {
      await postgres.query("update backup.schedules set paused_until = null, paused_by = null, pause_reason = null");
      await postgres.query(
        `insert into backup.runs (kind, tiers, status, origin, started_at, heartbeat_at, consistent_at, finished_at, complete_at, manifest_name, manifest_hash)
         values ('full', '{daily}', 'succeeded', 'schedule', $1, $1, $1, $1, $1, 'm', 'h')`,
        [new Date(Date.UTC(2026, 10, 21) + year * 1000).toISOString()],
      );
      const line = await scalar(postgres, "select backup.status() ->> 'line'");
      expect(line).toContain("every backup is of a moment that is still to come");
      expect(await scalar(postgres, "select backup.status() ->> 'lastBackupAt'")).toBeNull();
      await postgres.query(
        "insert into backup.job_runs (schedule, started_at) values ('anchor', $1) on conflict (schedule) do update set started_at = $1, failed_at = null",
        [new Date(Date.UTC(2026, 10, 21) + year * 1000).toISOString()],
      );
      await postgres.query("select backup.count_job_runs()");
      const job =
        "select started_at <= backup.clock_now() and failed_at is null from backup.job_runs where schedule = 'anchor'";
      expect(await scalar(postgres, job)).toBe("t");
    });
  });
});

describe("a terminal beside the function", () => {
  it("takes no channel away that the function has, and breaks none, until the function is gone for two hours", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await told();
      await tellChannels(["email", "webhook"], null, "cli");
      await tellChannels(["webhook"], null, "cli");
      await tellChannels(["email"], "BACKUP_SMTP_URL is no address", "cli");
      expect(await statuses()).toBe("email open, slack open");
      const email =
        "select concat_ws(' ', told_by, target, problem, gone_at) from backup.channels where name = 'email'";
      expect(await scalar(postgres, email)).toBe("function email.function.example.org");
      expect(await scalar(postgres, "select count(*) from backup.alerts where kind = 'channel_failing'")).toBe("0");
      expect(await scalar(postgres, "select gone_at is not null from backup.channels where name = 'webhook'")).toBe(
        "t",
      );
      await at(7201);
      await tellChannels(["email"], null, "cli");
      expect(await scalar(postgres, email)).toBe("cli email.cli.example.org");
      await tellChannels(["email"]);
      expect(await scalar(postgres, email)).toBe("function email.function.example.org");
    });
  });
});

describe("two workers at once", () => {
  it("give each channel each notice once, and a third gets what one of them was killed with", async () => {
    const cluster = await installedCluster();
    const workers = [await session(cluster), await session(cluster)];
    const killed = await session(cluster);
    try {
      await tellChannels(["email"]);
      await postgres.query(
        "select backup.send_notice('test_of_two', 'two:' || n, 'words') from generate_series(1, 60) as n",
      );
      const take = (worker: pg.Client, lease: number) =>
        worker.query<{ delivery: string; token: string; subject: string }>(
          "select delivery, token, notice ->> 'subject' as subject from backup.claim_delivery('email', 'w', $1)",
          [lease],
        );
      // Sent, and killed before it is recorded: its lease ends at once.
      const lost = await take(killed, 0);
      await killed.end();
      const sent: string[] = [];
      await Promise.all(workers.map(async (worker) => {
        for (;;) {
          const { rows: [one] } = await take(worker, 60);
          if (one === undefined) break;
          sent.push(one.subject);
          await worker.query("select backup.record_delivery($1, $2, null)", [one.delivery, one.token]);
        }
      }));
      expect(sent.filter((subject) => subject.startsWith("two:")).sort()).toEqual(
        Array.from({ length: 60 }, (_, n) => `two:${n + 1}`).sort(),
      );
      expect(lost.rows).toHaveLength(1);
      // Both tell alerts at the same time: one message.
      await postgres.query("select backup.raise_alert('test_of_two', 'two:alert', 'm')");
      await Promise.all(workers.map((worker) => worker.query("select backup.tell_alerts()")));
      expect(await scalar(postgres, "select count(*) from backup.notices where subject = 'two:alert'")).toBe("1");
    } finally {
      await Promise.all(workers.map((worker) => worker.end()));
      await postgres.query(
        "delete from backup.notices; delete from backup.channels; delete from backup.alerts where kind = 'test_of_two'",
      );
    }
  });
});
