/** A difference that is too large for one transaction, taken down step by step until the rest fits into one. */
import { HoldfastError } from "../../errors.ts";
import type { Connection } from "../../postgres/connection.ts";
import { sqlstateOf } from "../../postgres/server_error.ts";
import { differenceStatements, keyOfDelta, liveRelation, type Pair, type Part } from "./difference.ts";
import type { ForeignKey } from "./keys.ts";
import { verifyKeys } from "./keys_hold.ts";
import { bytesOf } from "./plan_rows.ts";
import {
  applyPart,
  lock,
  markDone,
  type PutBackOptions,
  type PutBackResult,
  putTriggersAside,
  refused,
} from "./put_back.ts";
import { requireUnchanged } from "./unchanged.ts";

export interface StepOptions extends PutBackOptions {
  /** Most bytes of log that one transaction should write, about: a longer one holds the log of the whole server back. */
  readonly capBytes: number;
  /** After each step was committed. What it throws ends the restore between two steps. */
  readonly onStep?: (rows: number) => Promise<void>;
}

/** A row that goes and comes is in the log three times: kept, deleted, inserted, with its indexes. */
const logPerByte = 3;
/** A change between two rounds can bring new rows; more rounds than this and somebody writes faster than we do. */
const mostRounds = 3;

export type Stepped = Pick<PutBackResult, "inserted" | "updated" | "deleted">;

/**
 * Applies what is beyond the cap: parents first for rows that come, children first for rows that go, each step with its own
 * locks and its own commit. Run again after a crash it finds a smaller difference; nothing else has to be remembered. What a
 * step cannot do (a value that a row of another step still has) is left to the transaction at the end. Tables without a key
 * are, too. `pairs`: parents before children. Errors: as `putBack`; what was committed stays.
 */
export async function shrinkDifference(
  connection: Connection,
  pairs: readonly Pair[],
  keys: readonly ForeignKey[],
  options: StepOptions,
): Promise<Stepped> {
  const done = { inserted: 0, updated: 0, deleted: 0 };
  for (let round = 0; round < mostRounds; round++) {
    for (const pair of pairs) {
      for (const statement of differenceStatements(pair, options.mode)) await connection.execute(statement);
    }
    let bytes = 0;
    for (const pair of pairs) bytes += await openBytes(connection, pair);
    if (bytes * logPerByte <= options.capBytes) return done;
    const keyed = pairs.filter((pair) => pair.fit.key !== null);
    const steps = (pair: Pair, kind: string) => takeSteps(connection, { pair, pairs, keys, kind }, options, done);
    for (const pair of keyed) await steps(pair, "d.\"action\" <> 'delete'");
    for (const pair of keyed.toReversed()) await steps(pair, "d.\"action\" = 'delete'");
  }
  return done;
}

async function openBytes(connection: Connection, pair: Pair): Promise<number> {
  const [row] = await connection.query(`select count(*) as n from ${pair.delta} as d where not d."done"`);
  return Number(row?.["n"]) * bytesOf(pair);
}

/** Rows of one table that are done with in the same way. `pairs`, `keys`: of the whole restore. */
interface Steps {
  readonly pair: Pair;
  readonly pairs: readonly Pair[];
  readonly keys: readonly ForeignKey[];
  readonly kind: string;
}

async function takeSteps(
  connection: Connection,
  steps: Steps,
  options: StepOptions,
  done: { inserted: number; updated: number; deleted: number },
): Promise<void> {
  const { pair, kind } = steps;
  // A quarter of the cap: a row can be larger than most.
  const rows = Math.max(100, Math.floor(options.capBytes / 4 / logPerByte / bytesOf(pair)));
  for (;;) {
    const [next] = await connection.query(
      `with taken as (
         update ${pair.delta} as d set "step" = 1 where d.ctid in (
           select d.ctid from ${pair.delta} as d where d."step" = 0 and not d."done" and ${kind} limit ${rows}
         ) returning 1
       ) select count(*) as n from taken`,
    );
    if (Number(next?.["n"]) === 0) return;
    const taken = await oneStep(connection, steps, options);
    done.inserted += taken.inserted;
    done.updated += taken.updated;
    done.deleted += taken.deleted;
    await options.onStep?.(taken.inserted + taken.updated + taken.deleted);
  }
}

const inStep: Part = (alias) => `${alias}."step" = 1 and not ${alias}."done"`;

async function oneStep(connection: Connection, { pair, pairs, keys }: Steps, options: StepOptions): Promise<Stepped> {
  const { delta } = pair;
  await connection.execute("begin isolation level read committed");
  try {
    await connection.execute(`set local lock_timeout = ${Math.round(options.lockMs)}`);
    await putTriggersAside(connection);
    await lock(connection, [pair], inStep, false);
    await requireUnchanged(connection, pairs, keys);
    // What others did since the difference was looked at is for the next round.
    const isThere = `exists (select from ${liveRelation(pair)} as l where ${keyOfDelta(pair, "l")})`;
    await connection.execute(
      `update ${delta} as d set "step" = 2 where ${inStep("d")} and (d."action" = 'insert') = ${isThere}`,
    );
    const result = await applyPart(connection, [pair], inStep, options);
    await verifyKeys(connection, keys, [pair], inStep);
    await markDone(connection, pair, inStep);
    await options.beforeCommit?.(connection);
    await connection.execute("commit");
    return result;
  } catch (error) {
    await connection.execute("rollback").catch(() => {});
    if (!isForTheEnd(error)) throw refused(error);
    await connection.execute(`update ${delta} as d set "step" = 2 where ${inStep("d")}`);
    return { inserted: 0, updated: 0, deleted: 0 };
  }
}

/** A row that another step brings, or takes away, is in the way; or somebody wrote meanwhile, or waited for us as we for them. */
function isForTheEnd(error: unknown): boolean {
  if (/^(23|40P01$)/.test(sqlstateOf(error) ?? "")) return true;
  return error instanceof HoldfastError && (error.code === "rows_conflict" || error.code === "counts_differ");
}
