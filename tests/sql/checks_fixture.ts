/** Runs of checks and backups as the database keeps them, within the transaction of a test. */
import { randomUUID } from "node:crypto";
import type pg from "pg";
import { expect } from "vitest";
import { scalar } from "./cluster.ts";

export interface Lease {
  readonly run: string;
  readonly task: string;
  readonly token: string;
}

export const nameOf = (id: string) => `v1/backups/20260411T000000Z-daily-${id}/manifest`;
export const object = (n: number) => {
  const hex = n.toString(16).padStart(64, "0").split("").reverse().join("");
  return `v1/objects/${hex.slice(0, 2)}/${hex}`;
};

/** What tests of checks do; `ask` gives the session. */
export function checkTools(ask: () => pg.Client) {
  /** A run of the checks of a cadence, and the lease of its task. */
  async function begun(cadence: string): Promise<Lease> {
    const { rows: [requested] } = await ask().query("select run from backup.request_checks($1, 'http')", [cadence]);
    const { rows: [task] } = await ask().query(
      "select id, token from backup.claim_task($1, 'tester', '180 seconds')",
      [requested.run],
    );
    return { run: requested.run, task: task.id, token: task.token };
  }

  const next = async ({ task, token }: Lease) =>
    (await ask().query("select name, step from backup.next_check($1, $2)", [task, token])).rows[0] as
      | { name: string; step: string | null }
      | undefined;
  const record = ({ task, token }: Lease, name: string, outcome: string, message = "told") =>
    ask().query("select backup.record_check($1, $2, $3, $4, $5, '{}')", [task, token, name, outcome, message]);
  const make = ({ task, token }: Lease, name: string) =>
    scalar(ask(), "select backup.make_check($1, $2, $3)", [task, token, name]);
  const end = async ({ task, token }: Lease) =>
    await scalar(ask(), "select backup.end_checks($1, $2)", [task, token]) === "t";
  const resultOf = async ({ run }: Lease, name: string) => {
    const { rows: [row] } = await ask().query(
      "select outcome, message, evidence::text as evidence from backup.check_results where run_id = $1 and check_name = $2",
      [run, name],
    );
    return { outcome: row.outcome as string, message: row.message as string, evidence: JSON.parse(row.evidence) };
  };

  /** All checks of the run; those with a step are told to have passed. */
  async function makeAll(lease: Lease, told: Readonly<Record<string, string>> = {}): Promise<void> {
    for (let check = await next(lease); check !== undefined; check = await next(lease)) {
      if (check.step === null && told[check.name] === undefined) await make(lease, check.name);
      else await record(lease, check.name, told[check.name] ?? "passed");
    }
    expect(await end(lease)).toBe(true);
  }

  const verdictOf = async ({ run }: Lease) =>
    JSON.parse((await scalar(ask(), "select backup.checks_verdict($1)::text", [run])) ?? "null");
  const openAlerts = async () =>
    (await ask().query("select kind, subject, severity from backup.alerts where status <> 'resolved' order by 1, 2"))
      .rows;

  /** In the caller's transaction: a backup that is verified, of so many hours ago. */
  async function backup(hours: number, facts: { tier?: string; verified?: boolean; objects?: readonly string[] } = {}) {
    const id = randomUUID();
    await ask().query(
      `insert into backup.runs (id, kind, tiers, status, origin, created_at, started_at, finished_at, consistent_at, complete_at, epoch,
         manifest_name, manifest_hash, verified_at, rows, raw_bytes, stored_bytes)
       select $1, 'full', array[$3], 'succeeded', 'schedule', m, m, m, m, m, 'e20260101T000000Z-00000000', $4, 'h',
         case when $5 then m end, 1000, 100000, 30000
       from (select backup.clock_now() - $2 * interval '1 hour' as m) as x`,
      [id, hours, facts.tier ?? "daily", nameOf(id), facts.verified ?? true],
    );
    for (const [index, name] of (facts.objects ?? []).entries()) {
      await ask().query(
        `insert into backup.chunks (run_id, attempt, table_oid, schema_name, table_name, relfilenode, fingerprint, from_block, rows,
           raw_bytes, stored_bytes, object, hash, stored_hash) values ($1, 0, 1, 's', 't', 1, 'f', $3, 1, 1, 1, $2, 'h', 'h')`,
        [id, name, index],
      );
    }
    return id;
  }

  const enter = async ({ task, token }: Lease, prefix: string, names: readonly string[], second = false) =>
    (await ask().query("select m.name from backup.enter_listed($1, $2, $3, $4, $5, $6) as m (name)", [
      task,
      token,
      second ? "second" : "first",
      second,
      prefix,
      JSON.stringify(names.map((name) => ({ name, bytes: 10 }))),
    ])).rows.map(({ name }) => name as string);
  return { begun, next, record, make, end, resultOf, makeAll, verdictOf, openAlerts, backup, enter };
}
