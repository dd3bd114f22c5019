/** What is told of alerts and when: repeats, escalation, storms, copies; and the default rules that no other file injects. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fillVault, installedCluster, rolledBack, scalar, session, setClock, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const channels = ["email", "slack"];

/** A project whose function told these channels, at a moment that stands still. */
async function set(work: () => Promise<void>, told: readonly string[] = channels): Promise<void> {
  await rolledBack(postgres, async () => {
    await postgres.query("delete from backup.notices; delete from backup.alerts");
    await at(0);
    await tellChannels(told);
    await work();
  });
}

const tellChannels = (names: readonly string[], problem: string | null = null) =>
  postgres.query("select backup.tell_channels('function', $1)", [
    JSON.stringify(names.map((name) => ({ name, target: `${name}.example.org`, problem }))),
  ]);

/** So many seconds after the beginning. */
async function at(seconds: number): Promise<void> {
  await setClock(postgres, new Date(Date.UTC(2026, 10, 21) + seconds * 1000).toISOString());
}

const raise = (kind: string, subject: string, severity = "critical", message = "message") =>
  postgres.query("select backup.raise_alert($1, $2, $3, $4)", [kind, subject, message, severity]);
const resolve = (kind: string, subject: string) =>
  postgres.query("select backup.resolve_alert($1, $2)", [kind, subject]);

/** What a pass tells, as `event kind subject`, in the order of the messages. */
async function told(): Promise<string[]> {
  const before = await scalar(postgres, "select coalesce(max(id), 0) from backup.notices");
  await postgres.query("select backup.tell_alerts()");
  const { rows } = await postgres.query<{ line: string }>(
    "select concat_ws(' ', event, kind, subject) as line from backup.notices where id > $1 order by id",
    [before],
  );
  return rows.map(({ line }) => line);
}

