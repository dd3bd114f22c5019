/** Definitions into the target: groups in one transaction each, or side by side where they allow it. */
import type { Log } from "../log.ts";
import type { Connection } from "../postgres/connection.ts";
import { sqlstateOf } from "../postgres/server_error.ts";
import { arrayText, quoteIdent } from "../schema/quote.ts";
import { type LaneStep, runInLanes } from "./lanes.ts";
import { checkSignal, restoreFailure, type RestoreSessions } from "./sessions.ts";
import { markStep, transaction } from "./state.ts";
import { stateSchema } from "./target.ts";

/** Statements that belong together, with what they make for people. */
export interface SqlStep {
  readonly title: string;
  readonly statements: readonly string[];
}

export interface LaneSqlStep extends LaneStep, SqlStep {}

export interface ApplyContext {
  readonly sessions: RestoreSessions;
  /** Keys of the steps that an earlier call of this restore has done. Steps that end are added. */
  readonly done: Set<string>;
  readonly log: Log;
  readonly signal: AbortSignal | undefined;
  /** Called as steps end. */
  readonly onStep: (title: string) => void;
}

/**
 * Steps in one transaction. PostgreSQL holds a lock for each object a transaction makes; 200 definitions stay far below
 * the 6,400 of a server with default settings.
 */
const groupSize = 200;

interface StepGroup {
  /** Of its marker. */
  readonly key: string;
  readonly steps: readonly SqlStep[];
}

/** What `applyInOrder` makes transactions of. */
export function groupsOf(phase: string, steps: readonly SqlStep[]): StepGroup[] {
  return Array.from({ length: Math.ceil(steps.length / groupSize) }, (_, group) => ({
    key: `${phase} ${group}`,
    steps: steps.slice(group * groupSize, (group + 1) * groupSize),
  }));
}

/** `steps` in order, on lane 0. `phase` names the groups' markers, so it is unique within a restore. */
export async function applyInOrder(context: ApplyContext, phase: string, steps: readonly SqlStep[]): Promise<void> {
  for (const [group, { key, steps: together }] of groupsOf(phase, steps).entries()) {
    if (context.done.has(key)) continue;
    checkSignal(context.signal);
    await applyGroup(context, context.sessions.main, key, together);
    context.log.step(`restore.${phase}`, { group });
  }
}

/**
 * Makes the restoring role a member of every role that owns something or grants something, where it may not act as it
 * yet; a superuser needs nothing. What was joined is marked, for `leaveRoles`.
 */
export async function joinRoles(context: ApplyContext, roles: readonly string[]): Promise<void> {
  const connection = context.sessions.main;
  for (const role of await rolesToJoin(connection, roles)) {
    const key = `${joinedMark}${role}`;
    if (context.done.has(key)) continue;
    const title = `membership in ${role}`;
    await applyGroup(context, connection, key, [{ title, statements: [joinRole(role)] }]);
  }
}

/** Statements that end the memberships that `joinRoles` began. */
export function leaveRoles(done: ReadonlySet<string>): string[] {
  return [...done].filter((key) => key.startsWith(joinedMark))
    .map((key) => leaveRole(key.slice(joinedMark.length)));
}

export function joinRole(role: string): string {
  return `grant ${quoteIdent(role)} to current_user`;
}

export function leaveRole(role: string): string {
  return `revoke ${quoteIdent(role)} from current_user`;
}

const joinedMark = "joined ";

/** Those of the roles that the session may not act as yet; from 16 on membership alone does not say so. */
export async function rolesToJoin(connection: Connection, roles: readonly string[]): Promise<string[]> {
  const acts = connection.serverVersion >= 160000
    ? "pg_catalog.pg_has_role(current_user, oid, 'SET') and pg_catalog.pg_has_role(current_user, oid, 'USAGE')"
    : "pg_catalog.pg_has_role(current_user, oid, 'MEMBER')";
  const rows = await connection.query(
    `select rolname as name from pg_catalog.pg_roles where rolname = any ($1::text[]) and not (${acts}) order by 1`,
    [arrayText([...new Set(roles)])],
  );
  return rows.map((row) => row["name"] ?? "");
}

/** Each step in a transaction of its own, side by side on all lanes. The keys are the markers. */
export async function applySideBySide(
  context: ApplyContext,
  phase: string,
  steps: readonly LaneSqlStep[],
): Promise<void> {
  const open = steps.filter((step) => !context.done.has(step.key));
  await runInLanes(open, context.sessions.lanes.length, async (step, lane) => {
    checkSignal(context.signal);
    await applyGroup(context, context.sessions.lane(lane), step.key, [step]);
    context.log.step(`restore.${phase}`, { lane });
  });
}

async function applyGroup(
  context: ApplyContext,
  connection: Connection,
  key: string,
  steps: readonly SqlStep[],
): Promise<void> {
  try {
    await transaction(connection, [markStep(key), ...steps.flatMap((step) => step.statements)]);
  } catch (error) {
    if (!(await wasDone(connection, key, error))) await applyOneByOne(context, connection, key, steps, error);
  }
  context.done.add(key);
  for (const step of steps) context.onStep(step.title);
}

/** The same transaction again, a definition at a time, so that the failure can be told with the definition's name. */
async function applyOneByOne(
  context: ApplyContext,
  connection: Connection,
  key: string,
  steps: readonly SqlStep[],
  first: unknown,
): Promise<void> {
  const [only] = steps;
  if (context.signal?.aborted || (only !== undefined && steps.length === 1)) {
    throw restoreFailure(first, only?.title ?? key, context.signal);
  }
  let title = key;
  try {
    await connection.execute(`begin;\n${markStep(key)}`);
    for (const step of steps) {
      title = step.title;
      checkSignal(context.signal);
      if (step.statements.length > 0) await connection.execute(step.statements.join("\n;\n"));
    }
    await connection.execute("commit");
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    throw restoreFailure(error, title, context.signal);
  }
}

/** Did the session of a killed restore commit this step after we read the markers? */
export async function wasDone(connection: Connection, key: string, error: unknown): Promise<boolean> {
  if (sqlstateOf(error) !== "23505") return false;
  const [row] = await connection.query(`select exists (select from ${stateSchema}.done where step = $1) as yes`, [key]);
  return row?.["yes"] === "t";
}
