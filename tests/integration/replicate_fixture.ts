/** A database with two stores in memory, runs that copy from one to the other, and a comparison that uses none of their code. */
import { Buffer } from "node:buffer";
import { Decrypter, generateIdentity, identityToRecipient } from "age-encryption";
import { type Budget, unlimited } from "../../src/shared/backup/budget.ts";
import { parseRecipients } from "../../src/shared/crypto/age.ts";
import { requestCopies, tellStores } from "../../src/shared/jobs/copy_queries.ts";
import { readRun } from "../../src/shared/jobs/queries.ts";
import { isActive } from "../../src/shared/jobs/states.ts";
import type { RunRow } from "../../src/shared/jobs/run_row.ts";
import type { Database } from "../../src/shared/postgres/connection.ts";
import { runReplicateLeg } from "../../src/shared/replicate/leg.ts";
import { isLayered, type Secondary } from "../../src/shared/store/secondary.ts";
import type { Store } from "../../src/shared/store/store.ts";
import { createMemoryStore, type MemoryStore } from "../contract/memory_store.ts";
import type { Cluster } from "../support/cluster.ts";
import { query, type World, world } from "./backup_fixture.ts";
import { Killer } from "./changes_stream_fixture.ts";

export interface Pair extends World {
  readonly second: MemoryStore;
  readonly secondary: Secondary;
  readonly identity: string;
  readonly killer: Killer;
}

export async function pairOfStores(cluster: Cluster): Promise<Pair> {
  const killer = new Killer();
  const made = await world(cluster, { onLine: (line) => killer.onLine(line) });
  const identity = await generateIdentity();
  const second = { ...createMemoryStore(), label: "memory of the other provider" };
  const recipients = parseRecipients(await identityToRecipient(identity));
  const secondary: Secondary = {
    store: second,
    recipients: recipients.names,
    wrap: async (name, sealed) => isLayered(name) ? await recipients.wrap(sealed) : sealed,
  };
  return { ...made, second, secondary, identity, killer };
}

export interface CopyOptions {
  readonly second?: Store;
  readonly first?: Store;
  readonly budget?: () => Budget;
  readonly database?: Database;
  /** Legs at most; more is an error. */
  readonly legs?: number;
}

/** Requests a run and works on it until it has ended, leg by leg. */
export async function copies(pair: Pair, options: CopyOptions = {}): Promise<RunRow> {
  const second = { ...pair.secondary, store: options.second ?? pair.second };
  const connection = await (options.database ?? pair.deps.database).connect("holdfast:test");
  try {
    await tellStores(connection, pair.store.label, pair.second.label);
    const requested = await requestCopies(connection, "cli", true);
    if (requested === null) throw new Error("nothing was requested");
    const { store, ...deps } = pair.deps;
    for (let leg = 0; leg < (options.legs ?? 200); leg++) {
      await runReplicateLeg(
        { ...deps, connection, first: options.first ?? store, second },
        requested.run,
        { worker: `test-${leg}`, budget: options.budget?.() ?? unlimited },
      );
      const run = await readRun(connection, requested.run);
      if (!isActive(run.status)) return run;
      // No test waits for the pause after a failure.
      await query(pair.url, "update backup.tasks set not_before = null where run_id = $1", [run.id]);
    }
    throw new Error("the run has not ended");
  } finally {
    await connection.close();
  }
}

/**
 * Names in which the second store differs from the first, opened by the age library alone; empty: it holds all of it, but for
 * the claims, which say who writes to the first.
 */
export async function differences(
  first: ReadonlyMap<string, Uint8Array>,
  second: ReadonlyMap<string, Uint8Array>,
  identity: string,
): Promise<string[]> {
  const decrypter = new Decrypter();
  decrypter.addIdentity(identity);
  const found: string[] = [];
  for (const [name, bytes] of first) {
    if (name.startsWith("v1/claims/")) continue;
    const there = second.get(name);
    if (there === undefined) {
      found.push(`${name} is missing`);
      continue;
    }
    const isWrapped = /^v1\/(objects|changes|blobs)\//.test(name);
    const plain = isWrapped ? await decrypter.decrypt(there, "uint8array").catch(() => null) : there;
    if (plain === null || !Buffer.from(plain).equals(Buffer.from(bytes))) found.push(`${name} differs`);
    if (isWrapped && Buffer.from(there).includes(Buffer.from("HOLDFAST"))) {
      found.push(`${name} lies there without a layer`);
    }
  }
  for (const name of second.keys()) if (!first.has(name)) found.push(`${name} is too much`);
  return found;
}

/** A budget of so many objects or so, for legs that end early. */
export function smallBudget(calls = 14): Budget {
  let spent = 0;
  return {
    spendText: () => {},
    spendCalls: (more) => void (spent += more),
    spent: () => spent >= calls,
  };
}
