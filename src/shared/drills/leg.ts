/** One bounded piece of a drill. docs/decisions/0032-drills.md. */
import { z } from "zod";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { readIdentity } from "../identity/identity_queries.ts";
import { claimTask, readRun, returnTask, type Task } from "../jobs/queries.ts";
import { isActive } from "../jobs/states.ts";
import { differenceKinds } from "../restore/prove.ts";
import type { Validation } from "../restore/validate.ts";
import type { ReadDeps } from "../verify/find_backup.ts";
import { beginBeside, besideFormat, besideOn, dropBeside } from "./beside.ts";
import { dropDrillDatabase, sweepDrillDatabases } from "./database.ts";
import type { DrillDeps, DrillOptions, PersonResult } from "./deps.ts";
import {
  databaseDropped,
  type DrillFacts,
  type DrillRow,
  DrillTask,
  readDrillOf,
  secondsSince,
} from "./drill_queries.ts";
import { endOf } from "./end.ts";
import { beginRecovery, recoverOn, recoveryFormat } from "./recover.ts";

/** Longer than a leg may last; each call renews it. */
const leaseSeconds = 180;
const renewMs = 30_000;
/** A session of a leg that was killed ends with its statement; so often, and so long, it is waited for. */
const lockWaitSeconds = 20;
const mostWaits = 30;
/** Statements and requests of opening a backup, and of the plan that each leg makes again. */
const callsOfBeginning = 40;

const named = z.object({ identity: z.string(), reason: z.string() });
/** A `Validation`. */
const proofFormat = z.object({
  id: z.string(),
  ok: z.boolean(),
  differences: z.array(z.object({ kind: z.enum(differenceKinds), name: z.string(), detail: z.string() })),
  notCompared: z.array(named),
  tables: z.number(),
  rows: z.number(),
  foreignKeys: z.number(),
  durationMs: z.number(),
});

const detailFormat = z.object({
  steps: z.array(z.object({ step: z.string(), at: z.string() })).default([]),
  waits: z.number().default(0),
  work: z.discriminatedUnion("kind", [
    z.object({ kind: z.literal("recovery"), state: recoveryFormat }),
    z.object({ kind: z.literal("beside"), state: besideFormat }),
  ]).nullable().default(null),
  /** Proven: what is left is to drop what was made, and to say so. */
  proven: z.object({ proof: proofFormat, rtoSeconds: z.number().nullable() }).nullable().default(null),
});
export type DrillDetail = z.infer<typeof detailFormat>;

/** What drills of these names do; all others take a person's eyes alone. */
const kinds: Readonly<Record<string, "stream" | "backup" | "table" | "record">> = {
  recovery: "stream",
  disaster: "stream",
  complete: "stream",
  full: "backup",
  table: "table",
  record: "record",
};

/**
 * Claims the drill's task and works until the budget is spent or the drill has ended. False where somebody else has the task. What
 * goes wrong is written to the drill. Errors: those of the connection.
 */
export async function runDrillLeg(deps: DrillDeps, run: string, options: DrillOptions): Promise<boolean> {
  const task = await claimTask(deps.connection, run, options.worker, leaseSeconds);
  if (task === null) return false;
  const drill = await readDrillOf(deps.connection, run);
  const records = await deps.database.connect("holdfast:drill");
  const lost = new AbortController();
  const over = new AbortController();
  const lease = new DrillTask(records, task);
  const beating = beat(deps, lease, over.signal, (reason) => lost.abort(reason));
  try {
    const signal = options.signal === undefined ? lost.signal : AbortSignal.any([options.signal, lost.signal]);
    await new Leg(deps, task, drill, lease, { ...options, signal }, options.signal).work();
  } finally {
    over.abort();
    await beating;
    await records.close();
  }
  return true;
}

/** A long step renews nothing by itself. A lease that is lost, also by a cancelled drill, ends the step. */
async function beat(
  { clock }: DrillDeps,
  lease: DrillTask,
  over: AbortSignal,
  onLost: (reason: HoldfastError) => void,
): Promise<void> {
  try {
    for (;;) {
      await clock.sleep(renewMs, over);
      await lease.keep(null);
    }
  } catch (error) {
    if (!over.aborted) onLost(asHoldfastError(error));
  }
}

