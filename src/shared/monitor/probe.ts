/** Whether a store does what it should, and what its clock says. */
import type { Clock } from "../clock.ts";
import { sameBytes, toHex } from "../crypto/digest.ts";
import { asHoldfastError, HoldfastError } from "../errors.ts";
import { repositoryName } from "../format/layout.ts";
import type { Random } from "../random.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Store } from "../store/store.ts";

export interface Probe {
  /** Code and message of what went wrong; null: the store does what it was asked for. */
  readonly failure: string | null;
  /** It was written to as well. */
  readonly wrote: boolean;
  /** By how much the store's clock is ahead of this process's; null: it says none, as a folder. */
  readonly aheadMs: number | null;
}

export interface ProbeDeps {
  readonly fetch: Fetch;
  readonly clock: Clock;
  readonly random: Random;
}

/** Where probes are written and removed again; no backup ever has such a name. */
export const probePrefix = "v1/probe/";
const probeBytes = 1024;

/** A store's clock has whole seconds, and an answer takes a moment: less than this is no difference. */
const roundingMs = 1_000;

/**
 * Asks the store for the size of its first file, whether or not it is there; with `write` it also writes a small object, reads it back and
 * removes it, since a store that is full, or whose credentials may only read, answers all the same. `open` gets a `fetch` that
 * notes the Date header of the last answer. Never rejects.
 */
export async function probeStore(
  open: (fetch: Fetch) => Store,
  { fetch, clock, random }: ProbeDeps,
  write: boolean,
): Promise<Probe> {
  let aheadMs: number | null = null;
  const dated: Fetch = async (input, init) => {
    const askedMs = clock.now().getTime();
    const answer = await fetch(input, init);
    const told = Date.parse(answer.headers.get("date") ?? "");
    const answeredMs = clock.now().getTime();
    aheadMs = Number.isNaN(told) ? null : outside(told, askedMs - roundingMs, answeredMs + roundingMs);
    return answer;
  };
  try {
    const store = open(dated);
    await store.size(repositoryName);
    if (write) await writeProbe(store, random);
    return { failure: null, wrote: write, aheadMs };
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    return { failure: `${message} (${code})`, wrote: false, aheadMs };
  }
}

/** Errors: those of the store, `store_lied`. What was written is removed, whatever happens, where the store lets it. */
async function writeProbe(store: Store, random: Random): Promise<void> {
  const name = `${probePrefix}${toHex(random(12))}`;
  const bytes = random(probeBytes);
  try {
    await store.create(name, bytes);
    if (!sameBytes(await store.read(name), bytes)) {
      throw new HoldfastError("store_lied", `${store.label} gave back other bytes than were written`);
    }
  } catch (error) {
    await store.remove([name]).catch(() => {});
    throw error;
  }
  await store.remove([name]);
}

/** How far it is outside of what the span allows; 0 within. */
function outside(at: number, from: number, to: number): number {
  if (at < from) return at - from;
  return at > to ? at - to : 0;
}
