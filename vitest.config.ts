import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * Two projects: what is pure shares two threads; then come the tests that start servers, in a process of their own, or in
 * `npm test` in three side by side (tests/run.mjs). Each process takes the next file when it is done with one, and keeps
 * the modules that it has loaded. Files whose tests share a server find it on `globalThis` (tests/sql/cluster.ts).
 */
const serverFolders = ["contract", "sql", "integration", "failure", "compat", "access", "restores"];

/** Three quarters of a minute and more each, when last measured: begun last, one of them would run on alone at the end. */
const longest = [
  "integration/runbooks",
  "integration/drills",
  "failure/in_place_fence",
  "failure/identity",
  "restores/cli_in_place",
  "integration/replicate_stack",
  "restores/rows_scopes",
  "access/secrets",
  "integration/changes_stream",
  "integration/under_writers",
  "restores/full_scopes",
  "integration/cli_replicate",
  "integration/retention",
  "restores/cli_rows",
  "access/downloads",
  "integration/quarter",
  "integration/files_with_rows",
  "integration/files",
  "integration/files_by_function",
].map((name) => `/tests/${name}.test.ts`);

/** Last those of tests/sql: they are short, and the server that they share lives no longer than it is needed. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const at = longest.findIndex((name) => moduleId.endsWith(name));
      return at >= 0 ? at : moduleId.includes("/tests/sql/") ? longest.length + 1 : longest.length;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

export default defineConfig({
  test: {
    // As many at least as at most: tinypool 1.1.1 ends an idle process twice, and the run with it.
    minWorkers: 1,
    maxWorkers: 1,
    teardownTimeout: 30_000,
    poolOptions: { threads: { minThreads: 2, maxThreads: 2 }, forks: { isolate: false } },
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: "unit",
          include: ["tests/unit/**/*.test.ts"],
          pool: "threads",
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: "servers",
          include: serverFolders.map((folder) => `tests/${folder}/**/*.test.ts`),
          pool: "forks",
          testTimeout: 180_000,
          hookTimeout: 180_000,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