describe("one alert", () => {
  it("is told when it opens, once, whatever it does after that, by every channel", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      expect(await told()).toEqual(["raised backup_failed kind:full"]);
      expect(
        await scalar(
          postgres,
          "select string_agg(channel || ' ' || status, ', ' order by channel) from backup.deliveries",
        ),
      )
        .toBe("email open, slack open");
      for (let minute = 1; minute < 50; minute++) {
        await at(minute * 60);
        await raise("backup_failed", "kind:full");
        expect(await told()).toEqual([]);
      }
    });
  });

  it("is told again when it gets worse, when nobody acknowledges it, and when it is over", async () => {
    await set(async () => {
      await raise("drain_failed", "stream", "warning");
      expect(await told()).toEqual(["raised drain_failed stream"]);
      await raise("drain_failed", "stream", "critical");
      expect(await told()).toEqual(["worse drain_failed stream"]);
      await at(3600);
      expect(await told()).toEqual(["escalated drain_failed stream"]);
      await at(3600 + 86_399);
      expect(await told()).toEqual([]);
      await at(3600 + 86_400);
      expect(await told()).toEqual(["reminded drain_failed stream"]);
      await resolve("drain_failed", "stream");
      expect(await told()).toEqual(["resolved drain_failed stream"]);
      await at(900_000);
      expect(await told()).toEqual([]);
    });
  });

  it("is neither escalated nor told again once somebody has acknowledged it, but when it gets worse", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await raise("copies_late", "store:second", "warning");
      await told();
      await postgres.query("select backup.acknowledge_alert(id) from backup.alerts");
      for (const hours of [1, 24, 48, 100]) {
        await at(hours * 3600);
        expect(await told()).toEqual([]);
      }
      await raise("copies_late", "store:second", "critical");
      expect(await told()).toEqual(["worse copies_late store:second"]);
      expect(await told()).toEqual([]);
      // Nobody has acknowledged that it is as bad as this.
      await at(101 * 3600);
      expect(await told()).toEqual(["escalated copies_late store:second"]);
      await postgres.query("select backup.acknowledge_alert(id) from backup.alerts where kind = 'copies_late'");
      // Up and down, no worse than they know: it stays acknowledged.
      await raise("copies_late", "store:second", "warning");
      await raise("copies_late", "store:second", "critical");
      await at(300 * 3600);
      expect(await told()).toEqual([]);
    });
  });

  it("is escalated to the channels that are set for it, and only where it is critical", async () => {
    await set(async () => {
      await postgres.query("update backup.settings set value = 'slack' where name = 'alert_escalate_to'");
      await postgres.query("delete from backup.alerts");
      await raise("backup_failed", "kind:full");
      await raise("copies_late", "store:second", "warning");
      await told();
      await at(3600);
      expect(await told()).toEqual(["escalated backup_failed kind:full"]);
      expect(
        await scalar(
          postgres,
          "select string_agg(d.channel, ',') from backup.deliveries as d join backup.notices as n on n.id = d.notice_id where n.event = 'escalated'",
        ),
      ).toBe("slack");
    });
  });

  it("that came and went between two passes is told once, as over already", async () => {
    await set(async () => {
      await raise("call_failed", "function:backup");
      await resolve("call_failed", "function:backup");
      expect(await told()).toEqual(["passed call_failed function:backup"]);
      expect(await told()).toEqual([]);
    });
  });

  it("that flaps is told once an hour, and what is left of it is told when the hour is over", async () => {
    await set(async () => {
      const lines: string[] = [];
      for (let minute = 0; minute < 180; minute++) {
        await at(minute * 60);
        if (minute % 4 === 0) await raise("drain_failed", "stream", "warning");
        if (minute % 4 === 2) await resolve("drain_failed", "stream");
        lines.push(...(await told()).map((line) => `${minute} ${line}`));
      }
      // It is told when it opens and when that ends; the ones between are in the table.
      expect(lines).toEqual([
        "0 raised drain_failed stream",
        "2 resolved drain_failed stream",
        "60 raised drain_failed stream",
        "62 resolved drain_failed stream",
        "120 raised drain_failed stream",
        "122 resolved drain_failed stream",
      ]);
      expect(await scalar(postgres, "select count(*) from backup.alerts where kind = 'drain_failed'")).toBe("45");
      // One that comes back within the hour, and stays, is told when the hour is over.
      await at(200 * 60);
      await raise("drain_failed", "stream", "warning");
      expect(await told()).toEqual(["raised drain_failed stream"]);
      await resolve("drain_failed", "stream");
      expect(await told()).toEqual(["resolved drain_failed stream"]);
      await raise("drain_failed", "stream", "warning");
      await at(260 * 60 - 1);
      expect(await told()).toEqual([]);
      await at(260 * 60);
      expect(await told()).toEqual(["raised drain_failed stream"]);
    });
  });

  it("of severity information is told once and ends by itself after a day, without another word", async () => {
    await set(async () => {
      await raise("settings_changed", "setting:x", "information");
      expect(await told()).toEqual(["raised settings_changed setting:x"]);
      await at(86_400);
      expect(await told()).toEqual([]);
      await at(86_401);
      expect(await told()).toEqual([]);
      expect(await scalar(postgres, "select status from backup.alerts")).toBe("resolved");
    });
  });

  it("waits for the first channel, and is told then; what was over a day before is history", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await raise("drain_failed", "stream");
      await resolve("drain_failed", "stream");
      expect(await told()).toEqual([]);
      await at(2 * 86_400);
      await tellChannels(["webhook"]);
      expect(await told()).toEqual(["raised backup_failed kind:full"]);
    }, ["heartbeat"]);
  });
});

