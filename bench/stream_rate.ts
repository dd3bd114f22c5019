import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { runProgram } from "../src/local/child.ts";
import { cpuSeconds, measure, median, type Running, start } from "./measure.ts";
import { ours, pgbench, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";
import { endStream, isThere, type Streamed, waitFor } from "./stream.ts";

const clients = 2;
/** pgbench's transaction changes three rows and inserts one. */
const changesOfOne = 4;

type Way = "off" | "on" | "pg_receivewal";

/** How often the stream is drained, counted from the start of a run; what is stored after its end is not paid for in it. */
interface Form {
  readonly name: string;
  readonly drainSeconds: number;
  readonly runSeconds: number;
  readonly ways: readonly Way[];
  readonly pairs: (rounds: number) => number;
  readonly goal: { readonly atLeast?: number };
}

const forms: readonly Form[] = [
  {
    // As pg_cron has it done: one drain of nearly all of a minute's changes.
    name: "once a minute",
    drainSeconds: 50,
    runSeconds: 60,
    ways: ["off", "on"],
    pairs: (rounds) => Math.max(1, 2 * rounds - 1),
    goal: { atLeast: 0.95 },
  },
  {
    // Three drains inside a run, of 90 % of its changes: with a longer pause it would pay less than its share.
    name: "each 3 s",
    drainSeconds: 3,
    runSeconds: 10,
    ways: ["off", "on", "pg_receivewal"],
    pairs: (rounds) => 2 * rounds + 1,
    goal: {},
  },
];

interface Run {
  readonly transactions: number;
  readonly serverSeconds: number;
  readonly besideSeconds: number;
  /** Of its changes, those that were stored before it ended; what is stored later is not paid for in it. */
  readonly storedShare: number;
}

/**
 * What does the stream take from the application? pgbench with nothing beside it, with the stream drained, and with
 * pg_receivewal; turn by turn, each round in another order, each run after a checkpoint. A machine of two cores is uneven
 * by more than what is asked about: only runs of the same round are compared, and runs with nothing beside them show how
 * far two equal ones are apart.
 */
export async function rate(project: Streamed, rounds: number, report: Report): Promise<void> {
  await measure(pgbench(project.setting.cluster, load(5)));
  for (const form of forms) await compare(project, form, form.pairs(rounds), report);
}

async function compare(project: Streamed, form: Form, pairs: number, report: Report): Promise<void> {
  const { ways, runSeconds, name } = form;
  const folder = temporaryFolder("rate");
  const runs: Record<Way, Run[]> = { off: [], on: [], pg_receivewal: [] };
  try {
    for (let round = 0; round < pairs; round++) {
      for (let turn = 0; turn < ways.length; turn++) {
        const way = ways[(round + turn) % ways.length] ?? "off";
        const run = await oneRun(project, form, way, join(folder.path, `${way}-${round}`));
        runs[way].push(run);
        report.note(
          `pgbench, stream ${way}, ${name}: ${run.transactions.toFixed(0)} transactions a second, ${
            run.serverSeconds.toFixed(1)
          } s of server CPU, ${run.besideSeconds.toFixed(1)} s beside it`,
        );
      }
    }
  } finally {
    folder.remove();
  }
  const middle = (way: Way, figure: (run: Run) => number) => median(runs[way].map(figure));
  const serverMs = (run: Run) => 1000 * 1000 * run.serverSeconds / (run.transactions * runSeconds);
  const ratios = (some: readonly Run[], others: readonly Run[], figure: (run: Run) => number) =>
    some.map((run, at) => figure(run) / figure(others[at] ?? run));
  const names = { off: "stream off", on: `stream drained ${name}`, pg_receivewal: "pg_receivewal" };
  for (const way of ways) {
    const beside = way === "off" ? ` beside \`${names.on}\`` : "";
    report.find(`pgbench transactions, ${names[way]}${beside}`, middle(way, (run) => run.transactions), "a second");
    report.find(`server CPU of 1,000 of them`, middle(way, serverMs), "ms");
  }
  report.find(`CPU of the drainer in ${runSeconds} s`, middle("on", (run) => run.besideSeconds), "s");
  report.find("changes that are stored before a run ends", 100 * middle("on", (run) => run.storedShare), "%");
  const speed = (run: Run) => run.transactions;
  const of = `median of ${pairs} pairs`;
  report.findPaired(`pgbench: ${names.on} / off, ${of}`, ratios(runs.on, runs.off, speed), form.goal);
  report.findPaired("server CPU of a transaction, likewise", ratios(runs.on, runs.off, serverMs));
  if (ways.includes("pg_receivewal")) {
    report.findPaired(`pgbench: pg_receivewal / off, ${of}`, ratios(runs.pg_receivewal, runs.off, speed));
  }
  if (pairs > 1) {
    report.findPaired("pgbench: off / off of the round before", ratios(runs.off.slice(1), runs.off, speed));
  }
}

function load(seconds: number): string[] {
  return ["-c", String(clients), "-j", String(clients), "-T", String(seconds)];
}

async function oneRun(project: Streamed, form: Form, way: Way, folder: string): Promise<Run> {
  const { cluster } = project.setting;
  mkdirSync(folder);
  await checkpoint(project);
  const beside = await startBeside(project, form, way, folder);
  try {
    const server = Number(readFileSync(join(cluster.dataDirectory, "postmaster.pid"), "utf8").split("\n")[0]);
    const before = [cpuSeconds(server), beside === null ? 0 : cpuSeconds(beside.pid)] as const;
    // Without the look at memory, which would take a share of the machine.
    const { program, args, env } = pgbench(cluster, load(form.runSeconds));
    const stdout = await runProgram(program, args, env);
    // Its backends are waited for by then: while they end, they are neither there nor counted as ended.
    await new Promise((resolve) => setTimeout(resolve, 300));
    const after = [cpuSeconds(server), beside === null ? 0 : cpuSeconds(beside.pid)] as const;
    const transactions = Number(/^tps = ([\d.]+)/m.exec(stdout)?.[1] ?? NaN);
    return {
      transactions,
      serverSeconds: after[0] - before[0],
      besideSeconds: after[1] - before[1],
      storedShare: await storedChanges(project) / (changesOfOne * transactions * form.runSeconds),
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
async function startBeside(
  { setting, client }: Streamed,
  { drainSeconds }: Form,
  way: Way,
  folder: string,
): Promise<Running | null> {
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
