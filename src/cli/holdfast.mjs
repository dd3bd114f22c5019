#!/usr/bin/env -S node --
/**
 * The `holdfast` command: starts the program on the Deno that npm installed, with our terminal, signals and exit code.
 * Behind `--`, since Node 20 takes `--env-file` for itself wherever it stands.
 */
import process from "node:process";
import { cliArguments, denoPath, ensurePackages, run } from "../local/setup.mjs";

try {
  ensurePackages();
  process.exitCode = await run(denoPath(), [...cliArguments, ...process.argv.slice(2)], {
    env: { ...process.env, DENO_NO_UPDATE_CHECK: "1" },
  });
} catch (error) {
  process.stderr.write(`holdfast: ${error.message}\n`);
  process.exitCode = 1;
}
