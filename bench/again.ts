import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { measure } from "./measure.ts";
import { ours, type Setting, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";

/** Changes that a second full has to read again. One percent of the pages of the large table, lying together or scattered. */
const changes = {
  together: `
    insert into bench.journal (user_id, written_at, mood, score, title, body, details)
    select user_id, written_at, mood, score, title, body, details from bench.journal
    where id > (select max(id) from bench.journal) - (select count(*) / 200 from bench.journal);
    update bench.journal set mood = 5
    where id > (select max(id) from bench.journal) - (select count(*) / 200 from bench.journal);`,
  scattered:
    `update bench.journal set mood = 6 where id % (select (count(*) * 100 / greatest(pg_relation_size('bench.journal') / 8192, 1))::bigint from bench.journal) = 0;`,
} as const;

interface Document {
  readonly status: string;
  readonly storedBytes: number;
  readonly newStoredBytes?: number;
}

/** What does a second full cost when nothing changed, and when one percent of the pages did? */
export async function again(setting: Setting, rounds: number, report: Report, execute: (sql: string) => Promise<void>) {
  const folder = temporaryFolder("again");
  try {
    const take = async (name: string, store: string) => {
      const run = await measure(ours(setting, ["create", "--tier", "manual", "--wait"], store));
      report.run(name, run.wallMs, run.peakBytes);
      const document = JSON.parse(run.stdout) as Document;
      if (document.status !== "succeeded") throw new Error(`${name} ended as ${document.status}`);
      return document;
    };
    const shares: Record<string, number[]> = {};
    const share = (name: string, document: Document) =>
      (shares[name] ??= []).push(100 * (document.newStoredBytes ?? NaN) / document.storedBytes);
    for (let round = 0; round < rounds; round++) {
      const store = join(folder.path, `store-${round}`);
      mkdirSync(store);
      await take("first full", store);
      share("unchanged", await take("second full, nothing changed", store));
      await execute(changes.together);
      share("together", await take("second full, 1 % changed together", store));
      await execute(changes.scattered);
      share("scattered", await take("second full, 1 % changed, scattered", store));
    }
    const ratio = (name: string) => report.seconds(name) / report.seconds("first full");
    const worst = (name: string) => Math.max(...(shares[name] ?? [NaN]));
    report.find("second full, nothing changed / first", ratio("second full, nothing changed"), "ratio", 0.2);
    report.find("new bytes of it", worst("unchanged"), "%", 1);
    report.find(
      "second full, 1 % of the pages changed together / first",
      ratio("second full, 1 % changed together"),
      "ratio",
      0.3,
    );
    report.find("new bytes of it", worst("together"), "%");
    report.find(
      "second full, 1 % of the pages changed, scattered / first",
      ratio("second full, 1 % changed, scattered"),
      "ratio",
    );
    report.find("new bytes of it", worst("scattered"), "%");
  } finally {
    folder.remove();
  }
}