describe("many alerts", () => {
  it(
    "10,000 at once are one message for each channel, named by kind, and every one of them counts as told",
    async () => {
      await set(async () => {
        await postgres.query(
          `select backup.raise_alert(
           case when n % 10 = 0 then 'backup_failed' else 'leg_failed' end, 'run:' || n, 'message ' || n,
           case when n % 10 = 0 then 'critical' else 'warning' end
         ) from generate_series(1, 10000) as n`,
        );
        const begun = performance.now();
        expect(await told()).toEqual(["digest digest alerts"]);
        expect(performance.now() - begun).toBeLessThan(10_000);
        expect(await scalar(postgres, "select message from backup.notices")).toBe(
          "10000 alerts: 9000 leg_failed, 1000 backup_failed",
        );
        expect(await scalar(postgres, "select jsonb_array_length(detail -> 'shown') from backup.notices")).toBe("20");
        expect(
          await scalar(
            postgres,
            "select bool_and(s ->> 'severity' = 'critical') from backup.notices, jsonb_array_elements(detail -> 'shown') as s",
          ),
        )
          .toBe("t");
        expect(await scalar(postgres, "select count(*) from backup.deliveries")).toBe("2");
        expect(await scalar(postgres, "select count(*) from backup.alerts where told_at is null")).toBe("0");
        expect(await told()).toEqual([]);
        // All over again at once: one message as well.
        await postgres.query("select backup.resolve_alert(kind, subject) from backup.alerts");
        await at(301);
        expect(await told()).toEqual(["digest digest alerts"]);
        expect(await scalar(postgres, "select count(*) from backup.alerts where settled_at is null")).toBe("0");
      });
    },
    120_000,
  );

  it("that go on for an hour, thirty a minute, leave some messages, and none of them is lost", async () => {
    await set(async () => {
      let messages = 0;
      for (let minute = 0; minute < 60; minute++) {
        await at(minute * 60);
        await postgres.query(
          "select backup.raise_alert('leg_failed', 'run:' || $1 || '.' || n, 'm', 'warning') from generate_series(1, 30) as n",
          [minute],
        );
        messages += (await told()).length;
      }
      expect(messages).toBe(12);
      await at(3600 + 300);
      await told();
      const sum = "select sum((detail ->> 'total')::int) from backup.notices where event = 'digest'";
      expect(await scalar(postgres, sum)).toBe("1800");
    });
  }, 60_000);

  it("at once have a message each up to five, and one together from six on", async () => {
    await set(async () => {
      for (let one = 1; one <= 5; one++) await raise("leg_failed", `run:${one}`, "warning");
      expect(await told()).toEqual([1, 2, 3, 4, 5].map((one) => `raised leg_failed run:${one}`));
      for (let one = 11; one <= 16; one++) await raise("leg_failed", `run:${one}`, "warning");
      expect(await told()).toEqual(["digest digest alerts"]);
    });
  });

  it("that drip, four a minute, have a message each up to twenty in an hour, then one together", async () => {
    await set(async () => {
      let single = 0;
      let together = 0;
      for (let minute = 0; minute < 60; minute++) {
        await at(minute * 60);
        await postgres.query(
          "select backup.raise_alert('leg_failed', 'run:' || $1 || '.' || n, 'm', 'warning') from generate_series(1, 4) as n",
          [minute],
        );
        for (const line of await told()) line.startsWith("digest") ? together++ : single++;
      }
      expect(single).toBe(20);
      expect(together).toBeLessThanOrEqual(12);
      await at(3600 + 300);
      await told();
      expect(await scalar(postgres, "select count(*) from backup.alerts where told_at is null")).toBe("0");
    });
  }, 60_000);

  it("do not hold up something critical of another kind", async () => {
    await set(async () => {
      await postgres.query(
        "select backup.raise_alert('leg_failed', 'run:' || n, 'm', 'warning') from generate_series(1, 50) as n",
      );
      expect(await told()).toEqual(["digest digest alerts"]);
      await at(60);
      await postgres.query(
        "select backup.raise_alert('leg_failed', 'more:' || n, 'm', 'warning') from generate_series(1, 50) as n",
      );
      expect(await told()).toEqual([]);
      await raise("backup_failed", "kind:full");
      expect(await told()).toEqual(["digest digest alerts"]);
      expect(await scalar(postgres, "select detail #>> '{shown,0,kind}' from backup.notices order by id desc limit 1"))
        .toBe("backup_failed");
      // The kind was told: the next of it waits as the others do.
      await at(120);
      await raise("backup_failed", "kind:verify");
      await postgres.query(
        "select backup.raise_alert('leg_failed', 'again:' || n, 'm', 'warning') from generate_series(1, 50) as n",
      );
      expect(await told()).toEqual([]);
      await at(360);
      expect(await told()).toEqual(["digest digest alerts"]);
    });
  });
});

describe("a copy of the project", () => {
  it("tells nothing but that it is one, keeps the rest, and tells it once it is adopted", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await postgres.query("select backup.send_notice('incident_opened', 'incident:1', 'words')");
      await postgres.query("select backup.become_copy('', 'a test')");
      await postgres.query("delete from backup.alerts where kind = 'settings_changed'");
      expect(await told()).toEqual(["raised identity_changed store"]);
      const claimed = async () =>
        (await postgres.query("select notice ->> 'kind' as kind from backup.claim_delivery('email', 'w', 60)")).rows;
      expect(await claimed()).toEqual([{ kind: "identity_changed" }]);
      expect(await claimed()).toEqual([]);
      expect(await scalar(postgres, "select backup.not_well()")).toContain("copy");
      expect(await sqlstate(postgres, "select backup.test_channels()")).toBe("HF415");
      await postgres.query("select backup.adopt((select store_prefix from backup.identity), true)");
      expect((await told()).sort()).toEqual(["raised backup_failed kind:full", "resolved identity_changed store"]);
      expect(await claimed()).toEqual([{ kind: "backup_failed" }]);
    });
  });
});

