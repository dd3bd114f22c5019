/** Every manifest of every store opened: without one a backup is a heap of objects. */
import { z } from "zod";
import { sha256Hex } from "../crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { parseManifestName } from "../format/layout.ts";
import { openManifest } from "../format/manifest_codec.ts";
import type { CheckOutcome, CheckTask, Elsewhere, NameToOpen, Problem } from "../jobs/check_queries.ts";
import { clockToleranceMs } from "../retention/refusals.ts";
import { isVerdict } from "../verify/run.ts";
import {
  type CheckDeps,
  type CheckOptions,
  namedProblems,
  type PlacedStore,
  placesOf,
  type StepMemory,
  type StepResult,
} from "./deps.ts";
import { type Opening, openingOf } from "./opening.ts";

const manifestsAtOnce = 20;
/** Statements and requests of one manifest. */
const callsPerManifest = 3;
/** What is parsed costs more than what is unpacked: a manifest's bytes count as so many of text. */
const costOfParsing = 4;

const stateFormat = z.object({
  place: z.int().default(0),
  behind: z.string().default(""),
  opened: z.record(z.string(), z.int()).default({}),
  newest: z.record(z.string(), z.string()).default({}),
  problems: z.array(z.object({ object: z.string(), code: z.string(), message: z.string() })).default([]),
  problemCount: z.int().default(0),
});
type State = z.infer<typeof stateFormat>;

/** Errors: those of the stores, `lease_lost`, `object_conflict`. */
export async function openManifests(
  deps: CheckDeps,
  task: CheckTask,
  memory: StepMemory,
  { budget, signal, progress }: CheckOptions,
): Promise<StepResult> {
  const state = stateFormat.parse(memory.state ?? {});
  memory.state = state;
  const places = placesOf(deps);
  for (; state.place < places.length; state.place++, state.behind = "") {
    const place = places[state.place];
    const opening = place === undefined ? null : await openingOf(deps, place);
    if (place === undefined || opening === null) continue;
    const { label } = place.store;
    state.opened[label] ??= 0;
    for (;;) {
      const names = await task.nextManifests(label, place.isSecond, state.behind, manifestsAtOnce);
      if (names.length === 0) break;
      const sound: string[] = [];
      for (const one of names) {
        const { bytes, problem } = await openOne(deps, task, opening, one);
        if (problem === null) sound.push(one.name);
        else if (problem !== "gone") await tell(task, place, state, problem);
        state.behind = one.name;
        budget.spendText(0, bytes * costOfParsing);
        budget.spendCalls(callsPerManifest);
        if (budget.spent() || signal?.aborted === true) break;
      }
      if (sound.length > 0) await task.recordOpened(label, sound);
      const opened: number = (state.opened[label] ?? 0) + sound.length;
      state.opened[label] = opened;
      state.newest[label] = sound.at(-1) ?? state.newest[label] ?? "";
      progress?.({ label: "manifests", done: opened, total: opened });
      if (budget.spent() || signal?.aborted === true) return null;
    }
  }
  return outcomeOf(state, await task.elsewhere());
}

/** `gone`: retention removed it meanwhile. */
async function openOne(
  { clock }: CheckDeps,
  task: CheckTask,
  opening: Opening,
  { name, storedHash }: NameToOpen,
): Promise<{ readonly bytes: number; readonly problem: Problem | "gone" | null }> {
  let size = 0;
  try {
    const bytes = await opening.store.read(name);
    size = bytes.byteLength;
    if (storedHash !== null && await sha256Hex(bytes) !== storedHash) {
      throw new HoldfastError("manifest_damaged", `${name} is not the manifest that was stored`);
    }
    const { manifest } = await openManifest(opening, name, bytes);
    if (manifest.repositoryId !== opening.repositoryId) {
      throw new HoldfastError("manifest_damaged", `${name} belongs to another repository`);
    }
    const created = parseManifestName(name)?.createdAt ?? new Date(0);
    if (created.getTime() <= clock.now().getTime() + clockToleranceMs) return { bytes: size, problem: null };
    const message = `${name} is of ${created.toISOString()}, and it is ${clock.now().toISOString()}`;
    return { bytes: size, problem: { object: name, code: newerThanNow, message } };
  } catch (error) {
    const failure = asHoldfastError(error);
    const { code, message } = failure;
    if (!isVerdict(failure)) throw error;
    if (code === "object_missing") {
      const left = await task.stillExpected(opening.store.label, opening.isSecond, [name]);
      if (left.length === 0) return { bytes: size, problem: "gone" };
    }
    return { bytes: size, problem: { object: name, code, message } };
  }
}

/** No damage: a clock is wrong, here or where it was written. */
const newerThanNow = "newer_than_now";

async function tell(task: CheckTask, { store, isSecond }: PlacedStore, state: State, problem: Problem): Promise<void> {
  state.problemCount++;
  if (state.problems.length < namedProblems) state.problems.push({ ...problem });
  if (problem.code !== newerThanNow) await task.recordDamage(store.label, isSecond, [problem]);
}

function outcomeOf(
  { opened, newest, problems, problemCount }: State,
  elsewhere: readonly Elsewhere[],
): CheckOutcome {
  const stores = Object.entries(opened).map(([store, count]) => ({
    store,
    opened: count,
    newest: newest[store] ?? null,
  }));
  const evidence = { stores, problems: problemCount, problemsFirst: problems, elsewhere };
  const others = elsewhere.reduce((sum, { backups }) => sum + backups, 0);
  const notSeen = others === 0 ? "" : `; ${others} backups on record lie below another prefix and are not looked at`;
  const total = stores.reduce((sum, store) => sum + store.opened, 0);
  const [first] = problems;
  if (first !== undefined) {
    return {
      outcome: "failed",
      message: `${problemCount} manifests have problems, the first: ${first.object}: ${first.message}`,
      evidence,
    };
  }
  if (total === 0) return { outcome: "no_verdict", message: `no store has a manifest${notSeen}`, evidence };
  return { outcome: "passed", message: `${total} manifests were opened${notSeen}`, evidence };
}
