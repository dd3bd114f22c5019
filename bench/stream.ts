import type pg from "pg";
import { endClient, openClient } from "../src/local/client.ts";
import type { Cluster } from "../src/local/postgres.ts";
import { type Stack, startStack } from "../src/local/stack.ts";
import { ownPublications } from "../src/shared/schema/own_objects.ts";
import { measure } from "./measure.ts";
import { pgbench, type Setting } from "./programs.ts";
import type { Report } from "./report.ts";
import { drainAndReplay } from "./stream_drain.ts";
import { recoveryPoint } from "./stream_point.ts";
import { rate } from "./stream_rate.ts";
import { shares } from "./stream_shares.ts";

/** A stack whose change stream is asked about, with a session of its own. */
export interface Streamed {
  readonly stack: Stack;
  readonly setting: Setting;
  readonly client: pg.Client;
}

/** Rows of pgbench_accounts in 100,000: about 150 MB with the index. */
const scale = 10;

/**
 * What does the change stream cost, how fast is it stored and replayed, how large is it, and how old may the newest stored
 * commit be? `big` holds the bench's database; pgbench has a stack of its own, which syncs its commits as a project does.
 */
export async function stream(
  big: Stack,
  target: Cluster,
  rounds: number,
  report: Report,
  say: (line: string) => void,
): Promise<void> {
  const asked = await streamed(big);
  try {
    await shares(asked, report);
  } finally {
    await endStream(asked.client);
    await endClient(asked.client);
  }
  const small = await startStack({
    durable: true,
    stream: false,
    log: say,
    settings: {
      max_wal_size: "8GB",
      shared_buffers: "1GB",
      checkpoint_timeout: "30min",
      max_slot_wal_keep_size: "8GB",
    },
  });
  try {
    const project = await streamed(small);
    await fill(small.cluster, project.client, "postgres", "postgres", scale);
    await rate(project, rounds, report);
    await drainAndReplay(project, target, scale, report);
    // A full is taken by the functions once their stream begins: what is large is not asked about here.
    await fill(small.cluster, project.client, "postgres", "postgres", 1);
    await recoveryPoint(project, report);
    await endClient(project.client);
  } finally {
    await small.destroy();
  }
}

async function streamed(stack: Stack): Promise<Streamed> {
  const { cluster, keys } = stack;
  return { stack, setting: { cluster, role: "postgres", keys }, client: await openClient(cluster, "postgres") };
}

/** pgbench's tables, made anew; its history gets a key, as a table needs for a restore to a moment. */
export async function fill(
  cluster: Cluster,
  client: pg.Client,
  role: string,
  database: string,
  accounts: number,
): Promise<void> {
  await measure(pgbench(cluster, ["-i", "-q", "-I", "dtgvp", "-s", String(accounts)], role, database));
  await client.query("alter table pgbench_history add column id bigint generated always as identity primary key");
}

/** As before the stream was begun: no slot, no publication, no open chain. */
export async function endStream(client: pg.Client): Promise<void> {
  await client.query(
    "select backup.drop_slot(c.slot_name), backup.end_chain(c.id, 'the bench is done') from backup.chains as c where c.ended_at is null",
  );
  for (const name of ownPublications) await client.query(`drop publication if exists ${name}`);
}

/** Asks until the answer is yes. Fails after `seconds`. */
export async function waitFor(what: string, seconds: number, ask: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + seconds * 1000;
  while (!(await ask())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Does the query find a row? */
export async function isThere(client: pg.Client, sql: string, values: readonly string[] = []): Promise<boolean> {
  return (await client.query(sql, [...values])).rows.length > 0;
}
