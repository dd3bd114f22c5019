/** A random history, and restores of it to random places, compared with the state that each commit left. */
import { readFileSync } from "node:fs";
import type { Cluster } from "../../src/local/postgres.ts";
import { momentOf } from "../../src/shared/changes/decode/moment.ts";
import { formatLsn, parseLsn } from "../../src/shared/changes/decode/lsn.ts";
import { describePoint } from "../../src/shared/changes/plan/point.ts";
import type { Point } from "../../src/shared/changes/replay/replay.ts";
import { planPoint, restorePoint } from "../../src/shared/changes/replay/restore_point.ts";
import { HoldfastError } from "../../src/shared/errors.ts";
import { openDatabase } from "../../src/shared/postgres/pg_connection.ts";
import { ask, Session } from "./point_client.ts";
import { History } from "./point_history.ts";
import { type Ordered, readOrder, watchOrder } from "./point_order.ts";
import { type Random, seeded } from "./point_random.ts";
import { drainAll, drainOnce, type Source, startSource, takeFull, type Variant } from "./point_source.ts";
import { compareStates, readState, sequencesBehind } from "./point_state.ts";
import { heldAt, randomPoint, type Window } from "./point_targets.ts";
import { closing, tablesSql } from "./point_works.ts";

export interface SoakOptions {
  readonly variant: Variant;
  readonly seed: number;
  readonly targets: number;
  /** How many times everybody works for a while; full backups are taken in two of them. At least 4. */
  readonly rounds: number;
  readonly say: (line: string) => void;
}

export interface SoakResult {
  /** One for each restore that was refused or gave something else. */
  readonly problems: readonly string[];
  /** How many were restored and compared. */
  readonly restored: number;
  /** How many of them were refused at first, rightly, and restored without a table. */
  readonly partly: number;
  readonly commits: number;
  readonly counts: Readonly<Record<string, number>>;
}

export async function soakPoint(options: SoakOptions): Promise<SoakResult> {
  const source = await startSource(options.variant);
  try {
    const random = seeded(options.seed);
    const past = await live(source, options, random);
    const problems: string[] = [];
    let partly = 0;
    let restored = 0;
    for (let at = 0; at < options.targets; at++) {
      const point = randomPoint(random, past.order, past.window, past.marked);
      const { problem, without, compared } = await check(source, past, point, `${options.variant}_${at}`);
      if (compared) restored++;
      const label = `target ${at + 1} of ${options.targets}, ${labelOf(point)}`;
      if (without.length > 0) partly++;
      if (problem.length > 0) {
        problems.push(`${label}: ${problem.join("; ")}; seed ${options.seed}; ${around(past, point)}`);
        options.say(problems.at(-1) ?? "");
      } else options.say(`${label}: equal${without.length > 0 ? `, without ${without.join(", ")}` : ""}`);
    }
    return { partly, problems, restored, commits: past.order.length, counts: past.history.counts };
  } catch (error) {
    const why = error instanceof Error ? `${error.message} ${causeOf(error)}` : String(error);
    throw new Error(`${options.variant}, seed ${options.seed}: ${why}; ${serverErrors(source)}`, { cause: error });
  } finally {
    await source.cluster.destroy();
  }
}

interface Past {
  readonly history: History;
  readonly order: readonly Ordered[];
  readonly window: Window;
  /** Commits that changed definitions or emptied tables. */
  readonly marked: ReadonlySet<number>;
}

