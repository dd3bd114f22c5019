/**
 * `npm run soak:point -- --targets 200 --seed 7 --variant platform`: random histories, and restores of each to random
 * places. All variants in turn, unless one is named; a history for every 70 targets. Exit 0 only if every restore gave
 * what the source had.
 */
import { randomInt } from "node:crypto";
import process from "node:process";
import { parseArgs } from "node:util";
import { soakPoint } from "./point_soak.ts";
import type { Variant } from "./point_source.ts";

const { values } = parseArgs({
  options: {
    targets: { type: "string" },
    seed: { type: "string" },
    variant: { type: "string" },
    rounds: { type: "string" },
  },
});
const targets = whole(values.targets ?? "200");
const seed = whole(values.seed ?? String(randomInt(1_000_000_000)));
const rounds = whole(values.rounds ?? "20");
const all = ["platform", "plain", "lists"] as const satisfies readonly Variant[];
const variants = values.variant === undefined ? all : all.filter((one) => one === values.variant);
if (variants.length === 0) throw new Error(`--variant is one of ${all.join(", ")}`);
const say = (line: string) => process.stdout.write(`${line}\n`);

say(`seed ${seed}`);
const perHistory = Math.min(70, Math.ceil(targets / variants.length));
const problems: string[] = [];
let tried = 0;
let restored = 0;
let partly = 0;
for (let turn = 0; tried < targets; turn++) {
  const variant = variants[turn % variants.length] ?? "platform";
  const own = Math.min(perHistory, targets - tried);
  tried += own;
  const result = await soakPoint({
    variant,
    seed: seed + turn,
    targets: own,
    rounds,
    say,
  });
  restored += result.restored;
  partly += result.partly;
  problems.push(...result.problems);
}
for (const problem of problems) say(`differs: ${problem}`);
say(
  `soak: ${tried - problems.length} of ${tried} restores equal, ${partly} of them without a table, ${
    tried - restored
  } refused, seed ${seed}`,
);
process.exitCode = problems.length === 0 ? 0 : 1;

function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`"${text}" is no number`);
  return Number(text);
}
