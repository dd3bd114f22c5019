/**
 * The whole suite, with the closing line `tests: N passed, N failed, N skipped` as the last line of output.
 *
 * What failed is told again right before it, however long the output grew. Fails on a failed test, on a skipped one,
 * on a test file that gave no result, on an error outside a test, and when nothing ran. `npm test -- <path> …` runs
 * part of it; what runs beside what is in vitest.config.ts.
 *
 * Of large matrices it takes a sample (tests/support/sampled.ts), by a seed that is printed and can be given as
 * HOLDFAST_TESTS_SEED. With `--long` it takes all of them.
 */
import { randomInt } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import process from "node:process";
import { denoPath, ensurePackages, root, run } from "../src/local/setup.mjs";
import { closingLine, failures, tally } from "./support/tally.mjs";

const isLong = process.argv.includes("--long");
const filters = process.argv.slice(2).filter((word) => word !== "--long");
const seed = process.env.HOLDFAST_TESTS_SEED ?? String(randomInt(2 ** 31));
const told = isLong ? "every case of every matrix" : `seed ${seed} chose the cases of matrices (HOLDFAST_TESTS_SEED)`;
const folder = mkdtempSync(join(tmpdir(), "holdfast-tests-"));
const problems = [];
let counts = { passed: 0, failed: 0, skipped: 0, silent: [] };

try {
  ensurePackages();
  const packages = await run(denoPath(), ["run", "-A", "src/local/packages.ts"], { cwd: root });
  if (packages !== 0) throw new Error(`src/local/packages.ts ended with ${packages}`);

  const report = join(folder, "report.json");
  const status = await run(process.execPath, [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    "run",
    // More than there are cores: they wait for servers much of the time.
    "--minWorkers=3",
    "--maxWorkers=3",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...filters,
  ], {
    cwd: root,
    env: { ...process.env, HOLDFAST_TESTS: isLong ? "long" : "short", HOLDFAST_TESTS_SEED: seed },
  });

  const { testResults } = JSON.parse(readFileSync(report, "utf8"));
  for (const failure of failures({ testResults })) process.stdout.write(`\nfailed: ${failure}\n`);
  counts = tally({ testResults }, filters.length > 0 ? [] : testFiles());
  for (const file of counts.silent) problems.push(`no test of ${file} ran`);
  if (status !== 0 && counts.failed === 0 && counts.skipped === 0) problems.push(`vitest ended with ${status}`);
} catch (error) {
  problems.push(error.message);
} finally {
  rmSync(folder, { recursive: true, force: true });
}

if (counts.passed + counts.failed + counts.skipped === 0) problems.push("no test ran");
for (const problem of problems) process.stderr.write(`tests: ${problem}\n`);
if (counts.skipped > 0) process.stderr.write("tests: a skipped test proves nothing\n");
// What went wrong outside of the tests is a failure too, and is shown as one.
const failed = Math.max(counts.failed, problems.length > 0 ? 1 : 0);
process.exitCode = failed > 0 || counts.skipped > 0 || counts.passed === 0 ? 1 : 0;
process.stdout.write(`tests: ${told}\n`);
process.stdout.write(`${closingLine({ ...counts, failed })}\n`);

/** Every test file of the tree, relative to the root. */
function testFiles() {
  return readdirSync(join(root, "tests"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".test.ts"))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)));
}
