/**
 * `npm run soak:quarter -- --seed 7 --preset short --days 92`: a quarter of a project's life, once with the retention of each of the two
 * documents that asked for the product, unless one is named; `--week` is the short form that the suite has. Exit 0 only if the calendar was kept and each fault told exactly once.
 */
import { randomInt } from "node:crypto";
import process from "node:process";
import { parseArgs } from "node:util";
import { shortFaults } from "./quarter_faults.ts";
import { soakQuarter } from "./quarter_soak.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    preset: { type: "string" },
    days: { type: "string" },
    week: { type: "boolean", default: false },
  },
});
const seed = whole(values.seed ?? String(randomInt(1_000_000_000)));
const days = whole(values.days ?? (values.week ? "7" : "93"));
const presets = (["standard", "short"] as const).filter((one) => values.preset === undefined || one === values.preset);
if (presets.length === 0) throw new Error("--preset is standard or short");
const say = (line: string) => process.stdout.write(`${line}\n`);

say(`seed ${seed}`);
const started = performance.now();
const results = await Promise.all(presets.map(async (preset) => {
  const { problems, alerts, runs } = await soakQuarter({
    preset,
    seed,
    days,
    say,
    ...(values.week ? { faults: shortFaults, drainsEachHour: false } : {}),
  });
  for (const problem of problems) say(`${preset}: ${problem}`);
  say(`${preset}: ${days} days, ${runs} runs, ${alerts} alerts, ${problems.length} problems, seed ${seed}`);
  return problems.length;
}));
say(`took ${Math.round((performance.now() - started) / 1000)} s`);
process.exitCode = results.every((count) => count === 0) ? 0 : 1;

function whole(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`"${text}" is no number`);
  return Number(text);
}
