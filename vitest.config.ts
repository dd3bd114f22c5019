import { defineConfig } from "vitest/config";

/**
 * One project a folder of `tests/`. The pure ones share two threads; those that start servers run one file at a time,
 * in a process of their own, after the pure ones. `npm test` runs three such processes side by side (tests/run.mjs).
 */
const pure = (name: string) => ({
  test: {
    name,
    include: [`tests/${name}/**/*.test.ts`],
    pool: "threads" as const,
    testTimeout: 30_000,
    sequence: { groupOrder: 0 },
  },
});

const servers = (name: string, groupOrder: number) => ({
  test: {
    name,
    include: [`tests/${name}/**/*.test.ts`],
    pool: "forks" as const,
    poolOptions: { forks: { singleFork: true } },
    testTimeout: 180_000,
    hookTimeout: 180_000,
    teardownTimeout: 30_000,
    sequence: { groupOrder },
  },
});

export default defineConfig({
  test: {
    minWorkers: 1,
    maxWorkers: 2,
    projects: [
      pure("unit"),
      servers("contract", 1),
      servers("sql", 2),
      servers("integration", 3),
      servers("failure", 4),
      servers("compat", 5),
      servers("access", 7),
      servers("restores", 6),
    ],
  },
});
