/** Concurrent sessions that work at random, and the state of the tables after each of their commits. */
import type { Random } from "./point_random.ts";
import { seeded } from "./point_random.ts";
import { Session, stateOf } from "./point_client.ts";
import { readState, type State } from "./point_state.ts";
import { definitions, muchWork, randomTruncate, randomWork } from "./point_works.ts";

/** Whoever commits holds it until the state after its commit is read. */
const commitLock = 20_240_109;

/** Met by sessions that work on the same rows; the transaction is rolled back. */
const expectedErrors = new Set(["40P01", "23505", "23503", "55P03", "40001", "42P01", "42703", "22P02", "57014"]);

export interface Commit {
  readonly xid: number;
  readonly what: readonly string[];
  readonly state: State;
  readonly isDdl: boolean;
}

export interface HistoryOptions {
  readonly url: string;
  readonly seed: number;
  readonly sessions: number;
  /** Whether definitions change as well. */
  readonly withDdl: boolean;
}

export class History {
  /** In the order of their commits. */
  readonly commits: Commit[] = [];
  readonly counts: Record<string, number> = {};
  readonly #options: HistoryOptions;
  readonly #workers: Promise<void>[] = [];
  #stopped = false;
  #first: State | null = null;
  #failure: unknown = null;
  #step = 0;
  #round = 0;

  constructor(options: HistoryOptions) {
    this.#options = options;
  }

