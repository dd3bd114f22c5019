/**
 * Matrices of cases, in a sample: `npm test` takes some of the cases, others each time; `npm run test:long` takes all of them.
 * What was taken stands in the names of the tests; the seed that tests/run.mjs prints takes the same ones again.
 */
import { createHash } from "node:crypto";
import process from "node:process";

/** All cases of every matrix, and random histories in their whole length. */
export const isLong = process.env["HOLDFAST_TESTS"] === "long";

/** Of the run; a file that is run by itself always takes the same. */
const seed = process.env["HOLDFAST_TESTS_SEED"] ?? "0";

/**
 * `count` of the cases in their order: of each kind one, and beside these spread evenly over the matrix, where neighbours are
 * alike. Where there are more kinds than `count`, as many as it takes. Over some runs every case is taken.
 *
 * `matrix` tells one from others, so that not all of them begin at the same place. `kindsOf` names what of a case can break by
 * itself, such as the call that fails; a matrix without kinds is one whose cases break together.
 */
export function sampled<T>(
  matrix: string,
  cases: readonly T[],
  count: number,
  kindsOf: (one: T) => readonly string[] = () => [],
): readonly T[] {
  if (isLong || cases.length <= count) return cases;
  const start = createHash("sha256").update(`${seed} ${matrix}`).digest().readUInt32BE() / 2 ** 32;
  const first = Math.floor(start * cases.length);
  const inTurn = [...cases.entries()];
  const taken = new Set<number>();
  const kinds = new Set<string>();
  for (const [at, one] of [...inTurn.slice(first), ...inTurn.slice(0, first)]) {
    const fresh = kindsOf(one).filter((kind) => !kinds.has(kind));
    if (fresh.length > 0) taken.add(at);
    for (const kind of fresh) kinds.add(kind);
  }
  for (let nth = 0; taken.size < count; nth++) taken.add(Math.floor((nth + start) * cases.length / count));
  return cases.filter((_, at) => taken.has(at));
}
