/**
 * The second store compared with what is recorded of it, once a day: what was read back when it was put may be gone since. Names
 * and sizes are, and of key files the bytes: without one a month of backups does not open. `verify --store second` reads all else.
 */
import { tellLocks } from "../audit/tell_locks.ts";
import { sha256Hex } from "../crypto/digest.ts";
import { prefixes, repositoryName } from "../format/layout.ts";
import type { CopyTask } from "../jobs/copy_queries.ts";
import type { ReplicateDeps } from "./deps.ts";

/** Objects by their first two digits: a listing of all of them is more than a leg can do. */
const lookPrefixes: readonly string[] = [
  repositoryName,
  prefixes.keys,
  prefixes.erasures,
  prefixes.anchors,
  prefixes.changes,
  prefixes.backups,
  ...Array.from({ length: 256 }, (_, index) => `${prefixes.objects}${index.toString(16).padStart(2, "0")}/`),
];

/** Names that cost as much as one call of the store: what a listing takes to read. */
const namesACall = 100;

/**
 * Compares until the budget is spent. `lost`: so many copies are missing again. `due`: there is more to compare.
 * Then what its locks are is told. Errors: those of the second store, `lease_lost`.
 */
export async function look(
  { connection, second, clock, log }: Pick<ReplicateDeps, "connection" | "second" | "clock" | "log">,
  task: CopyTask,
  budget: { readonly spendCalls: (calls: number) => void; readonly spent: () => boolean },
): Promise<{ readonly lost: number; readonly due: boolean }> {
  let lost = 0;
  let prefix = await task.nextLook(lookPrefixes[0] ?? "");
  while (prefix !== null) {
    const listed: { name: string; bytes: number; hash: string | null }[] = [];
    for await (const { name, size } of second.store.list(prefix)) listed.push({ name, bytes: size, hash: null });
    if (prefix === prefixes.keys) {
      for (const one of listed) one.hash = await sha256Hex(await second.store.read(one.name));
      budget.spendCalls(listed.length);
    }
    const next: string | null = lookPrefixes[lookPrefixes.indexOf(prefix) + 1] ?? null;
    lost += await task.recordLook(prefix, listed, next);
    budget.spendCalls(2 + listed.length / namesACall);
    prefix = next;
    if (prefix !== null && budget.spent()) return { lost, due: true };
  }
  await tellLocks(connection, second.store, clock.now());
  log.step("copies.looked", { lost });
  return { lost, due: false };
}
