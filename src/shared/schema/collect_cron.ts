/** Jobs of pg_cron, which come back inactive. Our own are made by the installer, so they are no part of a backup. */
import { z } from "zod";
import type { Collector } from "./collector.ts";
import { cronAccess } from "./cron_access.ts";
import { draft } from "./draft.ts";
import { quoteIdent, quoteLiteral } from "./quote.ts";
import { readRows } from "./read_rows.ts";
import { readUnderMaintenance } from "./under_maintenance.ts";
import { unnamedJobLabel } from "./unnamed_jobs.ts";

export const collectCronJobs: Collector = async (context) => {
  const access = await cronAccess(context.connection);
  if (access === "denied" || access === "filtered") {
    context.notCaptured.push({
      catalog: "cron.job",
      identity: access === "denied" ? "cron jobs" : "cron jobs of other roles",
      reason: "this role may not read them",
    });
  }
  if (access === "absent" || access === "denied") return [];
  const jobs = await readRows(
    context.connection,
    "cron jobs",
    z.object({
      id: z.string(),
      name: z.string().nullable(),
      schedule: z.string(),
      command: z.string(),
      database: z.string(),
      here: z.boolean(),
      user: z.string(),
      active: z.boolean(),
    }),
    `select j.jobid::text as id, j.jobname as name, j.schedule, j.command, j.database,
            j.database = pg_catalog.current_database() as here, j.username as "user", j.active
       from cron.job j
      where not (coalesce(j.jobname, '') like 'holdfast-%' and j.command like 'select backup.%')
      order by j.jobid`,
  );
  const { pausedJobs } = await readUnderMaintenance(context.connection);
  const equal = new Map<string, number>();
  return jobs.flatMap((job) => {
    const label = job.name === null
      ? unnamedJobLabel(
        {
          schedule: quoteLiteral(job.schedule),
          command: quoteLiteral(job.command),
          database: job.here ? null : quoteLiteral(job.database),
          user: quoteIdent(job.user),
        },
        equal,
      )
      : quoteIdent(job.name);
    const absent = calledSchema(job.command, context.leaveOutSchemas);
    if (absent !== null) {
      // Our own jobs come back with our own schema, which the installer makes.
      if (!job.name?.startsWith("holdfast-")) {
        context.notCaptured.push({
          catalog: "cron.job",
          identity: `cron job ${label} of ${quoteIdent(job.user)}`,
          reason: `calls schema ${absent}, which is left out`,
        });
      }
      return [];
    }
    const database = job.here ? "pg_catalog.current_database()" : quoteLiteral(job.database);
    const texts = `${quoteLiteral(job.schedule)}, ${quoteLiteral(job.command)}`;
    const user = quoteLiteral(job.user);
    // Only a named job can be made inactive at once; without a name it is made and switched off by one statement.
    const statement = job.name === null
      ? `select cron.alter_job(job_id => cron.schedule(${texts}), database => ${database}, username => ${user}, active => false)`
      : `select cron.schedule_in_database(${quoteLiteral(job.name)}, ${texts}, ${database}, ${user}, false)`;
    return [draft(`cron.job:${job.id}`, "cron job", "last", [statement], {
      identity: `cron job ${label} of ${quoteIdent(job.user)}`,
      held: "cron",
      release: job.active || pausedJobs.has(job.id)
        ? [
          `select cron.alter_job(job_id => j.jobid, active => true) from cron.job j where ${
            job.name === null
              ? `j.jobname is null and j.schedule = ${quoteLiteral(job.schedule)} and j.command = ${
                quoteLiteral(job.command)
              }`
              : `j.jobname = ${quoteLiteral(job.name)}`
          } and j.username = ${user}`,
        ]
        : [],
      platform: null,
    })];
  });
};

/** The first of the schemas that a job's command names something in. */
function calledSchema(command: string, schemas: readonly string[]): string | null {
  return schemas.find((schema) =>
    [`${schema}.`, `"${schema}".`].some((prefix) => {
      const at = command.indexOf(prefix);
      return at >= 0 && !/[\w."]/.test(command.charAt(at - 1));
    })
  ) ?? null;
}
