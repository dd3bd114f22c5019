/** Databases that are made for one restore: those of killed ones go with the next, those in use never do. */
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { type Clock, systemClock } from "../../src/shared/clock.ts";
import { silentLog } from "../../src/shared/log.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { makeScratch, type Scratch } from "../../src/shared/rows/past/moment_scratch.ts";
import { query, useCluster, withClient } from "../support/cluster.ts";
import { eventually } from "../support/stack.ts";
import { cli } from "../integration/cli_fixture.ts";
import { like, serverAt } from "./scratch_fixture.ts";

const cluster = useCluster();
const url = () => cluster().plainUrl();
const made: Scratch[] = [];

const later = (hours: number): Clock => ({
  ...systemClock,
  now: () => new Date(systemClock.now().getTime() + hours * 3_600_000),
});

async function make(hours = 0, wrap?: (database: Database) => Database): Promise<string> {
  const deps = { clock: later(hours), random: webCryptoRandom, log: silentLog };
  const scratch = await makeScratch(deps, serverAt(url(), wrap), like);
  made.push(scratch);
  return nameOf(scratch.database);
}

const nameOf = ({ label }: Database) => label.split("/").at(-1) ?? "";

const scratches = async () =>
  (await query(url(), "select datname from pg_database where datname like 'holdfast_scratch_%' order by 1")).map((
    { datname },
  ) => datname);

function killGroup(child: ChildProcess): void {
  if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
}

/** The name of one whose maker was killed. */
async function killed(): Promise<string> {
  const child = spawn(
    fileURLToPath(new URL("../../node_modules/.bin/deno", import.meta.url)),
    ["run", "-A", "--no-lock", fileURLToPath(new URL("./scratch_child.ts", import.meta.url))],
    { env: { ...process.env, TEST_DATABASE_URL: url() }, stdio: ["ignore", "pipe", "inherit"], detached: true },
  );
  const name = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the child ended with ${code}`)));
  });
  const closed = new Promise((resolve) => child.once("close", resolve));
  killGroup(child);
  await closed;
  await eventually(
    "the server sees it",
    async () => (await query(url(), "select from pg_stat_activity where datname = $1", [name])).length === 0 || null,
  );
  return name;
}

afterEach(async () => {
  for (const scratch of made.splice(0)) await scratch.drop();
  const admin = cluster().plainUrl(cluster().superuser);
  for (const name of await scratches()) await query(admin, `drop database "${name}"`);
});

describe("a scratch database", () => {
  it("goes with the next one when its maker was killed an hour ago; two in use stay, and go with their makers", async () => {
    const dead = await killed();
    const [first, second] = await Promise.all([make(), make()]);
    expect(await scratches()).toEqual([dead, first, second].sort());
    const third = await make(2);
    expect(await scratches()).toEqual([first, second, third].sort());
    for (const scratch of made.splice(0)) await scratch.drop();
    expect(await scratches()).toEqual([]);
  });

  it("stays while it is being made, however long that takes", async () => {
    let go: () => void = () => {};
    const gate = new Promise<void>((resolve) => (go = resolve));
    let isThere: () => void = () => {};
    const reached = new Promise<void>((resolve) => (isThere = resolve));
    const slow = make(0, (database) => ({
      label: database.label,
      connect: async (name) => {
        isThere();
        await gate;
        return await database.connect(name);
      },
    }));
    await reached;
    const [half] = await scratches();
    const other = await make(5);
    expect(await scratches()).toEqual([half, other].sort());
    go();
    expect(await slow).toBe(half);
  });

  it("stays while somebody is in it, and when it is no restore's or another role's", async () => {
    const old = "holdfast_scratch_20240101t000000z_0000000";
    const lookalike = "holdfast_scratch_mine";
    await withClient(url(), async (client) => {
      for (const name of [`${old}1`, `${old}2`, lookalike]) await client.query(`create database "${name}"`);
    });
    await query(cluster().plainUrl(cluster().superuser), `create database "${old}3"`);
    await withClient(cluster().plainUrl("postgres", `${old}1`), async () => {
      const doctor = await cli(["doctor", "--json"], { BACKUP_DB_URL: cluster().url() });
      const { checks } = doctor.document as { checks: { name: string; message: string }[] };
      expect(checks.filter(({ name }) => name === "left over")).toMatchObject([{
        state: "warn",
        message: `of restores that were killed: ${old}2`,
      }]);
      const own = await make();
      expect(await scratches()).toEqual([`${old}1`, `${old}3`, lookalike, own].sort());
    });
  });

  it("stays for an hour after its maker was killed", async () => {
    const name = await killed();
    await make(0.9);
    expect(await scratches()).toContain(name);
    await make(1.1);
    expect(await scratches()).not.toContain(name);
  });
});
