/** `schedules` and `metrics` as people run them. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { clusterMs, useCluster } from "../support/cluster.ts";
import { cli } from "./cli_fixture.ts";

const cluster = useCluster();
const folder = mkdtempSync(join(tmpdir(), "holdfast-schedules-"));
let settings: Record<string, string> = {};

async function ok(args: readonly string[]): Promise<Record<string, unknown>> {
  const result = await cli([...args, "--json"], settings);
  expect(result.exit, result.stdout + result.stderr).toBe(0);
  return result.document as Record<string, unknown>;
}

interface Schedule {
  readonly name: string;
  readonly cron: string;
  readonly nextAt: string | null;
  readonly pausedUntil: string | null;
}

const named = async (name: string): Promise<Schedule | undefined> =>
  ((await ok(["schedules", "list"]))["schedules"] as Schedule[]).find((one) => one.name === name);

beforeAll(async () => {
  const { keys } = await ok(["keygen"]);
  settings = { BACKUP_DB_URL: cluster().plainUrl(), BACKUP_STORE: `file://${folder}`, BACKUP_KEYS: String(keys) };
  await ok(["init"]);
}, clusterMs);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("schedules", () => {
  it("lists all of them with when they are due next", async () => {
    const listed = await ok(["schedules"]);
    expect(listed).toMatchObject({ runsByItself: true, done: null });
    const next = (await named("daily"))?.nextAt ?? "";
    expect(next).toMatch(/T00:00:00Z$/);
    expect(Date.parse(next)).toBeGreaterThan(Date.now());
    const people = await cli(["schedules", "list"], settings);
    expect(people.stdout).toMatch(/^name +cron \(UTC\) +next +last begun/);
    expect(people.stdout).toMatch(/^watchdog +\* \* \* \* \* /m);
  }, 60_000);

  it("sets another time, pauses with an end and a reason that status tells, and resumes", async () => {
    expect(await ok(["schedules", "set", "daily", "30 2 * * *"])).toMatchObject({
      done: expect.stringContaining("30 2"),
    });
    expect((await named("daily"))?.nextAt).toMatch(/T02:30:00Z$/);
    await ok(["schedules", "pause", "daily", "--for", "2d", "--reason", "big import"]);
    const paused = await named("daily");
    const until = Date.parse(paused?.pausedUntil ?? "");
    expect(Math.abs(until - Date.now() - 2 * 86_400_000)).toBeLessThan(60_000);
    expect(Date.parse(paused?.nextAt ?? ""), "behind the pause").toBeGreaterThan(until);
    const status = await cli(["status", "--json"], settings);
    expect(JSON.stringify(status.document)).toContain("the schedule daily is paused until");
    expect(await ok(["schedules", "resume", "daily"])).toMatchObject({ done: "daily is paused no more" });
    const moment = new Date(Date.now() + 3_600_000).toISOString();
    await ok(["schedules", "pause", "daily", "--until", moment, "--reason", "again"]);
    expect(Date.parse((await named("daily"))?.pausedUntil ?? "")).toBe(Math.floor(Date.parse(moment) / 1000) * 1000);
    await ok(["schedules", "resume", "daily"]);
  }, 60_000);

  it("runs one now", async () => {
    expect(await ok(["schedules", "run", "security"])).toMatchObject({ done: expect.stringMatching(/^done: \d+$/) });
  }, 30_000);

  it("refuses what makes no sense with a code, before anything is changed", async () => {
    const cases: readonly (readonly [readonly string[], string, number])[] = [
      [["set", "daily", "0 0 * *"], "cron_refused", 2],
      [["set", "daily", "0 0 * * mon"], "cron_refused", 2],
      [["set", "nightly", "0 0 * * *"], "not_found", 1],
      [["set", "daily"], "usage", 2],
      [["pause", "watchdog", "--for", "1h", "--reason", "r"], "pause_refused", 2],
      [["pause", "daily", "--until", "2024-01-01T00:00:00Z", "--reason", "r"], "pause_refused", 2],
      [["pause", "daily", "--for", "8d", "--reason", "r"], "pause_refused", 2],
      [["pause", "daily", "--for", "1h"], "usage", 2],
      [["pause", "daily", "--reason", "r"], "usage", 2],
      [["pause", "daily", "--for", "an hour", "--reason", "r"], "usage", 2],
      [["pause", "--for", "1h", "--reason", "r"], "usage", 2],
      [["resume", "daily", "--for", "1h"], "usage", 2],
      [["list", "daily"], "usage", 2],
      [["stop", "daily"], "usage", 2],
    ];
    const settled = await Promise.all(
      cases.map(async ([args]) => await cli(["schedules", ...args, "--json"], settings)),
    );
    for (const [at, [args, code, exit]] of cases.entries()) {
      expect(settled[at], args.join(" ")).toMatchObject({ exit, document: { error: { code } } });
    }
    expect(await named("daily")).toMatchObject({ cron: "30 2 * * *", pausedUntil: null });
  }, 120_000);
});

describe("metrics", () => {
  it("are the figures as text, and with --json as samples", async () => {
    const { exit, stdout } = await cli(["metrics"], settings);
    expect(exit).toBe(0);
    expect(stdout).toMatch(/^# HELP holdfast_verdict .*\n# TYPE holdfast_verdict gauge\nholdfast_verdict 2\n/);
    const samples = await ok(["metrics"]) as unknown as { name: string; labels: object; value: number }[];
    expect(samples).toContainEqual({ name: "holdfast_verdict", labels: {}, value: 2 });
  }, 30_000);
});
