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
 * `count` of the cases in their order, spread evenly over the matrix, where neighbours are alike: each is as likely as any other.
 * `matrix` tells one from others, so that not all of them begin at the same place.
 */
export function sampled<T>(matrix: string, cases: readonly T[], count: number): readonly T[] {
  if (isLong || cases.length <= count) return cases;
  const start = createHash("sha256").update(`${seed} ${matrix}`).digest().readUInt32BE() / 2 ** 32;
  const taken = new Set(Array.from({ length: count }, (_, at) => Math.floor((at + start) * cases.length / count)));
  return cases.filter((_, at) => taken.has(at));
}
