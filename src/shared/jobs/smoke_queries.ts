/** Queries of the user's own for the day after a full restore in place: the watchdog's pg_cron job runs them each hour. */
import type { Connection } from "../postgres/connection.ts";

export interface SmokeQuery {
  readonly text: string;
  /** Where it begins in the user's file, from 1. */
  readonly line: number;
}

export interface KeptSmokes {
  /** Run each hour; 0 where there is no pg_cron. */
  readonly hourly: number;
  /** Of those, not run each hour: what is no query of one statement's own, too long, or beyond the hundredth. */
  readonly leftOut: number;
}

/** Each may take half a minute: all of them are done within the hour. */
const mostQueries = 100;
const mostLetters = 100_000;
/** They end the transaction in which a job runs, or want a client. */
const notInJobs = /^(begin|start|commit|end|rollback|abort|savepoint|release|prepare|copy)\b/i;

/**
 * Keeps them with the restore, in place of those that were kept before; to be called before it is finished.
 * `wereGood`: all of them have gone through. Errors: `run_not_found`, those of the connection.
 */
export async function keepSmokes(
  connection: Connection,
  restore: string,
  statements: readonly SmokeQuery[],
  wereGood: boolean,
): Promise<KeptSmokes> {
  const kept = statements
    .map(({ text, line }, index) => ({ number: index + 1, line, text }))
    .filter(({ text }) => !notInJobs.test(text) && text.length <= mostLetters)
    .slice(0, mostQueries);
  const [row] = await connection.query("select backup.keep_smokes($1::uuid, $2::jsonb, $3::boolean) as hourly", [
    restore,
    JSON.stringify(kept),
    String(wereGood),
  ]);
  const hourly = row?.["hourly"] === "t" ? kept.length : 0;
  return { hourly, leftOut: statements.length - hourly };
}
