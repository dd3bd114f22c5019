/** Jobs of pg_cron without a name: what they are called, whatever number they have. Pure. */
import type { Definition } from "./capture_format.ts";

const identityPattern = /^cron job without a name \(([\s\S]*)\) of ((?:"(?:[^"]|"")+"|\S+))$/;

/** `database` as SQL, null for the one they are in. `equal` counts labels. The command itself may hold a secret, so it is not in it. */
export function unnamedJobLabel(
  job: { readonly schedule: string; readonly command: string; readonly database: string | null; readonly user: string },
  equal: Map<string, number>,
): string {
  const where = job.database === null ? "" : ` in ${job.database}`;
  const label = `${job.schedule}, command ${hashOf(job.command)}${where}`;
  const key = JSON.stringify([label, job.user]);
  const ordinal = (equal.get(key) ?? 0) + 1;
  equal.set(key, ordinal);
  return `without a name (${label}${ordinal === 1 ? "" : `; ${ordinal}`})`;
}

/** FNV-1a, 32 bits. */
function hashOf(text: string): string {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, "0");
}

export function isUnnamedJob({ kind, identity }: Pick<Definition, "kind" | "identity">): boolean {
  return kind === "cron job" && identityPattern.test(identity);
}

/** All as SQL. */
interface UnnamedJob {
  readonly schedule: string;
  readonly command: string;
  /** `pg_catalog.current_database()` or a literal. */
  readonly database: string;
  readonly user: string;
}

const literal = `(?:'(?:[^']|'')*'|E'(?:[^'\\\\]|''|\\\\[\\s\\S])*')`;
const statementPattern = new RegExp(
  `^select cron\\.alter_job\\(job_id => cron\\.schedule\\((${literal}), (${literal})\\), database => ` +
    `(pg_catalog\\.current_database\\(\\)|${literal}), username => (${literal}), active => false\\)$`,
);

/** Null for a job with a name, or one that is written otherwise. */
export function readUnnamedJob({ statements }: Pick<Definition, "statements">): UnnamedJob | null {
  const [, schedule, command, database, user] = statementPattern.exec(statements[0] ?? "") ?? [];
  if (schedule === undefined || command === undefined || database === undefined || user === undefined) return null;
  return { schedule, command, database, user };
}

/** Older captures named such a job by its number, which is another one once it is made again. */
export function stableJobs(definitions: readonly Definition[]): Definition[] {
  const equal = new Map<string, number>();
  return definitions.map((one) => {
    const job = isUnnamedJob(one) ? readUnnamedJob(one) : null;
    if (job === null) return one;
    const database = job.database.startsWith("pg_catalog.") ? null : job.database;
    const user = identityPattern.exec(one.identity)?.[2] ?? "";
    return { ...one, identity: `cron job ${unnamedJobLabel({ ...job, database, user }, equal)} of ${user}` };
  });
}

/** The database that a job runs in, as SQL, is another one than that of the capture. */
export function isJobOfOtherDatabase({ kind, statements }: Pick<Definition, "kind" | "statements">): boolean {
  return kind === "cron job" &&
    !/(?:, |database => )pg_catalog\.current_database\(\), [\s\S]*false\)$/.test(statements[0] ?? "");
}
