/** Which fault begins on which day of a quarter, by a seed. */
import type { Random } from "./point_random.ts";
import type { Fault, Step } from "./quarter_fault.ts";

export interface Placed {
  readonly fault: Fault;
  /** Of its first day, from the quarter's first. */
  readonly day: number;
  readonly steps: readonly Step[];
}

const dayMs = 86_400_000;
const attempts = 2_000;

/**
 * One after the other, in an order and on days of the seed's, none before `from` and none after the last of `days`. Throws where they
 * do not fit.
 */
export function placeFaults(
  faults: readonly Fault[],
  random: Random,
  { start, from, days }: { readonly start: Date; readonly from: number; readonly days: number },
): Placed[] {
  for (let attempt = 0; attempt < attempts; attempt++) {
    const placed = tryPlace(shuffled(faults, random), random, { start, from, days });
    if (placed !== null) return placed.map((one) => ({ ...one, steps: one.fault.steps(random) }));
  }
  throw new Error(`${faults.length} faults do not fit into ${days} days`);
}

/** The earliest day that fits, and where there is room to spare some days more. */
function tryPlace(
  faults: readonly Fault[],
  random: Random,
  { start, from, days }: { readonly start: Date; readonly from: number; readonly days: number },
): { readonly fault: Fault; readonly day: number }[] | null {
  const placed: { fault: Fault; day: number }[] = [];
  let spare = days - from - faults.reduce((sum, fault) => sum + fault.days, 0);
  let next = from;
  for (const fault of faults) {
    const earliest = next;
    next += spare > 0 ? random.below(Math.min(3, spare + 1)) : 0;
    while (fault.fits?.(new Date(start.getTime() + next * dayMs), next) === false) next++;
    if (next + fault.days > days) return null;
    spare -= next - earliest;
    placed.push({ fault, day: next });
    next += fault.days;
  }
  return placed;
}

function shuffled<T>(list: readonly T[], random: Random): T[] {
  const left = [...list];
  const found: T[] = [];
  while (left.length > 0) found.push(...left.splice(random.below(left.length), 1));
  return found;
}
