import type pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { installedCluster, rolledBack, scalar, session, sqlstate } from "./cluster.ts";

let postgres: pg.Client;

beforeAll(async () => {
  postgres = await session(await installedCluster());
});
afterAll(async () => {
  await postgres?.end();
});

/** The naive way: every minute backwards, each tested on its own. */
function lastDueByMinutes(matches: (moment: Date) => boolean, until: Date): string | null {
  const start = Math.floor(until.getTime() / 60_000);
  for (let minute = start; minute > start - 366 * 1440; minute--) {
    const moment = new Date(minute * 60_000);
    if (matches(moment)) return moment.toISOString().replace(".000Z", "Z");
  }
  return null;
}

async function lastDue(cron: string, until: string): Promise<string | null> {
  return await scalar(
    postgres,
    `select to_char(backup.last_due($1, $2) at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')`,
    [cron, until],
  );
}

describe("backup.last_due", () => {
  const dow = (moment: Date) => moment.getUTCDay();
  const dom = (moment: Date) => moment.getUTCDate();
  const hour = (moment: Date) => moment.getUTCHours();
  const minute = (moment: Date) => moment.getUTCMinutes();
  const expressions: readonly [string, (moment: Date) => boolean][] = [
    ["* * * * *", () => true],
    ["0 0 * * *", (m) => hour(m) === 0 && minute(m) === 0],
    ["0 0 * * 0", (m) => dow(m) === 0 && hour(m) === 0 && minute(m) === 0],
    ["30 3 * * 7", (m) => dow(m) === 0 && hour(m) === 3 && minute(m) === 30],
    ["*/15 * * * *", (m) => minute(m) % 15 === 0],
    ["5-50/20 4,22 * * *", (m) => [5, 25, 45].includes(minute(m)) && [4, 22].includes(hour(m))],
    ["0 12 1,15 * *", (m) => [1, 15].includes(dom(m)) && hour(m) === 12 && minute(m) === 0],
    ["0 12 13 * 5", (m) => (dom(m) === 13 || dow(m) === 5) && hour(m) === 12 && minute(m) === 0],
    ["59 23 31 12 *", (m) => m.getUTCMonth() === 11 && dom(m) === 31 && hour(m) === 23 && minute(m) === 59],
  ];
  const moments = ["2026-11-22T00:00:00Z", "2026-11-21T23:59:59Z", "2024-02-29T12:00:30Z", "2026-01-01T00:00:00Z"];

  it.each(expressions)("agrees with a walk through the minutes for %s", async (cron, matches) => {
    for (const moment of moments) {
      expect(await lastDue(cron, moment), moment).toBe(lastDueByMinutes(matches, new Date(moment)));
    }
  });

  it("refuses what pg_cron's grammar has and we do not: names, seconds, fields out of range", async () => {
    await rolledBack(postgres, async () => {
      for (
        const cron of [
          "0 0 * * sun",
          "30 seconds",
          "60 * * * *",
          "* 24 * * *",
          "0 0 0 * *",
          "5-1 * * * *",
          "* * * *",
          "",
        ]
      ) {
        expect(await sqlstate(postgres, "select backup.last_due($1, now())", [cron]), cron).toBe("HF003");
      }
    });
  });

  it("keeps a schedule out that never comes", async () => {
    await rolledBack(postgres, async () => {
      expect(await sqlstate(postgres, "update backup.schedules set cron = '0 0 31 2 *' where name = 'daily'")).toBe(
        "23514",
      );
    });
  });
});
