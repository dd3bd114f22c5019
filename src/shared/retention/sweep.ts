/** Objects that nothing needs any more: marked by the manifests of every store and the catalogue, swept prefix by prefix. */
import type { EpochSource } from "../crypto/epoch.ts";
import { epochSource } from "../crypto/epochs.ts";
import { open } from "../format/container.ts";
import { decodeHeader } from "../format/container_header.ts";
import { blobPrefixes, parseFileListName, prefixes } from "../format/layout.ts";
import { decodeFileList } from "../format/file_list.ts";
import { fileListsOf, objectsOf } from "../format/manifest.ts";
import { openManifest } from "../format/manifest_codec.ts";
import { readRepository } from "../format/repository.ts";
import type { PruneTask } from "../jobs/retention_queries.ts";
import type { Store } from "../store/store.ts";
import type { PruneDeps, PruneOptions } from "./deps.ts";
import { removeFrom } from "./remove.ts";

/** By their first digits: a listing of all objects is more than a leg can do. */
const objectPrefixes = Array.from(
  { length: 256 },
  (_, index) => `${prefixes.objects}${index.toString(16).padStart(2, "0")}/`,
);

/** Objects in one call: some 160 KB. */
const objectsAtOnce = 2_000;
/** Names that a store is asked to remove at once, each of which is looked at afterwards. */
const removedAtOnce = 100;
/** Names that cost as much as one call of the store: what a listing takes to read. */
const namesACall = 100;

/**
 * Opens the manifests, and lists of files beside segments, that are not known yet. True while some are left. Errors: those of keys and stores, `manifest_damaged`: as long
 * as one of them does not open, what it names is not known, and nothing is swept.
 */
export async function openManifests(
  deps: PruneDeps,
  task: PruneTask,
  lying: ReadonlyMap<string, Store>,
  options: PruneOptions,
): Promise<boolean> {
  const { budget, signal } = options;
  const unknown = await task.enterManifests([...lying.keys()]);
  const repository = await readRepository(deps.first);
  const epochOf = epochSource(deps.first, deps.ring, repository?.id ?? "");
  for (const name of unknown) {
    if (budget.spent() || signal?.aborted === true) return true;
    const store = lying.get(name) ?? deps.first;
    const bytes = await store.read(name);
    if (parseFileListName(name) !== null) {
      await enterList(deps, task, epochOf, { name, bytes }, budget);
      continue;
    }
    const { manifest } = await openManifest({ compressor: deps.compressor, epochOf }, name, bytes);
    await task.enterLists(fileListsOf(manifest).map((list) => list.object));
    const objects = objectsOf(manifest).map((object) => object.name);
    for (let at = 0; at < objects.length; at += objectsAtOnce) {
      const some = objects.slice(at, at + objectsAtOnce);
      await task.enterManifest(name, some, at + objectsAtOnce >= objects.length);
    }
    budget.spendText(0, bytes.byteLength);
    budget.spendCalls(3 + objects.length / objectsAtOnce);
    deps.log.step("prune.opened", { name });
  }
  return await openLists(deps, task, epochOf, options);
}

/**
 * Lists of files that manifests name, each once for all of them. One that lies in the second store alone stays closed, where the layer's
 * identity is offline: then nothing is swept. True while some are left.
 */
async function openLists(
  deps: PruneDeps,
  task: PruneTask,
  epochOf: EpochSource,
  { budget, signal }: PruneOptions,
): Promise<boolean> {
  for (const name of await task.unopenedLists()) {
    if (budget.spent() || signal?.aborted === true) return true;
    await enterList(deps, task, epochOf, { name, bytes: await deps.first.read(name) }, budget);
  }
  return false;
}

async function enterList(
  { compressor, log }: PruneDeps,
  task: PruneTask,
  epochOf: EpochSource,
  { name, bytes }: { readonly name: string; readonly bytes: Uint8Array },
  budget: PruneOptions["budget"],
): Promise<void> {
  const { rawLength } = decodeHeader(bytes, name);
  const plaintext = await open({ compressor, epochOf }, { kind: "files", name, bytes, maxBytes: rawLength });
  const parts = decodeFileList(plaintext, name).flatMap((file) => file.parts.map((part) => part.object));
  for (let at = 0; at < Math.max(parts.length, 1); at += objectsAtOnce) {
    await task.enterManifest(name, parts.slice(at, at + objectsAtOnce), at + objectsAtOnce >= parts.length);
  }
  budget.spendText(0, bytes.byteLength + rawLength);
  budget.spendCalls(2 + parts.length / objectsAtOnce);
  log.step("prune.opened", { name });
}

/** Where a sweep goes on, how much it has removed, and whether it is over. */
export interface Swept {
  readonly next: number;
  readonly swept: number;
  readonly over: boolean;
}

/** From step `next` on, the first store's prefixes before the second's. Errors: those of the stores, `lease_lost`. */
export async function sweep(
  deps: PruneDeps,
  task: PruneTask,
  from: number,
  { budget, signal, progress }: PruneOptions,
): Promise<Swept> {
  const stores = storesOf(deps);
  const steps = stores.flatMap((store) => [...objectPrefixes, ...blobPrefixes].map((prefix) => ({ store, prefix })));
  let swept = 0;
  for (let next = from; next < steps.length; next++) {
    if (next > from && (budget.spent() || signal?.aborted === true)) return { next, swept, over: false };
    const { store, prefix } = steps[next] ?? { store: deps.first, prefix: "" };
    const listed: string[] = [];
    for await (const { name } of store.list(prefix)) listed.push(name);
    const due = await task.sweep(store.label, prefix, listed);
    budget.spendCalls(2 + listed.length / namesACall);
    for (let at = 0; at < due.length; at += removedAtOnce) {
      deps.log.step("prune.sweeping", { prefix });
      const { gone, kept } = await removeFrom(store, due.slice(at, at + removedAtOnce));
      deps.log.step("prune.swept", { prefix });
      await task.recordSwept(store.label, gone, kept);
      swept += gone.length;
      budget.spendCalls(2 + gone.length + kept.length);
    }
    progress?.({ label: "sweeping", done: next + 1, total: steps.length });
  }
  return { next: steps.length, swept, over: true };
}

export function storesOf({ first, second }: Pick<PruneDeps, "first" | "second">): readonly Store[] {
  return second === null ? [first] : [first, second];
}
