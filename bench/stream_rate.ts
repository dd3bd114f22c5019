import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runProgram } from "../src/local/child.ts";
import { cpuSeconds, measure, median, type Running, start } from "./measure.ts";
import { ours, pgbench, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";
import { endStream, isThere, type Streamed, waitFor } from "./stream.ts";

const pairs = 5;
const runSeconds = 10;
const clients = 2;
/** pgbench's transaction changes three rows and inserts one. */
const changesOfOne = 4;
/** A run is drained three times inside, and 90 % of its changes are: with a longer pause it would pay less than its share. */
const drainSeconds = 3;

const ways = ["off", "on", "pg_receivewal"] as const;
type Way = (typeof ways)[number];

interface Run {
  readonly transactions: number;
  readonly serverSeconds: number;
  readonly besideSeconds: number;
  /** Of its changes, those that were stored before it ended; what is stored later is not paid for in it. */
  readonly storedShare: number;
}

/**
 * What does the stream take from the application? pgbench with nothing beside it, with the stream drained, and with
 * pg_receivewal; turn by turn, each round in another order, each run after a checkpoint.
 */
export async function rate(project: Streamed, report: Report): Promise<void> {
  const folder = temporaryFolder("rate");
  const runs: Record<Way, Run[]> = { off: [], on: [], pg_receivewal: [] };
  try {
    await measure(pgbench(project.setting.cluster, load(5)));
    for (let round = 0; round < pairs; round++) {
      for (let turn = 0; turn < ways.length; turn++) {
        const way = ways[(round + turn) % ways.length] ?? "off";
        const run = await oneRun(project, way, join(folder.path, `${way}-${round}`));
        runs[way].push(run);
        report.note(
          `pgbench, stream ${way}: ${run.transactions.toFixed(0)} transactions a second, ${
            run.serverSeconds.toFixed(1)
          } s of server CPU, ${run.besideSeconds.toFixed(1)} s beside it`,
        );
      }
    }
  } finally {
    folder.remove();
  }
  const middle = (way: Way, figure: (run: Run) => number) => median(runs[way].map(figure));
  const ratio = (way: Way) =>
    median(runs[way].map((run, round) => run.transactions / (runs.off[round]?.transactions ?? NaN)));
  const names = { off: "stream off", on: `stream drained each ${drainSeconds} s`, pg_receivewal: "pg_receivewal" };
  for (const way of ways) {
    report.find(`pgbench transactions, ${names[way]}`, middle(way, (run) => run.transactions), "a second");
  }
  for (const way of ways) {
    const perThousand = (run: Run) => 1000 * 1000 * run.serverSeconds / (run.transactions * runSeconds);
    report.find(`server CPU of 1,000 of them, ${names[way]}`, middle(way, perThousand), "ms");
  }
  report.find(`CPU of the drainer in ${runSeconds} s`, middle("on", (run) => run.besideSeconds), "s");
  report.find("changes that are stored before a run ends", 100 * middle("on", (run) => run.storedShare), "%");
  report.findAtLeast(`pgbench: ${names.on} / off`, ratio("on"), "ratio", 0.95);
  report.find(`pgbench: ${names.pg_receivewal} / off`, ratio("pg_receivewal"), "ratio");
}

function load(seconds: number): string[] {
  return ["-c", String(clients), "-j", String(clients), "-T", String(seconds)];
}

async function oneRun(project: Streamed, way: Way, folder: string): Promise<Run> {
  const { cluster } = project.setting;
  mkdirSync(folder);
  await checkpoint(project);
  const beside = await startBeside(project, way, folder);
  try {
    const server = Number(readFileSync(join(cluster.dataDirectory, "postmaster.pid"), "utf8").split("\n")[0]);
    const before = [cpuSeconds(server), beside === null ? 0 : cpuSeconds(beside.pid)] as const;
    // Without the look at memory, which would take a share of the machine.
    const { program, args, env } = pgbench(cluster, load(runSeconds));
    const stdout = await runProgram(program, args, env);
    const after = [cpuSeconds(server), beside === null ? 0 : cpuSeconds(beside.pid)] as const;
    const transactions = Number(/^tps = ([\d.]+)/m.exec(stdout)?.[1] ?? NaN);
    return {
      transactions,
      serverSeconds: after[0] - before[0],
      besideSeconds: after[1] - before[1],
      storedShare: await storedChanges(project) / (changesOfOne * transactions * runSeconds),
    };
  } finally {
    await beside?.stop();
    await endStream(project.client);
  }
}

async function storedChanges({ client }: Streamed): Promise<number> {
  const { rows: [row] } = await client.query(
    `select coalesce(sum(s.changes), 0)::float8 as changes
     from backup.segments as s join backup.chains as c on c.id = s.chain_id and c.ended_at is null`,
  );
  return (row as { changes: number }).changes;
}

/** Runs start equal: each page's first change after a checkpoint is logged whole. */
async function checkpoint({ setting: { cluster } }: Streamed): Promise<void> {
  await measure({
    program: join(cluster.bin, "psql"),
    args: ["-X", "-q", "-c", "checkpoint"],
    env: cluster.environment(cluster.superuser),
  });
}

/** Returns once it is at work. */
async function startBeside({ setting, client }: Streamed, way: Way, folder: string): Promise<Running | null> {
  switch (way) {
    case "off":
      return null;
    case "on": {
      const follow = start(ours(setting, ["follow", "--interval", String(drainSeconds)], folder));
      await waitFor("the stream's first drain", 60, () =>
        isThere(
          client,
          "select from backup.drain as d join backup.chains as c on c.ended_at is null and d.drained_at > c.started_at",
        ));
      return follow;
    }
    case "pg_receivewal": {
      const { cluster, role } = setting;
      const receiver = start({
        program: join(cluster.bin, "pg_receivewal"),
        args: ["--no-loop", "-D", folder],
        env: cluster.environment(role),
      });
      await waitFor("pg_receivewal", 30, () =>
        isThere(
          client,
          "select from pg_stat_replication where application_name = 'pg_receivewal' and state = 'streaming'",
        ));
      return receiver;
    }
  }
}