async function live(source: Source, options: SoakOptions, random: Random): Promise<Past> {
  const { url, database } = source;
  await ask(url, tablesSql);
  await watchOrder(url, database);
  const history = new History({ url, seed: options.seed, sessions: 4, withDdl: options.variant !== "lists" });
  await drainOnce(source, random);
  await history.begin();
  let draining = true;
  let coveredUntil = "";
  const drains = (async () => {
    const own = seeded(options.seed + 1);
    const session = await Session.open(url);
    try {
      while (draining) {
        const { gap, coveredUntil: until } = await drainOnce(source, own);
        if (gap !== null) throw new Error(`the chain ended: ${gap}`);
        coveredUntil = until ?? coveredUntil;
        await session.query(`select pg_sleep(${own.below(800) / 1000})`);
      }
    } finally {
      await session.end();
    }
  })();
  drains.catch(() => {});
  try {
    const fullRounds = new Set([1, Math.floor(options.rounds * 0.6)]);
    for (let round = 0; round < options.rounds; round++) {
      if (fullRounds.has(round)) await takeFull(source);
      if (round === 1) await history.changeMuch();
      options.say(`round ${round + 1} of ${options.rounds}: ${history.commits.length} commits`);
      for (let step = 0; step < 6; step++) {
        history.check();
        await history.changeDefinitions(random);
        await ask(url, `select pg_sleep(${random.below(300) / 1000})`);
      }
    }
  } finally {
    draining = false;
    // The last drain is in the midst of the work.
    await drains.then(async () => {
      coveredUntil = (await drainAll(source)).coveredUntil ?? coveredUntil;
    }).finally(() => history.stop());
  }
  const window = await readWindow(url, coveredUntil);
  const [stored] = await ask(
    url,
    "select count(spool_position)::int as spooled, (count(*) filter (where part > 0))::int as parts from backup.segments",
  );
  Object.assign(history.counts, stored);
  const order = await readOrder(url, database);
  options.say(
    `${options.variant}, seed ${options.seed}: ${order.length} commits, ${JSON.stringify(history.counts)}, ` +
      `${formatLsn(window.fromLsn)} to ${formatLsn(window.toLsn)}`,
  );
  const marked = history.commits.filter(({ isDdl, what }) => isDdl || what.some((sql) => sql.startsWith("truncate")));
  return { history, order, window, marked: new Set(marked.map(({ xid }) => xid)) };
}

async function readWindow(url: string, coveredUntil: string): Promise<Window> {
  const micros = (column: string) => `(extract(epoch from ${column}) * 1000000)::bigint::text`;
  const fulls = await ask(
    url,
    `select wal_lsn::text as lsn, ${micros("consistent_at")} as at from backup.runs
      where kind = 'full' and status in ('succeeded', 'quarantined') order by consistent_at`,
  );
  const [last] = await ask(
    url,
    `select max(end_lsn)::text as lsn, ${micros(`'${coveredUntil}'::timestamptz`)} as at from backup.segments`,
  );
  const places = fulls.map((row) => ({ lsn: parseLsn(String(row["lsn"])), at: BigInt(String(row["at"])) }));
  const [first] = places;
  if (first === undefined) throw new Error("there is no full backup");
  return {
    fromLsn: first.lsn,
    fromAt: first.at,
    toLsn: parseLsn(String(last?.["lsn"])),
    toAt: BigInt(String(last?.["at"])),
    fulls: places,
  };
}

/**
 * Tables that the restore may refuse at the point: one that was made without an identity and got it, where an update was
 * rolled back before that; one that a command filled with values of its own, at or before the point.
 */
function refusable({ history, order }: Past, point: Point): string[] {
  const held = new Set(order.slice(0, heldAt(order, point)).map(({ xid }) => xid));
  const isClosed = history.commits.some(({ xid, what }) => held.has(xid) && what.includes(closing));
  return [
    ...((history.counts["key rolled back"] ?? 0) > 0 ? ["app.taken"] : []),
    ...(isClosed ? ["app.closing"] : []),
  ];
}

interface Checked {
  /** What is wrong with the restore; empty where nothing is. */
  readonly problem: readonly string[];
  /** Tables that had to be left out. */
  readonly without: readonly string[];
  readonly compared: boolean;
}

async function check(source: Source, past: Past, point: Point, name: string): Promise<Checked> {
  const { cluster, deps } = source;
  const database = await cluster.createDatabase(`at_${name}`, { platform: false });
  const url = cluster.plainUrl(cluster.superuser, database);
  try {
    const restoreDeps = { ...deps, target: openDatabase({ url }) };
    let without: readonly string[] = [];
    try {
      const plan = await planPoint(restoreDeps, point).catch(async (error: unknown) => {
        if (!(error instanceof HoldfastError && error.code === "tables_uncovered")) throw error;
        without = refusable(past, point).filter((table) => error.message.includes(table));
        return await planPoint(restoreDeps, point, { withoutTables: without });
      });
      await restorePoint(restoreDeps, plan);
    } catch (error) {
      const why = error instanceof Error ? `${error.message} ${causeOf(error)}` : String(error);
      return { problem: [`refused: ${why}; ${serverErrors(source)}`], without, compared: false };
    }
    const problem = await compare(url, past, heldAt(past.order, point), without);
    return { problem, without, compared: true };
  } finally {
    await drop(cluster, database);
  }
}

