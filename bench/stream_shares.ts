import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { measure } from "./measure.ts";
import { ours, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";
import type { Streamed } from "./stream.ts";

/** What does an incremental cost when a share of the rows of the largest table was changed, scattered over all of it? */
export async function shares({ setting, client }: Streamed, report: Report): Promise<void> {
  const folder = temporaryFolder("shares");
  const store = join(folder.path, "store");
  mkdirSync(store);
  try {
    await measure(ours(setting, ["incremental"], store));
    for (const [percent, every] of [["0.1", 1000], ["1", 100], ["10", 10]] as const) {
      // Another remainder each time: the rows that were changed before lie at the end of the table.
      const { rowCount } = await client.query(
        `update bench.journal set mood = (coalesce(mood, 0) + 1) % 10 where id % ${every} = ${every / 10 - 1}`,
      );
      const name = `incremental, ${percent} % of the rows changed`;
      const run = await measure(ours(setting, ["incremental"], store));
      report.run(name, run.wallMs, run.peakBytes);
      const document = JSON.parse(run.stdout) as { changes: number; storedBytes: number };
      if (document.changes < (rowCount ?? NaN)) throw new Error(`${document.changes} changes stored of ${rowCount}`);
      report.find(`${name} (${rowCount} of the largest table)`, report.seconds(name), "s");
      report.find("stored bytes of it", document.storedBytes / 1e6, "MB");
    }
  } finally {
    folder.remove();
  }
}
