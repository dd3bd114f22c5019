import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { measure } from "./measure.ts";
import { ours, type Setting, temporaryFolder } from "./programs.ts";
import type { Report } from "./report.ts";

interface Document {
  readonly backups: number;
  readonly rows: number;
  readonly rawBytes: number;
}

/**
 * How many raw bytes a second does `erase rewrite` with two workers look through? A person with rows in every chunk of the largest
 * table, so that each is sealed anew: nothing that is spared where a person is in few.
 */
export async function rewriting(
  setting: Setting,
  rounds: number,
  report: Report,
  answered: (sql: string) => Promise<string>,
): Promise<void> {
  const question = "holdfast erase rewrite --jobs 2, file store";
  let rawBytes = 0;
  for (let round = 0; round < rounds; round++) {
    const folder = temporaryFolder("rewriting");
    try {
      const map = join(folder.path, "map.json");
      const users = [{ table: "bench.journal", column: "user_id" }];
      writeFileSync(map, JSON.stringify({ version: 1, users }));
      const person = (await answered(`select md5('user' || ${round + 1})::uuid`)).trim();
      await answered(`insert into auth.users (id, email) values ('${person}', 'bench${round}@journal.example')`);
      const store = join(folder.path, "store");
      await measure(ours(setting, ["init"], store));
      await measure(ours(setting, ["create", "--tier", "manual", "--wait"], store));
      await measure(ours(setting, ["erase", person, "--map", map, "--yes"], store));
      const rewritten = await measure(ours(setting, ["erase", "rewrite", "--jobs", "2", "--yes"], store));
      const document = JSON.parse(rewritten.stdout) as Document;
      if (document.backups !== 1 || document.rows === 0) throw new Error("nothing was rewritten");
      report.run(question, rewritten.wallMs, rewritten.peakBytes);
      rawBytes = document.rawBytes;
    } finally {
      folder.remove();
    }
  }
  report.findAtLeast(
    "rewriting by CLI, 2 workers, in a folder: raw bytes a second",
    rawBytes / 1e6 / report.seconds(question),
    "MB",
    80,
  );
}