interface Stepped {
  readonly facts: DrillFacts;
  readonly proof: Validation | null;
  readonly waitSeconds?: number;
}

class Leg {
  readonly #deps: DrillDeps;
  readonly #task: Task;
  readonly #drill: DrillRow;
  readonly #lease: DrillTask;
  readonly #options: DrillOptions;
  /** The caller's wish to end it; `#options.signal` is also of a lease that was lost. */
  readonly #asked: AbortSignal | undefined;
  #detail: DrillDetail;
  #read: ReadDeps | null = null;

  constructor(
    deps: DrillDeps,
    task: Task,
    drill: DrillRow,
    lease: DrillTask,
    options: DrillOptions,
    asked: AbortSignal | undefined,
  ) {
    this.#deps = deps;
    this.#task = task;
    this.#drill = drill;
    this.#lease = lease;
    this.#options = options;
    this.#asked = asked;
    this.#detail = detailFormat.parse(task.detail);
  }

  async work(): Promise<void> {
    const { budget, signal } = this.#options;
    this.#deps.log.step("drill.claimed", { drill: this.#drill.id });
    try {
      if (kinds[this.#drill.drill] === undefined) return await this.#endByPerson();
      if (this.#detail.proven !== null) return await this.#endProven(this.#detail.proven);
      budget.spendCalls(callsOfBeginning);
      for (;;) {
        if (signal?.aborted === true) throw new HoldfastError("cancelled", "the drill was cancelled");
        const before = this.#detail.work?.state.step;
        const { facts, proof, waitSeconds } = await this.#step();
        if (this.#detail.work?.state.step !== before) this.#note(this.#detail.work?.state.step ?? "");
        await this.#lease.keep(this.#detail, facts);
        this.#deps.log.step("drill.kept", { drill: this.#drill.id, step: this.#detail.work?.state.step ?? "" });
        if (proof !== null) return await this.#endProven(await this.#keepProof(proof));
        if (waitSeconds !== undefined) {
          // Whoever has no functions does the work itself, and waits for nobody.
          return await this.#lease.rest(waitSeconds);
        }
        if (budget.spent()) return await this.#lease.rest(0);
      }
    } catch (error) {
      await this.#stop(error);
    }
  }

  async #step(): Promise<Stepped> {
    const { connection } = this.#deps;
    const drill = this.#drill;
    const kind = kinds[drill.drill];
    this.#read ??= await this.#deps.open(drill);
    const read = this.#read;
    const { work } = this.#detail;
    if (work === null) {
      const { install } = await readIdentity(connection);
      if (kind === "table" || kind === "record") {
        const { state, ...stepped } = await beginBeside(this.#deps, read, drill, kind);
        this.#detail = { ...this.#detail, work: { kind: "beside", state } };
        return stepped;
      }
      await sweepDrillDatabases(this.#deps, install);
      const { state, ...stepped } = await beginRecovery(this.#deps, read, drill, install, kind === "stream");
      this.#detail = { ...this.#detail, work: { kind: "recovery", state } };
      return stepped;
    }
    if (work.kind === "beside") {
      const keep = async (state: typeof work.state) => {
        this.#detail = { ...this.#detail, work: { kind: "beside", state } };
        await this.#lease.keep(this.#detail);
      };
      const { state, ...stepped } = await besideOn(this.#deps, read, work.state, keep, this.#options);
      this.#detail = { ...this.#detail, work: { kind: "beside", state } };
      return stepped;
    }
    const { state, ...stepped } = await recoverOn(this.#deps, read, work.state, this.#options);
    this.#detail = { ...this.#detail, work: { kind: "recovery", state } };
    return stepped;
  }

  #note(step: string): void {
    const { work } = this.#detail;
    const words: Readonly<Record<string, string>> = {
      make: "planned",
      restore: "database made",
      lay: "planned",
      files: "restored",
      prove: work?.kind === "recovery" && work.state.files !== null ? "files read back" : "restored",
      proven: "proven",
    };
    this.#detail = {
      ...this.#detail,
      waits: 0,
      steps: [...this.#detail.steps, { step: words[step] ?? step, at: this.#deps.clock.now().toISOString() }],
    };
  }

  /** The proof is what the clock stops at, not the cleaning up. */
  async #keepProof(proof: Validation): Promise<NonNullable<DrillDetail["proven"]>> {
    const rtoSeconds = await secondsSince(this.#deps.connection, this.#drill.id);
    const proven = {
      proof: { ...proof, differences: [...proof.differences], notCompared: [...proof.notCompared] },
      rtoSeconds,
    };
    this.#detail = { ...this.#detail, proven };
    await this.#lease.keep(this.#detail);
    return proven;
  }

  async #endProven({ proof, rtoSeconds }: NonNullable<DrillDetail["proven"]>): Promise<void> {
    const dropped = await this.#drop();
    const notes = [
      ...rtoSeconds === null ? ["the clock was set back meanwhile: no time was measured"] : [],
      ...dropped ? [] : ["what it made could not be dropped yet"],
    ];
    await this.#end({ proof, rtoSeconds, notes: notes.join("; ") });
  }

  /** Errors: `usage` where nobody is there to look. */
  async #endByPerson(): Promise<void> {
    const { byPerson } = this.#deps;
    if (byPerson === undefined) {
      throw new HoldfastError("usage", `${this.#drill.title} takes a person`, {
        hint: `At the CLI: holdfast drills run ${this.#drill.drill}`,
      });
    }
    const person = await byPerson(this.#drill);
    this.#note(person.ok ? "done" : "found wrong");
    await this.#end({ person, notes: person.notes });
  }

  async #end(outcome: {
    readonly proof?: Validation;
    readonly person?: PersonResult;
    readonly rtoSeconds?: number | null;
    readonly failure?: HoldfastError;
    readonly notes: string;
  }): Promise<void> {
    const result = await endOf(this.#deps, this.#drill, this.#detail, outcome);
    await this.#lease.end(result);
    this.#deps.log.step("drill.ended", { drill: this.#drill.id, ok: result.ok });
  }

  /** False where something was made and is still there. */
  async #drop(): Promise<boolean> {
    const { work } = this.#detail;
    try {
      if (work?.kind === "beside") await dropBeside(this.#deps, work.state);
      if (work?.kind !== "recovery") return true;
      if (!(await dropDrillDatabase(this.#deps, work.state.database))) return false;
      await this.#lease.keep(null, { dropped: true }).catch(async (error: unknown) => {
        // Somebody has cancelled the drill.
        if (asHoldfastError(error).code !== "lease_lost") throw error;
        await databaseDropped(this.#deps.connection, this.#drill.id);
      });
      return true;
    } catch (error) {
      this.#deps.log.warn("drill.not_dropped", { drill: this.#drill.id, code: asHoldfastError(error).code });
      return false;
    }
  }

  async #stop(error: unknown): Promise<void> {
    const failure = asHoldfastError(error);
    this.#deps.log.warn("drill.stopped", { drill: this.#drill.id, code: failure.code, message: failure.message });
    if (this.#asked?.aborted === true) return void await this.#drop();
    if (await this.#isLost(failure)) {
      // Cancelled by somebody; else another worker has it, with all that was made.
      const { status } = await readRun(this.#deps.connection, this.#task.run);
      if (!isActive(status)) await this.#drop();
      return;
    }
    // A budget that is spent is no failure: what was done stays.
    if (failure.code === "cancelled") return await this.#lease.rest(0);
    if (failure.code === "run_state" && this.#isLocked() && this.#detail.waits < mostWaits) {
      await this.#lease.keep({ ...this.#detail, waits: this.#detail.waits + 1 });
      return await this.#lease.rest(lockWaitSeconds);
    }
    if (failure.retry === "backoff" && this.#task.tries < 5) {
      return await returnTask(this.#deps.connection, this.#task, failure);
    }
    const dropped = await this.#drop();
    await this.#end({ failure, notes: dropped ? "" : "what it made could not be dropped yet" });
  }

  /** Somebody else may have the task by now, and the database with it: nothing of it is dropped then. */
  async #isLost({ code }: HoldfastError): Promise<boolean> {
    if (code === "lease_lost" || this.#options.signal?.aborted === true) return true;
    try {
      await this.#lease.keep(null);
      return false;
    } catch (error) {
      if (asHoldfastError(error).code === "lease_lost") return true;
      throw error;
    }
  }

  /** Only a session that an earlier leg left can be in the way of a database that is ours alone. */
  #isLocked(): boolean {
    const { work } = this.#detail;
    return work?.kind === "recovery" && work.state.step === "restore";
  }
}
