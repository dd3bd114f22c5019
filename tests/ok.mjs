/** `npm run ok`: format, lint, type check on Deno 2.1.4, pure and contract tests. Stops at the first that fails. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { denoPath, ensurePackages, root, run } from "../src/local/setup.mjs";

const sources = ["src", "supabase/functions", "tests", "bench"];

ensurePackages();
const typed = sources.flatMap((folder) => {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name));
});

const vitest = join(root, "node_modules", "vitest", "vitest.mjs");
const steps = [
  ["format", denoPath(), ["fmt", "--check"]],
  ["lint", denoPath(), ["lint"]],
  ["types", denoPath(), ["check", "--quiet", ...typed, "vitest.config.ts"]],
  ["tests", process.execPath, [vitest, "run", "tests/unit/", "tests/contract/", "--reporter=dot"]],
];

for (const [name, program, args] of steps) {
  process.stderr.write(`ok: ${name}\n`);
  const code = await run(program, args, { cwd: root });
  if (code !== 0) {
    process.stderr.write(`ok: ${name} failed\n`);
    process.exit(1);
  }
}
process.stderr.write("ok: all of it\n");
