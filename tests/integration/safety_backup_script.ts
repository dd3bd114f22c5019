/**
 * Run by Deno, with settings on stdin: takes a safety backup as a command does, and prints as one line of JSON what came back,
 * what was noted, and how often the lease was renewed.
 */
import { z } from "zod";
import { createBackup } from "../../src/cli/create_backup.ts";
import type { Context } from "../../src/cli/context.ts";
import { Progress } from "../../src/cli/progress.ts";
import { takeSafetyBackup } from "../../src/cli/safety_backup.ts";
import { Settings } from "../../src/cli/settings.ts";
import { type Clock, systemClock } from "../../src/shared/clock.ts";
import { asHoldfastError, HoldfastError } from "../../src/shared/errors.ts";
import { createLog } from "../../src/shared/log.ts";
import { webCryptoRandom } from "../../src/shared/random.ts";

const input = z.object({
  settings: z.record(z.string(), z.string()),
  skip: z.string().optional(),
  /** After so many renewals the lease is lost. */
  lostAfter: z.number().default(Infinity).optional(),
  /** A manual backup is begun first and still under way. */
  underWay: z.boolean().default(false),
}).parse(await new Response(Deno.stdin.readable).json());

/** Seconds between two renewals are milliseconds here. */
const clock: Clock = {
  ...systemClock,
  now: () => systemClock.now(),
  monotonicMs: () => systemClock.monotonicMs(),
  sleep: (ms, signal) => systemClock.sleep(ms >= 20_000 ? ms / 1000 : ms, signal),
};
const notes: string[] = [];
let renewals = 0;
const context: Context = {
  settings: new Settings(new Map(), (name) => input.settings[name]),
  words: [],
  clock,
  random: webCryptoRandom,
  log: createLog(() => {}, "error"),
  logLevel: "error",
  progress: new Progress({ isTerminal: false, columns: 80, write: () => {} }, clock),
  columns: 80,
  signal: new AbortController().signal,
  note: (text) => void notes.push(text),
  confirm: () => Promise.resolve(false),
  ask: () => Promise.resolve(null),
};

let first: Promise<unknown> = Promise.resolve(null);
if (input.underWay) {
  const { promise, resolve } = Promise.withResolvers<void>();
  first = createBackup(
    {
      ...context,
      progress: new Progress({ isTerminal: false, columns: 80, write: () => resolve() }, clock),
    },
    "manual",
    true,
  ).then((outcome) => (outcome.document as { id: string }).id);
  await promise;
}

const outcome = await takeSafetyBackup(context, {
  skip: input.skip,
  keepAlive: () => {
    renewals++;
    return renewals > (input.lostAfter ?? Infinity)
      ? Promise.reject(new HoldfastError("lease_lost", "the lease is lost"))
      : Promise.resolve();
  },
}).then((run) => ({ run }), (error: unknown) => {
  const { code, message, hint } = asHoldfastError(error);
  return { code, message, hint };
});
console.log(JSON.stringify({ ...outcome, notes, renewals, first: await first }));
Deno.exit(0);
