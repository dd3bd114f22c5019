/** Whether retention is followed, tier by tier: what is missing and what should be gone, held against a walk through the days. */
import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { seeded } from "../soak/point_random.ts";
import { installedCluster, rolledBack, session, setClock } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** A Wednesday, 10:20, far from what this cluster does by itself. */
const now = Date.parse("2031-05-14T10:20:00Z");
const iso = (moment: number) => new Date(moment).toISOString().replace(".000Z", "Z");

interface Standing {
  readonly backups: number;
  readonly expected: number | null;
  readonly missing: readonly string[];
  readonly overdue: number;
}

/** An install of that age with nothing in it, until the transaction ends. */
async function world<T>(daysOld: number, work: () => Promise<T>): Promise<T> {
  return await rolledBack(postgres, async () => {
    await setClock(postgres, iso(now));
    await postgres.query("delete from backup.runs where kind in ('full', 'incremental')");
    await postgres.query("delete from backup.chains");
    await postgres.query("update backup.identity set installed_at = $1", [iso(now - daysOld * dayMs)]);
    await postgres.query("update backup.schedules set enabled_since = $1", [iso(now - daysOld * dayMs)]);
    return await work();
  });
}

async function add(tiers: readonly string[], at: number, status = "succeeded"): Promise<void> {
  await postgres.query(
    `insert into backup.runs (kind, tiers, status, origin, created_at, started_at, heartbeat_at, consistent_at, finished_at, attempt,
       manifest_name, manifest_hash, complete_at, error_code, error_message)
     select 'full', $1::text[], $3, 'schedule', t, t, t, t, t + interval '1 minute', 1, 'm' || gen_random_uuid(), 'h', t,
       case when $3 = 'failed' then 'internal' end, case when $3 = 'failed' then 'm' end
     from (select $2::timestamptz + interval '3 seconds' as t) as moment`,
    [tiers, iso(at), status],
  );
}

async function addHour(at: number): Promise<void> {
  await postgres.query(
    `insert into backup.runs (kind, tiers, status, origin, request_key, created_at, started_at, heartbeat_at, consistent_at, finished_at, chain_id)
     values ('incremental', '{hourly}', 'succeeded', 'schedule', backup.incremental_key('c', $1::timestamptz), $1, $1, $1, $1, $1, 'c')`,
    [iso(at)],
  );
}

async function standing(): Promise<Record<string, Standing>> {
  const { rows } = await postgres.query<Record<string, string>>(
    `select tier, backups, expected, overdue,
       array_to_json(array(select to_char(m at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') from unnest(missing) as m))::text as missing
     from backup.retention_standing()`,
  );
  return Object.fromEntries(rows.map((row) => [String(row["tier"]), {
    backups: Number(row["backups"]),
    expected: row["expected"] === null ? null : Number(row["expected"]),
    missing: JSON.parse(String(row["missing"])) as string[],
    overdue: Number(row["overdue"]),
  }]));
}

