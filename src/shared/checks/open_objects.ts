/** The day's share of each store's objects opened, the longest unopened first. docs/decisions/0031-verification.md. */
import { z } from "zod";
import { asHoldfastError } from "../errors.ts";
import type { CheckOutcome, CheckTask, NameToOpen, Problem, Standing } from "../jobs/check_queries.ts";
import { severalAtOnce } from "../replicate/several.ts";
import { isVerdict } from "../verify/run.ts";
import { type CheckDeps, type CheckOptions, placesOf, type StepMemory, type StepResult } from "./deps.ts";
import { type Opening, openingOf } from "./opening.ts";
import { openStored } from "./open_stored.ts";

/** Asked for in one call, and recorded in one. */
const objectsAtOnce = 64;
/** Requests of one object, and its part of the statements. */
const callsPerObject = 2;
/** Opening and unpacking takes less than what a budget counts for text, which is read, packed and sealed as well. */
const costOfOpening = 0.5;

const tallyFormat = z.object({
  objects: z.int(),
  share: z.int(),
  opened: z.int().default(0),
  hashedOnly: z.int().default(0),
  storedBytes: z.int().default(0),
  rawBytes: z.int().default(0),
  found: z.int().default(0),
});
const stateFormat = z.object({ place: z.int().default(0), stores: z.record(z.string(), tallyFormat).default({}) });
type Tally = z.infer<typeof tallyFormat>;

/** Errors: those of the stores, `lease_lost`, `object_conflict`; what was opened before is recorded. */
export async function openObjects(
  deps: CheckDeps,
  task: CheckTask,
  memory: StepMemory,
  options: CheckOptions,
): Promise<StepResult> {
  const { budget, signal, limits, progress } = options;
  const state = stateFormat.parse(memory.state ?? {});
  memory.state = state;
  const places = placesOf(deps);
  for (; state.place < places.length; state.place++) {
    const place = places[state.place];
    const opening = place === undefined ? null : await openingOf(deps, place);
    if (place === undefined || opening === null) continue;
    const { label } = place.store;
    const tally = state.stores[label] ??= tallyFormat.parse(await task.share(label));
    while (tally.opened + tally.found < tally.share) {
      if (budget.spent() || signal?.aborted === true) return null;
      const left = Math.min(objectsAtOnce, tally.share - tally.opened - tally.found);
      const objects = await task.nextObjects(label, place.isSecond, limits.mostSealedBytes, left);
      if (objects.length === 0) break;
      await openSome(deps, task, opening, objects, tally, options);
      progress?.({ label: "objects", done: tally.opened + tally.found, total: tally.share });
    }
  }
  const standings: StoreStanding[] = [];
  for (const { store, isSecond } of places) {
    const standing = await task.standing(store.label, isSecond, limits.mostSealedBytes);
    standings.push({ ...standing, today: state.stores[store.label] ?? null });
  }
  return outcomeOf(standings);
}

/** Until the budget is spent; what was opened is recorded, whatever ends it. */
async function openSome(
  { log }: CheckDeps,
  task: CheckTask,
  opening: Opening,
  objects: readonly (NameToOpen & { readonly bytes: number })[],
  tally: Tally,
  { budget, signal, limits }: CheckOptions,
): Promise<void> {
  const { store, isSecond } = opening;
  const opened: string[] = [];
  const found: Problem[] = [];
  const pieces = objects.map((object) => ({ object, bytes: object.bytes, alone: false }));
  const bounds = { most: limits.atOnce, mostBytes: limits.mostSealedBytes };
  try {
    await severalAtOnce(pieces, bounds, async ({ object }) => {
      const problem = await openOne(opening, object, tally, limits.mostRawBytes, (bytes) => {
        budget.spendText(0, bytes * costOfOpening);
      });
      budget.spendCalls(callsPerObject);
      if (problem === null) opened.push(object.name);
      else found.push(problem);
      return !budget.spent() && signal?.aborted !== true;
    });
  } finally {
    const missing = found.filter(({ code }) => code === "object_missing").map(({ object }) => object);
    const stillMissing = missing.length === 0 ? [] : await task.stillExpected(store.label, isSecond, missing);
    const problems = found.filter(({ code, object }) => code !== "object_missing" || stillMissing.includes(object));
    if (opened.length > 0) await task.recordOpened(store.label, opened);
    if (problems.length > 0) await task.recordDamage(store.label, isSecond, problems);
    tally.opened += opened.length;
    tally.found += problems.length;
    log.step("checks.opened", { store: store.label, opened: opened.length, problems: problems.length });
  }
}

async function openOne(
  opening: Opening,
  object: NameToOpen,
  tally: Tally,
  mostRawBytes: number,
  spend: (bytes: number) => void,
): Promise<Problem | null> {
  try {
    const { storedBytes, rawBytes, hashedOnly } = await openStored(opening, object, mostRawBytes);
    tally.storedBytes += storedBytes;
    tally.rawBytes += rawBytes;
    if (hashedOnly) tally.hashedOnly++;
    spend(Math.max(storedBytes, rawBytes));
    return null;
  } catch (error) {
    const failure = asHoldfastError(error);
    if (!isVerdict(failure)) throw error;
    return { object: object.name, code: failure.code, message: failure.message };
  }
}

interface StoreStanding extends Standing {
  /** What this run has opened. */
  readonly today: Tally | null;
}

function outcomeOf(stores: readonly StoreStanding[]): CheckOutcome {
  const evidence = { stores };
  const damaged = stores.find((store) => store.damaged > 0);
  if (damaged !== undefined) {
    const what = `${damaged.damaged} objects of ${damaged.store} are damaged`;
    return { outcome: "failed", message: `${what}, the first: ${damaged.damagedFirst[0]?.object ?? ""}`, evidence };
  }
  const late = stores.find(({ overdue }) => overdue > 0);
  if (late !== undefined) {
    const message = `${late.overdue} objects of ${late.store} were not opened in time; ` +
      "what is too large for a function is opened by `holdfast checks run daily`";
    return { outcome: "failed", message, evidence };
  }
  const large = stores.reduce((sum, { tooLarge }) => sum + tooLarge, 0);
  const waiting = stores.reduce((sum, { tooLargeWaiting }) => sum + tooLargeWaiting, 0);
  if (waiting > 0) {
    const message = `${waiting} objects are too large for a function and have waited for half of their time: ` +
      "run `holdfast checks run daily`";
    return { outcome: "warning", message, evidence };
  }
  const opened = stores.reduce((sum, { today }) => sum + (today?.opened ?? 0), 0);
  const total = stores.reduce((sum, { objects }) => sum + objects, 0);
  if (total === 0) return { outcome: "no_verdict", message: "no store has an object", evidence };
  return {
    outcome: "passed",
    message: `${opened} of ${total} objects were opened, and all of them are sound` +
      (large === 0 ? "" : `; ${large} are too large for a function, and \`holdfast checks run daily\` opens them`),
    evidence,
  };
}
