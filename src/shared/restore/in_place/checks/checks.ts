/** Checks after a restore in place, while maintenance mode still holds: what people would try first, tried for them. */
import { openSession } from "../../../backup/session.ts";
import type { Clock } from "../../../clock.ts";
import { HoldfastError } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import type { ProjectApi } from "../../../maintenance/project_api.ts";
import type { Connection, Database } from "../../../postgres/connection.ts";
import type { RestoreMode } from "../../../rows/apply/difference.ts";
import type { SchemaCapture } from "../../../schema/capture_format.ts";
import type { TableName } from "../../project_rows.ts";
import { checkCounts } from "./check_counts.ts";
import { checkFunctions } from "./check_functions.ts";
import { checkPolicies } from "./check_policies.ts";
import { type CheckResult, failed, type Found, notTried, reasonOf } from "./check_result.ts";
import { checkSignIn, type CheckUser } from "./check_sign_in.ts";
import { checkSmoke } from "./check_smoke.ts";

export type { CheckResult } from "./check_result.ts";
export type { CheckUser } from "./check_sign_in.ts";

export interface CheckDeps {
  /** What was restored into; checks open sessions of their own. */
  readonly database: Database;
  /** Null: its URL is not known, so sign-in and functions are not tried. */
  readonly project: ProjectApi | null;
  readonly clock: Clock;
  readonly log: Log;
  readonly signal?: AbortSignal | undefined;
}

export interface CheckChoice {
  /** The backup's, or as much of it. */
  readonly manifest: { readonly tables: readonly (TableName & { readonly rows: number })[] };
  /** The backup's definitions. */
  readonly was: SchemaCapture;
  /** As in the capture of the backup; side schemas among them. */
  readonly leaveOutSchemas: readonly string[];
  /** `replace`: counts are equal; else at least as many, and definitions are not compared. */
  readonly mode: RestoreMode;
  /** A partitioned table stands for its partitions. Null: every table of the user's, and auth.users. */
  readonly critical: readonly TableName[] | null;
  readonly user: CheckUser | null;
  /** From which the user reads; null: the first one that has rows of theirs. */
  readonly table: TableName | null;
  /** SQL of the user's; null: none was given. */
  readonly smoke: string | null;
}

/**
 * Every check in the order of `checkNames`, whatever the others found; a failure is a result, not an error. The sign-in leaves
 * `last_sign_in_at` of the check user and an entry in Auth's log behind, so compare rows before. Errors: `cancelled`.
 */
export async function runChecks(deps: CheckDeps, choice: CheckChoice): Promise<CheckResult[]> {
  const checks: readonly (readonly [CheckResult["check"], () => Promise<Found>])[] = [
    ["row counts", () => inSession(deps, (session) => checkCounts(session, choice))],
    ["policies", () => policies(deps, choice)],
    ["sign-in", () => signIn(deps, choice)],
    ["functions", () => functions(deps)],
    ["smoke queries", () => smoke(deps, choice)],
  ];
  const results: CheckResult[] = [];
  for (const [check, run] of checks) {
    if (deps.signal?.aborted) throw new HoldfastError("cancelled", "the checks were broken off");
    const found = await run().catch((error: unknown) => failed(reasonOf(error)));
    results.push({ check, ...found });
    deps.log.step("check.done", { check, ok: found.ok });
  }
  return results;
}

function policies(deps: CheckDeps, choice: CheckChoice): Promise<Found> {
  if (choice.mode !== "replace") return Promise.resolve(notTried("definitions stay as they are"));
  return inSession(deps, (session) => checkPolicies(session, choice));
}

function signIn(deps: CheckDeps, { user, table }: CheckChoice): Promise<Found> {
  const { project } = deps;
  if (user === null) return Promise.resolve(notTried("no user is named (--check-user)"));
  if (project === null) return Promise.resolve(notTried("the project's URL is not set (--project-url)"));
  return inSession(deps, (session) => checkSignIn(session, project, user, table));
}

function functions({ project }: CheckDeps): Promise<Found> {
  if (project === null) return Promise.resolve(notTried("the project's URL is not set (--project-url)"));
  return checkFunctions(project);
}

/** In a session as the user's own would be: with the role's settings. */
async function smoke(deps: CheckDeps, choice: CheckChoice): Promise<Found> {
  if (choice.smoke === null) return notTried("no queries are given (--smoke)");
  const session = await deps.database.connect("holdfast:smoke");
  try {
    return await checkSmoke(session, choice.smoke, deps);
  } finally {
    await session.close();
  }
}

async function inSession(deps: CheckDeps, use: (session: Connection) => Promise<Found>): Promise<Found> {
  const session = await openSession(deps.database, "holdfast:checks");
  try {
    return await use(session);
  } finally {
    await session.close();
  }
}