interface Claimed {
  readonly delivery: string;
  readonly token: string;
  readonly try: string;
  readonly notice: string;
}

async function claim(channel = "email", lease = 60): Promise<Claimed | null> {
  const { rows } = await postgres.query<Claimed>("select * from backup.claim_delivery($1, 'worker', $2)", [
    channel,
    lease,
  ]);
  return rows[0] ?? null;
}

async function record(one: Claimed | null, failure: string | null): Promise<string | null> {
  return await scalar(postgres, "select backup.record_delivery($1, $2, $3)", [one?.delivery, one?.token, failure]);
}

describe("a delivery", () => {
  it("is one worker's at a time; after its lease another one's, and the first can record nothing any more", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await told();
      const first = await claim();
      expect(await claim()).toBeNull();
      await at(61);
      const second = await claim();
      expect(second).toMatchObject({ delivery: first?.delivery, try: "2" });
      expect(await sqlstate(postgres, "select backup.record_delivery($1, $2, null)", [first?.delivery, first?.token]))
        .toBe("HF413");
      expect(JSON.parse(second?.notice ?? "{}").key).toBe(JSON.parse(first?.notice ?? "{}").key);
      expect(await record(second, null)).toBe("delivered");
      expect(await sqlstate(postgres, "select backup.record_delivery($1, $2, null)", [second?.delivery, second?.token]))
        .toBe("HF413");
      const { rows } = await postgres.query("select try, outcome from backup.delivery_attempts order by try");
      expect(rows).toEqual([{ try: "1", outcome: null }, { try: "2", outcome: "delivered" }]);
    });
  });

  it("is tried again with growing pauses for a day, then given up, and each try is on record", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await told();
      const pauses: number[] = [];
      let seconds = 0;
      for (;;) {
        const outcome = await record(await claim(), "the answer was 500");
        if (outcome === "failed") break;
        const pause = Number(
          await scalar(
            postgres,
            "select extract(epoch from not_before - backup.clock_now()) from backup.deliveries where channel = 'email'",
          ),
        );
        pauses.push(pause);
        seconds += pause;
        await at(seconds - 1);
        expect(await claim()).toBeNull();
        await at(seconds);
      }
      expect(pauses.slice(0, 9)).toEqual([30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
      expect(seconds).toBeGreaterThan(86_400);
      expect(await scalar(postgres, "select count(*) from backup.delivery_attempts")).toBe(String(pauses.length + 1));
    });
  });

  it("of something critical goes first", async () => {
    await set(async () => {
      await raise("copies_late", "store:second", "warning");
      await told();
      await raise("backup_failed", "kind:full");
      await told();
      expect(JSON.parse((await claim())?.notice ?? "{}").kind).toBe("backup_failed");
      expect(JSON.parse((await claim())?.notice ?? "{}").kind).toBe("copies_late");
    });
  });

  it("that a channel refuses twice is an alert for the others, which ends with its next message", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await told();
      await record(await claim(), "the answer was 500");
      expect(await told()).toEqual([]);
      await at(30);
      await record(await claim(), "the answer was 500");
      expect(await told()).toEqual(["raised channel_failing channel:email"]);
      const to =
        "select string_agg(d.channel, ',') from backup.deliveries as d join backup.notices as n on n.id = d.notice_id where n.kind = 'channel_failing' and n.event = $1";
      expect(await scalar(postgres, to, ["raised"])).toBe("slack");
      await at(90);
      await record(await claim(), null);
      expect(await told()).toEqual(["resolved channel_failing channel:email"]);
      expect(await scalar(postgres, to, ["resolved"])).toBe("email,slack");
    });
  });

  it("to a channel that is not set up any more is given up; one whose settings are wrong is an alert", async () => {
    await set(async () => {
      await raise("backup_failed", "kind:full");
      await told();
      await tellChannels(["slack"]);
      expect(
        await scalar(
          postgres,
          "select string_agg(channel || ' ' || status, ',' order by channel) from backup.deliveries",
        ),
      )
        .toBe("email failed,slack open");
      await tellChannels(["slack", "webhook"], "BACKUP_X is no address");
      expect((await told()).sort()).toEqual([
        "raised channel_failing channel:slack",
        "raised channel_failing channel:webhook",
      ]);
      await tellChannels(["slack", "webhook"]);
      expect((await told()).sort()).toEqual([
        "resolved channel_failing channel:slack",
        "resolved channel_failing channel:webhook",
      ]);
    });
  });

  it("of a test is tried once, to the watcher too, and to one channel where one is named", async () => {
    await set(async () => {
      const notice = await scalar(postgres, "select backup.test_channels()");
      expect(
        await scalar(
          postgres,
          "select string_agg(channel, ',' order by channel) from backup.deliveries where notice_id = $1",
          [notice],
        ),
      )
        .toBe("email,heartbeat,slack");
      expect(await record(await claim(), "the answer was 500")).toBe("failed");
      const one = await scalar(postgres, "select backup.test_channels('slack')");
      expect(
        await scalar(postgres, "select string_agg(channel, ',') from backup.deliveries where notice_id = $1", [one]),
      ).toBe("slack");
      expect(await sqlstate(postgres, "select backup.test_channels('webhook')")).toBe("HF008");
    }, [...channels, "heartbeat"]);
  });
});

