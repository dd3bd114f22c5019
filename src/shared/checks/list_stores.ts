/** Every store listed to its end, and held against what is recorded of it. A listing that was cut short is no loss. */
import { z } from "zod";
import { blobPrefixes, prefixes, repositoryName } from "../format/layout.ts";
import type { CheckOutcome, CheckTask } from "../jobs/check_queries.ts";
import {
  type CheckDeps,
  type CheckOptions,
  namedProblems,
  type PlacedStore,
  placesOf,
  type StepMemory,
  type StepResult,
} from "./deps.ts";

/** Manifests before objects, since they tell which of these are needed; objects by their first two digits: all are more than a leg can list. */
const listedPrefixes: readonly string[] = [
  repositoryName,
  prefixes.keys,
  prefixes.erasures,
  prefixes.anchors,
  prefixes.backups,
  prefixes.changes,
  ...blobPrefixes,
  ...Array.from({ length: 256 }, (_, index) => `${prefixes.objects}${index.toString(16).padStart(2, "0")}/`),
];

/** Names that cost as much as one call of the store: what a listing takes to read. */
const namesACall = 100;
/** So many of the names that a listing lacks are asked for one by one. */
const askedFor = 100;

const lackFormat = z.object({
  listed: z.int(),
  missing: z.int(),
  missingFirst: z.array(z.string()),
  /** Names that the listing lacked, and that are there. */
  unlisted: z.array(z.string()),
});
const stateFormat = z.object({ next: z.int().default(0), stores: z.record(z.string(), lackFormat).default({}) });
type Lack = z.infer<typeof lackFormat>;

/** Errors: those of the stores, `lease_lost`. */
export async function listStores(
  deps: CheckDeps,
  task: CheckTask,
  memory: StepMemory,
  { budget, signal, progress }: CheckOptions,
): Promise<StepResult> {
  const state = stateFormat.parse(memory.state ?? {});
  memory.state = state;
  const places = placesOf(deps);
  const steps = places.flatMap((place) => listedPrefixes.map((prefix) => ({ place, prefix })));
  if (state.next === 0) await task.beginListing(places.map(({ store }) => store.label));
  for (const { place, prefix } of steps.slice(state.next)) {
    const { label } = place.store;
    const known = state.stores[label] ??= { listed: 0, missing: 0, missingFirst: [], unlisted: [] };
    const names = await listOne(deps, task, place, prefix, known);
    state.next++;
    budget.spendCalls(2 + names / namesACall);
    progress?.({ label: "listing", done: state.next, total: steps.length });
    if (state.next < steps.length && (budget.spent() || signal?.aborted === true)) return null;
  }
  return outcomeOf(state.stores);
}

/** How many names were listed, and asked for. */
async function listOne(
  { log }: CheckDeps,
  task: CheckTask,
  { store, isSecond }: PlacedStore,
  prefix: string,
  known: Lack,
): Promise<number> {
  const listed: { name: string; bytes: number }[] = [];
  for await (const { name, size } of store.list(prefix)) listed.push({ name, bytes: size });
  known.listed += listed.length;
  const lacking = await task.enterListed(store.label, isSecond, prefix, listed);
  if (lacking.length === 0) return listed.length;
  log.warn("checks.lacking", { store: store.label, prefix, names: lacking.length });
  const asked = lacking.slice(0, askedFor);
  const there: string[] = [];
  for (const name of asked) if (await store.size(name) !== null) there.push(name);
  known.unlisted = [...known.unlisted, ...there].slice(0, namedProblems);
  // Where some of them are there after all, nothing is known of those that nobody asked for.
  const gone = there.length > 0 ? asked.filter((name) => !there.includes(name)) : lacking;
  const missing = gone.length === 0 ? [] : await task.stillExpected(store.label, isSecond, gone);
  if (missing.length > 0) {
    const found = missing.map((object) => ({
      object,
      code: "object_missing",
      message: `${store.label} does not have ${object}`,
    }));
    await task.recordDamage(store.label, isSecond, found);
    known.missing += missing.length;
    known.missingFirst = [...known.missingFirst, ...missing].slice(0, namedProblems);
  }
  return listed.length + asked.length * namesACall;
}

function outcomeOf(stores: Readonly<Record<string, Lack>>): CheckOutcome {
  const evidence = { stores: Object.entries(stores).map(([store, lack]) => ({ store, ...lack })) };
  const lacking = evidence.stores.find(({ missing }) => missing > 0);
  if (lacking !== undefined) {
    const { store, missing, missingFirst: [first = ""] } = lacking;
    return {
      outcome: "failed",
      message: `${store} lacks ${missing} objects that it had, the first: ${first}`,
      evidence,
    };
  }
  const short = evidence.stores.find(({ unlisted }) => unlisted.length > 0);
  if (short !== undefined) {
    const [first = ""] = short.unlisted;
    return { outcome: "failed", message: `${short.store} does not list all that it holds, such as ${first}`, evidence };
  }
  return { outcome: "passed", message: "every store lists all that is recorded as being there", evidence };
}
