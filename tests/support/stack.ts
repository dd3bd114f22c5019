/** A whole project for the tests of a file: its database, its functions, what a person at the dashboard does, and its clock. */
import { existsSync, readFileSync } from "node:fs";
import pg from "pg";
import { afterAll, beforeAll } from "vitest";
import { endClient } from "../../src/local/client.ts";
import type { IsolateRecord } from "../../src/local/gateway/isolate.ts";
import type { KillMoment } from "../../src/local/gateway/kill_switch.ts";
import { backupBucket, type Stack, type StackOptions, startStack } from "../../src/local/stack.ts";
import { systemClock } from "../../src/shared/clock.ts";
import { parseKeyRing } from "../../src/shared/crypto/key_ring.ts";
import { loadZstd } from "../../src/shared/format/zstd.ts";
import { silentLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";
import { openStore } from "../../src/shared/store/open_store.ts";
import { verifyBackup, type VerifyDeps, type VerifyResult } from "../../src/shared/verify/run.ts";
import { query } from "./cluster.ts";

export type { Stack } from "../../src/local/stack.ts";

/** For hooks: a stack takes some seconds, but machines are shared. */
export const stackMs = 240_000;
/** For one run through the functions. */
export const runMs = 90_000;

/** A run without a sign of life for this long (of real time) has lost its legs, unless its store is slow. */
const defaultStillMs = 1_500;
/** Past every lease and every leg (180 s, 160 s). */
const agedSeconds = 200;

/** Columns of `backup.runs` that tests look at; numbers of 64 bits as text. */
export interface RunState {
  readonly id: string;
  readonly status: string;
  readonly attempt: number;
  readonly snapshot_name: string | null;
  readonly keeper_pid: number | null;
  readonly manifest_name: string | null;
  readonly error_code: string | null;
  readonly error_message: string | null;
  readonly hint: string | null;
  readonly rows: string;
  readonly tasks_done: number;
  readonly base_run: string | null;
  readonly heartbeat_at: Date;
}

export interface Project {
  readonly stack: Stack;
  /** Rows, as `postgres`. */
  query(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>;
  /** What a person at the dashboard calls. */
  startBackup(): Promise<{ readonly run: string; readonly joined: boolean; readonly status: string }>;
  run(id: string): Promise<RunState>;
  /**
   * The run once it has ended. The watchdog is called all the time; whenever the run has stood still and no function works
   * any more, its calls and leases become 200 s older: those of workers that are gone are over then.
   */
  ended(id: string, stillMs?: number): Promise<RunState>;
  /**
   * Waits until the run has recorded a chunk of the table of schema `public`, and does `act` while it stands still in the
   * middle, its function alive: a session holds the run's row meanwhile.
   */
  holding(id: string, table: string, act: () => Promise<unknown>): Promise<void>;
  /** Why a run did not do what it should, for the message of a failing test. */
  story(id: string): Promise<string>;
  /** Kills one isolate of the function (default: `backup`) right behind the nth line of output that contains `text`. */
  killAt(text: string, nth?: number, functionName?: string): Promise<Kill>;
  /** Kills the isolate of the function `backup` that the next request reaches, before it answers. */
  killAtRequest(): Promise<Kill>;
  /** Figures of all isolates that served a request since the stack was started. */
  isolates(): Promise<IsolateRecord[]>;
  /** Every object read, opened, hashed, counted: by this process, from store and key. */
  verify(id: string): Promise<VerifyResult>;
  readDeps(): Promise<VerifyDeps>;
}

export interface Kill {
  /** Resolves once it has killed an isolate; throws when that does not come within `ms` (default: 30 s). */
  fired(ms?: number): Promise<void>;
}

/** Started before the tests, destroyed after them; the function that it returns gives the project inside tests and hooks. */
export function useProject(options: StackOptions = {}, fill: (project: Project) => Promise<void> = async () => {}) {
  let stack: Stack | undefined;
  beforeAll(async () => {
    stack = await startStack({ durable: false, stream: false, prepared: true, ...options });
    await fill(projectOf(stack));
  }, stackMs);
  afterAll(async () => {
    await stack?.destroy();
  }, stackMs);
  return (): Project => {
    if (stack === undefined) throw new Error("the project is there in tests and hooks only");
    return projectOf(stack);
  };
}

export function projectOf(stack: Stack): Project {
  const ask = (text: string, values: readonly unknown[] = []) => query(stack.cluster.plainUrl(), text, values);
  const project: Project = {
    stack,
    query: ask,
    async startBackup() {
      const [row] = await ask("select run, joined, status from backup.start_backup()");
      return row as unknown as Awaited<ReturnType<Project["startBackup"]>>;
    },
    async run(id) {
      const [row] = await ask("select * from backup.runs where id = $1", [id]);
      if (row === undefined) throw new Error(`there is no run ${id}`);
      return row as unknown as RunState;
    },
    ended: (id, stillMs = defaultStillMs) => untilEnded(project, id, stillMs),
    holding: (id, table, act) => holding(stack, id, table, act),
    async story(id) {
      const calls = await ask(
        `select c.status, c.answer, r.status_code, r.error_msg from backup.calls as c
         left join net._http_response as r on r.id = c.request_id where c.run_id = $1 order by c.made_at`,
        [id],
      );
      const tasks = await ask("select attempt, kind, status, tries, error from backup.tasks where run_id = $1", [id]);
      const journal = existsSync(stack.journalFile) ? readFileSync(stack.journalFile, "utf8").slice(-6_000) : "";
      return `${JSON.stringify({ run: await project.run(id), calls, tasks }, null, 1)}\n${journal}`;
    },
    killAt: (text, nth = 1, functionName = "backup") => orderKill(stack, { at: "line", text, nth }, functionName),
    killAtRequest: () => orderKill(stack, { at: "request" }),
    async isolates() {
      const answer = await fetch(`${stack.gateway.url}/__metrics`);
      const { ended, running } = await answer.json() as Record<"ended" | "running", IsolateRecord[]>;
      return [...ended, ...running].filter((isolate) => isolate.requests > 0);
    },
    verify: async (id) => await verifyBackup(await project.readDeps(), id),
    async readDeps() {
      const deps = { fetch, clock: systemClock, random: webCryptoRandom };
      const credentials = { supabaseUrl: stack.gateway.url, supabaseServiceKey: stack.gateway.serviceRoleKey };
      const store = openStore(`supabase://${backupBucket}`, credentials, deps);
      const ring = parseKeyRing(stack.keys);
      return { store, ring, compressor: await loadZstd(), clock: systemClock, log: silentLog };
    },
  };
  return project;
}

/** Asks until the answer is not null; throws after `ms`. */
export async function eventually<T>(what: string, ask: () => Promise<T | null>, ms = 30_000): Promise<T> {
  const deadline = performance.now() + ms;
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    if (performance.now() > deadline) throw new Error(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function untilEnded(project: Project, id: string, stillMs: number): Promise<RunState> {
  const deadline = performance.now() + runMs;
  let life = "";
  let seenAt = performance.now();
  for (;;) {
    const run = await project.run(id);
    if (["succeeded", "quarantined", "failed", "cancelled"].includes(run.status)) return run;
    const now = performance.now();
    if (now > deadline) throw new Error(`run ${id} has not ended\n${await project.story(id)}`);
    const sign = `${run.heartbeat_at.toISOString()} ${run.attempt} ${run.tasks_done}`;
    if (sign !== life) [life, seenAt] = [sign, now];
    if (now - seenAt > stillMs && !(await project.isolates()).some(({ busy }) => busy)) {
      await age(project, id);
      seenAt = now;
    }
    await project.query("select backup.tick()");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** For the calls and the leases of a run 200 s go by; no clock does, which functions compare theirs with. */
async function age(project: Project, run: string): Promise<void> {
  const by = `interval '${agedSeconds} seconds'`;
  await project.query(
    `with older as (
       update backup.calls set made_at = made_at - ${by}, begun_at = begun_at - ${by}, expires_at = expires_at - ${by}
       where run_id = $1 and status in ('sent', 'begun')
     )
     update backup.tasks set lease_until = lease_until - ${by}, not_before = not_before - ${by}
     where run_id = $1 and status in ('open', 'leased')`,
    [run],
  );
}

async function holding(stack: Stack, id: string, table: string, act: () => Promise<unknown>): Promise<void> {
  const holder = new pg.Client({ connectionString: stack.cluster.plainUrl() });
  // The server may be killed meanwhile.
  holder.on("error", () => {});
  await holder.connect();
  try {
    await eventually(`the run has a chunk of ${table}`, async () => {
      await holder.query("begin");
      await holder.query("select from backup.runs where id = $1 for update", [id]);
      const { rows } = await holder.query(
        `select from backup.runs as r join backup.chunks as c on c.run_id = r.id and c.attempt = r.attempt
         where r.id = $1 and r.status = 'copying' and c.schema_name = 'public' and c.table_name = $2`,
        [id, table],
      );
      if (rows.length > 0) return true;
      await holder.query("rollback");
      return null;
    });
    await act();
  } finally {
    await endClient(holder);
  }
}

/** Replaces the only clock of schema `backup`: so many seconds ahead of the server's. */
export async function setClock(project: Pick<Project, "query">, secondsAhead: number): Promise<void> {
  const ahead = secondsAhead === 0 ? "" : ` + interval '${secondsAhead} seconds'`;
  await project.query(
    `create or replace function backup.clock_now() returns timestamptz language sql volatile set search_path = ''
     as $$ select pg_catalog.clock_timestamp()${ahead} $$`,
  );
}

async function orderKill(stack: Stack, moment: KillMoment, functionName = "backup"): Promise<Kill> {
  const answer = await fetch(`${stack.gateway.url}/__kill`, {
    method: "POST",
    body: JSON.stringify({ function: functionName, ...moment }),
  });
  if (!answer.ok) throw new Error(`the kill was not ordered: ${answer.status} ${await answer.text()}`);
  const { id } = await answer.json() as { id: string };
  return {
    async fired(ms) {
      const where = moment.at === "line" ? moment.text : moment.at;
      await eventually(`an isolate was killed at ${where}`, async () => {
        const order = await (await fetch(`${stack.gateway.url}/__kill/${id}`)).json() as { fired: unknown };
        return order.fired === null ? null : order.fired;
      }, ms);
    },
  };
}
