/** Counts of a vitest JSON report, what failed by name, and the suite's closing line. */

/**
 * `silent` names the files of `expected` of which no test ran. A file that failed outside its tests (import, hook)
 * counts as one failure more than its failed tests show.
 *
 * @param {{ testResults: { name: string, status: string, assertionResults: { status: string }[] }[] }} report
 * @param {readonly string[]} expected paths relative to the root
 */
export function tally(report, expected) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const ran = new Set();
  for (const file of report.testResults) {
    let failedHere = 0;
    for (const { status } of file.assertionResults) {
      if (status === "passed") counts.passed++;
      else if (status === "failed") failedHere++;
      else counts.skipped++;
      if (status === "passed" || status === "failed") ran.add(file.name);
    }
    if (file.status === "failed" && failedHere === 0) {
      failedHere = 1;
      ran.add(file.name);
    }
    counts.failed += failedHere;
  }
  const silent = expected.filter((path) => ![...ran].some((name) => name.endsWith(`/${path}`)));
  return { ...counts, silent };
}

/**
 * What failed, a text each: file, test and why, so that the end of a log tells it.
 *
 * @param {{ testResults: { name: string, status: string, message?: string, assertionResults: { status: string, fullName?: string, failureMessages?: string[] }[] }[] }} report
 */
export function failures(report) {
  return report.testResults.filter((file) => file.status === "failed").flatMap((file) => {
    const failed = file.assertionResults.filter((test) => test.status === "failed");
    if (failed.length === 0) return [`${file.name}: ${beginning(file.message)}`];
    return failed.map((test) => `${file.name} > ${test.fullName}: ${beginning(test.failureMessages?.[0])}`);
  });
}

/** The first lines of a message, which may hold a whole answer. */
function beginning(message = "") {
  return message.split("\n").slice(0, 12).join("\n").slice(0, 1500);
}

/** @param {{ passed: number, failed: number, skipped: number }} counts */
export function closingLine(counts) {
  return `tests: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
}
