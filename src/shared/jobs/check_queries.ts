/** All calls of the SQL functions of the verification. docs/architecture.md, "Verification". */
import type { Connection } from "../postgres/connection.ts";
import { call } from "./call.ts";
import type { Requested, RunOrigin, Task } from "./queries.ts";
import { numberOrNull, text } from "./run_row.ts";

export type Cadence = "daily" | "weekly";

export type Outcome = "passed" | "warning" | "failed" | "no_verdict" | "not_yet_available";

export interface CheckOutcome {
  readonly outcome: Outcome;
  /** A sentence for people. */
  readonly message: string;
  /** What was measured: names and numbers, no contents. */
  readonly evidence: Readonly<Record<string, unknown>>;
}

/** What is wrong with one object. `code` is one of the errors. */
export interface Problem {
  /** Full name in the store. */
  readonly object: string;
  readonly code: string;
  readonly message: string;
}

/** A check as it is registered, with its newest result; null: it was never made. */
export interface CheckStanding {
  readonly name: string;
  readonly cadence: Cadence;
  readonly proves: string;
  readonly outcome: Outcome | null;
  readonly message: string | null;
  readonly checkedAt: string | null;
  readonly run: string | null;
}

export interface CheckResult extends CheckOutcome {
  readonly name: string;
  readonly run: string;
  readonly checkedAt: string;
}

export interface Verdict {
  readonly verdict: "passed" | "warning" | "failed";
  readonly passed: number;
  readonly failed: readonly string[];
  readonly warning: readonly string[];
  readonly noVerdict: readonly string[];
  readonly notYetAvailable: readonly string[];
}

const checkedAt = `to_char(o.checked_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as checked_at`;

/** Null in a copy of the project. Errors: `payload_invalid`. */
export async function requestChecks(
  connection: Connection,
  cadence: Cadence,
  origin: RunOrigin,
): Promise<Requested | null> {
  const [row] = await call(connection, "select run, joined from backup.request_checks($1, $2)", [cadence, origin]);
  return row?.["run"] == null ? null : { run: row["run"], joined: row["joined"] === "t" };
}

/** In the order in which they are made. */
export async function readChecks(connection: Connection): Promise<CheckStanding[]> {
  const rows = await call(
    connection,
    `select o.name, o.cadence, o.proves, o.outcome, o.message, ${checkedAt}, o.run_id from public.backup_checks as o`,
    [],
  );
  return rows.map((row) => ({
    name: text(row, "name"),
    cadence: text(row, "cadence") as Cadence,
    proves: text(row, "proves"),
    outcome: (row["outcome"] ?? null) as Outcome | null,
    message: row["message"] ?? null,
    checkedAt: row["checked_at"] ?? null,
    run: row["run_id"] ?? null,
  }));
}

/** What a check has found, newest first. */
export async function readCheckResults(
  connection: Connection,
  which: { readonly name: string } | { readonly run: string },
  limit: number,
): Promise<CheckResult[]> {
  const [condition, value, order] = "name" in which
    ? ["o.check_name = $1", which.name, "o.id desc"]
    : ["o.run_id = $1::uuid", which.run, "o.id"];
  const rows = await call(
    connection,
    `select o.check_name, o.run_id, o.outcome, o.message, o.evidence, ${checkedAt} from backup.check_results as o
      where ${condition} order by ${order} limit $2::integer`,
    [value, String(limit)],
  );
  return rows.map((row) => ({
    name: text(row, "check_name"),
    run: text(row, "run_id"),
    outcome: text(row, "outcome") as Outcome,
    message: text(row, "message"),
    evidence: JSON.parse(text(row, "evidence")) as CheckResult["evidence"],
    checkedAt: text(row, "checked_at"),
  }));
}

export async function readVerdict(connection: Connection, run: string): Promise<Verdict> {
  const [row] = await call(connection, "select backup.checks_verdict($1::uuid) as verdict", [run]);
  return JSON.parse(text(row ?? {}, "verdict")) as Verdict;
}

