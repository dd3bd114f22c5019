/**
 * The whole suite, with the closing line `tests: N passed, N failed, N skipped` as the last line of output.
 *
 * What failed is told again right before it, however long the output grew. Fails on a failed test, on a skipped one,
 * on a test file that gave no result, on an error outside a test, and when nothing ran. `npm test -- <path> …` runs
 * part of it.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import process from "node:process";
import { denoPath, ensurePackages, root, run } from "../src/local/setup.mjs";
import { closingLine, failures, tally } from "./support/tally.mjs";

const filters = process.argv.slice(2);
const folder = mkdtempSync(join(tmpdir(), "holdfast-tests-"));
const problems = [];
let counts = { passed: 0, failed: 0, skipped: 0, silent: [] };

try {
  ensurePackages();
  const packages = await run(denoPath(), ["run", "-A", "src/local/packages.ts"], { cwd: root });
  if (packages !== 0) throw new Error(`src/local/packages.ts ended with ${packages}`);

  // They wait for servers of their own much of the time.
  const shares = filters.length > 0 ? [filters] : sharesOf(testFiles());
  const reports = await Promise.all(shares.map((files, share) => runShare(files, share)));
  const status = Math.max(...reports.map((one) => one.status));

  const testResults = reports.flatMap(({ report }) => JSON.parse(readFileSync(report, "utf8")).testResults);
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
process.stdout.write(`${closingLine({ ...counts, failed })}\n`);

/** Files for each process, so that all take about the same time; what shares a server stays together. */
function sharesOf(files) {
  const second = /^tests\/(unit|failure|compat|integration\/r)/;
  const third = /^tests\/(contract|sql|restores|access\/[^a]|integration\/[s-z])/;
  const shareOf = (file) => second.test(file) ? 1 : third.test(file) ? 2 : 0;
  return [0, 1, 2].map((share) => files.filter((file) => shareOf(file) === share));
}

/** Runs the files, or what the words of the command line name; all where there are none. */
async function runShare(names, share) {
  const report = join(folder, `report-${share}.json`);
  const status = await run(process.execPath, [
    join(root, "node_modules", "vitest", "vitest.mjs"),
    "run",
    "--reporter=default",
    "--reporter=json",
    `--outputFile.json=${report}`,
    ...names,
  ], { cwd: root });
  return { report, status };
}

/** Every test file of the tree, relative to the root. */
function testFiles() {
  return readdirSync(join(root, "tests"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".test.ts"))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)));
}
