/** A full backup by the functions of a running project, asked for by a signed call. */
import { z } from "zod";
import { type ErrorCode, errorTable, HoldfastError } from "../shared/errors.ts";
import { runStates, type RunStatus } from "../shared/jobs/states.ts";
import type { Tier } from "./commands/create.ts";
import type { Context } from "./context.ts";
import { type CreatedOutcome, createdOutcome, progressOf } from "./created.ts";
import { callFunction } from "./function_client.ts";

const pollMs = 1_000;

const startFormat = z.object({ run: z.string(), joined: z.boolean() });
const runFormat = z.object({
  run: z.string(),
  tiers: z.array(z.string()),
  status: z.string().refine((status): status is RunStatus => Object.hasOwn(runStates, status)),
  createdAt: z.string(),
  finishedAt: z.string().nullable(),
  consistentAt: z.string().nullable(),
  rows: z.number(),
  rawBytes: z.number(),
  storedBytes: z.number(),
  bytesTotal: z.number().nullable(),
  bytesDone: z.number(),
  warnings: z.array(z.object({ code: z.string(), message: z.string() })),
  quarantineReason: z.string().nullable(),
  error: z.object({ code: z.string(), message: z.string().nullable(), hint: z.string().nullable() }).nullable(),
});

/** Without `wait` it answers at once; Ctrl-C while waiting leaves the run to the functions. */
export async function createThroughFunctions(context: Context, tier: Tier, wait: boolean): Promise<CreatedOutcome> {
  const started = startFormat.parse(await callFunction(context, "backup", { action: "start", tier }));
  const { run: id, joined } = started;
  if (joined) context.note(`notice: backup ${id} is under way already; joined`);
  if (!wait) {
    return {
      exit: 0,
      document: { id, tier, status: "queued", joined },
      lines: [`Backup ${id} has begun; \`holdfast list --all\` shows how it ends.`],
    };
  }
  for (;;) {
    const run = runFormat.parse(await callFunction(context, "backup", { action: "status", run: id }));
    if (!runStates[run.status].final) {
      context.progress.update(progressOf(run));
      await context.clock.sleep(pollMs, context.signal);
      continue;
    }
    if (run.status === "failed" || run.status === "cancelled") throw failureOf(run);
    const { rows, rawBytes, storedBytes, status, consistentAt, warnings, quarantineReason } = run;
    const durationMs = run.finishedAt === null ? null : Date.parse(run.finishedAt) - Date.parse(run.createdAt);
    const sizes = { rows, rawBytes, storedBytes, durationMs };
    return createdOutcome({
      id,
      tier: run.tiers.join(","),
      status,
      ...sizes,
      consistentAt,
      joined,
      quarantineReason,
      warnings,
    }, context);
  }
}

function failureOf({ run, error }: z.infer<typeof runFormat>): HoldfastError {
  if (error === null) return new HoldfastError("cancelled", `run ${run} was cancelled`);
  const code: ErrorCode = Object.hasOwn(errorTable, error.code) ? error.code as ErrorCode : "internal";
  return new HoldfastError(code, error.message ?? "the run failed", error.hint === null ? {} : { hint: error.hint });
}