describe("a heartbeat", () => {
  const due = async () => await scalar(postgres, "select backup.take_heartbeat()");
  const ticked = () => postgres.query("select backup.note_tick()");

  it("is due every five minutes while the watchdog goes through, and not twice at once", async () => {
    await set(async () => {
      expect(await due()).toBe("f");
      let sent = 0;
      for (let minute = 0; minute < 30; minute++) {
        await at(minute * 60);
        await ticked();
        if (await due() === "t") sent++;
        expect(await due()).toBe("f");
      }
      expect(sent).toBe(6);
    }, ["heartbeat"]);
  });

  it("is not put off by a whole minute where the job begins some seconds early", async () => {
    await set(async () => {
      await ticked();
      expect(await due()).toBe("t");
      await at(269);
      await ticked();
      expect(await due()).toBe("f");
      await at(290);
      expect(await due()).toBe("t");
    }, ["heartbeat"]);
  });

  it("stops when the watchdog stops, and while a critical alert is not acknowledged", async () => {
    await set(async () => {
      await ticked();
      expect(await due()).toBe("t");
      await at(600);
      expect(await scalar(postgres, "select backup.not_well()")).toContain("watchdog");
      expect(await due()).toBe("f");
      await ticked();
      expect(await due()).toBe("t");
      await at(1200);
      await ticked();
      await raise("copies_late", "store:second", "warning");
      await raise("backup_failed", "kind:full");
      expect(await scalar(postgres, "select backup.not_well()")).toContain("backup_failed");
      expect(await due()).toBe("f");
      await postgres.query("select backup.acknowledge_alert(id) from backup.alerts where kind = 'backup_failed'");
      expect(await due()).toBe("t");
    }, ["heartbeat"]);
  });

  it("that fails is a warning that does not stop the next, which is due a minute later", async () => {
    await set(async () => {
      for (const seconds of [0, 60, 120]) {
        await at(seconds);
        await ticked();
        expect(await due()).toBe("t");
        await postgres.query("select backup.record_heartbeat('no answer')");
      }
      expect(
        await scalar(
          postgres,
          "select severity from backup.alerts where subject = 'channel:heartbeat' and status = 'open'",
        ),
      ).toBe("warning");
      await at(180);
      await ticked();
      expect(await due()).toBe("t");
      await postgres.query("select backup.record_heartbeat(null)");
      expect(await scalar(postgres, "select status from backup.alerts where subject = 'channel:heartbeat'")).toBe(
        "resolved",
      );
    }, ["heartbeat", "email"]);
  });
});

describe("the minute's job", () => {
  const calls = async () =>
    Number(await scalar(postgres, "select count(*) from backup.calls where function_name = 'notify'"));
  const minute = () => postgres.query("select backup.call_notify()");

  it("calls the function where something is due, and once an hour to hear what is set up", async () => {
    await set(async () => {
      await fillVault(postgres);
      await minute();
      expect(await calls()).toBe(1);
      for (const seconds of [60, 1800, 3600]) {
        await at(seconds);
        await minute();
      }
      expect(await calls()).toBe(1);
      await at(3601);
      await minute();
      expect(await calls()).toBe(2);
      await at(3660);
      await raise("backup_failed", "kind:full");
      await minute();
      expect(await calls()).toBe(3);
    });
  });

  it("still tells where no function can be called: the CLI delivers then", async () => {
    await set(async () => {
      await postgres.query("delete from vault.secrets");
      await raise("backup_failed", "kind:full");
      await minute();
      expect(await calls()).toBe(0);
      expect(await scalar(postgres, "select count(*) from backup.deliveries where status = 'open'")).toBe("2");
    });
  });
});

