/** Runs of the checks of a database with two stores in memory. */
import { type Budget, unlimited } from "../../src/shared/backup/budget.ts";
import { type OpenLimits, processOpenLimits } from "../../src/shared/checks/deps.ts";
import { runChecksLeg } from "../../src/shared/checks/leg.ts";
import { type CheckResult, readCheckResults, requestChecks } from "../../src/shared/jobs/check_queries.ts";
import { tellStores } from "../../src/shared/jobs/copy_queries.ts";
import { readRun } from "../../src/shared/jobs/queries.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import { isActive } from "../../src/shared/jobs/states.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { query } from "./backup_fixture.ts";
import type { Pair } from "./replicate_fixture.ts";

export interface CheckParts {
  readonly first?: Store;
  readonly second?: Store;
  readonly budget?: () => Budget;
  readonly database?: Database;
  readonly limits?: OpenLimits;
}

export interface Checked {
  readonly run: RunRow;
  readonly legs: number;
  readonly results: Readonly<Record<string, CheckResult>>;
}

/** Requests the daily checks, or goes on with the run that is active, until it has ended. */
export async function checks(pair: Pair, parts: CheckParts = {}): Promise<Checked> {
  const connection = await (parts.database ?? pair.deps.database).connect("holdfast:test");
  const { store, ...deps } = pair.deps;
  try {
    await tellStores(connection, pair.store.label, pair.second.label);
    const requested = await requestChecks(connection, "daily", "http");
    if (requested === null) throw new Error("nothing was requested");
    for (let leg = 1; leg < 600; leg++) {
      await runChecksLeg(
        { ...deps, connection, first: parts.first ?? store, second: parts.second ?? pair.second },
        requested.run,
        {
          worker: `test-${leg}`,
          budget: parts.budget?.() ?? unlimited,
          limits: parts.limits ?? processOpenLimits,
        },
      );
      const run = await readRun(connection, requested.run);
      if (!isActive(run.status)) {
        const made = await readCheckResults(connection, { run: run.id }, 100);
        return { run, legs: leg, results: Object.fromEntries(made.map((one) => [one.name, one])) };
      }
      await query(pair.url, "update backup.tasks set not_before = null where run_id = $1", [run.id]);
    }
    throw new Error("the run has not ended");
  } finally {
    await connection.close();
  }
}

/** As if every object had last been opened so many days ago. */
export async function unopened(pair: Pair, days: number): Promise<void> {
  await query(
    pair.url,
    `update backup.inventory set opened_at = now() - $1 * interval '1 day', looked_at = now() - $1 * interval '1 day'`,
    [days],
  );
}

/** One bit in the middle is another; the size stays. */
export function rot(objects: Map<string, Uint8Array>, name: string): void {
  const bytes = objects.get(name)?.slice();
  if (bytes === undefined) throw new Error(`there is no ${name}`);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] ?? 0) ^ 1;
  objects.set(name, bytes);
}
