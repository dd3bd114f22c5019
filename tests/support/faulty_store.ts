/** Any store with failures put in at chosen calls. A fault that did not fire is not a pass: see `assertAllFired`. */
import { type ErrorCode, HoldfastError } from "../../src/shared/errors.ts";
import type { Store, StoredObject } from "../../src/shared/store/store.ts";

export type StoreCall = "create" | "replace" | "read" | "size" | "list" | "remove";

export interface Fault {
  readonly call: StoreCall;
  /** Only names (or prefixes) that start so count. Default: all. */
  readonly prefix?: string;
  /** Which of the counted calls fails, from 1. Default 1. */
  readonly nth?: number;
  /** How many from there on. Default 1; `Infinity` for ever. */
  readonly times?: number;
  /**
   * - a code: the call fails with it and nothing happened
   * - `lost_answer`: the call happens, then fails as `store_unreachable`
   * - `flip`: one bit of what is read, in the middle, is another
   * - `cut`: the second half of what is read is gone, unnoticed by the store
   * - `short_listing`: the listing ends after its first half, without an error
   * - `forget`: a create says `created` and keeps nothing
   */
  readonly kind: ErrorCode | "lost_answer" | "flip" | "cut" | "short_listing" | "forget";
}

export interface FaultyStore extends Store {
  /** How often each fault fired, in the order given. */
  readonly fired: readonly number[];
  /** Throws unless every fault fired at least once. */
  assertAllFired(): void;
}

export function faulty(store: Store, faults: readonly Fault[]): FaultyStore {
  const seen = faults.map(() => 0);
  const fired = faults.map(() => 0);

  /** The fault for this call, counted as fired. */
  function next(call: StoreCall, name: string): Fault["kind"] | null {
    let hit: Fault["kind"] | null = null;
    for (const [index, fault] of faults.entries()) {
      if (fault.call !== call || !name.startsWith(fault.prefix ?? "")) continue;
      const count = (seen[index] ?? 0) + 1;
      seen[index] = count;
      const from = fault.nth ?? 1;
      if (hit !== null || count < from || count >= from + (fault.times ?? 1)) continue;
      fired[index] = (fired[index] ?? 0) + 1;
      hit = fault.kind;
    }
    return hit;
  }

  async function failing<Result>(kind: Fault["kind"] | null, act: () => Promise<Result>): Promise<Result> {
    if (kind === null) return await act();
    if (kind === "lost_answer") {
      await act();
      throw new HoldfastError("store_unreachable", "injected: the answer was lost");
    }
    if (isQuiet(kind)) return await act();
    throw new HoldfastError(kind, "injected failure");
  }

  return {
    kind: store.kind,
    label: `${store.label} with faults`,
    lock: store.lock,
    fired,
    assertAllFired() {
      const silent = faults.filter((_, index) => fired[index] === 0);
      if (silent.length > 0) throw new Error(`these faults never fired: ${JSON.stringify(silent)}`);
    },
    async create(name, bytes) {
      const kind = next("create", name);
      if (kind === "forget") return "created";
      return await failing(kind, () => store.create(name, bytes));
    },
    async replace(name, bytes) {
      const kind = next("replace", name);
      if (kind !== "forget") await failing(kind, () => store.replace(name, bytes));
    },
    async read(name) {
      const kind = next("read", name);
      const bytes = await failing(kind, () => store.read(name));
      const middle = bytes.byteLength >>> 1;
      if (kind === "flip") bytes[middle] = (bytes[middle] ?? 0) ^ 1;
      return kind === "cut" ? bytes.slice(0, middle) : bytes;
    },
    size: (name) => failing(next("size", name), () => store.size(name)),
    async *list(prefix) {
      const kind = next("list", prefix);
      if (kind !== null && !isQuiet(kind) && kind !== "lost_answer") throw new HoldfastError(kind, "injected failure");
      const all: StoredObject[] = [];
      for await (const object of store.list(prefix)) all.push(object);
      yield* kind === "short_listing" || kind === "lost_answer" ? all.slice(0, all.length >>> 1) : all;
      if (kind === "lost_answer") throw new HoldfastError("store_unreachable", "injected: the listing broke off");
    },
    remove: (names) => failing(next("remove", names[0] ?? ""), () => store.remove(names)),
  };
}

function isQuiet(kind: Fault["kind"]): kind is "flip" | "cut" | "short_listing" | "forget" {
  return kind === "flip" || kind === "cut" || kind === "short_listing" || kind === "forget";
}