describe("a notice that is no alert", () => {
  it("goes to all channels at once; sent before there is one, it waits for it for a day", async () => {
    await set(async () => {
      await postgres.query(
        "select backup.send_notice('drill_report', 'drill:1', 'words', 'information', '{\"a\": 1}')",
      );
      expect(await scalar(postgres, "select count(*) from backup.deliveries")).toBe("0");
      await tellChannels(["email"]);
      await told();
      expect(await scalar(postgres, "select count(*) from backup.deliveries")).toBe("1");
      expect(JSON.parse((await claim())?.notice ?? "{}")).toMatchObject({
        event: "notice",
        kind: "drill_report",
        detail: { a: 1 },
      });
    }, []);
  });
});

describe("default rules", () => {
  const alert = async (kind: string) =>
    (await postgres.query("select subject, severity, status, message from backup.alerts where kind = $1 order by id", [
      kind,
    ])).rows;

  it("settings_changed: a setting, a policy, a schedule, an objective, and nobody's name or address in it", async () => {
    await set(async () => {
      await postgres.query("update backup.settings set value = '3' where name = 'concurrency'");
      await postgres.query("update backup.policies set keep = interval '40 days' where tier = 'daily'");
      await postgres.query("update backup.schedules set enabled = false where name = 'weekly'");
      await postgres.query("update backup.settings set value = 'ada@example.org' where name = 'contact_email'");
      await postgres.query("update backup.settings set value = value");
      const rows = await alert("settings_changed");
      expect(rows.map(({ subject, severity }) => `${subject} ${severity}`)).toEqual([
        "setting:concurrency information",
        "policy:daily information",
        "schedule:weekly information",
        "setting:contact_email information",
      ]);
      expect(rows[0]?.message).toBe("the setting concurrency was changed from value 2 to value 3 by postgres");
      expect(rows[3]?.message).toBe("the setting contact_email was changed from value  to value somebody by postgres");
      expect(await scalar(postgres, "select count(*) from backup.audit_log where detail::text like '%ada@%'")).toBe(
        "0",
      );
      expect(
        await scalar(
          postgres,
          "select detail #>> '{to,value}' from backup.audit_log where subject = 'setting:contact_email' order by id desc limit 1",
        ),
      )
        .toMatch(/^person:[0-9a-f]{64}$/);
    });
  });
});

describe("the emergency contact", () => {
  it("is one line of what is set, refuses what is none, and stands in windows of maintenance", async () => {
    await set(async () => {
      const contact = () => scalar(postgres, "select backup.emergency_contact()");
      const put = (name: string, value: string) =>
        sqlstate(postgres, "update backup.settings set value = $2 where name = $1", [name, value]);
      expect(await contact()).toBe("");
      for (
        const [name, value] of [
          ["contact_name", "Ada <script>"],
          ["contact_name", "Ada\nBcc: x"],
          ["contact_email", "ada"],
          ["contact_email", "ada@example.org\nBcc: x@y.z"],
          ["contact_email", "ada@example"],
          ["contact_phone", "call me"],
          ["contact_phone", "12\n34567"],
          ["mail_to", "a@example.org,b@example.org"],
          ["mail_from", "Holdfast <a@example.org>"],
        ] as const
      ) expect(await put(name, value), `${name} ${value}`).toBe("23514");
      expect(await put("contact_phone", "+44 20 7946-0000")).toBe("none");
      expect(await contact()).toBe("+44 20 7946-0000");
      expect(await put("contact_name", "Ada Admin")).toBe("none");
      expect(await put("contact_email", "ada.admin+backup@mail.example.org")).toBe("none");
      expect(await put("mail_to", "a@example.org b.c@example.org")).toBe("none");
      expect(await contact()).toBe("Ada Admin, ada.admin+backup@mail.example.org, +44 20 7946-0000");
      await postgres.query("select backup.announce('soon', now() + interval '1 day')");
      await postgres.query("set local role anon");
      expect(await scalar(postgres, "select contact from public.backup_announcements")).toContain("Ada Admin");
      await postgres.query("reset role");
    });
  });
});