  /** Before the first commit of the history. */
  get first(): State {
    if (this.#first === null) throw new Error("the history has not begun");
    return this.#first;
  }

  async begin(): Promise<void> {
    const { url, sessions, seed, withDdl } = this.#options;
    const session = await Session.open(url);
    // A history is shorter than the list: each begins at another place of it.
    if (withDdl) this.#step = seeded(seed + 31).below(definitions(0).length);
    for (const step of definitions(0).slice(0, this.#step)) {
      await session.query("begin");
      for (const sql of step) await session.query(sql);
      await session.query("commit");
    }
    this.#first = await readState(session);
    await session.end();
    for (let at = 0; at < sessions; at++) this.#start((own, random) => this.#transaction(own, random), seed + 101 * at);
    for (let at = 0; at < 2; at++) this.#start((own, random) => this.#transfer(own, random), seed + 7919 + at);
  }

  /** Throws what a session met that none of them expects; the others go on until `stop`, which throws it as well. */
  check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#workers);
  }

  /** The next change of definitions, while the others work; false when it did not get its locks. */
  async changeDefinitions(random: Random): Promise<boolean> {
    if (!this.#options.withDdl) return false;
    let steps = definitions(this.#round);
    if (this.#step >= steps.length) {
      this.#step = 0;
      steps = definitions(++this.#round);
    }
    const session = await Session.open(this.#options.url);
    const what: string[] = [];
    try {
      await session.query(`select pg_advisory_lock(${commitLock})`);
      await session.query("begin; set local lock_timeout = '300ms'");
      const xid = await this.#enter(session);
      for (const sql of steps[this.#step] ?? []) await this.#run(session, sql, what);
      if (random.chance(0.15)) {
        await session.query("rollback");
        this.#keyRolledBack(what);
        return false;
      }
      await this.#commit(session, "commit", xid, what, true);
      this.#step++;
      return true;
    } catch (error) {
      if (stateOf(error) === null || !expectedErrors.has(stateOf(error) ?? "")) throw error;
      await session.query("rollback");
      this.#keyRolledBack(what);
      this.#count("ddl without its lock");
      return false;
    } finally {
      await session.end();
    }
  }

  /** A transaction that is spooled and stored in parts, while the others work. */
  async changeMuch(): Promise<void> {
    const session = await Session.open(this.#options.url);
    const what: string[] = [];
    try {
      await session.query("begin");
      await this.#lock(session);
      const xid = await this.#enter(session);
      for (const sql of muchWork) await this.#run(session, sql, what);
      await this.#commit(session, "commit", xid, what, false);
    } finally {
      await session.end();
    }
  }

  /** A step that throws leaves its transaction and its locks to the end of the session: no statement follows that would fail as well. */
  #start(step: (session: Session, random: Random) => Promise<void>, seed: number): void {
    const random = seeded(seed);
    const work = async () => {
      const session = await Session.open(this.#options.url);
      try {
        await session.query("set lock_timeout = '700ms'");
        while (!this.#stopped) await step(session, random);
      } catch (error) {
        const what = error instanceof Error ? error.message : String(error);
        throw new Error(`a session of the history: ${what} (${stateOf(error)}), at: ${session.latest}`, {
          cause: error,
        });
      } finally {
        await session.end();
      }
    };
    const running = work();
    // Reported by `stop`.
    running.catch((error: unknown) => this.#failure ??= error);
    this.#workers.push(running);
  }

  async #transaction(session: Session, random: Random): Promise<void> {
    const what: string[] = [];
    let prepared: { readonly name: string; readonly xid: number } | null = null;
    try {
      await session.query("begin");
      const xid = await this.#enter(session);
      const works = 1 + random.below(4);
      for (let at = 0; at < works; at++) await this.#work(session, random, what);
      if (random.chance(0.08)) await this.#truncate(session, random, what);
      const end = random.below(100);
      if (end < 10) {
        await session.query("rollback");
        this.#count("rolled back");
      } else if (end < 20 && what.every((one) => !one.startsWith("truncate"))) {
        const name = `history_${this.#options.seed}_${xid}`;
        await session.query(`prepare transaction '${name}'`);
        prepared = { name, xid };
      } else {
        if (random.chance(0.3)) await session.query("set local synchronous_commit = off");
        await this.#commit(session, "commit", xid, what, false);
      }
    } catch (error) {
      if (!expectedErrors.has(stateOf(error) ?? "")) throw error;
      await session.query("rollback");
      this.#count(`rolled back by ${stateOf(error)}`);
    }
    await session.query("select pg_advisory_unlock_all()");
    if (prepared !== null) await this.#endPrepared(session, random, prepared, what);
    await session.query(`select pg_sleep(${random.below(30) / 1000})`);
  }

  async #endPrepared(
    session: Session,
    random: Random,
    { name, xid }: { readonly name: string; readonly xid: number },
    what: readonly string[],
  ): Promise<void> {
    await session.query(`select pg_sleep(${random.below(300) / 1000})`);
    if (random.chance(0.3)) {
      await session.query(`rollback prepared '${name}'`);
      this.#count("prepared and rolled back");
      return;
    }
    await this.#commit(session, `commit prepared '${name}'`, xid, ["prepared:", ...what], false);
    await session.query("select pg_advisory_unlock_all()");
    this.#count("prepared");
  }

  async #work(session: Session, random: Random, what: string[]): Promise<void> {
    if (!random.chance(0.3)) return await this.#run(session, randomWork(random), what);
    await session.query("savepoint one");
    const inside: string[] = [];
    await this.#run(session, randomWork(random), inside);
    if (random.chance(0.3)) {
      await session.query("savepoint two");
      await this.#run(session, randomWork(random), []);
      await session.query("rollback to two");
    }
    if (random.chance(0.5)) await session.query("rollback to one");
    else {
      await session.query("release one");
      what.push(...inside);
    }
    this.#count("savepoints");
  }

  /** Whoever waits for the commit lock may hold rows of the table: this one waits for it first, and then gives up soon. */
  async #truncate(session: Session, random: Random, what: string[]): Promise<void> {
    await this.#lock(session);
    await session.query("set local lock_timeout = '50ms'; savepoint before_truncate");
    try {
      await this.#run(session, randomTruncate(random), what);
      if (random.chance(0.2)) {
        await session.query("rollback to before_truncate");
        what.pop();
      } else if (random.chance(0.5)) await this.#run(session, randomWork(random), what);
      this.#count("truncates");
    } catch (error) {
      if (stateOf(error) !== "55P03") throw error;
      await session.query("rollback to before_truncate");
      what.splice(what.findIndex((one) => one.startsWith("truncate")) >>> 0);
    }
  }

  /** Whose commits nobody serialises: an account, and who was the last to change it. */
  async #transfer(session: Session, random: Random): Promise<void> {
    const account = random.below(20);
    await session.query(
      `begin;
       ${random.chance(0.3) ? "set local synchronous_commit = off;" : ""}
       update app.accounts set last = pg_current_xact_id()::text::bigint, turns = turns + 1 where id = ${account};
       insert into app.ledger values (pg_current_xact_id()::text::bigint, ${account});
       commit`,
    ).catch(async (error: unknown) => {
      if (!expectedErrors.has(stateOf(error) ?? "")) throw error;
      await session.query("rollback");
    });
    this.#count("transfers");
    await session.query(`select pg_sleep(${random.below(80) / 1000})`);
  }

  async #enter(session: Session): Promise<number> {
    return Number(
      await session.one("insert into app.ledger (xid) values (pg_current_xact_id()::text::bigint) returning xid"),
    );
  }

  async #run(session: Session, sql: string, what: string[]): Promise<void> {
    what.push(sql);
    await session.query(sql);
  }

  async #lock(session: Session): Promise<void> {
    await session.query("set local lock_timeout = 0");
    await session.query(`select pg_advisory_lock(${commitLock})`);
  }

  async #commit(session: Session, sql: string, xid: number, what: readonly string[], isDdl: boolean): Promise<void> {
    if (sql === "commit") await this.#lock(session);
    else {await session.query(
        `set lock_timeout = 0; select pg_advisory_lock(${commitLock}); set lock_timeout = '700ms'`,
      );}
    await session.query(sql);
    const known = isDdl ? undefined : (this.commits.at(-1)?.state ?? this.first).definitions;
    this.commits.push({ xid, what: [...what], state: await readState(session, known), isDdl });
    this.#count(isDdl ? "ddl" : "committed");
  }

  /** What was counted of a table without identity is not taken back: the table is refused. */
  #keyRolledBack(what: readonly string[]): void {
    if (what.some((sql) => sql.includes("app.taken add primary key"))) this.#count("key rolled back");
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }
}