/** The newest good backup, where it was taken by the CLI and nobody has opened all of it. */
export async function readUnverified(connection: Connection): Promise<string | null> {
  const [row] = await call(
    connection,
    `select r.id, r.verified_at is null and r.origin = 'cli' as unverified from backup.runs as r
      where r.kind = 'full' and r.status = 'succeeded' order by r.consistent_at desc limit 1`,
    [],
  );
  return row?.["unverified"] === "t" ? text(row, "id") : null;
}

/** The calls of one worker, each with its lease. Errors: `lease_lost`; `run_state` in a copy. */
export class CheckTask {
  readonly #connection: Connection;
  readonly #lease: readonly [string, string];

  constructor(connection: Connection, task: Pick<Task, "id" | "token">) {
    this.#connection = connection;
    this.#lease = [task.id, task.token];
  }

  /** Renews the lease and keeps how far the work is. */
  async keep(detail: unknown): Promise<void> {
    await this.#call("select backup.checking($1::bigint, $2::bigint, $3::jsonb)", JSON.stringify(detail));
  }

  /** `step` null: the database makes it. Null: all are made. */
  async next(): Promise<{ readonly name: string; readonly step: string | null } | null> {
    const [row] = await this.#call("select c.name, c.step from backup.next_check($1::bigint, $2::bigint) as c");
    return row === undefined ? null : { name: text(row, "name"), step: row["step"] ?? null };
  }

  async make(name: string): Promise<Outcome> {
    const [row] = await this.#call("select backup.make_check($1::bigint, $2::bigint, $3) as outcome", name);
    return text(row ?? {}, "outcome") as Outcome;
  }

