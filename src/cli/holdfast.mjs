#!/usr/bin/env -S node --
/**
 * The `holdfast` command: starts the program on the Deno that npm installed, with our terminal, signals and exit code.
 * Behind `--`, since Node 20 takes `--env-file` for itself wherever it stands.
 */
import { join } from "node:path";
import process from "node:process";
import { denoPath, ensurePackages, root, run } from "../local/setup.mjs";

try {
  ensurePackages();
  const deno = ["run", "--quiet", "--no-prompt", "--allow-all", "--config", join(root, "deno.json")];
  process.exitCode = await run(denoPath(), [...deno, join(root, "src", "cli", "main.ts"), ...process.argv.slice(2)], {
    env: { ...process.env, DENO_NO_UPDATE_CHECK: "1" },
  });
} catch (error) {
  process.stderr.write(`holdfast: ${error.message}\n`);
  process.exitCode = 1;
}
