import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type pg from "pg";
import { start } from "./measure.ts";
import { ours, pgbench, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";
import { endStream, isThere, type Streamed, waitFor } from "./stream.ts";

/** With a tick each minute, so that at least two drains are waited for: the age is greatest just before one ends. */
const tickSeconds = 130;
const followSeconds = 30;
const writesPerSecond = 100;

/** While something is written without pause: how old is the newest commit that is stored, at the worst moment? */
export async function recoveryPoint(project: Streamed, report: Report): Promise<void> {
  const { setting, client } = project;
  const folder = temporaryFolder("point");
  const store = join(folder.path, "store");
  mkdirSync(store);
  const writes = start(pgbench(setting.cluster, ["-c", "1", "-R", String(writesPerSecond), "-T", "3600"]));
  try {
    await setTick(client, true);
    await client.query("select backup.call_drain()");
    await waitFor("the full backup of the stream", 180, () =>
      isThere(
        client,
        `select from backup.runs as r join backup.chains as c on c.id = r.chain_id and c.ended_at is null
         where r.kind = 'full' and r.status = 'succeeded'`,
      ));
    const ticked = await oldest(client, tickSeconds);
    report.note(`newest stored commit, drained by the functions: ${ticked.toFixed(1)} s old at most`);
    await setTick(client, false);
    await endStream(client);

    const follow = start(ours(setting, ["follow", "--interval", "1"], store));
    try {
      const followed = await oldest(client, followSeconds);
      report.note(`newest stored commit, followed: ${followed.toFixed(1)} s old at most`);
      report.find("recovery point under continuous writes, drained each minute", ticked, "s", 75);
      report.find("recovery point under continuous writes, `holdfast follow`", followed, "s", 5);
    } finally {
      await follow.stop();
    }
  } finally {
    await writes.stop();
    await endStream(client);
    folder.remove();
  }
}

async function setTick(client: pg.Client, isOn: boolean): Promise<void> {
  await client.query("update backup.schedules set enabled = $1 where name = 'changes'", [isOn]);
  await client.query("select backup.apply_schedules()");
}

/** The greatest age of the newest stored commit of the open chain, looked at four times a second from the first one on. */
async function oldest(client: pg.Client, seconds: number): Promise<number> {
  const age = async () => {
    const { rows: [row] } = await client.query(
      `select extract(epoch from clock_timestamp() - max(s.last_commit_at))::float8 as age
       from backup.segments as s join backup.chains as c on c.id = s.chain_id and c.ended_at is null`,
    );
    return (row as { age: number | null }).age;
  };
  await waitFor("the first stored commit", 120, async () => await age() !== null);
  const deadline = performance.now() + seconds * 1000;
  let greatest = 0;
  while (performance.now() < deadline) {
    greatest = Math.max(greatest, await age() ?? NaN);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  return greatest;
}
