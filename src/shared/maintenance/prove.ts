/** Proof that a project is closed, or open again: every probe that can be made, until it comes out or time is over. */
import type { Clock } from "../clock.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Random } from "../random.ts";
import {
  assertReads,
  assertVerdict,
  type Probe,
  probeAccounts,
  probeFiles,
  probeFunctions,
  probeSql,
  probeTables,
  type Verdict,
} from "./probe.ts";
import type { ProjectApi } from "./project_api.ts";
import type { MaintenanceState } from "./state.ts";

export interface ProofDeps {
  readonly session: Connection;
  /** Null: only the database is at hand. */
  readonly project: ProjectApi | null;
  readonly clock: Clock;
  readonly random: Random;
  /** How long a probe is repeated until it comes out. Default 30,000. */
  readonly patienceMs?: number;
}

export interface Proof {
  /** Names of the probes that came out as expected. */
  readonly probed: readonly string[];
  /** What could not be tried, and why. */
  readonly notProbed: readonly string[];
}

const pauseMs = 200;
export const defaultPatienceMs = 30_000;

/** Errors: `maintenance_unproven`, `project_unreachable`, those of the session. */
export async function prove(
  deps: ProofDeps,
  expected: Verdict,
  state: Pick<MaintenanceState, "files" | "accounts">,
  hint?: string,
): Promise<Proof> {
  if (expected === "refused") await assertReads(deps.session);
  const sql = await probeSql(deps.session);
  assertVerdict(sql, expected, hint);
  const { project } = deps;
  if (project === null) {
    return { probed: [sql.name], notProbed: ["the project's API: its URL is not set (--project-url)"] };
  }
  const probes = [() => probeTables(project), () => probeFunctions(project)];
  if (state.files === "fenced") probes.push(() => probeFiles(project));
  if (state.accounts === "fenced" && expected === "refused") {
    probes.push(() => probeAccounts(project, deps.random));
  }
  const probed = [sql.name];
  for (const probe of probes) {
    const outcome = await until(deps, probe, expected);
    assertVerdict(outcome, expected, hint);
    probed.push(outcome.name);
  }
  const notProbed = [
    ...(state.files === "fenced" ? [] : [`Storage: the table storage.objects is ${state.files}`]),
    ...(state.accounts === "fenced" ? [] : [`accounts: the table auth.users is ${state.accounts}`]),
    ...(state.accounts === "fenced" && expected === "done" ? ["accounts: one would have to be made"] : []),
  ];
  return { probed, notProbed };
}

/** The outcome as expected, or the last one when patience is over. */
async function until(deps: ProofDeps, probe: () => Promise<Probe>, expected: Verdict): Promise<Probe> {
  const deadline = deps.clock.monotonicMs() + (deps.patienceMs ?? defaultPatienceMs);
  for (;;) {
    const outcome = await probe();
    if (outcome.verdict === expected || deps.clock.monotonicMs() > deadline) return outcome;
    await deps.clock.sleep(pauseMs);
  }
}