async function compare(
  url: string,
  { order, history }: Past,
  held: number,
  without: readonly string[],
): Promise<string[]> {
  const commits = order.slice(0, held);
  const session = await Session.open(url);
  try {
    const known = new Map(history.commits.map((commit) => [commit.xid, commit]));
    const last = commits.findLast(({ xid }) => known.has(xid));
    const state = (last === undefined ? undefined : known.get(last.xid)?.state) ?? history.first;
    const found = await readState(session);
    const at = last === undefined ? 0 : history.commits.findIndex(({ xid }) => xid === last.xid) + 1;
    const later = history.commits.slice(at).map((commit) => commit.state);
    const problems = [...compareStates(state, found, without), ...await sequencesBehind(session, state, found, later)];

    const ledger = await session.query("select xid::int as xid, account from app.ledger");
    const wanted = new Set(commits.map(({ xid }) => xid));
    const missing = [...wanted].filter((xid) => !ledger.some((row) => row["xid"] === xid));
    const surplus = ledger.filter((row) => !wanted.has(Number(row["xid"])));
    if (missing.length > 0) problems.push(`${missing.length} commits are missing, first ${missing[0]}`);
    if (surplus.length > 0) problems.push(`${surplus.length} commits too many, one is ${surplus[0]?.["xid"]}`);

    const accountOf = new Map(ledger.map((row) => [Number(row["xid"]), row["account"]]));
    const expected = new Map<number, { last: number; turns: number }>();
    for (const { xid } of commits) {
      const account = accountOf.get(xid);
      if (typeof account === "number") {
        expected.set(account, { last: xid, turns: (expected.get(account)?.turns ?? 0) + 1 });
      }
    }
    for (const row of await session.query("select id, last::int as last, turns from app.accounts")) {
      const account = expected.get(Number(row["id"]));
      if ((account?.last ?? null) !== row["last"] || (account?.turns ?? 0) !== row["turns"]) {
        const due = account === undefined ? "nobody" : `${account.last} in ${account.turns} turns`;
        problems.push(`account ${row["id"]}: last ${row["last"]} in ${row["turns"]} turns instead of ${due}`);
      }
    }
    return problems;
  } finally {
    await session.end();
  }
}

/** The last statements before the point and the first behind it, for whoever looks for the cause. */
function around({ order, history }: Past, point: Point): string {
  const held = heldAt(order, point);
  const known = new Map(history.commits.map((commit) => [commit.xid, commit.what]));
  const line = (commit: Ordered | undefined) =>
    commit === undefined
      ? ""
      : `${commit.xid} at ${formatLsn(commit.endLsn)}: ${
        (known.get(commit.xid) ?? ["transfer"]).map((sql) => sql.replace(/\s+/g, " ").slice(0, 120)).join(" / ")
      }`;
  return `last ${line(order.slice(0, held).findLast(({ xid }) => known.has(xid)))} | then ${line(order[held])}`;
}

/** The last errors of the server, those among them that a history expects. */
function serverErrors({ cluster }: Source): string {
  const lines = readFileSync(cluster.logFile, "utf8").split("\n");
  const errors = lines.flatMap((line, at) => /(ERROR|FATAL|PANIC): /.test(line) ? lines.slice(at, at + 3) : []);
  return `the server's last errors: ${errors.slice(-24).join("\n")}`;
}

function causeOf(error: Error): string {
  return error.cause instanceof Error ? `(${error.cause.message})` : "";
}

export function labelOf(point: Point): string {
  return `${point.by} ${describePoint(point, momentOf, formatLsn)}`;
}

async function drop(cluster: Cluster, database: string): Promise<void> {
  await ask(cluster.plainUrl(cluster.superuser), `drop database if exists ${database} with (force)`);
}
