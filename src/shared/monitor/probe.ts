/** Whether a store answers, and what its clock says. */
import type { Clock } from "../clock.ts";
import { asHoldfastError } from "../errors.ts";
import { repositoryName } from "../format/layout.ts";
import type { Fetch } from "../store/http_call.ts";
import type { Store } from "../store/store.ts";

export interface Probe {
  /** Code and message of what went wrong; null: the store answers. */
  readonly failure: string | null;
  /** By how much the store's clock is ahead of this process's; null: it says none, as a folder. */
  readonly aheadMs: number | null;
}

/** A store's clock has whole seconds, and an answer takes a moment: less than this is no difference. */
const roundingMs = 1_000;

/**
 * Asks the store for the size of its first file, whether or not it is there. `open` gets a `fetch` that notes the Date header of
 * the last answer. Never rejects.
 */
export async function probeStore(open: (fetch: Fetch) => Store, fetch: Fetch, clock: Clock): Promise<Probe> {
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
    await open(dated).size(repositoryName);
    return { failure: null, aheadMs };
  } catch (error) {
    const { code, message } = asHoldfastError(error);
    return { failure: `${message} (${code})`, aheadMs };
  }
}

/** How far it is outside of what the span allows; 0 within. */
function outside(at: number, from: number, to: number): number {
  if (at < from) return at - from;
  return at > to ? at - to : 0;
}
