/** A task that looks whether the copies of files that are on record are still in the store. */
import type { Budget } from "../backup/budget.ts";
import { blobPrefixes, prefixes } from "../format/layout.ts";
import { HoldfastError } from "../errors.ts";
import { completeTask, type Task } from "../jobs/queries.ts";
import type { Connection } from "../postgres/connection.ts";
import type { Store, StoredObject } from "../store/store.ts";
import { FileTask } from "./file_queries.ts";

/** Names that cost as much as one call of the store: what a listing takes to read. */
const namesACall = 100;
/** Objects that one task lists. */
const objectsAtOnce = 2_000;

/** Prefixes that are listed by a task each, given how many objects are on record. */
export function prefixesToLookAt(blobs: number): readonly string[] {
  if (blobs === 0) return [];
  return blobs <= objectsAtOnce ? [prefixes.blobs] : blobPrefixes;
}

/** Copies that lack something are forgotten, so that their files are copied again. Errors: `lease_lost`, those of the listing. */
export async function lookAtCopies(
  { connection, store, budget }: {
    readonly connection: Connection;
    readonly store: Store;
    readonly budget: Budget;
  },
  task: Task,
): Promise<void> {
  const { detail } = task;
  const prefix = typeof detail === "object" && detail !== null && "prefix" in detail ? detail.prefix : null;
  if (typeof prefix !== "string") throw new HoldfastError("internal", `task ${task.id} cannot be read`);
  const listed: StoredObject[] = [];
  for await (const object of store.list(prefix)) listed.push(object);
  const lost = await new FileTask(connection, task).look(store.label, prefix, listed);
  await completeTask(connection, task, { lost });
  budget.spendCalls(3 + listed.length / namesACall);
}