describe("retention_standing", () => {
  it.each([3, 12, 45, 200])(
    "agrees with a walk through the days of an install of %i days, with random holes",
    async (daysOld) => {
      const random = seeded(daysOld);
      await world(daysOld, async () => {
        const missing: Record<string, string[]> = { daily: [], weekly: [] };
        const there: Record<string, number> = { daily: 0, weekly: 0 };
        const expected: Record<string, number> = { daily: 0, weekly: 0 };
        const keptDays: Record<string, number> = { daily: 30, weekly: 90 };
        const midnight = now - now % dayMs;
        for (let at = midnight - daysOld * dayMs; at <= midnight; at += dayMs) {
          if (at < now - daysOld * dayMs) continue;
          const isSunday = new Date(at).getUTCDay() === 0;
          const tiers = isSunday ? ["daily", "weekly"] : ["daily"];
          const taken = !random.chance(0.2);
          if (taken) await add(tiers, at);
          else if (random.chance(0.3)) await add(tiers, at, "failed");
          for (const tier of tiers) {
            if (taken) there[tier] = (there[tier] ?? 0) + 1;
            if (at < now - (keptDays[tier] ?? 0) * dayMs) continue;
            expected[tier] = (expected[tier] ?? 0) + 1;
            if (!taken) missing[tier]?.push(iso(at));
          }
        }
        const found = await standing();
        for (const tier of ["daily", "weekly"]) {
          expect(found[tier], tier).toMatchObject({
            backups: there[tier],
            expected: expected[tier],
            missing: missing[tier],
          });
        }
        expect(found["manual"]).toMatchObject({ expected: null, missing: [] });
        expect(found["safety"]).toMatchObject({ expected: null, missing: [] });
      });
    },
  );

  it("names the hours of the stream that no incremental has, since its beginning, and not the one that goes on", async () => {
    await world(40, async () => {
      expect((await standing())["hourly"]).toMatchObject({ expected: 0, missing: [] });
      await postgres.query(
        `insert into backup.chains (id, slot_name, publications, start_lsn, started_at, system_identifier, database_name)
         values ('c', 's', '{}', '0/1', $1, '1', 'd')`,
        [iso(now - 10 * hourMs)],
      );
      const first = now - now % hourMs - 9 * hourMs;
      for (const hour of [0, 1, 3, 4, 5, 7, 8]) await addHour(first + hour * hourMs);
      expect((await standing())["hourly"]).toMatchObject({
        backups: 7,
        expected: 9,
        missing: [iso(first + 2 * hourMs), iso(first + 6 * hourMs)],
      });
      await postgres.query("update backup.schedules set enabled = false where kind = 'changes'");
      expect((await standing())["hourly"]).toMatchObject({ expected: 0, missing: [] });
    });
  });

  it("expects nothing of a schedule that is off, and nothing from before it was changed", async () => {
    await world(20, async () => {
      expect((await standing())["daily"]?.expected).toBe(20);
      await postgres.query("update backup.schedules set enabled_since = $1 where name = 'daily'", [
        iso(now - 2 * dayMs),
      ]);
      expect((await standing())["daily"]).toMatchObject({
        expected: 2,
        missing: [iso(now - now % dayMs - dayMs), iso(now - now % dayMs)],
      });
      await postgres.query("update backup.schedules set enabled = false where name = 'daily'");
      expect((await standing())["daily"]).toMatchObject({ expected: 0, missing: [] });
    });
  });

  it("misses a month of which no backup is kept, where the first of each month is", async () => {
    await world(150, async () => {
      await postgres.query("select backup.set_retention('gfs')");
      for (const month of ["01", "02", "04", "05"]) await add(["daily"], Date.parse(`2031-${month}-02T00:00:00Z`));
      await add(["daily"], Date.parse("2031-01-20T00:00:00Z"));
      // installed in the middle of December; the second of January is one too many
      const found = await standing();
      expect(found["monthly"]).toMatchObject({ expected: 4, missing: ["2031-03-01T00:00:00Z"] });
      expect(found["daily"]?.overdue).toBe(1);
    });
  });

  it("counts what should be gone for three days, but for what is held, and so does the alert", async () => {
    await world(300, async () => {
      await add(["daily"], now - 40 * dayMs);
      await add(["daily", "weekly"], now - 40 * dayMs);
      await add(["daily", "weekly"], now - 95 * dayMs);
      await add(["daily"], now - 32 * dayMs);
      await add(["daily"], now);
      const found = await standing();
      expect([found["daily"]?.overdue, found["weekly"]?.overdue]).toEqual([2, 1]);
      await postgres.query("select backup.watch_retention()");
      const { rows } = await postgres.query(
        "select message from backup.alerts where kind = 'retention_not_followed' and status = 'open'",
      );
      expect(rows[0]?.message).toMatch(/^2 backups are older than their tiers keep them/);
      await postgres.query("update backup.runs set hold_until = $1, hold_reason = 'a lawyer' where kind = 'full'", [
        iso(now + dayMs),
      ]);
      expect((await standing())["daily"]?.overdue).toBe(0);
    });
  });
});
