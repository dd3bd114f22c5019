/** Writes docs/cli.md from the tables, docs/export.schema.json from its schema, and the module that holds the texts of docs/restore-by-hand. */
import { readFile, writeFile } from "node:fs/promises";
import { exportSchema } from "../shared/export/document_format.ts";
import { cliReference } from "./usage.ts";

const docs = new URL("../../docs/", import.meta.url);
await writeFile(new URL("cli.md", docs), cliReference());
await writeFile(new URL("export.schema.json", docs), `${JSON.stringify(exportSchema(), null, 2)}\n`);

const [page, script] = await Promise.all(
  ["restore-by-hand.md", "restore-by-hand.mjs"].map((name) => readFile(new URL(name, docs), "utf8")),
);
await writeFile(
  new URL("../shared/download/by_hand.ts", import.meta.url),
  `/** What lies beside the objects in a bundle: docs/restore-by-hand.md and .mjs. Written by src/cli/write_reference.ts. */

export const byHandPage: string =
  ${literal(page ?? "")};

export const byHandScript: string =
  ${literal(script ?? "")};
`,
);

/** In the quotes that `deno fmt` would choose: those of which the text has fewer. */
function literal(text: string): string {
  const doubled = JSON.stringify(text);
  const count = (sign: string) => text.split(sign).length;
  if (count('"') <= count("'")) return doubled;
  return `'${doubled.slice(1, -1).replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
}
