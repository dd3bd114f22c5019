import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { measure } from "./measure.ts";
import { ours, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";
import type { Streamed } from "./stream.ts";

/** Of every table that database.sql makes, each `every`th row; another remainder each time, so that no row changes twice. */
const changes = (every: number, rest: number) => [
  `update bench.journal set mood = (coalesce(mood, 0) + 1) % 10 where id % ${every} = ${rest}`,
  `update bench.events set amount = amount + 1 where ('x' || left(id::text, 7))::bit(28)::int % ${every} = ${rest}`,
  `update bench.attachments set name = name || '.' where id % ${every} = ${rest}`,
  `update bench.readings set value = value + 1 where value % ${every} = ${rest}`,
  ...Array.from(
    { length: 200 },
    (_, at) => `update bench.small_${at + 1} set name = name || '.' where (id + ${at}) % ${every} = ${rest}`,
  ),
];

/** What does an incremental cost when a share of all rows of the database was changed, scattered over all of it? */
export async function shares({ setting, client }: Streamed, report: Report): Promise<void> {
  const folder = temporaryFolder("shares");
  const store = join(folder.path, "store");
  mkdirSync(store);
  try {
    // Without a key and without this its updates would not be in the stream.
    await client.query("alter table bench.readings replica identity full");
    await measure(ours(setting, ["incremental"], store));
    const { rows: [counted] } = await client.query<{ rows: number }>(
      `select sum((xpath('/row/n/text()', query_to_xml(format('select count(*) as n from bench.%I', relname), false, true, '')))[1]::text::float8) as rows
       from pg_class where relnamespace = 'bench'::regnamespace and relkind = 'r'`,
    );
    const all = counted?.rows ?? NaN;
    for (const [percent, every] of [["0.1", 1000], ["1", 100], ["10", 10]] as const) {
      let changed = 0;
      for (const sql of changes(every, every / 10 - 1)) changed += (await client.query(sql)).rowCount ?? NaN;
      if (!(Math.abs(changed * every / all - 1) < 0.2)) {
        throw new Error(`${changed} rows of ${all} are not ${percent} %`);
      }
      const name = `incremental, ${percent} % of all rows changed`;
      const run = await measure(ours(setting, ["incremental"], store));
      report.run(name, run.wallMs, run.peakBytes);
      const document = JSON.parse(run.stdout) as { changes: number; storedBytes: number };
      if (document.changes < changed) throw new Error(`${document.changes} changes stored of ${changed}`);
      report.find(`${name} (${changed} of ${all})`, report.seconds(name), "s");
      report.find("stored bytes of it", document.storedBytes / 1e6, "MB");
    }
  } finally {
    folder.remove();
  }
}
