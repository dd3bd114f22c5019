/** Writes docs/cli.md from the tables. */
import { writeFile } from "node:fs/promises";
import { cliReference } from "./usage.ts";

await writeFile(new URL("../../docs/cli.md", import.meta.url), cliReference());