  async record(name: string, { outcome, message, evidence }: CheckOutcome): Promise<void> {
    await this.#call(
      "select backup.record_check($1::bigint, $2::bigint, $3, $4, $5, $6::jsonb)",
      name,
      outcome,
      message,
      JSON.stringify(evidence),
    );
  }

  /** As JSON; `judge_history.ts` knows its form. */
  async history(): Promise<unknown> {
    const [row] = await call(this.#connection, "select backup.measured_history() as history", []);
    return JSON.parse(text(row ?? {}, "history"));
  }

  async beginListing(stores: readonly string[]): Promise<void> {
    await this.#call(
      "select backup.begin_listing($1::bigint, $2::bigint, array(select jsonb_array_elements_text($3::jsonb)))",
      JSON.stringify(stores),
    );
  }

  /** `listed`: all names below the prefix. Names that should be there and are not among them. */
  async enterListed(
    store: string,
    isSecond: boolean,
    prefix: string,
    listed: readonly { readonly name: string; readonly bytes: number }[],
  ): Promise<string[]> {
    const rows = await this.#call(
      "select m.name from backup.enter_listed($1::bigint, $2::bigint, $3, $4::boolean, $5, $6::jsonb) as m (name)",
      store,
      String(isSecond),
      prefix,
      JSON.stringify(listed),
    );
    return rows.map((row) => text(row, "name"));
  }

  /** Those that should still be there now; the others are forgotten. */
  async stillExpected(store: string, isSecond: boolean, names: readonly string[]): Promise<string[]> {
    const rows = await this.#call(
      "select m.name from backup.still_expected($1::bigint, $2::bigint, $3, $4::boolean, $5::text[]) as m (name)",
      store,
      String(isSecond),
      arrayOf(names),
    );
    return rows.map((row) => text(row, "name"));
  }

  async nextManifests(store: string, isSecond: boolean, behind: string, atMost: number): Promise<NameToOpen[]> {
    const rows = await this.#call(
      "select n.name, n.stored_hash from backup.next_manifests($1::bigint, $2::bigint, $3, $4::boolean, $5, $6::integer) as n",
      store,
      String(isSecond),
      behind,
      String(atMost),
    );
    return rows.map((row) => ({ name: text(row, "name"), storedHash: row["stored_hash"] ?? null }));
  }

  /** How many a store holds, and how many of them are opened today. */
  async share(store: string): Promise<{ readonly objects: number; readonly share: number }> {
    const [row = {}] = await this.#call(
      "select s.objects, s.share from backup.sample_share($1::bigint, $2::bigint, $3) as s",
      store,
    );
    return { objects: numberOrNull(row, "objects") ?? 0, share: numberOrNull(row, "share") ?? 0 };
  }

  /** The longest unopened first. */
  async nextObjects(
    store: string,
    isSecond: boolean,
    mostBytes: number,
    atMost: number,
  ): Promise<(NameToOpen & { readonly bytes: number })[]> {
    const rows = await this.#call(
      `select n.name, n.bytes, n.stored_hash
         from backup.next_objects($1::bigint, $2::bigint, $3, $4::boolean, $5::bigint, $6::integer) as n`,
      store,
      String(isSecond),
      String(mostBytes),
      String(atMost),
    );
    return rows.map((row) => ({
      name: text(row, "name"),
      bytes: Number(row["bytes"]),
      storedHash: row["stored_hash"] ?? null,
    }));
  }

  async recordOpened(store: string, names: readonly string[]): Promise<void> {
    await this.#call("select backup.record_opened($1::bigint, $2::bigint, $3, $4::text[])", store, arrayOf(names));
  }

  async recordDamage(store: string, isSecond: boolean, found: readonly Problem[]): Promise<void> {
    await this.#call(
      "select backup.record_damage($1::bigint, $2::bigint, $3, $4::boolean, $5::jsonb)",
      store,
      String(isSecond),
      JSON.stringify(found),
    );
  }

  /** `mostBytes`: what this process has room for. */
  async standing(store: string, isSecond: boolean, mostBytes: number): Promise<Standing> {
    const [row] = await call(
      this.#connection,
      "select backup.opened_standing($1, $2::boolean, $3::bigint) as standing",
      [
        store,
        String(isSecond),
        String(mostBytes),
      ],
    );
    return JSON.parse(text(row ?? {}, "standing")) as Standing;
  }

  /** Backups on record that lie below another prefix, where nobody looks from here. */
  async elsewhere(): Promise<readonly Elsewhere[]> {
    const [row] = await call(this.#connection, "select backup.backups_elsewhere() as elsewhere", []);
    return JSON.parse(text(row ?? {}, "elsewhere")) as readonly Elsewhere[];
  }

  /** False: somebody has asked for further checks meanwhile. */
  async end(): Promise<boolean> {
    const [row] = await this.#call("select backup.end_checks($1::bigint, $2::bigint) as ended");
    return row?.["ended"] === "t";
  }

  async #call(sql: string, ...values: readonly string[]) {
    return await call(this.#connection, sql, [...this.#lease, ...values]);
  }
}

export interface NameToOpen {
  readonly name: string;
  /** SHA-256 of the sealed bytes in hex, as recorded; null: nothing is recorded. */
  readonly storedHash: string | null;
}

export interface Elsewhere {
  readonly prefix: string;
  readonly backups: number;
}

/** How a store stands. */
export interface Standing {
  readonly store: string;
  readonly objects: number;
  readonly neverOpened: number;
  readonly oldestOpenedAt: string | null;
  readonly overdue: number;
  readonly unrecorded: number;
  /** For which this process has no room; of these, for whom it is time that somebody with more room comes; their names. */
  readonly tooLarge: number;
  readonly tooLargeWaiting: number;
  readonly tooLargeFirst: readonly string[];
  readonly damaged: number;
  readonly damagedFirst: readonly Problem[];
}

/** Names of stores are plain ASCII without quotes, commas or braces. */
function arrayOf(names: readonly string[]): string {
  return `{${names.join(",")}}`;
}
